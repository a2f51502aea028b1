#!/usr/bin/env bash
# Everything that can be said about the source without running it.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf 'check: %s\n' "$*" >&2; }

# Fails when regenerating changed a committed file, and says how to commit the change.
unchanged() {
    local command=$1
    shift
    # Not within a test, which would take git's failure for an empty answer.
    local changes
    changes=$(git status --porcelain -- "$@")
    [ -z "$changes" ] || {
        git --no-pager diff -- "$@"
        git status --short -- "$@"
        echo "check: generated files differ from the committed ones: run \`$command\` and commit" >&2
        exit 1
    }
}

step "format"
cargo fmt --all -- --check

step "the contract builds alone"
cargo check --quiet --locked --package contract

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

step "what clients' calls do is documented"
python3 tests/conformance/document.py --check

step "licences and sources of dependencies"
deploy/deny.sh

step "tidiness"
cargo test --quiet --locked --package e2e --test tidy

step "all is well"
