"""What `mafalda workers` prints: columns for people, or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from mafalda_operator.model import ObjectKey
from mediaserver.control.contract import TenantWorker

Row = tuple[ObjectKey, TenantWorker]

_COLUMNS = (
    "SERVER",
    "ID",
    "SUBJECT",
    "TOKEN",
    "VERSION",
    "STATE",
    "AGE",
    "CPU",
    "MEMORY",
    "TRANSPORTS",
    "CONSUMERS",
)


def as_json(rows: Iterable[Row]) -> str:
    """One object with the list ``workers``; ages are seconds, CPU cores, memory bytes."""
    listed = [{"server": str(server), **msgspec.to_builtins(worker)} for server, worker in rows]
    return msgspec.json.format(msgspec.json.encode({"workers": listed}), indent=2).decode()


def as_table(rows: Iterable[Row]) -> str:
    """A heading, and a line for each worker."""
    lines = [_COLUMNS, *(_cells(server, worker) for server, worker in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(server: ObjectKey, worker: TenantWorker) -> tuple[str, ...]:
    return (
        str(server),
        _shown(worker.id),
        _shown(worker.subject),
        _shown(worker.token),
        _shown(worker.version),
        "Attached" if worker.attached else "Detached",
        age(worker.age),
        f"{worker.cpu:.2f}",
        f"{worker.memory / 2**20:.0f}Mi",
        str(worker.transports),
        str(worker.consumers),
    )


def _shown(text: str) -> str:
    """What an application or its token says of itself must not move the cursor."""
    return "".join(char if char.isprintable() else "�" for char in text)


def age(seconds: float) -> str:
    """As kubectl writes ages: 90s, 15m, 30h, 12d."""
    for unit, length, most in (("s", 1, 120), ("m", 60, 120), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{max(0, int(seconds // length))}{unit}"
    return f"{int(seconds // 86400)}d"
