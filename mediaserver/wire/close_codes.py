"""WebSocket close codes that a participant's client acts on (docs: signalling).

protoo-client dials again after every code but ENDED. The reason text says why, in a word or two.
"""

from __future__ import annotations

ENDED = 4000
"""Do not dial again: the session ended, the participant was replaced or kicked, the token is refused."""

DIAL_AGAIN = 4001
"""Dial again now: the media server was lost or drains; the next dial lands elsewhere."""

DIAL_LATER = 4002
"""Dial again after a pause: no router has room, or the gateway stops."""

MAX_REASON_BYTES = 123
"""RFC 6455 section 5.5: a control frame carries at most 125 bytes, two of them the code."""


def clip_reason(reason: str) -> bytes:
    """``reason`` as a close frame can carry it: UTF-8, cut at a character's end."""
    return reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore").encode()
