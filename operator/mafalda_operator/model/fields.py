"""Careful reading of custom resources.

The API server validates by schema, yet an object may be older than the schema in force, so a field that
doesn't have the expected shape becomes a Problem and reads as absent; parsing never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Raw = Mapping[str, Any]

EMPTY: Raw = {}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a field of an object: ``reason`` is one word, ``message`` says the remedy."""

    reason: str
    field: str
    message: str


class Reader:
    """Typed access to one (sub)object; wrong shapes are collected in ``problems``, shared by children."""

    def __init__(self, raw: Any, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self.raw: Raw = raw if isinstance(raw, Mapping) else EMPTY
        if raw is not None and not isinstance(raw, Mapping):
            self._wrong(path, "an object")

    def _wrong(self, path: str, expected: str) -> None:
        self.problems.append(
            Problem("InvalidField", path, f"{path} must be {expected}; correct or remove it")
        )

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def child(self, name: str) -> Reader:
        return Reader(self.raw.get(name), self._at(name), self.problems)

    def text(self, name: str) -> str | None:
        value = self.raw.get(name)
        if value is None or isinstance(value, str):
            return value or None
        self._wrong(self._at(name), "a string")
        return None

    def integer(self, name: str) -> int | None:
        value = self.raw.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        self._wrong(self._at(name), "an integer")
        return None

    def boolean(self, name: str) -> bool | None:
        value = self.raw.get(name)
        if value is None or isinstance(value, bool):
            return value
        self._wrong(self._at(name), "true or false")
        return None

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.text(name)
        if value is None or value in allowed:
            return value or default
        self._wrong(self._at(name), f"one of {', '.join(allowed)}")
        return default

    def seconds(self, name: str) -> float | None:
        """A duration string such as 10s or 1m30s, in seconds."""
        value = self.text(name)
        if value is None:
            return None
        parsed = parse_duration(value)
        if parsed is None:
            self._wrong(self._at(name), "a duration such as 500ms, 10s or 1m30s")
        return parsed

    def items(self, name: str) -> Iterator[Reader]:
        value = self.raw.get(name)
        if value is None:
            return
        if not isinstance(value, list | tuple):
            self._wrong(self._at(name), "a list")
            return
        for index, item in enumerate(value):
            yield Reader(item, f"{self._at(name)}[{index}]", self.problems)

    def strings(self, name: str) -> tuple[str, ...]:
        value = self.raw.get(name)
        if value is None:
            return ()
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
        self._wrong(self._at(name), "a list of strings")
        return ()

    def string_map(self, name: str) -> Mapping[str, str]:
        value = self.raw.get(name)
        if value is None:
            return {}
        if isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values()):
            return dict(value)
        self._wrong(self._at(name), "a map of strings")
        return {}


_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float | None:
    """Seconds of a Kubernetes duration (500ms, 10s, 1m30s, 1h); None when it isn't one."""
    if len(text) > 32 or not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
