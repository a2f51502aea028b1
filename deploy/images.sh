#!/usr/bin/env bash
# Builds the images of operator and runtime into target/images/<name>.tar, without a registry and without a daemon.
#
# usage: images.sh [name...]      name: operator, runtime; both unless said otherwise
#
# An image holds one program, the shared libraries that it needs, certificates, and nothing else: no shell, no packages.
# Equal programs give equal images: times are fixed, and an image whose content did not change is not built again.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly OUT=target/images
# The name under which a container engine without a registry finds them.
readonly REPOSITORY=localhost/llm-fleet
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
readonly VERSION

main() {
    umask 022
    local names=("$@") name packages=()
    [ ${#names[@]} -gt 0 ] || names=(operator runtime)
    mkdir -p "$OUT"
    for name in "${names[@]}"; do packages+=(--package "llm-fleet-$name"); done
    echo "images: building ${names[*]} (release)"
    cargo build --release --locked "${packages[@]}"
    for name in "${names[@]}"; do image "$name"; done
}

image() {
    local name=$1 root=$OUT/root-$1 tar=$OUT/$1.tar reference=$REPOSITORY/$1:$VERSION digest
    stage "$name" "$root"
    digest=$(fingerprint "$name" "$root" "$reference")
    if [ -f "$tar" ] && [ "$(cat "$OUT/$name.inputs" 2>/dev/null)" = "$digest" ]; then
        echo "images: $reference is up to date"
    else
        build "$name" "$root" "$reference"
        echo "$digest" >"$OUT/$name.inputs"
    fi
    printf 'images: %-40s %s, %.1f MiB\n' "$reference" "$tar" "$(stat -c %s "$tar" | awk '{ print $1 / 1048576 }')"
}

# Collects in a folder what will be the image's root.
stage() {
    local name=$1 root=$2 program="${CARGO_TARGET_DIR:-target}/release/llm-fleet-$1" library
    rm -rf "$root"
    install -D -m 0755 "$program" "$root/usr/bin/llm-fleet-$name"
    # The lines of ldd are "name => path (address)", or "path (address)" for the loader; the kernel's own has no path.
    while read -r library; do
        install -D -m 0755 "$library" "$root$library"
        licence "$root" "$library"
    done < <(ldd "$program" | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\//) { print $i; next } }')
    install -D -m 0644 LICENSE "$root/usr/share/doc/llm-fleet/copyright"
    install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    # Names are looked up by code within libc, without further libraries.
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >"$root/etc/passwd"
    echo 'nonroot:x:65532:' >"$root/etc/group"
    install -d -m 1777 "$root/tmp"
}

# The licence of the package that a library comes from goes with it.
licence() {
    local root=$1 library=$2 package
    # Packages may own the file under the path without /usr or with it.
    package=$(dpkg-query --search "$library" "$(realpath "$library")" "/usr$library" 2>/dev/null | head -1 | cut -d: -f1) || true
    [ -n "$package" ] || { echo "images: no package owns $library" >&2; exit 1; }
    install -D -m 0644 "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
}

# A digest of all that goes into an image.
fingerprint() {
    local name=$1 root=$2 reference=$3
    {
        echo "$reference"
        cat "deploy/$name.Containerfile" deploy/images.sh
        cd "$root" && find . -printf '%P %m\n' | LC_ALL=C sort
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -d' ' -f1
}

# Nothing is kept in the machine's own store of images.
build() {
    local name=$1 root=$2 reference=$3 store
    store=$(mktemp -d "$PWD/$OUT/.store.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$store'" EXIT
    local buildah=(buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs)
    "${buildah[@]}" bud --quiet --isolation chroot --timestamp 0 --build-arg "VERSION=$VERSION" \
        --file "deploy/$name.Containerfile" --tag "$reference" "$root" >/dev/null
    # The second may be half of one, of a run that was interrupted; buildah would refuse to add to it.
    rm -f "$OUT/$name.tar" "$OUT/.$name.tar"
    "${buildah[@]}" push --quiet "$reference" "docker-archive:$OUT/.$name.tar:$reference"
    mv "$OUT/.$name.tar" "$OUT/$name.tar"
    rm -rf "$store"
    trap - EXIT
}

main "$@"
