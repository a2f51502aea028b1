"""Starts the runtime and its peers for measurements, and stops them. What they write goes to a log each."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

CACHE = pathlib.Path(os.environ.get("LLMFLEET_CACHE", pathlib.Path.home() / ".cache/llm-fleet"))
PEERS = CACHE / "peers"
HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
LOGS = ROOT / "target/reports/bench-logs"
# The issue of every comparison: each server has the same two cores.
THREADS = 2
# Longest that a server takes to start, in seconds.
START_SECONDS = 300
STOP_SECONDS = 30
# How often a starting server is asked, in seconds: the error of start times.
POLL_SECONDS = 0.005


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(port, path, timeout=5):
    """Status and body; status 0 while nobody listens or answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


class Server:
    """A running server: its URL, its process, and how long it took to be ready."""

    def __init__(self, name, command, port, ready, environment=None):
        LOGS.mkdir(parents=True, exist_ok=True)
        self.name, self.command, self.port = name, [str(word) for word in command], port
        self.url = f"http://127.0.0.1:{port}"
        self.log = LOGS / f"{name}.log"
        ready_port, ready_path = ready
        begun = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=os.environ | (environment or {}), start_new_session=True
            )
        try:
            while get(ready_port, ready_path)[0] != 200:
                if self.process.poll() is not None:
                    raise RuntimeError(f"{name} ended while it started; see {self.log}")
                if time.monotonic() - begun > START_SECONDS:
                    raise RuntimeError(f"{name} was not ready after {START_SECONDS} seconds; see {self.log}")
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - begun

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def running(start, *args, **options):
    server = start(*args, **options)
    try:
        yield server
    finally:
        server.stop()


def ours(binary, model, streams, context, budget="8Gi"):
    """The runtime. Its cache has half precision, as the peers' have."""
    port, admin = free_port(), free_port()
    command = [binary, "serve", "--model", model, "--served-name", "bench", "--threads", THREADS, "--port", port]
    command += ["--admin-port", admin, "--host", "127.0.0.1", "--concurrency", streams, "--context-length", context]
    command += ["--kv-dtype", "F16", "--budget", budget]
    server = Server("ours", command, port, (admin, "/readyz"))
    server.admin = admin
    return server


def llamacpp(model, streams, context):
    """llama.cpp's server with slots for the load, whose shares of the cache it wants as a sum.

    Keeping the state of earlier prompts in further memory is off: it copies, and these prompts do not come again.
    """
    port = free_port()
    command = [PEERS / "llama-server", "--model", model, "--host", "127.0.0.1", "--port", port]
    command += ["--threads", THREADS, "--threads-batch", THREADS, "--parallel", streams]
    command += ["--ctx-size", streams * context, "--cache-ram", 0]
    return Server("llamacpp", command, port, (port, "/health"))


def mistralrs(model, streams):
    port = free_port()
    command = [PEERS / "mistralrs/bin/python", HERE / "mistral_server.py", model, port, streams]
    return Server("mistralrs", command, port, (port, "/v1/models"), {"RAYON_NUM_THREADS": str(THREADS)})


def flags(server):
    """The command as a report has it: without folders and ports, which differ from run to run."""
    words = [pathlib.Path(word).name if "/" in word else word for word in server.command]
    return " ".join("PORT" if before in ("--port", "--admin-port") else word for before, word in zip([""] + words, words))


def status(server):
    return json.loads(get(server.admin, "/status")[1])
