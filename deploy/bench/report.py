"""The report of `make bench`: what has been measured so far, written again after each row."""

import json
import os
import pathlib
import re
import statistics

from cases import MISTRALRS_FLOOR
from servers import THREADS

NOT_YET = "the measurement did not come this far"
# What was done about each case, and how much it brought or did not: for who reads that a floor was missed.
TRIED = json.loads((pathlib.Path(__file__).parent / "tried.json").read_text())


def spread(values):
    """Of one value there is none."""
    return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else None


def cpu_flags():
    for line in open("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            return sorted(line.split(":")[1].split())
    return []


def key(model, case):
    return f"{model} {case.name}"


class Report:
    """Rows are there from the start: without figures, and with a reason for that."""

    def __init__(self, path, wanted, details):
        self.path = path
        self.rows, self.reasons = {}, {}
        self.figures = dict.fromkeys(
            ("prefix_ttft_ratio", "prefix_ttft_ratio_peer", "start_seconds_packed", "start_seconds_cold")
        )
        self.fractions = {}
        self.details = details | {"rows": {}}
        for model, case in wanted:
            self.row(model, case)
            self.reasons[key(model, case)] = NOT_YET
        self.write()

    def row(self, model, case):
        row = {"model": model.name, "format": model.format, "case": case.name, "unit": case.unit}
        row |= dict.fromkeys(("ours", "llamacpp", "mistralrs", "ratio_llamacpp", "ratio_mistralrs", "spread"))
        self.rows[key(model, case)] = row

    def failed(self, model, case, reason):
        self.row(model, case)
        self.reasons[key(model, case)] = reason
        self.write()

    def measured(self, model, case, values, details):
        """A row from the figures of each server."""
        self.row(model, case)
        self.reasons.pop(key(model, case), None)
        row = self.rows[key(model, case)]
        for name in ("ours", "llamacpp", "mistralrs"):
            if values.get(name):
                row[name] = statistics.median(values[name])
        row["spread"] = spread(values["ours"])
        for peer in ("llamacpp", "mistralrs"):
            if row[peer] is not None:
                row[f"ratio_{peer}"] = case.ratio(row["ours"], row[peer])
        details |= {"floor": case.floors[model.format], "values": values}
        details |= {"spreads": {name: spread(all_) for name, all_ in values.items() if all_}}
        self.details["rows"][key(model, case)] = details
        self.write()
        return row

    def missed(self):
        """Rows below their floors, as far as they have been measured."""
        for model_case, row in self.rows.items():
            floor = self.details["rows"].get(model_case, {}).get("floor")
            if row["ratio_llamacpp"] is not None and row["ratio_llamacpp"] < floor:
                yield model_case, "llamacpp", floor
            concurrent = row["case"] == "concurrent-8" and row["ratio_mistralrs"] is not None
            if concurrent and row["ratio_mistralrs"] < MISTRALRS_FLOOR:
                yield model_case, "mistralrs", MISTRALRS_FLOOR

    def write(self):
        report = {"rows": list(self.rows.values())} | self.figures
        # Of all models the least.
        report["bandwidth_fraction"] = min(self.fractions.values(), default=None)
        report["cpu_flags"] = cpu_flags()
        missed = [{"row": row, "peer": peer, "floor": floor} for row, peer, floor in self.missed()]
        more = {"reasons": self.reasons, "bandwidth_fractions": self.fractions, "floors_missed": missed}
        report["details"] = self.details | more
        # Whole or as before, whenever it is read or the power goes.
        aside = self.path.with_suffix(".part")
        with open(aside, "w") as file:
            file.write(json.dumps(report, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self.path)


def roofline(model, case, machine, weights):
    """The most tokens a second that memory and multiplications allow, if all else took no time.

    A step that generates reads all weights once for its sequences, and multiplies each with every row. A prompt's
    tokens share a reading, and only the last one's logits are computed.
    """
    rows = 256 if case.name == "prefill-512" else case.streams
    multiplies = model.layers + (0 if case.name == "prefill-512" else model.output)
    # Half of what is computed in a closed loop of equal prompts and answers is prompts.
    if case.name.startswith("concurrent"):
        multiplies += model.layers
    return {
        "bytes_per_step": weights,
        "rows_per_step": rows,
        "multiplies_per_token": multiplies,
        "bandwidth_bound_tokens_per_second": rows * machine["read_bytes_per_second"] / weights,
        "compute_bound_tokens_per_second": machine["byte_multiplies_per_second"] / multiplies,
        "operation": machine["byte_operation"],
        "threads": THREADS,
    }


def engine(metrics):
    """Where the runtime's time went, by its own metrics."""

    def total(name):
        return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", metrics, re.M))

    steps = total("llmfleet_step_seconds_count")
    if not steps:
        return None
    seconds = total("llmfleet_step_seconds_sum")
    return {
        "steps": int(steps),
        "seconds_in_steps": seconds,
        "mean_step_ms": 1000 * seconds / steps,
        "mean_step_sequences": total("llmfleet_step_sequences_sum") / steps,
        "mean_step_tokens": total("vllm:iteration_tokens_total_sum") / steps,
        "preemptions": int(total("vllm:num_preemptions_total")),
    }


def expected(plan):
    """How long a plan takes, in words."""
    return f"{sum(plan) / 60:.0f} minutes"
