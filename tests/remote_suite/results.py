"""What jest says of a run, and whether that is what was expected: pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["passed", "failed", "skipped"]
_LONGEST = 120
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class ResultsError(Exception):
    """What was read is no result, or no list of expected failures."""


@dataclass(frozen=True, order=True)
class Case:
    """One test of mediasoup's: its file without .js, and its name."""

    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"


@dataclass(frozen=True)
class Results:
    """Of one run."""

    outcomes: Mapping[Case, Outcome]
    messages: Mapping[Case, str] = field(default_factory=dict)
    """Of those that failed: the gist of what jest says."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Files that could not be run, and why."""

    def of(self, outcome: Outcome) -> list[Case]:
        return sorted(case for case, found in self.outcomes.items() if found == outcome)


@dataclass(frozen=True)
class Expectations:
    """How many cases there are, and which cannot pass in a mode, each with its reason."""

    total: int
    reasons: Mapping[str, Mapping[Case, str]]
    """By the mode's name."""

    def of(self, mode: str) -> Mapping[Case, str]:
        return self.reasons.get(mode, {})


@dataclass(frozen=True)
class Verdict:
    """A run held against what was expected of it."""

    results: Results
    expected: Mapping[Case, str]
    total: int
    part: bool = False
    """Only some of the files were run: what is missing is no problem."""
    left: Sequence[str] = ()
    """Workers that ran on when the suite had ended."""

    def problems(self) -> Iterator[str]:
        """One line for everything that is not as expected; none: the run is good."""
        for file, message in sorted(self.results.broken.items()):
            yield f"could not be run: {file}: {message}"
        if len(self.results.outcomes) != self.total and not self.part:
            yield f"{len(self.results.outcomes)} cases were run, {self.total} were expected"
        for case in self.unexpected_failures():
            yield f"failed: {case}: {self.results.messages.get(case, 'no reason given')}"
        yield from self._otherwise()
        for case in self.results.of("skipped"):
            if case not in self.expected:
                yield f"skipped: {case}"
        if self.left:
            yield f"workers run on after the suite: {', '.join(self.left)}"

    def _otherwise(self) -> Iterator[str]:
        """What was expected to fail and did not."""
        for case, reason in sorted(self.expected.items()):
            outcome = self.results.outcomes.get(case)
            if outcome is None:
                if not self.part:
                    yield f"no such case: {case} (expected to fail: {reason})"
            elif outcome != "failed":
                yield f"{outcome}, yet expected to fail: {case} ({reason})"

    def unexpected_failures(self) -> list[Case]:
        return [case for case in self.results.of("failed") if case not in self.expected]

    def document(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "total": len(self.results.outcomes),
            "passed": len(self.results.of("passed")),
            "failed": [
                {
                    "file": case.file,
                    "name": case.name,
                    "expected": case in self.expected,
                    "reason": self.expected.get(case) or self.results.messages.get(case, ""),
                }
                for case in self.results.of("failed")
            ],
            "skipped": [str(case) for case in self.results.of("skipped")],
            "problems": list(self.problems()),
        }


def read_results(document: Mapping[str, Any]) -> Results:
    """From jest's `--json`. Raises ResultsError."""
    outcomes: dict[Case, Outcome] = {}
    messages: dict[Case, str] = {}
    broken: dict[str, str] = {}
    try:
        for suite in document["testResults"]:
            file = Path(suite["name"]).stem
            if not suite["assertionResults"]:
                broken[file] = first_line(suite.get("message", "")) or "it has no case"
            for found in suite["assertionResults"]:
                case = Case(file, found["fullName"])
                outcomes[case] = _outcome(found["status"])
                if outcomes[case] == "failed":
                    messages[case] = gist("\n".join(found.get("failureMessages") or ()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"jest's result cannot be read: {error!r}") from error
    return Results(outcomes, messages, broken)


def _outcome(status: str) -> Outcome:
    return "passed" if status == "passed" else "failed" if status == "failed" else "skipped"


def first_line(text: str) -> str:
    """The first line that says something, without colours."""
    lines = (line.strip() for line in _COLOURS.sub("", text).splitlines())
    return next((line for line in lines if line), "")


def gist(text: str) -> str:
    """The first line of a failure, and what was expected and received instead."""
    lines = [line.strip() for line in _COLOURS.sub("", text).splitlines()]
    values = [line for line in lines if line.startswith(("Expected", "Received", "Rejected", "Resolved"))]
    return "; ".join(line[:_LONGEST] for line in (first_line(text), *values))


def read_expectations(text: str, modes: Sequence[str]) -> Expectations:
    """From expected.toml: `total`, and tables `[[failures]]` with modes, file, cases, reason.

    Raises ResultsError for a mode that there is not, an empty reason, or a case named twice in a mode.
    """
    try:
        document = tomllib.loads(text)
        reasons: dict[str, dict[Case, str]] = {mode: {} for mode in modes}
        for entry in document.get("failures", ()):
            if not entry["reason"].strip():
                raise ResultsError(f"{entry['file']}: an expected failure needs its reason")
            for mode in entry["modes"]:
                if mode not in reasons:
                    raise ResultsError(f"there is no mode {mode}, but {', '.join(modes)}")
                for name in entry["cases"]:
                    case = Case(entry["file"], name)
                    if case in reasons[mode]:
                        raise ResultsError(f"expected twice in mode {mode}: {case}")
                    reasons[mode][case] = entry["reason"]
        return Expectations(int(document["total"]), reasons)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"the expected failures cannot be read: {error!r}") from error
