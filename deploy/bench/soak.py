#!/usr/bin/env python3
"""Loads the runtime for ten minutes with all that clients do, and writes target/reports/soak.json.

usage: soak.py <runtime> <model.gguf>

A few requests are answered first with nothing else going on. Then many clients at once ask the same again and compare,
go away in the middle, send too long prompts and nonsense, and come all at once. Memory is what the kernel says: pages
of the process's own and shared ones, and those of packed weights; clean pages of other files are not its own.
SOAK_SECONDS changes how long.
"""

import collections
import http.client
import json
import os
import pathlib
import random
import re
import sys
import threading
import time

from servers import LOGS, ROOT, get, ours, running, status

SECONDS = int(os.environ.get("SOAK_SECONDS", "600"))
CLIENTS = 20
# Every so many seconds more clients come at once than may wait, and go when they are refused.
BURST_SECONDS, BURST = 20, 100
STREAMS, CONTEXT, BUDGET = 8, 512, "512Mi"
SAMPLE_SECONDS = 0.1
# How long a client that was refused waits.
PATIENCE_SECONDS = 0.3
TIMEOUT = 120
REPORT = ROOT / "target/reports/soak.json"
PACKED = ".llmfleet-packed"
WORDS = "the of and to in is that for it as was with be by on not he his but at are this have from or had an".split()


def text(chance, words):
    return " ".join(chance.choice(WORDS) for _ in range(words))


def questions(chance):
    """Bodies of requests whose answers are compared: every length, with and without a common beginning."""
    common = text(chance, 90)
    for index in range(24):
        prompt = (common + " " if index % 3 == 0 else "") + text(chance, chance.choice([3, 20, 70, 200]))
        body = {"model": "bench", "max_tokens": chance.choice([1, 8, 32, 64]), "seed": index}
        body |= {"temperature": chance.choice([0, 0.7, 1.0]), "top_p": chance.choice([1, 0.9])}
        if index % 2:
            yield "/v1/chat/completions", body | {"messages": [{"role": "user", "content": prompt}]}
        else:
            yield "/v1/completions", body | {"prompt": prompt, "ignore_eos": True}


TOO_LONG = {"model": "bench", "prompt": "word " * 5000, "max_tokens": 8}
BAD = [
    ("/v1/completions", b'{"model": "bench", "prompt": '),
    ("/v1/completions", b'{"model": "bench", "prompt": "\xff\xfe"}'),
    ("/v1/completions", b'{"model": "nobody", "prompt": "x"}'),
    ("/v1/completions", b'{"model": "bench", "prompt": "x", "max_tokens": -1}'),
    ("/v1/completions", b'{"model": "bench", "prompt": "x", "max_tokens": 1e300}'),
    ("/v1/completions", b'{"model": "bench", "prompt": "x", "temperature": "hot"}'),
    ("/v1/completions", b'{"model": "bench", "prompt": "x", "stop": ' + json.dumps(["s"] * 5000).encode() + b"}"),
    ("/v1/chat/completions", b'{"model": "bench", "messages": "hello"}'),
    ("/v1/chat/completions", b'{"model": "bench", "messages": []}'),
    ("/v1/chat/completions", b'{"model": "bench", "messages": [{"role": "king", "content": "x"}]}'),
    ("/v1/chat/completions", b"[" * 5000),
    ("/v1/nothing", b"{}"),
]


class Answer:
    def __init__(self, status, text="", tokens=0):
        self.status, self.text, self.tokens = status, text, tokens


