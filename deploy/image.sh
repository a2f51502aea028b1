#!/usr/bin/env bash
# Builds the image of a program.
#
# usage: image.sh <name> <program> <folder>
#
# Writes <folder>/<name>.tar, and beside it what is in it: <name>.sbom.json and <name>.licenses.txt.
# An image holds the program, the shared libraries that it needs, certificates, licences, and nothing else: no shell,
# no packages. Equal programs give equal images: times are fixed, and one whose content did not change is not built
# again.
set -euo pipefail

mkdir -p "$3"
readonly NAME=$1 PROGRAM=$(realpath "$2") OUT=$(realpath "$3")
cd "$(dirname "$0")/.."
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
# The name under which a container engine without a registry finds it.
readonly VERSION REFERENCE=localhost/llm-fleet/$NAME:$VERSION
readonly ROOT=$OUT/root-$NAME TAR=$OUT/$NAME.tar
readonly DOCUMENTS=$ROOT/usr/share/doc/llm-fleet

main() {
    local digest
    umask 022
    stage
    digest=$(fingerprint)
    if [ -f "$TAR" ] && [ "$(cat "$OUT/$NAME.inputs" 2>/dev/null)" = "$digest" ]; then
        echo "images: $REFERENCE is up to date"
    else
        build
        echo "$digest" >"$OUT/$NAME.inputs"
    fi
    cp "$DOCUMENTS/sbom.cdx.json" "$OUT/$NAME.sbom.json"
    cp "$DOCUMENTS/licenses.txt" "$OUT/$NAME.licenses.txt"
    printf 'images: %-40s %s, %.1f MiB\n' "$REFERENCE" "$TAR" "$(stat -c %s "$TAR" | awk '{ print $1 / 1048576 }')"
}

# Collects in a folder what will be the image's root.
stage() {
    local library package packages=(ca-certificates)
    rm -rf "$ROOT"
    install -D -m 0755 "$PROGRAM" "$ROOT/usr/bin/llm-fleet-$NAME"
    # The lines of ldd are "name => path (address)", or "path (address)" for the loader; the kernel's own has no path.
    while read -r library; do
        install -D -m 0755 "$library" "$ROOT$library"
        package=$(owner "$library")
        packages+=("$package")
    done < <(ldd "$PROGRAM" | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\//) { print $i; next } }')
    certificates
    # Names are looked up by code within libc, without further libraries.
    echo 'hosts: files dns' >"$ROOT/etc/nsswitch.conf"
    echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >"$ROOT/etc/passwd"
    echo 'nonroot:x:65532:' >"$ROOT/etc/group"
    install -d -m 1777 "$ROOT/tmp"

    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | LC_ALL=C sort -u)
    for package in "${packages[@]}"; do licence "$package"; done
    install -D -m 0644 LICENSE "$DOCUMENTS/copyright"
    python3 deploy/sbom.py "llm-fleet-$NAME" "$ROOT" "${packages[@]}"
}

# The package that a library comes from. It may own the file under the path without /usr or with it.
owner() {
    { dpkg-query --search "$1" "$(realpath "$1")" "/usr$1" 2>/dev/null || true; } | head -1 | cut -d: -f1 | grep . ||
        { echo "images: no package owns $1" >&2; exit 1; }
}

# The public authorities as Debian has them. The machine's own bundle may hold authorities that only it trusts.
certificates() {
    local bundle=$ROOT/etc/ssl/certs/ca-certificates.crt
    install -d "${bundle%/*}"
    find /usr/share/ca-certificates/mozilla -name '*.crt' -print0 | LC_ALL=C sort -z | xargs -0 cat >"$bundle"
}

# The licence of a package goes with it, and so do the texts that it refers to.
licence() {
    local copyright=/usr/share/doc/$1/copyright text
    install -D -m 0644 "$copyright" "$ROOT$copyright"
    grep -oE '/usr/share/common-licenses/[A-Za-z0-9.+-]*[A-Za-z0-9]' "$copyright" | LC_ALL=C sort -u | while read -r text; do
        install -D -m 0644 "$text" "$ROOT$text"
    done
}

# A digest of all that goes into the image.
fingerprint() {
    {
        echo "$REFERENCE"
        cat "deploy/$NAME.Containerfile" deploy/image.sh
        cd "$ROOT" && find . -printf '%P %m\n' | LC_ALL=C sort
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -d' ' -f1
}

# Nothing is kept in the machine's own store of images.
build() {
    local store
    store=$(mktemp -d "$OUT/.store.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$store'" EXIT
    local buildah=(buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs)
    "${buildah[@]}" bud --quiet --isolation chroot --timestamp 0 --build-arg "VERSION=$VERSION" \
        --file "deploy/$NAME.Containerfile" --tag "$REFERENCE" "$ROOT" >/dev/null
    # The second may be half of one, of a run that was interrupted; buildah would refuse to add to it.
    rm -f "$TAR" "$OUT/.$NAME.tar"
    "${buildah[@]}" push --quiet "$REFERENCE" "docker-archive:$OUT/.$NAME.tar:$REFERENCE"
    mv "$OUT/.$NAME.tar" "$TAR"
    rm -rf "$store"
    trap - EXIT
}

main
