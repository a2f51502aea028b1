#!/usr/bin/env bash
# Runs every test and counts them in the last line. Tests of the chart, of a real API server and of real nodes are
# tests of the package e2e like any other.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# Tests say which versions of the real components they used; so what passing ones print is shown too.
cargo test --workspace --locked --no-fail-fast -- --show-output 2>&1 | tee "$log" || status=$?
# Much is printed after a failure; so it is told again where people look.
awk '/^failures:$/ { told = 1 } told { print } /^test result: / { told = 0 }' "$log"
# Every test program ends with "test result: ok. 7 passed; 0 failed; ...".
awk '/^test result: / { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
exit "$status"
