#!/usr/bin/env python3
"""Loads the runtime for ten minutes with all that clients do, and writes target/reports/soak.json.

usage: soak.py <runtime> <model.gguf>

A few requests are answered first with nothing else going on. Then many clients at once, of several tenants, ask the same
again and compare, go away in the middle, send too long prompts and nonsense, and come all at once. The budget leaves
a third of the cache that the sequences could fill, so that some must give way. Memory is what the kernel says: pages of the
process's own and shared ones, and those of packed weights; clean pages of other files are not its own. At the end two
clients ask with and without hostile ones beside them: how much longer they wait.
SOAK_SECONDS changes how long all of it takes; other than ten minutes are written to soak-some.json.
"""

import collections
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import threading
import time

import hostile
from servers import CACHE, LOGS, ROOT, get, ours, running, status

WHOLE_SECONDS = 600
SECONDS = float(os.environ.get("SOAK_SECONDS", WHOLE_SECONDS))
# What of it goes to measuring how much hostile clients slow others.
HOSTILE_SHARE = 0.2
CLIENTS = 20
# Every so many seconds more clients come at once than may wait, and go when they are refused.
BURST_SECONDS, BURST = 20, 100
STREAMS, CONTEXT = 8, 512
# More than is planned for: from this plan follows the budget that is too small for it.
AMPLE = "1Gi"
# Of the cache that all sequences could fill.
CACHE_SHARE = 0.3
SAMPLE_SECONDS = 0.1
# How much more memory may be taken at the end of the storm than in the middle of it: what has been taken by then, the
# allocator keeps for the like of it.
KEPT = 8 << 20
# How much hostile clients may slow others.
MOST_SLOWER = 1.1
# In so short a time nobody need give way, and too few questions are asked to tell how long they take.
LEAST_SECONDS = 300
# How long a client that was refused waits.
PATIENCE_SECONDS = 0.3
TIMEOUT = 120
TENANT_HEADER, TENANTS = "x-llmfleet-tenant", 4
REPORT = ROOT / "target/reports" / ("soak.json" if SECONDS == WHOLE_SECONDS else "soak-some.json")
PACKED = ".llmfleet-packed"
WORDS = "the of and to in is that for it as was with be by on not he his but at are this have from or had an".split()


def text(chance, words):
    return " ".join(chance.choice(WORDS) for _ in range(words))


def questions(chance):
    """Bodies of requests whose answers are compared: every length, with and without a common beginning.

    Some want several answers, or probabilities of the answer's or the prompt's tokens; some have salts of their own,
    priorities, penalties, or a grammar.
    """
    common = text(chance, 90)
    for index in range(32):
        prompt = (common + " " if index % 3 == 0 else "") + text(chance, chance.choice([3, 20, 70, 200]))
        body = {"model": "bench", "max_tokens": chance.choice([1, 8, 32, 64, 160]), "seed": index}
        body |= {"temperature": chance.choice([0, 0.7, 1.0]), "top_p": chance.choice([1, 0.9])}
        is_chat = index % 2 == 1
        if index % 4 == 1:
            body |= {"n": 1 + index % 3}
        if index % 5 == 2:
            body |= {"logprobs": True, "top_logprobs": 3} if is_chat else {"logprobs": 3}
        if index % 6 == 4:
            body |= {"cache_salt": f"salt {index}", "priority": index % 3 - 1}
        if index % 7 == 3:
            body |= {"repetition_penalty": 1.1, "presence_penalty": 0.2, "min_tokens": 1}
        if is_chat:
            if index % 8 == 7:
                body |= {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}
            yield "/v1/chat/completions", body | {"messages": [{"role": "user", "content": prompt}]}
        else:
            body |= {"echo": True, "logprobs": 1} if index % 16 == 8 else {"ignore_eos": True}
            yield "/v1/completions", body | {"prompt": prompt}


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


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
    """A status, and of each choice its text, its reason to end, and its probabilities if they were asked for."""

    def __init__(self, status):
        self.status, self.tokens, self.done = status, 0, False
        self.choices = collections.defaultdict(lambda: {"text": "", "ended": None, "logprobs": []})

    def read(self, choice):
        known = self.choices[choice["index"]]
        says = choice.get("message") or choice.get("delta") or choice
        known["text"] += says.get("text") or says.get("content") or ""
        known["ended"] = choice["finish_reason"] or known["ended"]
        known["logprobs"] += numbers(choice.get("logprobs"))

    def wrong_tokens(self, expected):
        """How many tokens of an answer differ, at most: all of it if anything does."""
        return 0 if dict(self.choices) == dict(expected.choices) else max(self.tokens, expected.tokens, 1)


