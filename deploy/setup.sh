#!/usr/bin/env bash
# Installs the Debian packages that building takes, where they are missing, and says which.
#
# usage: setup.sh [root|bench|conformance]
#   root    what follows needs root, so say so now and not after minutes of building
#   bench   also what building llama.cpp takes
#   conformance   also what running other people's clients takes
set -euo pipefail

# A program or file that a package brings, and the package. What another package brought will do as well.
# What a node of the lab needs, the lab installs itself (tests/src/packages.rs). None of these brings a service.
readonly NEEDED=(
    cc:gcc c++:g++ git:git # builds
    /etc/ssl/certs/ca-certificates.crt:ca-certificates buildah:buildah # images
)

[ "$(id -u)" = 0 ] || [ "${1:-}" != root ] ||
    { echo "setup: this takes root: it makes network namespaces, mounts and control groups" >&2; exit 1; }

readonly BENCH=(cmake:cmake make:make)
readonly CONFORMANCE=(curl:curl)

packages=()
needed=("${NEEDED[@]}")
[ "${1:-}" != bench ] || needed+=("${BENCH[@]}")
[ "${1:-}" != conformance ] || needed+=("${CONFORMANCE[@]}")
for entry in "${needed[@]}"; do
    what=${entry%:*}
    [ -e "$what" ] || command -v "$what" >/dev/null || packages+=("${entry##*:}")
done
# Debian's python3 comes without it; the model is fetched by it.
python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
[[ "${1:-}" != @(bench|conformance) ]] || python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
[ ${#packages[@]} -gt 0 ] || { echo "setup: all packages are there"; exit 0; }

echo "setup: installing ${packages[*]}"
[ "$(id -u)" = 0 ] || { echo "setup: installing takes root" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
# One installation at a time, the lab's own included; and nothing that is there is taken away for it.
exec 9</usr/bin/apt-get
flock 9
apt-get update -qq
apt-get install -y -qq --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 "${packages[@]}" >/dev/null
echo "setup: done"
