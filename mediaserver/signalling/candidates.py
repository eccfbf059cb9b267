"""ICE candidates of every announced address: mediasoup tells of one for each address that it listens on.

A worker knows an endpoint by where its packets come from, not by where they were sent to, so a candidate more
is only something to be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mediaserver.mediasoup import IceCandidate, TransportProtocol

# mediasoup's scheme (its WebRtcServer.cpp): RFC 8445, section 5.1.2.1, with these preferences.
_TYPE_PREFERENCE: Final = 64
_LOCAL_PREFERENCE: Final = 10_000
_PREFERRED: Final = 1_000
"""UDP is preferred."""
_STEP: Final = 100
"""Less for each address and protocol after the first."""
_COMPONENT: Final = 1
_PROTOCOLS: Final[tuple[TransportProtocol, ...]] = ("udp", "tcp")


def announced_candidates(own: Sequence[IceCandidate], announced: Sequence[str]) -> list[IceCandidate]:
    """What to tell an endpoint, best first: each address by UDP and TCP, as far as the transport has them.

    `own` are the worker's candidates, all of one port and of protocols that the transport has. Priorities are
    those that mediasoup would give if it listened on each of `announced` in that order; without any of those
    the worker's candidates stand.
    """
    if not announced:
        return list(own)
    by_protocol = {candidate.protocol: candidate for candidate in reversed(own)}
    return [
        IceCandidate(
            foundation=example.foundation,
            priority=_priority(position, preferred=protocol == "udp"),
            ip=address,
            address=address,
            protocol=protocol,
            port=example.port,
            type=example.type,
            tcp_type=example.tcp_type,
        )
        for index, address in enumerate(announced)
        for position, protocol in enumerate(_PROTOCOLS, start=2 * index)
        if (example := by_protocol.get(protocol)) is not None
    ]


def _priority(position: int, *, preferred: bool) -> int:
    local = max(0, _LOCAL_PREFERENCE - _STEP * position + (_PREFERRED if preferred else 0))
    return (_TYPE_PREFERENCE << 24) + (local << 8) + (256 - _COMPONENT)
