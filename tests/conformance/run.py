"""Serves the demo's model, lets the clients make their usual calls, and says what became of them.

usage: run.py PROGRAM MODEL REPORT CLIENT=PYTHON...
"""

import json
import pathlib
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

NAME = "smollm2"
CONTEXT = "2048"
READY_SECONDS = 180
CLIENT_SECONDS = 1800
HERE = pathlib.Path(__file__).parent


def serve(program, model, folder):
    """Starts the program, and returns it with the address of its API and its key."""
    key = secrets.token_hex(16)
    keys = folder / "keys"
    keys.write_text(f"{key}\n")
    command = [
        program, "--log-format", "json", "serve", "--model", model, "--served-name", NAME, "--context-length", CONTEXT,
        "--port", "0", "--admin-port", "0", "--api-keys-file", str(keys),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        fields = json.loads(line).get("fields", {}) if line.startswith("{") else {}
        if "api" in fields and "admin" in fields:
            break
    else:
        raise SystemExit("conformance: the program ended before it listened")
    # Whoever does not read a pipe stops the one who writes to it.
    threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
    url = f"http://{fields['api']}"
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=10).close()
            return process, url, key
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise SystemExit("conformance: the model does not become ready") from None
            time.sleep(0.1)


def main():
    program, model, report, *clients = sys.argv[1:]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        process, url, key = serve(program, model, pathlib.Path(folder))
        try:
            for client in clients:
                name, python = client.split("=", 1)
                command = [python, str(HERE / f"{name}_calls.py"), url, NAME, key]
                try:
                    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=CLIENT_SECONDS, check=False)
                    results += json.loads(done.stdout.splitlines()[-1])
                except (IndexError, ValueError, OSError, subprocess.TimeoutExpired) as error:
                    # The other clients' calls are worth having.
                    reason = f"it ended without a report: {type(error).__name__}: {error}"[:500]
                    results.append({"client": name, "call": "all", "outcome": "failed", "reason": reason})
        finally:
            process.terminate()
            process.wait()
    outcome = lambda wanted: [entry for entry in results if entry["outcome"] == wanted]
    told = lambda entries: [{"call": f"{e['client']}: {e['call']}", "reason": e["reason"]} for e in entries]
    summary = {
        "passed": len(outcome("passed")), "failed": len(outcome("failed")), "unsupported": told(outcome("unsupported")),
        "details": {"failures": told(outcome("failed")), "calls": results},
    }
    path = pathlib.Path(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=2) + "\n")
    counts = f"{summary['passed']} passed, {summary['failed']} failed, {len(summary['unsupported'])} unsupported"
    print(f"conformance: {counts}: {report}")
    raise SystemExit(1 if summary["failed"] else 0)


main()
