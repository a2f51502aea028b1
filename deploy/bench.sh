#!/usr/bin/env bash
# Builds what `make bench` and `make soak` measure, fetches what they compare with, and runs one of them.
#
# usage: bench.sh <bench|soak>
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CACHE=${LLMFLEET_CACHE:-$HOME/.cache/llm-fleet}
readonly SMOLLM2=$CACHE/models/SmolLM2-135M-Instruct.Q4_1.gguf

# The program as images hold it, but for the names of folders in it.
program() {
    cargo build --quiet --locked --release --package llm-fleet-runtime --message-format json-render-diagnostics |
        python3 -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")][-1])'
}

echo "bench: building the runtime" >&2
RUNTIME=$(program)
if [ "$1" = bench ]; then
    deploy/bench/peers.sh
    for kind in Q8_0 Q4_K; do
        [ "${BENCH_QUICK:-}" = 1 ] || [ -f "$CACHE/models/synthetic-qwen3-0.6B.$kind.gguf" ] ||
            python3 deploy/bench/synthetic.py "$kind" "$SMOLLM2" "$CACHE/models/synthetic-qwen3-0.6B.$kind.gguf"
    done
    exec python3 deploy/bench/bench.py "$RUNTIME"
fi
exec python3 deploy/bench/soak.py "$RUNTIME" "$SMOLLM2"
