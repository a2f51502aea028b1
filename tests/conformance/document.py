"""Writes docs/api-conformance.md from a report of `make conformance`, or checks that it has all calls of the tests.

usage: document.py REPORT | --check
"""

import ast
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
DOCUMENT = HERE.parent.parent / "docs" / "api-conformance.md"
HEAD = """# What clients' calls do here

Written by `make conformance` from its own results: each row is a call that a client makes against the served demo
model. The calls themselves are in `tests/conformance`; versions of the clients in `tests/conformance/*.txt`.

| Client | Call | Outcome |
|---|---|---|
"""


def calls():
    """Clients and calls as the tests have them, without running any."""
    for path in sorted(HERE.glob("*_calls.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "main":
                client, table = node.args
                yield from ((client.value, row.elts[0].value) for row in table.elts)


def row(client, call, outcome):
    return f"| {client} | {call} | {outcome} |"


def write(report):
    entries = json.loads(pathlib.Path(report).read_text())["details"]["calls"]
    said = lambda entry: ": ".join(filter(None, [entry["outcome"], entry.get("reason", "").replace("|", "/")]))
    rows = [row(entry["client"], entry["call"], said(entry)) for entry in entries]
    DOCUMENT.write_text(HEAD + "\n".join(rows) + "\n")


def check():
    lines = DOCUMENT.read_text().splitlines()
    documented = {tuple(line.split(" | ")[:2]) for line in lines if line.startswith("| ") and "Outcome" not in line}
    known = {(f"| {client}", call) for client, call in calls()}
    if documented != known:
        odd = ", ".join(": ".join(pair).removeprefix("| ") for pair in sorted(documented ^ known))
        raise SystemExit(f"check: docs/api-conformance.md differs from the tests ({odd}): run `make conformance` and commit")


check() if sys.argv[1] == "--check" else write(sys.argv[1])
