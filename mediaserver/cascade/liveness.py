"""Whether media that one end of a pipe pair sends arrives at the other: from byte counters only.

A pipe transport's `connect` succeeds whatever the network does, so a pair that is dead is told by one
end's count of sent RTP bytes growing while the other's count of received ones does not. Pure.
"""

from __future__ import annotations

STALL_SECONDS = 3.0
"""How long bytes may go out and not come in before the pair counts as stalled."""


QUIET_SECONDS = 10.0
"""How long nothing at all may come back while media is sent: receivers report at least every 7.5 s."""


PAUSE_SECONDS = 2.0
"""How long nothing may be sent for what was sent before to count no more: the last packets of a producer that
closes meet nobody who counts them at the other end."""


class Flow:
    """One direction of a pair."""

    def __init__(self) -> None:
        self._sent = 0
        self._sent_at = 0.0
        self._received = 0
        self._unmatched_since: float | None = None

    def observe(self, now: float, sent: int, received: int) -> bool:
        """Take both ends' counters in; True while what goes out has been lost for STALL_SECONDS."""
        grew = sent > self._sent
        if received > self._received or now - self._sent_at > PAUSE_SECONDS:
            self._unmatched_since = None
        if grew:
            self._sent_at = now
            if received <= self._received and self._unmatched_since is None:
                self._unmatched_since = now
        self._sent, self._received = sent, received
        return grew and self._unmatched_since is not None and now - self._unmatched_since >= STALL_SECONDS


class Liveness:
    """Both directions of a pair, seen from one end."""

    def __init__(self) -> None:
        self._outward = Flow()
        self._inward = Flow()
        self._own = (0, 0)
        self._heard = -1
        self._heard_at = 0.0

    def own(self, now: float, sent: int, received: int, heard: int) -> None:
        """This end's counters now: RTP bytes sent and received, and bytes of any kind that came in."""
        if heard != self._heard:
            self._heard, self._heard_at = heard, now
        self._own = (sent, received)

    def other(self, now: float, sent: int, received: int) -> bool:
        """The other end's counters, just heard; True when the pair is stalled in either direction."""
        own_sent, own_received = self._own
        inward = self._inward.observe(now, sent, own_received)
        outward = self._outward.observe(now, own_sent, received)
        return inward or outward

    def silent(self, now: float, *, sending: bool) -> bool:
        """Nothing comes in, as far as this end alone can tell; who sends, gets at least reports back."""
        patience = QUIET_SECONDS if sending else STALL_SECONDS
        return self._heard >= 0 and now - self._heard_at >= patience
