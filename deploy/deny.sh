#!/usr/bin/env bash
# Licences, bans and sources of all dependencies; advisories where their database can be had.
set -euo pipefail
cd "$(dirname "$0")/.."

# The tool that judges licences and sources; built once, kept in the cache.
readonly DENY_VERSION=0.20.2
readonly DENY=${LLMFLEET_CACHE:-$HOME/.cache/llm-fleet}/tools/cargo-deny-$DENY_VERSION

step() { printf 'deny: %s\n' "$*" >&2; }

step "licences, bans, sources"
if [ ! -x "$DENY/bin/cargo-deny" ]; then
    step "building cargo-deny $DENY_VERSION (once)"
    # It runs for seconds: what optimising takes longer is never gained back.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
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
