"""What is sent on data channels: text or bytes, and the SCTP payload protocol id that tells which."""

from __future__ import annotations

from typing import Final

from .errors import InvalidArgumentError
from .node import check_payload

PPID_STRING: Final = 51
PPID_BINARY: Final = 53
PPID_STRING_EMPTY: Final = 56
PPID_BINARY_EMPTY: Final = 57
_UINT16: Final = range(2**16)
_UINT32: Final = range(2**32)


def encode_data(message: str | bytes, ppid: int | None) -> tuple[bytes, int]:
    """The payload and its id (RFC 8831, 8): SCTP has no empty messages, so an empty one is one byte.

    Raises InvalidArgumentError for a ppid outside 32 bits, and for more bytes than a message to the worker
    holds.
    """
    text = isinstance(message, str)
    data = message.encode() if isinstance(message, str) else bytes(message)
    if ppid is None:
        ppid = (
            (PPID_STRING if data else PPID_STRING_EMPTY)
            if text
            else PPID_BINARY
            if data
            else PPID_BINARY_EMPTY
        )
    elif ppid not in _UINT32:
        raise InvalidArgumentError(f"ppid is {ppid}; it must have 32 bits")
    if ppid == PPID_STRING_EMPTY:
        data = b" "
    elif ppid == PPID_BINARY_EMPTY:
        data = b"\0"
    check_payload(data)
    return data, ppid


def check_subchannels(*subchannels: int | None) -> None:
    """Raises InvalidArgumentError for a subchannel outside 0 to 65535."""
    for subchannel in subchannels:
        if subchannel is not None and subchannel not in _UINT16:
            raise InvalidArgumentError(f"subchannel is {subchannel}; it must be from 0 to 65535")
