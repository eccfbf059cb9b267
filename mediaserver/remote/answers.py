"""What a tap reads in the worker's answers, and puts right there."""

from __future__ import annotations

from struct import Struct
from typing import Final

from mediaserver.mediasoup import flatbuffer
from mediaserver.mediasoup._fbs import pipe_transport, plain_transport, response, web_rtc_transport, worker
from mediaserver.mediasoup.flatbuffer import U32
from mediaserver.remote.envelope import Layout, fields

_U64: Final = Struct("<Q")
_DUMP: Final = frozenset((response.Body_TYPES[worker.DumpResponse],))
_STATS: Final = frozenset(
    response.Body_TYPES[module.GetStatsResponse]
    for module in (web_rtc_transport, plain_transport, pipe_transport)
)
_RECV_BITRATE, _SEND_BITRATE = 4, 6
"""Fields of Transport.Stats."""


def accepted(message: bytes, layout: Layout) -> bool:
    return bool(layout.second_at and message[layout.second_at])


def pid_at(message: bytes, layout: Layout) -> int:
    """Where a worker's dump has its pid; 0 if this is none. Raises one of READ_ERRORS."""
    body = _body(message, layout, _DUMP)
    at = fields(message, body, 1)[0] if body else 0
    if not at:
        return 0
    U32.unpack_from(message, body + at)
    return body + at


def bitrate(message: bytes, layout: Layout) -> int:
    """Bits a second that a transport sends and receives by its stats; 0 if it has none any more.

    Raises one of READ_ERRORS.
    """
    body = _body(message, layout, _STATS)
    if not body:
        return 0
    base_at = fields(message, body, 1)[0] or flatbuffer.missing("base")
    base = flatbuffer.follow(message, body + base_at)
    found = fields(message, base, _SEND_BITRATE + 1)
    return sum(
        _U64.unpack_from(message, base + found[n])[0] for n in (_RECV_BITRATE, _SEND_BITRATE) if found[n]
    )


def _body(message: bytes, layout: Layout, kinds: frozenset[int]) -> int:
    """Where an answer's body is; 0 if it has none of these kinds."""
    _, _, kind, body, _ = layout.at
    if not kind or not body or message[kind] not in kinds:
        return 0
    return flatbuffer.follow(message, body)
