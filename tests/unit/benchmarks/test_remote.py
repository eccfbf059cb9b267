from __future__ import annotations

import os
import subprocess
import time
from typing import Any

import pytest

from benchmarks.bare_relays import percentiles
from benchmarks.remote import (
    ALL,
    APPLICATIONS,
    CPU_STEPS,
    DIRECT,
    ECHO,
    FIGURES,
    FLOOR,
    RELAYED,
    STEPS,
    TUNNELLED,
    CpuClocks,
    Round,
    children,
    cpu,
    figures_of,
    missed,
    summary,
    table,
)

ROLES = {DIRECT: ("node", "worker"), TUNNELLED: ("node", "gateway", "worker")}


def a_round(direct: float, tunnelled: float, *, echo: float = 1.0, relayed: float = 4.0) -> Round:
    values = {DIRECT: direct, TUNNELLED: tunnelled, ECHO: echo, RELAYED: relayed}
    figures = {side: dict.fromkeys(figures_of(side), value) for side, value in values.items()}
    used = {step: {side: dict.fromkeys(ROLES[side], 7.0) for side in APPLICATIONS} for step in CPU_STEPS}
    return Round(figures, used, {})


def test_every_figure_is_measured_by_a_step_of_its_side() -> None:
    for side in ALL:
        steps = {step.name for step in STEPS if side in step.sides}
        assert {name for name, _ in figures_of(side).values()} <= steps
    assert set(CPU_STEPS) <= {step.step for step in STEPS}


def test_ratios_and_differences_are_of_a_round_each() -> None:
    told = summary([a_round(1, 2), a_round(10, 5, relayed=3.0), a_round(10, 30)])
    assert told["ratios"] == dict.fromkeys(FIGURES, 2.0)
    assert told["added_ms"] == 1
    assert told["floor_added_ms"] == 3
    assert told[DIRECT] == dict.fromkeys(FIGURES, 10)
    assert told[TUNNELLED] == dict.fromkeys(FIGURES, 5)
    assert told["floor"] == {ECHO: dict.fromkeys(FLOOR, 1), RELAYED: dict.fromkeys(FLOOR, 4)}
    assert told["cpu"]["in_flight"][TUNNELLED] == {"node": 7, "gateway": 7, "worker": 7}
    assert len(told["rounds"]) == 3


@pytest.mark.parametrize(
    ("added", "ratio", "names"),
    [
        (0.149, 0.8, []),
        (0.15, 0.8, ["added_ms"]),
        (0.149, 0.799, ["in_flight"]),
        (9.0, 0.1, ["added_ms", "in_flight"]),
    ],
)
def test_goals(added: float, ratio: float, names: list[str]) -> None:
    problems = missed({"added_ms": added, "ratios": {"in_flight": ratio}})
    assert [problem.split()[0] for problem in problems] == names


def test_cpu_is_the_median_of_the_steps_by_process() -> None:
    answers: list[dict[str, Any]] = [{"cpu": {"node": used, "worker": 1.0}} for used in (5.0, 1.0, 3.0)]
    steps = dict.fromkeys(CPU_STEPS, answers)
    assert cpu(dict.fromkeys(APPLICATIONS, steps))["sequential"] == {
        side: {"node": 3.0, "worker": 1.0} for side in APPLICATIONS
    }


def test_the_table_has_every_figure_and_process() -> None:
    text = table(summary([a_round(1234, 2468)]))
    for name in (*FIGURES, "added_ms", "floor_added_ms", "cpu in_flight: gateway"):
        assert any(line.startswith(name) for line in text.splitlines())
    assert "1,234" in text


def test_cpu_clocks_tell_a_process_time() -> None:
    clocks = CpuClocks({"ours": os.getpid()})
    before, started = clocks.read(), time.process_time()
    sum(range(100_000))
    spent = time.process_time() - started
    assert clocks.microseconds_since(before, 10)["ours"] >= spent * 1e5


def test_children_of_a_process() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert child.pid in children(os.getpid())
    assert child.pid not in children(os.getpid())


def test_percentiles() -> None:
    assert percentiles(range(1000, 0, -1)) == {"p10": 101, "p50": 501, "p90": 901, "p99": 991}
