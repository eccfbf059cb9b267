"""mediasoup for Python against Node's mediasoup, on the same worker binary.

Each round starts both, one after the other and in turns first, in a process of its own with a worker of its
own; the figures are medians over the rounds. Rates are a second; `cpu` is CPU seconds of the client for
10,000 requests made one after another (`cpu_in_flight`: with 64 in flight, `cpu_notifications`: for 10,000
notifications), `memory` KiB of resident memory for 1,000 consumers. Ratios are ours to Node's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.channel_scenario import scenario

Json = dict[str, Any]

FIGURES: Final = (
    "sequential",
    "in_flight",
    "consumers_created",
    "consumers_created_again",
    "notifications",
    "cpu",
    "memory",
    "cpu_in_flight",
    "cpu_notifications",
)
GOALS: Final = {"sequential": 1.1, "in_flight": 1.0, "consumers_created": 1.0}
LIMITS: Final = {"cpu": 1.0, "memory": 1.0}
_FOLDER: Final = Path(__file__).parent
_DEADLINE: Final = 180.0


def commands(given: str) -> dict[str, list[str]]:
    node = shutil.which("node")
    if node is None:
        sys.exit("node is not on PATH: install Node.js 20 or newer")
    if not (_FOLDER.parent / "tests" / "node" / "node_modules" / "mediasoup").is_dir():
        sys.exit("Node's mediasoup is not installed: run `make node`")
    return {
        "ours": [sys.executable, "-m", "benchmarks.channel_ours", given],
        "node": [node, "--expose-gc", str(_FOLDER / "channel_node.js"), given],
    }


def run_side(command: list[str]) -> Json:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_DEADLINE,
        check=False,
        cwd=_FOLDER.parent,
    )
    if done.returncode != 0:
        sys.exit(f"{command} failed with {done.returncode}:\n{done.stderr}")
    figures: Json = json.loads(done.stdout)
    return figures


def run(rounds: int, requests: int) -> Json:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(scenario(requests), file)
        file.flush()
        return _figures(rounds, commands(file.name))


def _figures(rounds: int, sides: dict[str, list[str]]) -> Json:
    taken: dict[str, list[Json]] = {name: [] for name in sides}
    load = []
    for i in range(rounds):
        load.append(round(os.getloadavg()[0], 2))
        for name in sorted(sides, reverse=bool(i % 2)):
            taken[name].append(run_side(sides[name]))
    medians = {
        name: {figure: statistics.median(each[figure] for each in figures) for figure in FIGURES}
        for name, figures in taken.items()
    }
    return {
        "ratios": {name: round(medians["ours"][name] / medians["node"][name], 3) for name in FIGURES},
        **{name: {k: _rounded(v) for k, v in medians[name].items()} for name in medians},
        "rounds": [
            {name: {k: _rounded(taken[name][i][k]) for k in FIGURES} for name in sides} for i in range(rounds)
        ],
        "machine": {
            "cpus": os.cpu_count(),
            "system": platform.platform(),
            "python": taken["ours"][0]["version"],
            "node": taken["node"][0]["version"],
            "load": load,
        },
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
    parser.add_argument("--requests", type=int, default=8_000, help="one after another, in each round")
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
