#!/usr/bin/env bash
# Every fault at every place, which takes longer than `make test` does, and one report of what came of them.
set -euo pipefail
cd "$(dirname "$0")/.."

lab() { cargo run --quiet --locked --package e2e --bin lab -- "$@"; }

lab faults --forget
status=0
# Each of these leaves a part of the report.
LLMFLEET_FAULTS=all cargo test --workspace --locked --no-fail-fast \
    --test fault_proxy --test fault_kills --test fault_matrix --test operator_leader -- --show-output || status=$?
lab faults
exit "$status"
