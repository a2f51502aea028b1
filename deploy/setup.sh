#!/usr/bin/env bash
# Installs the Debian packages that are missing, and says which.
set -euo pipefail

# A program or file that a package brings, and the package. What another package brought will do as well.
# What a node of the lab needs, the lab installs itself.
readonly NEEDED=(
    cc:gcc c++:g++ make:make git:git # builds
    /etc/ssl/certs/ca-certificates.crt:ca-certificates buildah:buildah /bin/busybox:busybox-static # images
)

# Tools of the administrator are not in everyone's path.
PATH=$PATH:/usr/sbin:/sbin
packages=()
for entry in "${NEEDED[@]}"; do
    what=${entry%:*}
    [ -e "$what" ] || command -v "$what" >/dev/null || packages+=("${entry##*:}")
done
[ ${#packages[@]} -gt 0 ] || { echo "setup: all packages are there"; exit 0; }

echo "setup: installing ${packages[*]}"
[ "$(id -u)" = 0 ] || { echo "setup: that takes root" >&2; exit 1; }
# Programs are wanted, not services: this keeps the packages from starting any.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
echo "setup: done"
