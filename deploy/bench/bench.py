#!/usr/bin/env python3
"""Measures the runtime beside llama.cpp's server and mistral.rs, and writes target/reports/bench.json and bench.svg.

usage: bench.py <runtime> <machine> [<kernels' timer>]

Every server has two threads on the same two cores, where the client is as well: the runtime's own. What is compared is
measured in interleaved pairs whose order alternates, so that what else happens on the machine meets both. A rate's
ratio is ours over the peer's, a time's the peer's over ours: above 1, we are better. The report is written after each
row.

BENCH_ROWS=<words,...> measures models whose name and format contain one of the words, BENCH_CASES=<names,...> these
cases, BENCH_QUICK=1 one brief pair of each: these write bench-some.json, and not bench.json.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

import bandwidth
import cases
from cases import BRIEF, CASES, CHOSEN_BY, MODELS, SHORT, Client, Failed, measure, whole
from report import TRIED, Report, engine, expected, key, roofline
from servers import CACHE, LOGS, PEERS, ROOT, THREADS, flags, get, llamacpp, mistralrs, ours, running, status

QUICK = os.environ.get("BENCH_QUICK") == "1"
WORDS = [word for word in os.environ.get("BENCH_ROWS", "").split(",") if word]
NAMES = [name for name in os.environ.get("BENCH_CASES", "").split(",") if name]
SOME = bool(QUICK or WORDS or NAMES)
PAIRS = 1 if QUICK else 5
# Runs that a format is chosen by.
CHOICES = 1 if QUICK else 3
REPORTS = ROOT / "target/reports"
NAME = "bench-some" if SOME else "bench"
CACHED = CACHE / "models"
# Models of the runs, each in a folder of its own, where packed weights may lie beside them.
WORK = CACHE / "bench"
START_CASE = CASES[3]
# Roughly, of one start.
START_SECONDS = 2.5
# Of the prefixes and the picture.
REST_SECONDS = 200
# When a run is late, what is left is measured more briefly.
MOST_MINUTES = 78
SWEEP = "1,4,8,16"
BY_NAME = {case.name: case for case in CASES}


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, runtime, machine, timer):
        self.runtime, self.timer = runtime, timer
        self.client = Client(runtime)
        self.begun = time.monotonic()
        self.best = {}
        memory = bandwidth.measure(THREADS)
        self.machine = json.loads(subprocess.run([machine, str(THREADS)], check=True, capture_output=True).stdout)
        # Of two ways to read the memory, the faster one is what it can do.
        self.machine["read_bytes_per_second"] = max(memory, self.machine["read_bytes_per_second"])
        say(f"the memory is read with {self.machine['read_bytes_per_second'] / 1e9:.1f} GB/s, and "
            f"{self.machine['byte_multiplies_per_second'] / 1e9:.0f} G multiplies of bytes a second are done")

    def prepare(self, model):
        """Our copy of a model, and its file in each format that peers get."""
        folder = WORK / pathlib.Path(model.file).stem
        (folder / "peer").mkdir(parents=True, exist_ok=True)
        mine = folder / model.file
        if not mine.exists():
            # The same bytes under another name, or else a copy.
            try:
                os.link(CACHED / model.file, mine)
            except OSError:
                shutil.copy(CACHED / model.file, mine)
        files = {model.format: mine}
        for kind in () if QUICK else model.formats:
            files[kind] = folder / f"peer/{kind}.gguf"
            if not files[kind].exists():
                say(f"{model} as {kind}, for the peers")
                aside = files[kind].with_suffix(".part")
                command = [PEERS / "llama-quantize", "--allow-requantize", mine, aside, kind, str(THREADS)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise Failed(f"{model} cannot be written as {kind}: {done.stderr[-500:]}")
                aside.rename(files[kind])
        return files

    def start(self, name, file, case):
        if name == "ours":
            return ours(self.runtime, file, case.slots, case.context)
        if name == "mistralrs":
            return mistralrs(file, case.slots)
        return llamacpp(file, case.slots, case.context)

    def once(self, name, file, case, size):
        with running(self.start, name, file, case) as server:
            value, run = measure(case, self.client, server, size)
            seen = {"flags": flags(server)}
            if name == "ours":
                seen["weights"] = int(status(server)["measured"]["weights"])
                seen["engine"] = engine(get(server.admin, "/metrics")[1])
        run = {name: figure for name, figure in run.items() if name != "samples"}
        say(f"  {name}, {file.name}: {value:.1f} {case.unit}")
        return value, run, seen

    def choose(self, peer, files, model, case):
        """The format that a peer is best with, and the figures that say so."""
        # mistral.rs reads one prompt at a time, and eight take it half a minute.
        judge = BY_NAME["decode-1" if peer == "mistralrs" else CHOSEN_BY[case.name]]
        known = (peer, str(model), judge.name)
        if known not in self.best:
            values = {}
            # Around and around, as the pairs are.
            for _ in range(CHOICES if len(files) > 1 else 0):
                for kind, file in files.items():
                    values.setdefault(kind, []).append(self.once(peer, file, judge, BRIEF)[0])
            medians = {kind: statistics.median(all_) for kind, all_ in values.items()}
            self.best[known] = (judge.better(medians) if medians else model.format, {judge.name: medians})
        return self.best[known]

    def row(self, model, files, case, size, report):
        servers = {"ours": files[model.format]}
        details = {"size": dataclasses.asdict(size), "formats": {}, "runs": {}}
        peers = ["llamacpp"] + (["mistralrs"] if model.mistralrs and case.name == "concurrent-8" else [])
        if "mistralrs" not in peers:
            details["mistralrs"] = "not measured: it takes minutes for what others do in seconds"
        for peer in peers:
            try:
                kind, tried = self.choose(peer, files, model, case)
            except (Failed, RuntimeError) as error:
                self.without(peer, error, servers, details)
                continue
            servers[peer] = files[kind]
            details["formats"][peer] = {"best": kind, "chosen_by": tried}
        values = {name: [] for name in servers}
        for pair in range(PAIRS):
            for name in list(servers) if pair % 2 == 0 else list(reversed(servers)):
                # mistral.rs is slow, so that one request of each stream is as long as the others' rounds.
                mine = cases.Size({8: 1}, 1, 0) if name == "mistralrs" and not QUICK else size
                try:
                    value, run, seen = self.once(name, servers[name], case, mine)
                except (Failed, RuntimeError) as error:
                    self.without(name, error, servers, details)
                    values[name] = []
                    continue
                values[name].append(value)
                details["runs"].setdefault(name, []).append(run)
                details.setdefault("seen", {})[name] = seen
        row = report.measured(model, case, values, details)
        mine = details["seen"]["ours"]
        if case.name == "decode-1":
            tpot = statistics.median(run["tpot_ms"]["p50"] for run in details["runs"]["ours"]) / 1000
            report.fractions[str(model)] = mine["weights"] / tpot / self.machine["read_bytes_per_second"]
        if any(missed == key(model, case) for missed, _, _ in report.missed()):
            details["roofline"] = roofline(model, case, self.machine, mine["weights"])
            details["profile"] = {"engine": mine["engine"], "kernels": self.profile()}
            details["tried"] = TRIED[case.name]
        report.write()
        return row

    @staticmethod
    def without(name, error, servers, details):
        """The row goes on without mistral.rs, which fails at times; without the others it is none."""
        if name != "mistralrs":
            raise error
        say(f"  mistral.rs: {error}")
        servers.pop(name, None)
        details[name] = str(error)

    def profile(self):
        """What each kind of operation takes of a step, of a model in SmolLM2's shape, on both threads."""
        if self.timer is None:
            return None
        if "profile" not in self.best:
            done = subprocess.run([self.timer, "step"], capture_output=True, text=True, check=False)
            self.best["profile"] = done.stdout.splitlines()
        return self.best["profile"]

    def starts(self, file, case, n):
        """Seconds from exec to ready, without packed weights and with them."""
        found = {}
        for name in ("cold", "packed"):
            for stale in file.parent.glob(f".{file.name}*"):
                stale.unlink()
            if name == "packed":
                done = subprocess.run([self.runtime, "pack", str(file)], capture_output=True, text=True)
                if done.returncode:
                    raise Failed(f"{file.name} cannot be packed: {done.stderr[-500:]}")
            times = []
            for _ in range(n):
                with running(self.start, "ours", file, case) as server:
                    times.append(server.start_seconds)
            found[name] = times
        return found

    def prefix_ratio(self, name, file):
        """How long the second prompt with the same beginning waits for its first token, of what the first waits."""
        ratios = []
        case = cases.Case("prefix", "", 1, cases.PREFIX + cases.SUFFIX + 40, {})
        with running(self.start, name, file, case) as server:
            for _ in range(PAIRS):
                run = self.client.run(
                    server, cases.PREFIX + cases.SUFFIX, 1, "--concurrency", 1, "--requests", 2, "--warmups", 1,
                    "--prefix-tokens", cases.PREFIX, shared=cases.PREFIX,
                )
                first, second = sorted(run["samples"], key=lambda sample: sample["sent_ms"])
                ratios.append(second["ttft_ms"] / first["ttft_ms"])
        return statistics.median(ratios)

    def sweep(self, files):
        """Latency against load of both servers, in one picture."""
        options = ["--concurrency", SWEEP, "--prompt-tokens", cases.PROMPT, "--output-tokens", cases.OUTPUT]
        options += ["--requests", 32]
        peer, plot = LOGS / "sweep-llamacpp.json", REPORTS / f"{NAME}.svg"
        best = self.best.get(("llamacpp", str(MODELS[0]), "concurrent-8"), (MODELS[0].format,))[0]
        more = ["--plot", plot, "--plot-name", "llm-fleet", "--plot-with", f"llama.cpp {best}={peer}"]
        case = cases.Case("sweep", "", 16, 288, {})
        for name, file, output in (("llamacpp", files[best], peer), ("ours", files[MODELS[0].format], None)):
            with running(self.start, name, file, case) as server:
                command = self.client.command(server, output or LOGS / "sweep-ours.json", *options)
                command += [str(word) for word in more] if name == "ours" else []
                done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                if done.returncode:
                    raise Failed(f"the sweep of {name} failed: {done.stderr[-500:]}")


