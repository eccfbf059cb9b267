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
import json
import os
import platform
import statistics
import sys
from typing import Final

from benchmarks.channel_scenario import scenario
from benchmarks.sides import (
    Command,
    Json,
    Step,
    in_turns,
    json_file,
    median_of,
    medians,
    node_arguments,
    rounded,
    running,
)

SIDES: Final = ("ours", "node")
STEPS: Final = (
    Step("consumers_created", "consumers_created", 1, SIDES),
    Step("consumers_created_again", "consumers_created", 1, SIDES),
    Step("memory", "memory", 1, SIDES),
    Step("warm_up", "sequential", 1, SIDES),
    Step("sequential", "sequential", 8, SIDES),
    Step("in_flight", "in_flight", 8, SIDES),
    Step("notifications", "notifications", 5, SIDES),
)
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


def commands(given: str) -> dict[str, Command]:
    """How to start each side; `given` is the file with the scenario."""
    return {
        "ours": Command([sys.executable, "-m", "benchmarks.channel_ours", given]),
        "node": Command(node_arguments(given)),
    }


def one_round(number: int, given: Json) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Each side's figures, and what runs it."""
    with json_file(given) as file, running(commands(file)) as sides:
        taken = in_turns(STEPS, number, lambda side, step: sides[side].take(step))
        versions = {name: side.hello["version"] for name, side in sides.items()}
    return {side: medians(steps, FIGURES) for side, steps in taken.items()}, versions


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
            side: {name: median_of(each[side][name] for each in measured) for name in FIGURES}
            for side in ("ours", "node")
        },
        "rounds": [
            {side: {name: rounded(value) for name, value in each[side].items()} for side in each}
            for each in measured
        ],
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "load": load, **versions},
    }


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
