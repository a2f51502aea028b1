#!/usr/bin/env bash
# Builds the images of operator and runtime into target/images/<name>.tar, without a registry and without a daemon.
#
# Equal sources, compiler and Debian packages give equal programs and equal images, wherever and whenever they are
# built. For the programs that takes three things: they do not name this machine's folders, they take no flags of its
# environment, and both are always built together, for crates that they share have the features that either asks for.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
readonly TARGET
flags=(
    "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    "--remap-path-prefix=$PWD=/source"
    "--remap-path-prefix=$TARGET=/target"
)

echo "images: building operator and runtime"
# Of flags that apply to the same path, the last wins; between flags stands a character that no path has.
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}") CARGO_INCREMENTAL=0 \
    cargo build --profile image --locked --package llm-fleet-operator --package llm-fleet-runtime
for name in operator runtime; do
    deploy/image.sh "$name" "$TARGET/image/llm-fleet-$name" target/images
done