def row_seconds(model, case):
    """Roughly what a row takes, its share of choosing formats not counted."""
    size = BRIEF if QUICK else whole(model)
    taken = PAIRS * sum(cases.seconds(case, model, pace, size) for pace in (model.ours, model.llamacpp))
    return taken + (PAIRS * 50 if model.mistralrs and case.name == "concurrent-8" and not QUICK else 0)


def model_seconds(model, chosen):
    """Roughly what choosing formats and starting takes."""
    starts = 1 if QUICK else 5
    taken = 4 * starts * START_SECONDS
    if not QUICK:
        judges = [BY_NAME[name] for name in sorted({CHOSEN_BY[case.name] for case in chosen})]
        runs = CHOICES * (1 + len(model.formats))
        taken += sum(runs * cases.seconds(judge, model, model.llamacpp, BRIEF) for judge in judges)
        if model.mistralrs and BY_NAME["concurrent-8"] in chosen:
            taken += runs * 13
    return taken


def attempt(what, work, problems):
    """Does a part of it, or says why not: the others are worth having."""
    try:
        return work()
    except (Failed, RuntimeError, OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        problems.append(f"{what}: {type(error).__name__}: {error}")
        say(problems[-1])
        return None


def figures(bench, report, model_files, problems):
    """What is measured on one model, or over all."""
    started = report.details.setdefault("start_seconds", {})
    for model, files in model_files.items():
        found = attempt(f"starts of {model}", lambda: {
            "32 streams": bench.starts(files[model.format], START_CASE, 1 if QUICK else 5),
            "1 stream": bench.starts(files[model.format], CASES[0], 1 if QUICK else 3),
        }, problems)
        if found is None:
            continue
        started[str(model)] = found
        medians = [{name: statistics.median(times) for name, times in of["32 streams"].items()} for of in started.values()]
        # The slowest model's, with memory for as many streams as are ever measured.
        for name in ("cold", "packed"):
            report.figures[f"start_seconds_{name}"] = max(of[name] for of in medians)
        report.write()
    files = model_files.get(MODELS[0])
    if files is None:
        return
    best = bench.best.get(("llamacpp", str(MODELS[0]), "prefill-512"), (MODELS[0].format,))[0]
    for name, figure, file in (
        ("ours", "prefix_ttft_ratio", files[MODELS[0].format]), ("llamacpp", "prefix_ttft_ratio_peer", files[best])
    ):
        report.figures[figure] = attempt(figure, lambda: bench.prefix_ratio(name, file), problems)
        report.write()
    attempt("the picture", lambda: bench.sweep(files), problems)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__.split("\n\n")[1])
    models = [model for model in MODELS if not WORDS or any(word in str(model) for word in WORDS)]
    models = models[:1] if QUICK and not WORDS else models
    chosen = [case for case in CASES if not NAMES or case.name in NAMES]
    unknown = [name for name in NAMES if name not in BY_NAME]
    if unknown or not models:
        sys.exit(f"bench: there is none of {unknown or WORDS}")
    # Servers, clients and we ourselves: whoever is started stays on these.
    cores = sorted(os.sched_getaffinity(0))[:THREADS]
    os.sched_setaffinity(0, cores)
    # Who ends us wants the servers ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: asked to stop; what was measured is in the report"))
    REPORTS.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    wanted = [(model, case) for model in models for case in chosen]
    plan = {(model, case): row_seconds(model, case) for model, case in wanted}
    before = {model: model_seconds(model, chosen) for model in models}
    total = [*plan.values(), *before.values(), REST_SECONDS]
    say(f"{len(wanted)} rows, which take about {expected(total)} in all")
    bench = Bench(*(pathlib.Path(name).resolve() for name in sys.argv[1:3]), (sys.argv[3:] or [None])[0])
    details = {"machine": bench.machine, "cores": cores, "threads": THREADS, "pairs": PAIRS}
    details["peers"] = json.loads((PEERS / "versions.json").read_text())
    details["definitions"] = "tokens are the servers' count; a last chunk without text is no token, unlike vllm bench"
    report = Report(REPORTS / f"{NAME}.json", wanted, details)
    problems, model_files = [], {}
    for number, (model, case) in enumerate(wanted, 1):
        left = [plan[row] for row in wanted[number - 1:]] + [REST_SECONDS]
        left += [before[later] for later in models[models.index(model) + (case != chosen[0]):]]
        spent, planned = time.monotonic() - bench.begun, sum(total) - sum(left)
        # As slow as so far, if there is enough to tell.
        slower = spent / planned if planned > 120 else 1.0
        late = spent + slower * sum(left) > 60 * MOST_MINUTES
        say(f"row {number} of {len(wanted)}: {key(model, case)}; {spent / 60:.0f} minutes so far, "
            f"about {expected([slower * sum(left)])} left{', so this one is short' if late else ''}")
        size = BRIEF if QUICK else SHORT if late else whole(model)
        if model not in model_files:
            files = attempt(f"{model}", lambda: bench.prepare(model), problems)
            if files is None:
                report.failed(model, case, problems[-1])
                continue
            model_files[model] = files
        row = attempt(key(model, case), lambda: bench.row(model, model_files[model], case, size, report), problems)
        if row is None:
            report.failed(model, case, problems[-1])
        else:
            say(f"{key(model, case)}: {row['ours']:.1f} {case.unit}, {row['ratio_llamacpp']:.2f} of llama.cpp's, "
                f"floor {case.floors[model.format]}")
    figures(bench, report, model_files, problems)
    report.details["minutes"] = (time.monotonic() - bench.begun) / 60
    report.details["problems"] = problems
    report.write()
    missed = [f"{row} ({peer})" for row, peer, _ in report.missed()]
    say(f"{REPORTS / NAME}.json; below their floors: {', '.join(missed) or 'none'}")
    if problems:
        sys.exit("bench: not everything could be measured: " + "; ".join(problems))


if __name__ == "__main__":
    main()
