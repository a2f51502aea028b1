"""What is measured: models, cases with their floors, and how one run of a case goes."""

import dataclasses
import json
import subprocess

from servers import LOGS, STOP_SECONDS

PROMPT, OUTPUT, LONG = 128, 128, 512
PREFIX, SUFFIX = 1000, 16
# Tokens of a block of the cache, below which two prompts may begin alike by chance.
BLOCK = 32
# Streams that are warmed up before a run: all buffers have been used then.
WARMUPS = 4
# Long prompts that wait at most. Where they come faster than they are read, more would only queue up.
ITL_OUTSTANDING = 8
# Seconds that they arrive longer than is measured.
ITL_MARGIN = 8


@dataclasses.dataclass(frozen=True)
class Pace:
    """Tokens a second of a server, roughly, on two cores with AVX-512: only to tell how long a run takes."""

    reading: float
    writing: dict


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model of the table.

    The peers also get other formats of the same weights, as llama-quantize names them, and the best is what counts. Of
    fewer bits than the file's they are other weights; four-bit ones with one scale less are let pass.
    """

    name: str
    format: str
    file: str
    formats: tuple
    # Requests of each stream in a run, by streams.
    rounds: dict
    ours: Pace
    llamacpp: Pace
    # Weights that a token is multiplied with: those of the layers, and of the output.
    layers: float
    output: float
    # Whether mistral.rs is measured: it takes minutes for what others do in seconds.
    mistralrs: bool = False

    def __str__(self):
        return f"{self.name} {self.format}"


QWEN = {"rounds": {1: 2, 8: 2, 32: 1}, "layers": 440e6, "output": 156e6}
MODELS = [
    Model(
        "SmolLM2-135M", "Q4_1", "SmolLM2-135M-Instruct.Q4_1.gguf", ("Q4_0", "Q8_0"), {1: 6, 8: 3, 32: 2},
        Pace(1300, {1: 230, 8: 500, 32: 600}), Pace(700, {1: 170, 8: 280, 32: 320}), 106e6, 28e6, mistralrs=True,
    ),
    Model(
        "Qwen3-0.6B-shaped", "Q8_0", "synthetic-qwen3-0.6B.Q8_0.gguf", ("BF16",), **QWEN,
        ours=Pace(400, {1: 41, 8: 124, 32: 150}), llamacpp=Pace(200, {1: 33, 8: 60, 32: 65}),
    ),
    Model(
        "Qwen3-0.6B-shaped", "Q4_K", "synthetic-qwen3-0.6B.Q4_K.gguf", ("Q4_0",), **QWEN,
        ours=Pace(300, {1: 50, 8: 110, 32: 130}), llamacpp=Pace(250, {1: 45, 8: 70, 32: 75}),
    ),
]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A column of the table: what it measures, the least ratio by format, and how a server is started for it."""

    name: str
    unit: str
    streams: int
    context: int
    floors: dict

    def ratio(self, ours, theirs):
        """Above 1, we are better."""
        return theirs / ours if self.unit == "ms" else ours / theirs

    def better(self, values):
        """The name with the best figure."""
        return (min if self.unit == "ms" else max)(values, key=values.get)

    @property
    def slots(self):
        return self.streams + (ITL_OUTSTANDING if self.name == "itl-p99-8" else 0)


def floors(smollm2, q8_0, q4_k):
    return {"Q4_1": smollm2, "Q8_0": q8_0, "Q4_K": q4_k}


