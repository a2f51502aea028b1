#!/usr/bin/env bash
# Puts the servers that `make bench` compares the runtime with into the cache, and says in versions.json what they are.
# llama.cpp is built from the source that llama-cpp-python carries, for this machine's CPU; mistral.rs is a wheel.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The version that a list names, whose hashes say what that is.
version() { sed -n 's/^[a-z-]*==\([^ ]*\).*/\1/p' "deploy/bench/$1.txt"; }
LLAMA=$(version llama)
MISTRALRS=$(version mistralrs)
readonly LLAMA MISTRALRS
readonly CACHE=${LLMFLEET_CACHE:-$HOME/.cache/llm-fleet}
readonly PEERS=$CACHE/peers
readonly FLAGS=(-DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF
    -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF)
# Of the same sources and flags on the same kind of CPU, for which it is compiled, what is there is right.
CPU=$(grep -m 1 -E '^(flags|Features)' /proc/cpuinfo | sha256sum | cut -c -16)
STAMP="llama-cpp-python $LLAMA ${FLAGS[*]} mistralrs $MISTRALRS CPU $CPU"
readonly CPU STAMP

there() {
    [ "$(cat "$PEERS/stamp" 2>/dev/null)" = "$STAMP" ] && [ -x "$PEERS/llama-server" ] &&
        [ -x "$PEERS/llama-quantize" ] && [ -x "$PEERS/mistralrs/bin/python" ]
}

mkdir -p "$PEERS"
exec 9<"$PEERS"
flock 9
# Whoever had the lock may have made them.
if there; then
    echo "bench: the peers are in $PEERS"
    exit 0
fi
# What is made anew is not the old one's while it is made.
rm -f "$PEERS/stamp"

llama() {
    local build=$PEERS/build source
    rm -rf "$build"
    mkdir -p "$build"
    echo "bench: fetching llama-cpp-python $LLAMA" >&2
    python3 -m pip download --quiet --disable-pip-version-check --no-deps \
        --no-binary llama-cpp-python --dest "$build" --require-hashes --requirement deploy/bench/llama.txt
    tar -xzf "$build"/llama_cpp_python-*.tar.gz -C "$build"
    source=$(echo "$build"/llama_cpp_python-*/vendor/llama.cpp)
    echo "bench: building llama-server, once; this takes minutes" >&2
    cmake -S "$source" -B "$build/out" "${FLAGS[@]}" >"$build/log" 2>&1 &&
        cmake --build "$build/out" --target llama-server llama-quantize --parallel "$(nproc)" >>"$build/log" 2>&1 ||
        { tail -30 "$build/log" >&2; exit 1; }
    install -m 0755 "$build/out/bin/llama-server" "$build/out/bin/llama-quantize" "$PEERS"
    rm -rf "$build"
}

mistralrs() {
    echo "bench: fetching mistralrs $MISTRALRS" >&2
    rm -rf "$PEERS/mistralrs"
    python3 -m venv "$PEERS/mistralrs"
    "$PEERS/mistralrs/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --require-hashes --requirement deploy/bench/mistralrs.txt
}

llama
mistralrs
python3 - "$PEERS" "$LLAMA" "$MISTRALRS" "${FLAGS[*]}" <<'PYTHON'
import json, pathlib, subprocess, sys
peers, llama, mistralrs, flags = sys.argv[1:]
run = subprocess.run([f"{peers}/llama-server", "--version"], capture_output=True, text=True, check=True)
says = " ".join((run.stdout + run.stderr).split())
versions = {"llamacpp": {"llama-cpp-python": llama, "says": says, "cmake": flags}, "mistralrs": {"wheel": mistralrs}}
pathlib.Path(peers, "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
PYTHON
echo "$STAMP" >"$PEERS/stamp"
echo "bench: the peers are in $PEERS"
