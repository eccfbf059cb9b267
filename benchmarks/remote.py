"""What Remote Mediasoup costs an unchanged Node application: `direct`, with a worker that Node's mediasoup
starts itself, against `tunnelled`, with mafalda-worker, the real gateway and a real media server, on one
machine.

In each round both run side by side, each in a fresh process, and take the steps in turns, now one first and
now the other; what can be repeated is repeated in small steps, so that a busy machine is as bad for both. A
round's figure is the median of its steps, the figure the median of the rounds, and a ratio (tunnelled to
direct) or a difference the median of the rounds' own.

`sequential`, `in_flight` (64 of them), `consumers_created` and `notifications` are rates a second; `p10` to
`p99` round trips of single requests, and `create_worker` the time of createWorker(), in milliseconds.
`added_ms` is what the tunnel adds to p50. `floor_added_ms` is what three bare relays
(benchmarks.bare_relays) add to p50 of an echo in the same rounds: what the machine charges for three more
processes in the way, whatever they do. `cpu` is CPU microseconds a request by process, one request after
another (`sequential`) and with 64 in flight (`in_flight`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mafalda_operator.cli.demo.layout import ServerLayout
from mafalda_operator.cli.demo.stack import GATEWAY
from mafalda_operator.cli.local.errors import LocalClusterError
from mafalda_operator.cli.local.ports import PortPicker

from benchmarks.channel_scenario import scenario
from benchmarks.remote_system import RemoteSystem, SystemFailed, remote_system, server_layout
from benchmarks.sides import (
    Command,
    Json,
    SideProcess,
    Step,
    Taken,
    in_turns,
    json_file,
    median_of,
    medians,
    node_arguments,
    rounded,
    running,
)
from mediaserver.mediasoup import WorkerStartError, find_worker_bin

RELAYS: Final = 3
"""As many processes as the tunnel puts in the way: mafalda-worker, gateway, media server."""
DIRECT, TUNNELLED, ECHO, RELAYED = "direct", "tunnelled", "echo", "relayed"
APPLICATIONS: Final = (DIRECT, TUNNELLED)
ALL: Final = (*APPLICATIONS, ECHO, RELAYED)
STEPS: Final = (
    Step("consumers_created", "consumers_created", 1, APPLICATIONS),
    Step("consumers_created_again", "consumers_created", 1, APPLICATIONS),
    Step("warm_up", "latency", 1, ALL),
    Step("latency", "latency", 8, ALL),
    Step("sequential", "sequential", 8, APPLICATIONS),
    Step("in_flight", "in_flight", 8, APPLICATIONS),
    Step("notifications", "notifications", 5, APPLICATIONS),
    Step("create_worker", "create_worker", 5, APPLICATIONS),
)
FLOOR: Final = {name: ("latency", name) for name in ("p10", "p50", "p90", "p99")}
FIGURES: Final = {
    "sequential": ("sequential", "rate"),
    "in_flight": ("in_flight", "rate"),
    **FLOOR,
    "consumers_created": ("consumers_created", "rate"),
    "consumers_created_again": ("consumers_created_again", "rate"),
    "notifications": ("notifications", "rate"),
    "create_worker": ("create_worker", "milliseconds"),
}
CPU_STEPS: Final = ("sequential", "in_flight")
MOST_ADDED_MS: Final = 0.15
LEAST_IN_FLIGHT: Final = 0.8
SERVER: Final = "media-1"
FIRST_PORT: Final = 26_000
PORTS: Final = 100
"""For clients, and as many for pipes."""


class Round(NamedTuple):
    figures: dict[str, dict[str, float]]
    """By side."""
    cpu: dict[str, dict[str, dict[str, float]]]
    """By step, side and process."""
    versions: dict[str, str]


def layouts(picker: PortPicker) -> list[ServerLayout]:
    clients, pipes = (range(first, first + PORTS) for first in (FIRST_PORT, FIRST_PORT + PORTS))
    return [
        server_layout(
            SERVER, picker, tenants=(clients[0], clients[-1]), pipes=(pipes[0], pipes[-1]),
            flags=["--tenant-workers=16"],
        )
    ]  # fmt: skip


def commands(given: str, system: RemoteSystem) -> dict[str, Command]:
    """How to start each side; `given` is the file with the scenario. The environment is all that differs
    between the applications."""
    node = node_arguments(given)
    bare = [sys.executable, "-m", "benchmarks.bare_relays"]
    return {
        DIRECT: Command(node, {**os.environ, "MEDIASOUP_WORKER_BIN": str(find_worker_bin())}),
        TUNNELLED: Command(node, {**os.environ, **system.environment()}),
        ECHO: Command([*bare, "0", given]),
        RELAYED: Command([*bare, str(RELAYS), given]),
    }


class CpuClocks:
    """CPU seconds of processes by role."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        # What clock_getcpuclockid(3) returns; /proc/PID/stat counts in hundredths of a second.
        self._clocks = {role: (~pid << 3) | 2 for role, pid in pids.items()}

    def read(self) -> dict[str, float]:
        return {role: time.clock_gettime(clock) for role, clock in self._clocks.items()}

    def microseconds_since(self, before: Mapping[str, float], requests: int) -> dict[str, float]:
        """Of each request."""
        return {role: (now - before[role]) * 1e6 / requests for role, now in self.read().items()}


