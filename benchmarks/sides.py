"""Processes that are measured against each other: they take the same steps in turns, so that a busy machine
is as bad for each of them.
"""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

Json = dict[str, Any]
Taken = dict[str, dict[str, list[Json]]]
"""Answers by side and what they measure."""

ROOT: Final = Path(__file__).parents[1]
_DEADLINE: Final = 60.0


class Step(NamedTuple):
    """What a round measures, the step that measures it, and how often."""

    name: str
    step: str
    times: int
    sides: Collection[str]
    """Those that take it."""


@dataclass(frozen=True)
class Command:
    """How to start a side."""

    arguments: Sequence[str]
    environment: Mapping[str, str] | None = None
    """None: this process'."""


class SideProcess:
    """One side, waiting for steps."""

    def __init__(self, command: Command) -> None:
        """Ends this process where the side does not start."""
        self._command = command
        self._process = subprocess.Popen(
            command.arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=command.environment,
        )
        self.hello: Json = self._answer()
        """What it said when it was ready; `version` is always there."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def take(self, step: str) -> Json:
        """The step's figures. Ends this process where the side ends or is silent for too long."""
        assert self._process.stdin is not None
        self._process.stdin.write(step + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Json:
        assert self._process.stdout is not None
        # One line answers one step, so nothing is buffered that this would not see.
        if not select.select([self._process.stdout], [], [], _DEADLINE)[0]:
            self._process.kill()
            sys.exit(f"{' '.join(self._command.arguments)} did not answer in {_DEADLINE:g} s")
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(self._command.arguments)} ended with {self._process.wait(_DEADLINE)}")
        figures: Json = json.loads(line)
        return figures

    def close(self) -> None:
        try:
            self._process.communicate(timeout=_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


def node_arguments(given: str) -> list[str]:
    """How to start the side of Node's mediasoup; `given` is the file with the scenario."""
    node = shutil.which("node")
    if node is None:
        sys.exit("node is not on PATH: install Node.js 20 or newer")
    if not (ROOT / "tests" / "node" / "node_modules" / "mediasoup").is_dir():
        sys.exit("Node's mediasoup is not installed: run `make node`")
    return [node, "--expose-gc", str(ROOT / "benchmarks" / "channel_node.js"), given]


@contextlib.contextmanager
def json_file(given: Json) -> Iterator[str]:
    """Path of a file that holds it."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(given, file)
        file.flush()
        yield file.name


@contextlib.contextmanager
def running(commands: Mapping[str, Command]) -> Iterator[dict[str, SideProcess]]:
    """The sides, started one after the other in that order; ended when their stdin ends."""
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, command in commands.items():
            sides[name] = SideProcess(command)
            stack.callback(sides[name].close)
        yield sides


def in_turns(steps: Iterable[Step], turn: int, take: Callable[[str, str], Json]) -> Taken:
    """Each side takes each step as often as it says: now one side first and now another, beginning with that
    of number `turn`. `take` gets the side and the step."""
    taken: Taken = {}
    for name, step, times, sides in steps:
        for _ in range(times):
            for side in rotated(list(sides), turn):
                taken.setdefault(side, {}).setdefault(name, []).append(take(side, step))
            turn += 1
    return taken


def rotated(names: Sequence[str], turn: int) -> list[str]:
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def medians(taken: Mapping[str, list[Json]], figures: Mapping[str, tuple[str, str]]) -> dict[str, float]:
    """Of one side: each figure by what measured it and which of its values it is."""
    return {
        figure: statistics.median(each[key] for each in taken[name])
        for figure, (name, key) in figures.items()
    }


def median_of(rounds: Iterable[float]) -> float:
    return rounded(statistics.median(rounds))


def rounded(value: float) -> float:
    return round(value) if abs(value) > 100 else round(value, 3)
