#!/usr/bin/env python3
"""How much hostile clients slow others: two clients ask one question after another, with and without them, by turns.

usage: hostile.py <port> <seconds>   is the hostile ones, in a process of their own

They hold connections that say nothing or speak a byte at a time, and twenty times a second send what is malformed, too
large, too deep or expensive to compile, or vanish. What they take of the cores themselves counts as slowing others too,
for they are on the same machine: so it is a bound.
"""

import collections
import http.client
import json
import random
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time

CLIENTS = 2
# Times without and with hostile clients, one after the other; the first seconds of each do not count.
TURNS, SETTLE_SECONDS = 4, 1.5
EACH_SECONDS = 0.05
CONNECTIONS, SLOW = 1000, 50
WORDS = "one two three four five six seven eight nine ten red blue green black white day night sun moon sea".split()
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


def body(**fields):
    return json.dumps({"model": "bench", "prompt": "x", "max_tokens": 1} | fields).encode()


def schema(of):
    return body(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": of}})


NEST = {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]}
ATTACKS = [
    b'{"model": "bench", "prompt": ',
    b"\xff\xfe\xfd",
    b"[" * 100_000,
    b" " * (5 << 20),
    body(max_tokens=-1),
    body(max_tokens=1e300),
    body(temperature="hot"),
    body(model="nobody"),
    body(n=1_000_000),
    body(stop=["s"] * 5000),
    body(prompt="word " * 5000),
    body(structured_outputs={"regex": "(((a{1,50}){1,50}){1,50}){1,50}"}),
    body(structured_outputs={"regex": "(x+x+)+y"}),
    schema(NEST),
    schema({"anyOf": [{"type": "array", "items": {"$ref": "#"}}, NEST]}),
]
SLOW_HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n".encode()
HUGE_HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n".encode()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def attack(port, number):
    """One request; its status, or what became of it."""
    number %= len(ATTACKS) + 2
    try:
        if number >= len(ATTACKS):
            with connect(port) as connection:
                vanishing = body(stream=True, max_tokens=200)
                head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(vanishing)}\r\n\r\n".encode()
                connection.sendall(HUGE_HEAD if number == len(ATTACKS) else head + vanishing)
            return "vanished"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", COMPLETIONS, ATTACKS[number], {"Content-Type": "application/json"})
            return f"status {connection.getresponse().status}"
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        # A body that is refused before it is read is not read: the connection may end while it is sent.
        return "hung up"


def be_hostile(port, seconds):
    """Prints what became of it all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(min(CONNECTIONS, (hard if hard > 0 else soft) - 200), 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, most + 200) if hard > 0 else most + 200, hard))
    until = time.monotonic() + seconds
    held, seen, number = [], collections.Counter(), 0
    for index in range(most):
        try:
            held.append(connect(port))
            if index % (CONNECTIONS // SLOW) == 0:
                held[-1].sendall(SLOW_HEAD)
        except OSError:
            seen["no connection"] += 1
    while time.monotonic() < until:
        due = time.monotonic() + EACH_SECONDS
        seen[attack(port, number)] += 1
        number += 1
        try:
            # A byte at a time, of one or another.
            if held:
                held[number % len(held) // (CONNECTIONS // SLOW) * (CONNECTIONS // SLOW)].send(b"{")
        except OSError:
            seen["lost patience with"] += 1
        time.sleep(max(due - time.monotonic(), 0))
    print(json.dumps(seen))


def ask(port, chance):
    """Seconds that an answer takes."""
    prompt = " ".join(chance.choice(WORDS) for _ in range(60))
    question = json.dumps({"model": "bench", "prompt": prompt, "max_tokens": 32, "ignore_eos": True}).encode()
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", COMPLETIONS, question, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"an honest client was answered {response.status}")
    finally:
        connection.close()
    return time.monotonic() - begun


def measured(port, seconds, seed):
    """Seconds of each answer, those of the first moments left out."""
    begun, taken, problems = time.monotonic(), [], []

    def client(seed):
        chance = random.Random(seed)
        while time.monotonic() < begun + seconds and not problems:
            try:
                late = time.monotonic() > begun + min(SETTLE_SECONDS, seconds / 2)
                took = ask(port, chance)
            except (OSError, http.client.HTTPException, RuntimeError) as error:
                problems.append(error)
                return
            if late:
                taken.append(took)

    clients = [threading.Thread(target=client, args=(f"{seed} {index}",)) for index in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    if problems:
        raise problems[0]
    return taken


def slowdown(port, seconds):
    """The ratio of the median times, and what it is made of."""
    each = max(seconds / (2 * TURNS), 2.0)
    calm, pressed, seen = [], [], collections.Counter()
    for turn in range(TURNS):
        calm += measured(port, each, f"calm {turn}")
        command = [sys.executable, __file__, str(port), str(each)]
        crowd = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            pressed += measured(port, each, f"pressed {turn}")
        finally:
            seen.update(json.loads(crowd.communicate()[0] or "{}"))

    def figures(times):
        ninth = statistics.quantiles(times, n=10)[-1] if len(times) > 1 else times[0]
        return {"answers": len(times), "median_seconds": statistics.median(times), "p90_seconds": ninth}

    found = {"without": figures(calm), "with": figures(pressed), "hostile": dict(sorted(seen.items()))}
    found["ratio"] = found["with"]["median_seconds"] / found["without"]["median_seconds"]
    found["ratio_p90"] = found["with"]["p90_seconds"] / found["without"]["p90_seconds"]
    return found


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n\n")[1])
    be_hostile(int(sys.argv[1]), float(sys.argv[2]))
