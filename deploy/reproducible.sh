#!/usr/bin/env bash
# Shows that the images do not depend on where and when they are built: builds those of the last commit again, from
# another folder, with another home of Cargo, into an empty folder, and compares each file with that of target/images.
#
# Both programs are compiled from nothing, which takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -z "$(git status --porcelain)" ] || { echo "reproducible: commit first: the last commit is what is built again" >&2; exit 1; }

aside=$(mktemp -d)
trap 'rm -rf "$aside"' EXIT
mkdir -p "$aside/elsewhere/source" "$aside/cargo"
git archive HEAD | tar --extract --directory "$aside/elsewhere/source"
# What was downloaded is the same under another name.
for entry in "${CARGO_HOME:-$HOME/.cargo}"/*; do ln -s "$entry" "$aside/cargo/"; done
(
    cd "$aside/elsewhere/source"
    CARGO_HOME=$aside/cargo CARGO_TARGET_DIR=$aside/built deploy/images.sh
)

status=0
for name in operator runtime; do
    for file in "root-$name/usr/bin/llm-fleet-$name" "$name.sbom.json" "$name.licenses.txt" "$name.tar"; do
        here=$(sha256sum <"target/images/$file") there=$(sha256sum <"$aside/elsewhere/source/target/images/$file")
        if [ "$here" = "$there" ]; then
            echo "reproducible: ${file##*/} ${here%% *}"
        else
            echo "reproducible: ${file##*/} differs: ${here%% *} here, ${there%% *} elsewhere" >&2
            status=1
        fi
    done
done
exit "$status"