# Contexts are the prompt and the answer, in whole blocks.
CASES = [
    Case("decode-1", "tokens/s", 1, 288, floors(1.0, 1.0, 0.9)),
    Case("prefill-512", "tokens/s", 1, 544, floors(1.5, 2.0, 1.3)),
    Case("concurrent-8", "tokens/s", 8, 288, floors(1.8, 2.0, 1.2)),
    Case("concurrent-32", "tokens/s", 32, 288, floors(2.0, 2.0, 1.5)),
    Case("itl-p99-8", "ms", 8, 544, floors(1.4, 1.4, 1.2)),
]
MISTRALRS_FLOOR = 3.0
# Streams whose rate says which format is the best for a case: few in place of many, for a choice is made quickly.
CHOSEN_BY = {"decode-1": "decode-1", "prefill-512": "prefill-512"} | dict.fromkeys(
    ("concurrent-8", "concurrent-32", "itl-p99-8"), "concurrent-8"
)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a run does: the whole of it, or as little as shows something."""

    rounds: dict
    prompts: int
    seconds: float
    output: int = OUTPUT


def whole(model):
    # A large model's steps with long prompts take seconds.
    prompts, seconds_ = (6, 16) if model.name.startswith("SmolLM2") else (3, 20)
    return Size(model.rounds, prompts, seconds_)


# Where the time is short: the least that is a measurement.
SHORT = Size({1: 1, 8: 1, 32: 1}, 3, 12)
# What a format is chosen by, and what BENCH_QUICK measures.
BRIEF = Size({1: 1, 8: 1, 32: 1}, 2, 5, 32)


class Failed(Exception):
    """A run whose figures would not be what they are called."""


class Client:
    """The load generator, the runtime's own."""

    def __init__(self, binary):
        self.binary = binary
        self.seed = 0

    def command(self, server, output, *options):
        # No two runs have equal prompts.
        self.seed += 1
        words = [self.binary, "bench", "--url", server.url, "--seed", self.seed, "--output", output, *options]
        return [str(word) for word in words]

    def run(self, server, prompt, output, *options, shared=0):
        """One load's figures. Every answered request had the prompt and answer that were asked for, and none failed."""
        file = LOGS / "client.json"
        command = self.command(server, file, "--prompt-tokens", prompt, "--output-tokens", output, *options)
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise Failed(f"the client of {server.name} failed: {done.stderr[-1000:]}")
        run = json.loads(file.read_text())["runs"][0]
        if run["failed"]:
            raise Failed(f"{run['failed']} requests to {server.name} failed: {run['errors']}")
        for sample in run["samples"]:
            found = sample["prompt_tokens"], sample["output_tokens"]
            if found != (prompt, output):
                raise Failed(f"{server.name} counted {found} tokens of prompt and answer, not {(prompt, output)}")
            if sample["cached_tokens"] >= shared + BLOCK:
                raise Failed(f"{server.name} had {sample['cached_tokens']} tokens of a new prompt in its cache")
        return run


def measure(case, client, server, size):
    """One run: the figure, and all that the client saw."""
    if case.name == "prefill-512":
        options = ["--concurrency", 1, "--requests", size.prompts, "--warmups", 1]
        run = client.run(server, LONG, 1, *options)
        read = run["prompt_tokens"] / run["completed"]
        return read / (run["ttft_ms"]["p50"] / 1000), run
    if case.name == "itl-p99-8":
        return interrupted(case, client, server, size)
    options = ["--concurrency", case.streams, "--requests", case.streams * size.rounds[case.streams]]
    run = client.run(server, PROMPT, size.output, *options, "--warmups", min(case.streams, WARMUPS))
    return run["output_throughput"], run


def interrupted(case, client, server, size):
    """Streams go on while a long prompt arrives each second. Whatever is under way at the end is cut off, for both."""
    file = LOGS / "arriving.json"
    file.unlink(missing_ok=True)
    # They arrive a little longer, for the client that measures first asks how long its prompts are.
    options = ["--rate", 1, "--arrivals", "constant", "--seconds", size.seconds + ITL_MARGIN, "--cut", "--warmups", 0]
    options += ["--max-outstanding", ITL_OUTSTANDING, "--prompt-tokens", LONG, "--output-tokens", 1]
    with open(LOGS / "arriving.log", "wb") as log:
        arriving = subprocess.Popen(client.command(server, file, *options), stdout=log, stderr=log)
    try:
        options = ["--concurrency", case.streams, "--seconds", size.seconds, "--cut", "--warmups", 0]
        run = client.run(server, PROMPT, OUTPUT, *options)
        if arriving.poll() is not None:
            raise Failed(f"prompts no longer arrived at {server.name} when the measurement ended")
        if arriving.wait(STOP_SECONDS):
            raise Failed(f"the client whose prompts arrive at {server.name} failed; see {LOGS / 'arriving.log'}")
    finally:
        if arriving.poll() is None:
            arriving.kill()
            arriving.wait()
    long = json.loads(file.read_text())["runs"][0]
    if long["failed"] or not long["completed"]:
        raise Failed(f"of the prompts that arrived at {server.name}, {long['failed']} failed: {long['errors']}")
    if run["itl_ms"] is None:
        raise Failed(f"no two tokens of a request came from {server.name} in {size.seconds} seconds")
    run["arriving"] = {name: long[name] for name in ("completed", "cut", "seconds", "ttft_ms")}
    return run["itl_ms"]["p99"], run


def seconds(case, model, pace, size, start=2.0):
    """How long a run takes, roughly, with starting and stopping the server."""
    if case.name == "prefill-512":
        return start + (size.prompts + 3) * LONG / pace.reading
    warm = WARMUPS * PROMPT / pace.reading if case.streams > 1 else 2 * PROMPT / pace.reading
    if case.name == "itl-p99-8":
        return start + size.seconds + ITL_MARGIN + 2
    requests = case.streams * size.rounds[case.streams]
    return start + warm + requests * size.output / pace.writing[case.streams]