def numbers(logprobs):
    """Probabilities of a chat's or a completion's tokens, to the bit."""
    if not logprobs:
        return []
    if logprobs.get("content") is not None:
        return [(entry["token"], entry["logprob"]) for entry in logprobs["content"]]
    return list(zip(logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []))


def post(port, path, body, go_after=None, tenant=0):
    """Sends a request. With `go_after`, reads so many pieces of the stream and goes away."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", TENANT_HEADER: f"tenant-{tenant}"}
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        if response.status != 200:
            response.read()
            return Answer(response.status)
        if not response.headers["Content-Type"].startswith("text/event-stream"):
            return whole(json.loads(response.read()))
        return streamed(response, go_after)
    finally:
        connection.close()


def whole(found):
    answer = Answer(200)
    for choice in found["choices"]:
        answer.read(choice)
    answer.tokens, answer.done = found["usage"]["completion_tokens"], True
    return answer


def streamed(response, go_after):
    answer, pieces = Answer(200), 0
    for line in response:
        answer.done = answer.done or line.startswith(b"data: [DONE]")
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            return Answer(500)
        for choice in event["choices"]:
            answer.read(choice)
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
        self.marks = {}
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

    def mark(self, name):
        """Remembers what is taken now under a name."""
        self.now = self.measure()
        self.peak = max(self.peak, self.now)
        self.marks[name] = self.now
        return self.now

    def run(self):
        while not self.stopped.wait(SAMPLE_SECONDS):
            self.now = self.measure()
            self.peak = max(self.peak, self.now)


class Soak:
    def __init__(self, server, memory, seed):
        self.memory = memory
        self.port = server.port
        self.chance = random.Random(seed)
        self.asked = list(questions(self.chance))
        self.lock = threading.Lock()
        self.requests, self.compared, self.wrong = 0, 0, 0
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
        kind, tenant = chance.random(), chance.randrange(TENANTS)
        index = chance.randrange(len(self.asked))
        path, body = self.asked[index]
        stream = {"stream": True, "stream_options": {"include_usage": True}}
        if kind < 0.6:
            answer = post(self.port, path, body | (stream if chance.random() < 0.5 else {}), tenant=tenant)
            self.count([200], answer.status)
            self.compare(index, answer)
        elif kind < 0.75:
            last = chance.randrange(1, 20)
            answer = post(self.port, path, body | stream | {"max_tokens": 150}, go_after=last, tenant=tenant)
            self.count([200], answer.status)
            with self.lock:
                self.kinds["client went away"] += 1
        elif kind < 0.8:
            self.count([400, 413], post(self.port, "/v1/completions", TOO_LONG, tenant=tenant).status)
        elif kind < 0.9:
            self.count(range(400, 500), post(self.port, *chance.choice(BAD), tenant=tenant).status)
        else:
            fresh = {"model": "bench", "prompt": text(chance, chance.randrange(1, 200)), "max_tokens": 200}
            self.count([200], post(self.port, "/v1/completions", fresh | {"ignore_eos": True}, tenant=tenant).status)

    def compare(self, index, answer):
        """With the answer that was given alone."""
        if answer.status != 200:
            return
        wrong = answer.wrong_tokens(self.expected[index])
        with self.lock:
            self.compared += 1
            self.wrong += wrong
            self.unexpected["unexpected end of a stream"] += not answer.done
        if wrong:
            say(f"question {index} was answered {dict(answer.choices)} and not {dict(self.expected[index].choices)}")

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

    def storm(self, seconds):
        until = time.monotonic() + seconds
        middle = until - seconds / 2
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
            if time.monotonic() > middle and "middle of the storm" not in self.memory.marks:
                self.memory.mark("middle of the storm")
            say(f"{self.requests} requests, {self.wrong} wrong tokens, {dict(self.kinds + self.unexpected)}")
        for client in clients:
            client.join()


def say(text):
    print(f"soak: {text}", file=sys.stderr, flush=True)


def packed(binary, file):
    """A copy of the model with packed weights beside it, whose mapping counts against the budget."""
    folder = CACHE / "bench/soak"
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / pathlib.Path(file).name
    if not model.exists():
        try:
            os.link(file, model)
        except OSError:
            shutil.copy(file, model)
    subprocess.run([binary, "pack", str(model)], check=True, capture_output=True)
    return model


def plan(server):
    return {name: int(number) for name, number in status(server)["planned"].items()}


def tight(binary, model):
    """A budget for everything but a part of the cache."""
    with running(ours, binary, model, STREAMS, CONTEXT, budget=AMPLE) as server:
        planned = plan(server)
    return sum(planned.values()) - int((1 - CACHE_SHARE) * planned["kvCache"])


def preemptions(server):
    found = re.findall(r"^vllm:num_preemptions_total\S* (\S+)$", get(server.admin, "/metrics")[1], re.MULTILINE)
    return int(sum(float(number) for number in found))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n\n")[1])
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    model = packed(sys.argv[1], sys.argv[2])
    budget = tight(sys.argv[1], model)
    say(f"about {SECONDS / 60:.0f} minutes, with a budget of {budget >> 20} MiB")
    with running(ours, sys.argv[1], model, STREAMS, CONTEXT, budget=str(budget)) as server:
        memory = Memory(server.process.pid)
        memory.mark("ready")
        memory.start()
        soak = Soak(server, memory, 1)
        soak.alone()
        # Every kind of request has been seen once: from here on, nothing is made for the first time.
        start = memory.mark("each question answered once")
        planned = plan(server)
        soak.storm(max(SECONDS * (1 - HOSTILE_SHARE) - (time.monotonic() - begun), 1))
        memory.mark("end of the storm")
        gave_way = preemptions(server)
        others = hostile.slowdown(server.port, SECONDS * HOSTILE_SHARE)
        memory.stopped.set()
        memory.join()
        end = memory.mark("end")
        alive = get(server.admin, "/healthz")[0] == 200
    report = {
        "requests": soak.requests,
        "errors": dict(sorted((+soak.kinds + soak.unexpected).items())),
        "wrong_tokens": soak.wrong,
        "rss_start": start,
        "rss_end": end,
        "peak_over_budget_bytes": max(memory.peak - budget, 0),
        "details": {
            "seconds": time.monotonic() - begun,
            "budget": budget,
            "planned": planned,
            "rss_peak": memory.peak,
            "rss": "anonymous, shared and packed pages; rss_start when each question has been answered once",
            "rss_at": memory.marks,
            "answers_compared": soak.compared,
            "preemptions": gave_way,
            "others_latency_ratio": others["ratio"],
            "others": others,
        },
    }
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    say(json.dumps(report))
    wrong = {
        "answers differ from those given alone": soak.wrong,
        "answers that nobody expects": +soak.unexpected,
        "the budget was passed": memory.peak > budget,
        "memory grows on": SECONDS >= LEAST_SECONDS
        and memory.marks["end of the storm"] > memory.marks["middle of the storm"] + KEPT,
        "the server is not alive": not alive,
        "nobody gave way": SECONDS >= LEAST_SECONDS and not gave_way,
        "hostile clients slow others": SECONDS >= LEAST_SECONDS and others["ratio"] > MOST_SLOWER,
    }
    wrong = [what for what, is_so in wrong.items() if is_so]
    if wrong:
        sys.exit(f"soak: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
