"""What a demo measured, as `make demo REPORT=FILE` writes it. Times are milliseconds."""

from __future__ import annotations

from pathlib import Path

import msgspec


class FirstFrame(msgspec.Struct, frozen=True):
    """From the moment both sides were there to the first decoded frame."""

    receiver: str
    peer: str
    source: str
    ms: int


class Frames(msgspec.Struct, frozen=True):
    """What a receiver got of one source of a peer over the whole demo."""

    receiver: str
    peer: str
    source: str
    decoded: int
    lost: int
    """Packets."""


class Placed(msgspec.Struct, frozen=True):
    name: str
    server: str
    worker: int


class Edge(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    from_: str
    to: str
    ready: bool


class Report(msgspec.Struct):
    """Filled as the demo goes; ``routers`` and ``links`` are those after the lost server was replaced."""

    session_ready_ms: int | None = None
    """From the start of `kubectl apply` to Ready."""
    first_frame_ms: list[int] = []
    first_frames: list[FirstFrame] = []
    """The same figures with their names."""
    frames: list[Frames] = []
    recovery_ms: int | None = None
    """From SIGKILL to the next decoded frame of the slowest of the moved participant's sources."""
    longest_gap_ms: int | None = None
    """The longest time without a frame between the two others, from SIGKILL to the end of the recovery."""
    leftovers: list[str] = []
    routers: list[Placed] = []
    links: list[Edge] = []
    total_s: float | None = None
    passed: bool = False

    def write(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
