#!/usr/bin/env bash
# Lets the clients that people use make their usual calls against the served demo model, and writes what became of them.
# Clients are installed in exact versions, in environments of their own: litellm needs others beside it than the rest.
# RUNTIME=<program> serves with one that is already built.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CACHE=${LLMFLEET_CACHE:-$HOME/.cache/llm-fleet}
readonly MODEL=$CACHE/models/SmolLM2-135M-Instruct.Q4_1.gguf
readonly REPORT=target/reports/conformance.json
readonly TESTS=tests/conformance

# Prints the interpreter that has what a list of packages names, and installs them if they are not there.
environment() {
    local list=$TESTS/$1.txt folder
    folder=$CACHE/conformance/$1-$(sha256sum "$list" | cut -c -16)
    if [ ! -f "$folder/complete" ]; then
        rm -rf "$folder"
        python3 -m venv "$folder"
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps \
            --require-hashes --requirement "$list" >&2
        touch "$folder/complete"
    fi
    echo "$folder/bin/python"
}

clients=$(environment clients)
litellm=$(environment litellm)
program=${RUNTIME:-}
if [ -z "$program" ]; then
    echo "conformance: building the runtime" >&2
    cargo build --quiet --locked --package llm-fleet-runtime
    program=$(cargo metadata --format-version 1 --no-deps --locked |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug/llm-fleet-runtime
fi
status=0
python3 "$TESTS/run.py" "$program" "$MODEL" "$REPORT" "openai=$clients" "anthropic=$clients" "langchain=$clients" \
    "litellm=$litellm" curl=python3 || status=$?
[ ! -f "$REPORT" ] || python3 "$TESTS/document.py" "$REPORT"
exit "$status"
