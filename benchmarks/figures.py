"""Figures of processes and metrics, and what changed between two moments."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

WRITES = ("create", "update", "patch", "delete", "deletecollection", "apply", "post", "put")
OURS = {"mediasessions", "mediarouters", "mediaservers", "mediaclusters", "events"}
_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")


@dataclass(frozen=True)
class Sample:
    """One line of Prometheus' text format."""

    name: str
    labels: dict[str, str]
    value: float


def parse_metrics(text: str) -> list[Sample]:
    """The samples of an exposition; comments are left out."""
    found = (_SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#"))
    return [
        Sample(
            match["name"], dict(re.findall(r'(\w+)="([^"]*)"', match["labels"] or "")), float(match["value"])
        )
        for match in found
        if match
    ]


@dataclass(frozen=True)
class Usage:
    """Of one process since it started: seconds of CPU; resident memory now and at most, in MiB."""

    cpu: float
    rss: float
    peak: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = dict(
            re.findall(r"^(\w+):\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        )
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS
        return cls(cpu, int(status["VmRSS"]) / 1024, int(status["VmHWM"]) / 1024)


@dataclass(frozen=True)
class Figures:
    """Everything that is counted, at one moment."""

    usage: Mapping[str, Usage]
    """By process."""
    operator: list[Sample]
    apiserver: list[Sample]

    def cpu_since(self, before: Figures) -> dict[str, float]:
        """Seconds of CPU by process."""
        return {
            name: round(usage.cpu - before.usage[name].cpu, 2)
            for name, usage in sorted(self.usage.items())
            if name in before.usage
        }


def count_writes(before: Iterable[Sample], after: Iterable[Sample], name: str) -> Counter[str]:
    """Writes by verb and kind; the Lease is left out, since it is written as time goes by."""
    counts: Counter[str] = Counter()
    for sign, samples in ((-1, before), (1, after)):
        for sample in samples:
            labels = sample.labels
            if sample.name == name and labels["verb"] in WRITES and labels["resource"] != "leases":
                counts[f"{labels['verb']} {labels['resource']}"] += sign * int(sample.value)
    return +counts


def count_server_writes(before: Iterable[Sample], after: Iterable[Sample]) -> float:
    total = 0.0
    for sign, samples in ((-1, before), (1, after)):
        for sample in samples:
            verb = sample.labels.get("verb", "").lower()
            kind = sample.labels.get("resource")
            if sample.name == "apiserver_request_total" and verb in WRITES and kind in OURS:
                total += sign * sample.value
    return total


def _sums(samples: Iterable[Sample], name: str) -> dict[str, float]:
    """A sum or count by its labels' values."""
    return {" ".join(s.labels.values()): s.value for s in samples if s.name == name}


def total(before: Iterable[Sample], after: Iterable[Sample], histogram: str) -> float:
    sums = (_sums(samples, f"{histogram}_sum") for samples in (after, before))
    return sum(next(sums).values()) - sum(next(sums).values())


def means(before: Iterable[Sample], after: Iterable[Sample], histogram: str) -> dict[str, float]:
    """Averages of what was observed in between, in milliseconds, by labels."""
    spent, spent_before = (_sums(samples, f"{histogram}_sum") for samples in (after, before))
    count, count_before = (_sums(samples, f"{histogram}_count") for samples in (after, before))
    means = {}
    for labels, total in spent.items():
        number = count[labels] - count_before.get(labels, 0)
        if number:
            means[labels] = round(1000 * (total - spent_before.get(labels, 0)) / number, 2)
    return means
