#!/usr/bin/env bash
# Everything that can be said about the source without running it.
set -euo pipefail
cd "$(dirname "$0")/.."

# The tool that judges licences and sources; built once, kept in the cache.
readonly DENY_VERSION=0.20.2
readonly DENY=${LLMFLEET_CACHE:-$HOME/.cache/llm-fleet}/tools/cargo-deny-$DENY_VERSION

step() { printf 'check: %s\n' "$*" >&2; }

# Fails when regenerating changed a committed file, and says how to commit the change.
unchanged() {
    local command=$1
    shift
    [ -z "$(git status --porcelain -- "$@")" ] || {
        git --no-pager diff -- "$@"
        git status --short -- "$@"
        echo "check: generated files differ from the committed ones: run \`$command\` and commit" >&2
        exit 1
    }
}

step "format"
cargo fmt --all -- --check

step "the contract builds alone"
cargo check --quiet --locked --package llm-fleet-contract

step "lints"
cargo clippy --quiet --locked --workspace --all-targets -- --deny warnings

step "documentation and its links"
RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --locked --workspace --no-deps --document-private-items

step "generated kinds"
deploy/crds.sh
unchanged "make crds" crds charts/llm-fleet-crds/templates

step "rendered chart"
make --no-print-directory chart
unchanged "make chart" deploy/rendered

step "tidiness"
cargo test --quiet --locked --package e2e --test tidy

step "licences, bans, sources"
if [ ! -x "$DENY/bin/cargo-deny" ]; then
    step "building cargo-deny $DENY_VERSION (once)"
    cargo install --quiet --locked "cargo-deny@$DENY_VERSION" --root "$DENY"
fi
"$DENY/bin/cargo-deny" --log-level error --locked check licenses bans sources

# The database of advisories is a repository on the internet: no reason to fail where there is none.
if timeout 60 "$DENY/bin/cargo-deny" --log-level off fetch db 2>/dev/null; then
    step "advisories"
    "$DENY/bin/cargo-deny" --log-level error --locked check advisories
else
    step "advisories: skipped, no database within reach"
fi
step "all is well"
