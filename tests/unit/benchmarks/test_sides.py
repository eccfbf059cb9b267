from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmarks.sides import Command, Step, in_turns, json_file, medians, rotated, rounded, running

ECHOES = """
import json, sys
print(json.dumps({"version": sys.argv[1]}), flush=True)
for line in sys.stdin:
    print(json.dumps({"took": line.strip()}), flush=True)
"""


def test_each_is_first_in_its_turn() -> None:
    assert rotated(["a", "b", "c"], 0) == ["a", "b", "c"]
    assert rotated(["a", "b", "c"], 1) == ["b", "c", "a"]
    assert rotated(["a", "b", "c"], 5) == ["c", "a", "b"]


def test_steps_are_taken_in_turns_by_those_that_take_them() -> None:
    order: list[tuple[str, str]] = []

    def take(side: str, step: str) -> dict[str, Any]:
        order.append((side, step))
        return {"number": len(order)}

    steps = (Step("first", "one", 2, ("a", "b")), Step("second", "two", 1, ("b",)))
    taken = in_turns(steps, 1, take)
    assert order == [("b", "one"), ("a", "one"), ("a", "one"), ("b", "one"), ("b", "two")]
    assert taken == {
        "a": {"first": [{"number": 2}, {"number": 3}]},
        "b": {"first": [{"number": 1}, {"number": 4}], "second": [{"number": 5}]},
    }


def test_a_figure_is_the_median_of_its_steps() -> None:
    taken = {"first": [{"rate": 1, "cpu": 7}, {"rate": 9, "cpu": 8}, {"rate": 2, "cpu": 0}]}
    assert medians(taken, {"x": ("first", "rate"), "y": ("first", "cpu")}) == {"x": 2, "y": 7}


def test_large_figures_are_whole() -> None:
    assert rounded(1234.5678) == 1235
    assert rounded(-1234.5678) == -1235
    assert rounded(1.23456) == 1.235


def test_sides_answer_steps_and_end() -> None:
    commands = {name: Command([sys.executable, "-c", ECHOES, name]) for name in ("a", "b")}
    with running(commands) as sides:
        assert [side.hello["version"] for side in sides.values()] == ["a", "b"]
        assert sides["b"].take("step") == {"took": "step"}
        assert sides["a"].take("other") == {"took": "other"}


def test_a_side_that_ends_is_told() -> None:
    with pytest.raises(SystemExit, match="ended with 3"), running(
        {"a": Command([sys.executable, "-c", "raise SystemExit(3)"])}
    ):  # fmt: skip
        pass


def test_bare_relays_are_a_side() -> None:
    with json_file({"requests": 20}) as file:
        commands = {
            name: Command([sys.executable, "-m", "benchmarks.bare_relays", name, file]) for name in ("0", "3")
        }
        with running(commands) as sides:
            for side in sides.values():
                figures = side.take("latency")
                assert 0 < figures["p10"] <= figures["p50"] <= figures["p90"] <= figures["p99"]
