"""What a participant receives of one source of another: the figures, over all attachments."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_WINDOW = 2.0
"""Seconds over which frames a second are counted."""


_CLOCK = 1 << 32
"""RTP time stamps come round after so many ticks."""


@dataclass(eq=False)
class Feed:
    """One consumer's part in what is received of a source."""

    received: Received
    producer: str
    rank: int
    """Of the producer, among those of this source."""
    frames: int = 0
    """Decoded, whether they counted or not."""
    lost: int = 0
    """Packets."""

    def count(self, now: float, timestamp: int | None, width: int = 0, height: int = 0) -> bool:
        """A frame was decoded; whether it is one that no other consumer has brought."""
        self.frames += 1
        new = self.received.take(self, timestamp)
        if new:
            self.received.count(now, width, height)
        return new

    def end(self) -> None:
        """The consumer is closed."""
        self.received.end(self)


@dataclass(frozen=True)
class _Counted:
    """The last frame that counted: whose it was, and its time stamp."""

    producer: str
    rank: int
    timestamp: int | None


def _later(timestamp: int | None, other: int | None) -> bool:
    """Whether a time stamp comes after another one; what has none does."""
    if timestamp is None or other is None:
        return True
    return 0 < (timestamp - other) % _CLOCK < _CLOCK // 2


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
    _feeds: list[Feed] = field(default_factory=list)
    _live: set[Feed] = field(default_factory=set)
    _ranks: dict[str, int] = field(default_factory=dict)
    """By producer, in the order in which they were offered first."""
    _last: _Counted | None = None
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    @property
    def timestamp(self) -> int | None:
        """RTP time stamp of the last frame; None while none is known."""
        return self._last.timestamp if self._last is not None else None

    @property
    def lost(self) -> int:
        """Packets lost, of all consumers."""
        return sum(feed.lost for feed in self._feeds)

    def begin(self, producer: str = "") -> Feed:
        """A new consumer, of that producer; the one before may go on for a while."""
        feed = Feed(self, producer, self._ranks.setdefault(producer, len(self._ranks)))
        self._feeds.append(feed)
        self._live.add(feed)
        self.consumers += 1
        self.ended = False
        return feed

    def end(self, feed: Feed) -> None:
        """A consumer has ended; so has the reception, unless there is another one."""
        self._live.discard(feed)
        if self._last is not None and not any(one.producer == self._last.producer for one in self._live):
            self._last = None
        self.ended = not self._live

    def take(self, feed: Feed, timestamp: int | None) -> bool:
        """Whether a frame of that consumer is a new one.

        Of two consumers of one producer each brings the same frames, told apart by their time stamps. Of two
        producers the one that was offered later counts, from its first frame on.
        """
        last = self._last
        if last is not None and last.producer != feed.producer and feed.rank < last.rank:
            return False
        if last is not None and last.producer == feed.producer and not _later(timestamp, last.timestamp):
            return False
        self._last = _Counted(feed.producer, feed.rank, timestamp)
        return True

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
