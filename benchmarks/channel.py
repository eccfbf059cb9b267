"""mediasoup for Python against Node's mediasoup, on the same worker binary.

In each round both run side by side, each in a fresh process with a worker of its own, and take the steps in
turns, now one first and now the other; what can be repeated is repeated in small steps, so that a busy
machine is as bad for both. A round's figure is the median of its steps, the figure the median of the rounds,
and a ratio (ours to Node's) the median of the rounds' ratios.

Rates are a second. `cpu` is CPU seconds of the client for 10,000 requests made one after another
(`cpu_in_flight`: with 64 in flight, `cpu_notifications`: for 10,000 notifications), `memory` KiB of resident
memory for 1,000 consumers. `consumers_created` is the first thing that the processes do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.channel_scenario import scenario

Json = dict[str, Any]

STEPS: Final = (
    ("consumers_created", "consumers_created", 1),
    ("consumers_created_again", "consumers_created", 1),
    ("memory", "memory", 1),
    ("warm_up", "sequential", 1),
    ("sequential", "sequential", 8),
    ("in_flight", "in_flight", 8),
    ("notifications", "notifications", 5),
)
"""What a round measures, the step that measures it, and how often."""
FIGURES: Final = {
    "sequential": ("sequential", "rate"),
    "in_flight": ("in_flight", "rate"),
    "consumers_created": ("consumers_created", "rate"),
    "consumers_created_again": ("consumers_created_again", "rate"),
    "notifications": ("notifications", "rate"),
    "cpu": ("sequential", "cpu"),
    "memory": ("memory", "memory"),
    "cpu_in_flight": ("in_flight", "cpu"),
    "cpu_notifications": ("notifications", "cpu"),
}
GOALS: Final = {"sequential": 1.1, "in_flight": 1.0, "consumers_created": 1.0}
LIMITS: Final = {"cpu": 1.0, "memory": 1.0, "cpu_in_flight": 1.0}
_FOLDER: Final = Path(__file__).parent
_DEADLINE: Final = 60.0


def commands(given: str) -> dict[str, list[str]]:
    """How to start each side; `given` is the file with the scenario."""
    node = shutil.which("node")
    if node is None:
        sys.exit("node is not on PATH: install Node.js 20 or newer")
    if not (_FOLDER.parent / "tests" / "node" / "node_modules" / "mediasoup").is_dir():
        sys.exit("Node's mediasoup is not installed: run `make node`")
    return {
        "ours": [sys.executable, "-m", "benchmarks.channel_ours", given],
        "node": [node, "--expose-gc", str(_FOLDER / "channel_node.js"), given],
    }


class SideProcess:
    """One side, waiting for steps."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_FOLDER.parent
        )
        self.version: str = self._answer()["version"]

    def take(self, step: str) -> Json:
        assert self._process.stdin is not None
        self._process.stdin.write(step + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Json:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._command} ended with {self._process.wait(_DEADLINE)}")
        figures: Json = json.loads(line)
        return figures

    def close(self) -> None:
        try:
            self._process.communicate(timeout=_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


@contextlib.contextmanager
def both(given: Json) -> Iterator[dict[str, SideProcess]]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file, contextlib.ExitStack() as stack:
        json.dump(given, file)
        file.flush()
        sides = {name: SideProcess(command) for name, command in commands(file.name).items()}
        for side in sides.values():
            stack.callback(side.close)
        yield sides


def one_round(number: int, given: Json) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Each side's figures, and what runs it."""
    taken: dict[str, dict[str, list[Json]]] = {"ours": {}, "node": {}}
    with both(given) as sides:
        turn = number
        for name, step, times in STEPS:
            for _ in range(times):
                turn += 1
                for side in ("ours", "node") if turn % 2 else ("node", "ours"):
                    taken[side].setdefault(name, []).append(sides[side].take(step))
        versions = {name: side.version for name, side in sides.items()}
    figures = {
        side: {
            figure: statistics.median(each[key] for each in steps[name])
            for figure, (name, key) in FIGURES.items()
        }
        for side, steps in taken.items()
    }
    return figures, versions


def run(rounds: int, requests: int) -> Json:
    given = scenario(requests)
    measured, load = [], []
    versions: dict[str, str] = {}
    for number in range(rounds):
        load.append(round(os.getloadavg()[0], 2))
        figures, versions = one_round(number, given)
        measured.append(figures)
    return {
        "ratios": {
            name: round(statistics.median(each["ours"][name] / each["node"][name] for each in measured), 3)
            for name in FIGURES
        },
        **{
            side: {
                name: _rounded(statistics.median(each[side][name] for each in measured)) for name in FIGURES
            }
            for side in ("ours", "node")
        },
        "rounds": [
            {side: {name: _rounded(value) for name, value in each[side].items()} for side in each}
            for each in measured
        ],
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "load": load, **versions},
    }


def _rounded(value: float) -> float:
    return round(value) if value > 100 else round(value, 3)


def missed(ratios: dict[str, float]) -> list[str]:
    """The goals that the ratios don't reach."""
    low = [f"{name} {ratios[name]} < {goal}" for name, goal in GOALS.items() if ratios[name] < goal]
    return low + [
        f"{name} {ratios[name]} > {limit}" for name, limit in LIMITS.items() if ratios[name] > limit
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.channel", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2_000, help="one after another, in each step")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    options = parser.parse_args()
    figures = run(options.rounds, options.requests)
    if options.json:
        print(json.dumps(figures))
    else:
        print(f"{'':26}{'ours':>12}{'node':>12}{'ratio':>8}")
        for name in FIGURES:
            ours, node = figures["ours"][name], figures["node"][name]
            print(f"{name:26}{ours:>12,}{node:>12,}{figures['ratios'][name]:>8}")
    problems = missed(figures["ratios"])
    if problems:
        print("goals missed: " + "; ".join(problems), file=sys.stderr)
        if options.check:
            sys.exit(1)


if __name__ == "__main__":
    main()
