#!/usr/bin/env bash
# Asks llama.cpp anew for all that the runtime is compared with. It is built from source, for this machine's CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly VENV=target/oracle-venv
readonly ORACLE=runtime/tests/oracle
readonly MODEL=${LLMFLEET_CACHE:-$HOME/.cache/llm-fleet}/models/SmolLM2-135M-Instruct.Q4_1.gguf

python3 -m venv "$VENV"
echo "oracle: building llama.cpp, once"
CMAKE_ARGS="-DGGML_NATIVE=on" "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$ORACLE/requirements.txt"
"$VENV/bin/python" "$ORACLE/oracle.py" "$MODEL"
"$VENV/bin/python" "$ORACLE/vectors.py" "$MODEL"
