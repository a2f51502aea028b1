#!/usr/bin/env python3
"""Measures the runtime beside llama.cpp's server and mistral.rs, and writes target/reports/bench.json and bench.svg.

usage: bench.py <runtime>

Every server has two threads; the client is the runtime's own. What is compared is measured in interleaved pairs, so
that what else happens on the machine meets both. BENCH_QUICK=1 measures one pair on one model.
A rate's ratio is ours over the peer's, a time's the peer's over ours: above 1, we are better.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import bandwidth
from servers import CACHE, LOGS, PEERS, ROOT, THREADS, flags, llamacpp, mistralrs, ours, running, status

QUICK = os.environ.get("BENCH_QUICK") == "1"
PAIRS = 1 if QUICK else 5
STARTS = 1 if QUICK else 5
REPORTS = ROOT / "target/reports"
MODELS = CACHE / "models"
# Models of the runs, each in a folder of its own, where packed weights may lie beside them.
WORK = CACHE / "bench"
# Name, format, file, and formats of the same weights that may suit the peer better, as llama-quantize names them.
SMOLLM2 = ("SmolLM2-135M", "Q4_1", "SmolLM2-135M-Instruct.Q4_1.gguf", ["Q4_0", "Q8_0"])
SYNTHETIC = [("Qwen3-0.6B-shaped", kind, f"synthetic-qwen3-0.6B.{kind}.gguf", []) for kind in ("Q8_0", "Q4_K")]
PROMPT, OUTPUT, LONG = 128, 128, 512
PREFIX, SUFFIX = 1000, 16
# Rounds of a closed loop: each stream sends so many requests. Many streams are few rounds, or runs take too long.
ROUNDS = {1: 4, 8: 2, 32: 1}
# Seconds of the run whose gaps between tokens are measured, and how many more slots the arriving prompts get.
ITL_SECONDS, ITL_SLOTS = (15 if QUICK else 40), 8
# A sequence's tokens: the longest prompt and answer, in whole blocks.
CONTEXT = 1152
# The cases that mistral.rs is measured in, once each: it takes minutes for what others do in seconds.
MISTRALRS_CASES = ("decode-1", "concurrent-8")


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def percent(values):
    return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else 0.0


class Client:
    """The load generator."""

    def __init__(self, binary):
        self.binary = binary
        self.seed = 0

    def command(self, server, output, *options):
        # No two runs have equal prompts.
        self.seed += 1
        words = [self.binary, "bench", "--url", server.url, "--seed", self.seed, "--output", output, *options]
        return [str(word) for word in words]

    def run(self, server, *options):
        output = LOGS / "client.json"
        command = self.command(server, output, *options)
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"the client of {server.name} failed: {done.stderr[-2000:]}")
        report = json.loads(output.read_text())
        for run in report["runs"]:
            if run["failed"]:
                raise RuntimeError(f"{run['failed']} requests to {server.name} failed: {run['errors']}")
        return report["runs"][0]


class Case:
    """A column of the table: how a server is started for it, and what one run of it gives."""

    def __init__(self, name, unit, streams, measure):
        self.name, self.unit, self.streams, self.measure = name, unit, streams, measure

    def ratio(self, mine, theirs):
        return theirs / mine if self.unit == "ms" else mine / theirs


def decode(streams):
    def measure(client, server):
        run = client.run(
            server, "--concurrency", streams, "--requests", streams * ROUNDS[streams], "--warmups", min(streams, 4),
            "--prompt-tokens", PROMPT, "--output-tokens", OUTPUT,
        )
        return run["output_throughput"], run

    return measure


def prefill(client, server):
    run = client.run(
        server, "--concurrency", 1, "--requests", 6, "--warmups", 1, "--prompt-tokens", LONG, "--output-tokens", 1
    )
    return LONG / (run["ttft_ms"]["p50"] / 1000), run


def itl(client, server):
    """Eight streams go on while a long prompt arrives each second, as long as the server has a slot for it.

    Where prompts come faster than they are read, more would only wait, and the streams' next requests behind them.
    """
    arriving = client.command(
        server, LOGS / "arriving.json", "--rate", 1, "--arrivals", "constant", "--requests", 100000, "--warmups", 0,
        "--max-outstanding", ITL_SLOTS,
        "--prompt-tokens", LONG, "--output-tokens", 1,
    )
    with open(LOGS / "arriving.log", "wb") as log:
        process = subprocess.Popen(arriving, stdout=log, stderr=log)
    try:
        run = client.run(
            server, "--concurrency", 8, "--seconds", ITL_SECONDS, "--warmups", 8, "--prompt-tokens", PROMPT,
            "--output-tokens", OUTPUT,
        )
    finally:
        process.terminate()
        process.wait()
    return run["itl_ms"]["p99"], run


CASES = [
    Case("decode-1", "tokens/s", 1, decode(1)),
    Case("prefill-512", "tokens/s", 1, prefill),
    Case("concurrent-8", "tokens/s", 8, decode(8)),
    Case("concurrent-32", "tokens/s", 32, decode(32)),
    Case("itl-p99-8", "ms", 8 + ITL_SLOTS, itl),
]
if QUICK:
    CASES = [case for case in CASES if case.name != "concurrent-32"]


class Bench:
    def __init__(self, binary):
        self.binary = binary
        self.client = Client(binary)
        self.details = {"runs": [], "flags": {}, "peer_formats": {}, "start_seconds": {}}

    def prepare(self, file, others):
        """Our copy of a model, its packed weights, and the peer's formats of it."""
        folder = WORK / pathlib.Path(file).stem
        folder.mkdir(parents=True, exist_ok=True)
        model = folder / file
        if not model.exists():
            # The same bytes under another name, or else a copy.
            try:
                os.link(MODELS / file, model)
            except OSError:
                shutil.copy(MODELS / file, model)
        peers = {pathlib.Path(file).stem.rsplit(".", 1)[1]: model}
        for kind in others:
            peers[kind] = folder / f"peer/{kind}.gguf"
            if not peers[kind].exists():
                peers[kind].parent.mkdir(exist_ok=True)
                say(f"{file} as {kind}, for the peer")
                aside = peers[kind].with_suffix(".part")
                command = [PEERS / "llama-quantize", "--allow-requantize", model, aside, kind, str(THREADS)]
                subprocess.run(command, check=True, capture_output=True)
                aside.rename(peers[kind])
        return model, peers

    def starts(self, model):
        """Seconds from exec to ready, without packed weights and with them."""
        found = []
        for packed in (False, True):
            for stale in model.parent.glob(f".{model.name}*"):
                stale.unlink()
            if packed:
                subprocess.run([self.binary, "pack", str(model)], check=True, capture_output=True)
            # One stream: what more streams take is cache, whose size is not the program's doing.
            times = []
            for _ in range(STARTS):
                with running(ours, self.binary, model, 1, CONTEXT) as server:
                    times.append(server.start_seconds)
            found.append(statistics.median(times))
        self.details["start_seconds"][model.name] = {"cold": found[0], "packed": found[1]}
        return found

    def start(self, name, model, streams):
        if name == "ours":
            return ours(self.binary, model, streams, CONTEXT)
        if name == "mistralrs":
            return mistralrs(model, streams)
        return llamacpp(model, streams, CONTEXT)

    def once(self, name, model, case):
        with running(self.start, name, model, case.streams) as server:
            value, run = case.measure(self.client, server)
            weights = int(status(server)["measured"]["weights"]) if name == "ours" else None
            self.details["flags"].setdefault(f"{case.name} {name}", flags(server))
        run = {key: value for key, value in run.items() if key != "samples"}
        self.details["runs"].append({"case": case.name, "server": name, "model": model.name, "value": value, **run})
        say(f"{model.name} {case.name} {name}: {value:.1f} {case.unit}")
        return value, run, weights

    def best_format(self, peers, case):
        """Which of its formats the peer is best with in this case."""
        if len(peers) == 1:
            return next(iter(peers))
        found = {kind: self.once("llamacpp", model, case)[0] for kind, model in peers.items()}
        return (min if case.unit == "ms" else max)(found, key=found.get)

    def row(self, name, kind, files, case):
        model, peers = files
        best = self.best_format(peers, case)
        self.details["peer_formats"][f"{name} {kind} {case.name}"] = best
        mine, theirs, tpot, weights = [], [], [], None
        for _ in range(PAIRS):
            value, run, weights = self.once("ours", model, case)
            mine.append(value)
            if run["tpot_ms"]:
                tpot.append(run["tpot_ms"]["p50"] / 1000)
            theirs.append(self.once("llamacpp", peers[best], case)[0])
        other = None
        if case.name in MISTRALRS_CASES:
            try:
                other = self.once("mistralrs", model, case)[0]
            except RuntimeError as error:
                say(f"mistral.rs has no {case.name} of {model.name}: {error}")
        ours_, llama = statistics.median(mine), statistics.median(theirs)
        row = {"model": name, "format": kind, "case": case.name, "unit": case.unit, "ours": ours_, "llamacpp": llama}
        row |= {"mistralrs": other, "ratio_llamacpp": case.ratio(ours_, llama)}
        row |= {"ratio_mistralrs": case.ratio(ours_, other) if other else None, "spread": percent(mine)}
        read = weights / statistics.median(tpot) if case.name == "decode-1" else None
        self.details.setdefault("spread_llamacpp", {})[f"{name} {kind} {case.name}"] = percent(theirs)
        return row, read

    def prefix_ratio(self, name, model):
        """How long the second prompt with the same beginning waits for its first token, of what the first waits."""
        ratios = []
        with running(self.start, name, model, 1) as server:
            for _ in range(PAIRS):
                run = self.client.run(
                    server, "--concurrency", 1, "--requests", 2, "--warmups", 1, "--prompt-tokens", PREFIX + SUFFIX,
                    "--prefix-tokens", PREFIX, "--output-tokens", 1,
                )
                first, second = sorted(run["samples"], key=lambda sample: sample["sent_ms"])
                ratios.append(second["ttft_ms"] / first["ttft_ms"])
        return statistics.median(ratios)

    def sweep(self, model):
        """Latency against load of both servers, in one picture."""
        loads = "1,4,8" if QUICK else "1,2,4,8,16,32"
        options = ["--concurrency", loads, "--prompt-tokens", PROMPT, "--output-tokens", OUTPUT]
        peer, plot = LOGS / "sweep-llamacpp.json", REPORTS / "bench.svg"
        for name in ("llamacpp", "ours"):
            more = ["--plot", plot, "--plot-name", "llm-fleet", "--plot-with", f"llama.cpp={peer}"]
            with running(self.start, name, model, 32) as server:
                output = peer if name == "llamacpp" else LOGS / "sweep-ours.json"
                command = self.client.command(server, output, *options, *(more if name == "ours" else []))
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def cpu_flags():
    for line in open("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            return sorted(line.split(":")[1].split())
    return []


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1])
    REPORTS.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    bench = Bench(pathlib.Path(sys.argv[1]).resolve())
    speed = bandwidth.measure(THREADS)
    say(f"the memory is read with {speed / 1e9:.1f} GB/s")
    rows, cold, packed, fractions, failed = [], [], [], {}, []
    for name, kind, file, others in [SMOLLM2] if QUICK else [SMOLLM2, *SYNTHETIC]:
        files = bench.prepare(file, others)
        times = bench.starts(files[0])
        cold.append(times[0])
        packed.append(times[1])
        for case in CASES:
            try:
                row, read = bench.row(name, kind, files, case)
            except RuntimeError as error:
                # The others are worth having; that this one is missing is said at the end.
                failed.append(f"{name} {kind} {case.name}: {error}")
                say(failed[-1])
                continue
            rows.append(row)
            if read:
                fractions[f"{name} {kind}"] = read / speed
            ratio = row["ratio_llamacpp"]
            say(f"{name} {kind} {case.name}: {row['ours']:.1f} {case.unit}, {ratio:.2f} of llama.cpp's")
    model = bench.prepare(SMOLLM2[2], [])[0]
    report = {
        "rows": rows,
        "prefix_ttft_ratio": bench.prefix_ratio("ours", model),
        "prefix_ttft_ratio_peer": bench.prefix_ratio("llamacpp", model),
        # The slowest model's.
        "start_seconds_packed": max(packed),
        "start_seconds_cold": max(cold),
        # Of the model whose weights are most bytes, which the caches hold least of.
        "bandwidth_fraction": fractions.get(" ".join((SMOLLM2 if QUICK else SYNTHETIC[0])[:2])),
        "cpu_flags": cpu_flags(),
    }
    bench.sweep(model)
    details = bench.details | {"bandwidth_bytes_per_second": speed, "bandwidth_fractions": fractions}
    details["peers"] = json.loads((PEERS / "versions.json").read_text())
    (REPORTS / "bench-details.json").write_text(json.dumps(details, indent=1) + "\n")
    (REPORTS / "bench.json").write_text(json.dumps(report, indent=1) + "\n")
    say(f"{REPORTS / 'bench.json'}, and beside it bench.svg and bench-details.json")
    if failed:
        sys.exit("bench: not everything could be measured: " + "; ".join(failed))


main()
