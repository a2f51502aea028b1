#!/usr/bin/env bash
# Builds what `make bench` and `make soak` measure, fetches what they compare with, and runs one of them.
#
# usage: bench.sh <bench|soak>
#   RUNTIME=<program> measures one that is already built; deploy/bench/{bench,soak}.py say what else can be set
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CACHE=${LLMFLEET_CACHE:-$HOME/.cache/llm-fleet}
readonly SMOLLM2=$CACHE/models/SmolLM2-135M-Instruct.Q4_1.gguf

# Prints the program of this name: the runtime as images hold it, but for the names of folders in it.
built() {
    cargo build --quiet --locked --release --package "$1" "${@:3}" --message-format json-render-diagnostics |
        python3 -c 'import json, sys
print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == sys.argv[1]][-1])' "$2"
}

runtime=${RUNTIME:-}
if [ -z "$runtime" ]; then
    echo "$1: building the runtime" >&2
    runtime=$(built llm-fleet-runtime llm-fleet-runtime)
fi
if [ "$1" = soak ]; then
    exec python3 deploy/bench/soak.py "$runtime" "$SMOLLM2"
fi
timer=()
[ -n "${RUNTIME:-}" ] || timer=("$(built llm-fleet-kernels time --example time)")
deploy/bench/peers.sh
for kind in Q8_0 Q4_K; do
    [ "${BENCH_QUICK:-}" = 1 ] || [ -f "$CACHE/models/synthetic-qwen3-0.6B.$kind.gguf" ] ||
        python3 deploy/bench/synthetic.py "$kind" "$SMOLLM2" "$CACHE/models/synthetic-qwen3-0.6B.$kind.gguf"
done
mkdir -p target/reports/bench-logs
cc -O3 -march=native -pthread deploy/bench/machine.c -o target/reports/bench-logs/machine
exec python3 deploy/bench/bench.py "$runtime" target/reports/bench-logs/machine "${timer[@]}"
