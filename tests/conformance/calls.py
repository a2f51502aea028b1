"""What clients' calls are recorded as: passed, failed, or unsupported with a reason.

A call is a function of a [`Context`] that returns when it is as it should be, raises AssertionError or anything else
when it is not, and raises Unsupported when the server says in words that it does not do this.
"""

import json
import sys
import traceback
from dataclasses import dataclass, field

QUESTION = "What does HTTP stand for?"
ANSWER = "Hypertext Transfer Protocol"
TOOL = {
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Unsupported(Exception):
    """The server refuses this, and says so."""


@dataclass(frozen=True)
class Context:
    """Where the server is and what it serves."""

    url: str
    model: str
    key: str


@dataclass
class Report:
    """What became of each call."""

    client: str
    results: list = field(default_factory=list)

    def run(self, context, calls):
        for name, call in calls:
            entry = {"client": self.client, "call": name}
            try:
                call(context)
                entry["outcome"] = "passed"
            except Unsupported as error:
                entry.update(outcome="unsupported", reason=str(error))
            except Exception as error:  # whatever a client raises is a failure of the call, not of the run
                traceback.print_exc()
                entry.update(outcome="failed", reason=f"{type(error).__name__}: {error}"[:500])
            print(f"conformance: {self.client}: {name}: {entry['outcome']}", file=sys.stderr, flush=True)
            self.results.append(entry)


def main(client, calls):
    """Runs the calls of one client against the server that the arguments name, and prints what became of them."""
    url, model, key = sys.argv[1:]
    report = Report(client)
    report.run(Context(url, model, key), calls)
    print(json.dumps(report.results))


def check(condition, shown=None):
    if not condition:
        raise AssertionError(repr(shown)[:400])