def clocks(sides: Mapping[str, SideProcess], system: RemoteSystem, before: set[int]) -> dict[str, CpuClocks]:
    """Of the applications' processes; `before` are the media server's children before they started."""
    pids = system.stack.pids()
    direct, tunnelled = (sides[name] for name in APPLICATIONS)
    (worker,) = children(pids[SERVER]) - before
    return {
        DIRECT: CpuClocks({"node": direct.pid, "worker": direct.hello["worker"]}),
        TUNNELLED: CpuClocks(
            {
                "node": tunnelled.pid,
                "mafalda-worker": tunnelled.hello["worker"],
                "gateway": pids[GATEWAY],
                "media server": pids[SERVER],
                "worker": worker,
            }
        ),
    }


def children(pid: int) -> set[int]:
    """Direct ones, of all threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def one_round(number: int, given: Json, system: RemoteSystem) -> Round:
    requests = {"sequential": given["requests"], "in_flight": given["requestsInFlight"]}
    before = children(system.stack.pids()[SERVER])
    with json_file(given) as file, running(commands(file, system)) as sides:
        measured = clocks(sides, system, before)

        def take(side: str, step: str) -> Json:
            if step not in requests:
                return sides[side].take(step)
            started = measured[side].read()
            answer = sides[side].take(step)
            return answer | {"cpu": measured[side].microseconds_since(started, requests[step])}

        taken = in_turns(STEPS, number, take)
        versions = {name: side.hello["version"] for name, side in sides.items()}
    figures = {side: medians(steps, figures_of(side)) for side, steps in taken.items()}
    return Round(figures, cpu(taken), {"node": versions[DIRECT], "python": versions[ECHO]})


def figures_of(side: str) -> dict[str, tuple[str, str]]:
    return FIGURES if side in APPLICATIONS else FLOOR


def cpu(taken: Taken) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds a request by step, side and process."""
    return {
        step: {
            side: {
                role: statistics.median(each["cpu"][role] for each in taken[side][step])
                for role in taken[side][step][0]["cpu"]
            }
            for side in APPLICATIONS
        }
        for step in CPU_STEPS
    }


def summary(rounds: Sequence[Round]) -> Json:
    """Medians of the rounds, and of their ratios and differences."""
    figures = [each.figures for each in rounds]
    return {
        "added_ms": added(figures, TUNNELLED, DIRECT),
        "floor_added_ms": added(figures, RELAYED, ECHO),
        "ratios": {
            name: round(statistics.median(each[TUNNELLED][name] / each[DIRECT][name] for each in figures), 3)
            for name in FIGURES
        },
        **{side: _medians(each[side] for each in figures) for side in APPLICATIONS},
        "floor": {side: _medians(each[side] for each in figures) for side in (ECHO, RELAYED)},
        "cpu": {
            step: {side: _medians(each.cpu[step][side] for each in rounds) for side in APPLICATIONS}
            for step in CPU_STEPS
        },
        "rounds": [
            {side: {name: rounded(value) for name, value in each[side].items()} for side in each}
            for each in figures
        ],
    }


def added(figures: Iterable[Mapping[str, Mapping[str, float]]], far: str, near: str) -> float:
    """Milliseconds at the median."""
    return median_of(each[far]["p50"] - each[near]["p50"] for each in figures)


def _medians(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    measured = list(rounds)
    return {name: median_of(each[name] for each in measured) for name in measured[0]}


def missed(figures: Json) -> list[str]:
    """The goals that the figures don't reach."""
    problems = []
    if figures["added_ms"] >= MOST_ADDED_MS:
        problems.append(f"added_ms {figures['added_ms']} >= {MOST_ADDED_MS}")
    if figures["ratios"]["in_flight"] < LEAST_IN_FLIGHT:
        problems.append(f"in_flight {figures['ratios']['in_flight']} < {LEAST_IN_FLIGHT}")
    return problems


def run(rounds: int, requests: int) -> Json:
    """Raises what remote_system does."""
    # No binary of the worker is named, so mediasoup takes the one that the environment says.
    given = scenario(requests) | {"workerBin": None}
    measured, load = [], []
    avoid = range(FIRST_PORT, FIRST_PORT + 2 * PORTS)
    with remote_system(layouts, avoid=avoid, say=lambda line: print(line, file=sys.stderr)) as system:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            load.append(round(os.getloadavg()[0], 2))
            measured.append(one_round(number, given, system))
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "load": load, **measured[0].versions}
    return {**summary(measured), "machine": machine}


def table(figures: Json) -> str:
    rows: list[tuple[Any, ...]] = [("", *APPLICATIONS, "ratio")]
    for name in FIGURES:
        rows.append((name, *(figures[side][name] for side in APPLICATIONS), figures["ratios"][name]))
    for step in CPU_STEPS:
        by_side = figures["cpu"][step]
        for role in by_side[TUNNELLED]:
            used = (by_side[side].get(role, "") for side in APPLICATIONS)
            rows.append((f"cpu {step}: {role}", *used, ""))
    rows += [(name, "", figures[name], "") for name in ("added_ms", "floor_added_ms")]
    return "\n".join(_line(*row) for row in rows)


def _line(name: str, *cells: float | str) -> str:
    texts = [cell if isinstance(cell, str) else f"{cell:,}" for cell in cells]
    return f"{name:32}{''.join(f'{text:>12}' for text in texts)}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.remote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2_000, help="one after another, in each step")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    options = parser.parse_args()
    try:
        figures = run(options.rounds, options.requests)
    except (LocalClusterError, SystemFailed, WorkerStartError) as error:
        sys.exit(f"benchmarks.remote: {error}")
    print(json.dumps(figures) if options.json else table(figures))
    problems = missed(figures)
    if problems:
        print("goals missed: " + "; ".join(problems), file=sys.stderr)
        if options.check:
            sys.exit(1)


if __name__ == "__main__":
    main()
