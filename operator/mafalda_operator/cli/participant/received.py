"""What a participant receives of one source of another: the figures, over all attachments."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_WINDOW = 2.0
"""Seconds over which frames a second are counted."""


@dataclass
class Received:
    """Figures of one (peer, source). Times are of the clock that the participant was given, in seconds.

    They go on over re-dials, and when the publisher comes back with a new producer.
    """

    peer: str
    source: str
    kind: str
    offered_at: float
    """When the server first offered it."""
    frames: int = 0
    """Decoded."""
    first_frame_at: float | None = None
    last_frame_at: float | None = None
    longest_gap: float = 0.0
    """Between two frames, since the start or `reset_gap`."""
    width: int = 0
    height: int = 0
    paused: bool = False
    """By the publisher."""
    ended: bool = False
    """The producer is closed and no other has come."""
    consumers: int = 0
    """How many consumers there have been: each re-dial, and each new producer, makes one."""
    _lost_before: int = 0
    _lost_now: int = 0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    @property
    def lost(self) -> int:
        """Packets lost, of all consumers."""
        return self._lost_before + self._lost_now

    def begin(self) -> None:
        """A new consumer takes over."""
        self._lost_before += self._lost_now
        self._lost_now = 0
        self.consumers += 1
        self.ended = False

    def count(self, now: float, width: int = 0, height: int = 0) -> None:
        """A frame was decoded."""
        if self.first_frame_at is None:
            self.first_frame_at = now
        if self.last_frame_at is not None:
            self.longest_gap = max(self.longest_gap, now - self.last_frame_at)
        self.frames += 1
        self.last_frame_at = now
        self.width, self.height = width, height
        self._recent.append(now)

    def set_lost(self, packets: int) -> None:
        """The current consumer's loss."""
        self._lost_now = packets

    def reset_gap(self, now: float | None = None) -> None:
        """Starts to measure `longest_gap` anew; with `now`, silence until then does not count."""
        self.longest_gap = 0.0
        if now is not None and self.last_frame_at is not None:
            self.last_frame_at = now

    def gap(self, now: float) -> float:
        """The longest time without a frame so far, the one that lasts until `now` included."""
        return max(self.longest_gap, 0.0 if self.last_frame_at is None else now - self.last_frame_at)

    def rate(self, now: float) -> float:
        """Frames a second over the last two seconds."""
        while self._recent and now - self._recent[0] > _WINDOW:
            self._recent.popleft()
        if len(self._recent) < 2:
            return 0.0
        span = max(now - self._recent[0], 1e-3)
        return len(self._recent) / span

    def time_to_first_frame(self, wanted_at: float | None = None) -> float | None:
        """Seconds from `wanted_at` (when both sides were there; else the offer) to the first frame."""
        if self.first_frame_at is None:
            return None
        return self.first_frame_at - (self.offered_at if wanted_at is None else wanted_at)