def post(port, path, body, go_after=None):
    """Sends a request. With `go_after`, reads so many pieces of the stream and goes away."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            response.read()
            return Answer(response.status)
        if not response.headers["Content-Type"].startswith("text/event-stream"):
            return whole(json.loads(response.read()))
        return streamed(response, go_after)
    finally:
        connection.close()


def whole(answer):
    choice = answer["choices"][0]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    return Answer(200, text or "", answer["usage"]["completion_tokens"])


def streamed(response, go_after):
    answer, pieces = Answer(200), 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            return Answer(500)
        for choice in event["choices"]:
            answer.text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        answer.tokens = (event.get("usage") or {}).get("completion_tokens", answer.tokens)
        pieces += 1
        if pieces == go_after:
            break
    return answer


class Memory(threading.Thread):
    """The most bytes that the process had at any time."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.stopped = pid, 0, threading.Event()
        self.now = self.measure()

    def measure(self):
        """The kernel's own sums, and for packed weights those of the mappings of their file."""
        lines = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        total = sum(int(n) for n in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", lines, re.MULTILINE))
        packed = False
        for line in open(f"/proc/{self.pid}/smaps"):
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                packed = line.rstrip().endswith(PACKED)
            elif packed and line.startswith("Rss:"):
                total += int(line.split()[1])
        return total * 1024

    def run(self):
        while not self.stopped.wait(SAMPLE_SECONDS):
            self.now = self.measure()
            self.peak = max(self.peak, self.now)


class Soak:
    def __init__(self, server, seed):
        self.port = server.port
        self.chance = random.Random(seed)
        self.asked = list(questions(self.chance))
        self.lock = threading.Lock()
        self.requests, self.wrong = 0, 0
        self.kinds = collections.Counter()
        self.unexpected = collections.Counter()

    def alone(self):
        self.expected = [post(self.port, path, body) for path, body in self.asked]
        for answer in self.expected:
            if answer.status != 200:
                sys.exit(f"soak: a request without others was answered {answer.status}")

    def count(self, expected, found):
        """An answer's status is one of those that are right, or it is unexpected. A full queue may meet anybody."""
        with self.lock:
            self.requests += 1
            if found in (429, 503):
                self.kinds[f"queue full, {found}"] += 1
            elif found not in expected:
                self.unexpected[f"unexpected {found}"] += 1
            elif found != 200:
                self.kinds[f"refused, {found}"] += 1
        if found in (429, 503):
            time.sleep(PATIENCE_SECONDS)

    def ask(self, chance):
        """One request of a kind by chance."""
        kind = chance.random()
        index = chance.randrange(len(self.asked))
        path, body = self.asked[index]
        stream = {"stream": True, "stream_options": {"include_usage": True}}
        if kind < 0.6:
            answer = post(self.port, path, body | (stream if chance.random() < 0.5 else {}))
            self.count([200], answer.status)
            if answer.status == 200 and answer.text != self.expected[index].text:
                with self.lock:
                    self.wrong += max(answer.tokens, 1)
                    say(f"question {index} was answered {answer.text!r} and not {self.expected[index].text!r}")
        elif kind < 0.75:
            answer = post(self.port, path, body | stream | {"max_tokens": 150}, go_after=chance.randrange(1, 20))
            self.count([200], answer.status)
            with self.lock:
                self.kinds["client went away"] += 1
        elif kind < 0.8:
            self.count([400, 413], post(self.port, "/v1/completions", TOO_LONG).status)
        elif kind < 0.9:
            self.count(range(400, 500), post(self.port, *chance.choice(BAD)).status)
        else:
            fresh = {"model": "bench", "prompt": text(chance, chance.randrange(1, 300)), "max_tokens": 40}
            self.count([200], post(self.port, "/v1/completions", fresh).status)

    def visit(self, chance):
        try:
            self.ask(chance)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            with self.lock:
                self.requests += 1
                self.unexpected[f"unexpected {type(error).__name__}"] += 1

    def client(self, seed, until):
        chance = random.Random(seed)
        while time.monotonic() < until:
            self.visit(chance)

    def storm(self):
        until = time.monotonic() + SECONDS
        clients = [threading.Thread(target=self.client, args=(seed, until)) for seed in range(CLIENTS)]
        for client in clients:
            client.start()
        while time.monotonic() < until:
            time.sleep(min(BURST_SECONDS, max(until - time.monotonic(), 0)))
            seeds = (f"{self.requests} {index}" for index in range(BURST))
            crowd = [threading.Thread(target=self.visit, args=(random.Random(seed),)) for seed in seeds]
            for client in crowd:
                client.start()
            for client in crowd:
                client.join()
            say(f"{self.requests} requests, {self.wrong} wrong tokens, {dict(self.kinds + self.unexpected)}")
        for client in clients:
            client.join()


def say(text):
    print(f"soak: {text}", file=sys.stderr, flush=True)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n\n")[1])
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    with running(ours, sys.argv[1], sys.argv[2], STREAMS, CONTEXT, budget=BUDGET) as server:
        budget = sum(int(number) for number in status(server)["planned"].values())
        memory = Memory(server.process.pid)
        memory.start()
        soak = Soak(server, 1)
        soak.alone()
        start = memory.now
        soak.storm()
        memory.stopped.set()
        memory.join()
        end = memory.measure()
        alive = get(server.admin, "/healthz")[0] == 200
    report = {
        "requests": soak.requests,
        "errors": dict(sorted((soak.kinds + soak.unexpected).items())),
        "wrong_tokens": soak.wrong,
        "rss_start": start,
        "rss_end": end,
        "peak_over_budget_bytes": max(memory.peak - budget, 0),
    }
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    say(f"{json.dumps(report)}; the budget is {budget} bytes, the peak was {memory.peak}")
    if soak.wrong or soak.unexpected or memory.peak > budget or not alive:
        sys.exit("soak: not as it should be")


main()
