"""Durations on the command line: `90s`, `15m`, `1h30m`."""

from __future__ import annotations

import click

from mafalda_operator.model import parse_duration


class Duration(click.ParamType[float]):
    """Converts to seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        seconds = parse_duration(value)
        if not seconds:
            self.fail(f"{value!r} is no duration; write it as 90s, 15m or 1h30m", param, ctx)
        return seconds


DURATION = Duration()
