"""Which router a participant gets: the least loaded one. No I/O; the clock is an argument."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mediaserver.control.contract import Address
from mediaserver.gateway.resources import ObjectKey

RECENT_SECONDS = 20.0
"""How long an own placement counts on top of what servers report, which follows late."""
AVOID_SECONDS = 2.0
"""How long a router that refused is left alone."""
_MAX_RECENT = 100_000

Leaving = Literal[0, 1, 2]
"""1: its server is being drained or ends. 2: the router's participants are being sent elsewhere."""


@dataclass(frozen=True)
class Candidate:
    """A router that takes participants, on a server that can be heard."""

    router: ObjectKey
    server: ObjectKey
    address: Address
    """Where its server's participants listener is."""
    participants: int
    """As the server says."""
    ready: bool
    """As the session's status says; the server itself says ready in any case."""
    leaving: Leaving = 0


class Placements:
    """What this gateway did lately."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, ObjectKey]] = deque()
        self._counts: Counter[ObjectKey] = Counter()
        self._avoid: dict[ObjectKey, float] = {}

    def placed(self, router: ObjectKey, now: float) -> None:
        self._recent.append((now, router))
        self._counts[router] += 1
        self._forget(now)

    def refused(self, router: ObjectKey, now: float) -> None:
        """The router did not take a participant: others first, for a while."""
        self._avoid = {key: until for key, until in self._avoid.items() if until > now}
        self._avoid[router] = now + AVOID_SECONDS

    def order(self, candidates: Iterable[Candidate], now: float) -> list[Candidate]:
        """Best first: not refused lately, not on its way out, ready by status, least loaded; ties by name."""
        self._forget(now)

        def cost(candidate: Candidate) -> tuple[bool, int, bool, int, ObjectKey]:
            avoided = self._avoid.get(candidate.router, now) > now
            load = candidate.participants + self._counts[candidate.router]
            return avoided, candidate.leaving, not candidate.ready, load, candidate.router

        return sorted(candidates, key=cost)

    def _forget(self, now: float) -> None:
        while self._recent and (
            self._recent[0][0] <= now - RECENT_SECONDS or len(self._recent) > _MAX_RECENT
        ):
            _, router = self._recent.popleft()
            self._counts[router] -= 1
            if not self._counts[router]:
                del self._counts[router]
