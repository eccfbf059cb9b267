"""Durations on the command line: `90s`, `15m`, `1h30m`, `30d`."""

from __future__ import annotations

import re

import click

from mafalda_operator.model import parse_duration

_DAYS = re.compile(r"(\d+(?:\.\d+)?)d")
"""What Kubernetes' durations don't have."""


class Duration(click.ParamType[float]):
    """Converts to seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        seconds = parse_duration(_DAYS.sub(lambda days: f"{24 * float(days[1])}h", value))
        if not seconds:
            self.fail(f"{value!r} is no duration; write it as 90s, 15m, 1h30m or 30d", param, ctx)
        return seconds


DURATION = Duration()
