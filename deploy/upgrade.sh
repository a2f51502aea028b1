#!/usr/bin/env bash
# Takes live models from another state of this repository to this one and back, and counts what restarted and what was
# not answered: target/reports/upgrade.json.
#
# usage: upgrade.sh <git ref>
#
# The older operator, runtime and charts are those of the ref, built by its own recipes in a tree of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "upgrade: $*" >&2; exit 1; }

from=${1:-}
[ -n "$from" ] || fail "say from which state: make upgrade FROM=<git ref>"
commit=$(git rev-parse --verify --quiet "$from^{commit}") ||
    fail "this checkout has no commit $from; one without history gets it with: git fetch --unshallow"
name=$(git show --no-patch --format='%h' "$commit")
tree=$PWD/target/upgrade/$name

# A commit does not change: what was built of it once is right, if it is whole.
if [ ! -f "$tree.built" ]; then
    rm -rf "$tree"
    mkdir -p "$tree"
    git archive "$commit" | tar --extract --directory "$tree"
    # Both have most dependencies in common, so they are built in one place.
    CARGO_TARGET_DIR=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}") "$tree/deploy/images.sh"
    touch "$tree.built"
fi
UPGRADE_FROM=$tree UPGRADE_FROM_NAME=$name UPGRADE_TO_NAME=$(git describe --always --dirty) \
    cargo test --locked --workspace --test upgrade -- --nocapture
echo "upgrade: $PWD/target/reports/upgrade.json"
