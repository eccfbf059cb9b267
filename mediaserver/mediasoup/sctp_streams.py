"""Which streams of a transport's SCTP association are taken by its data consumers."""

from __future__ import annotations

from typing import Final

from .errors import InvalidStateError

MAX_STREAMS: Final = 65_535
"""Streams of an association (RFC 8832: the id 65535 is not used)."""


class SctpStreams:
    """Hands out stream ids, in turn, so that a freed one is used again as late as possible."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._next = 0
        self.limit: int | None = None
        """Streams that the endpoint agreed to; None before the association is up."""

    def take(self) -> int:
        """A free id. Raises InvalidStateError when there is none."""
        if len(self._taken) >= MAX_STREAMS:
            raise InvalidStateError(f"all {MAX_STREAMS} SCTP streams of the transport are taken")
        if self.limit is not None and self._next + 1 > self.limit:
            self._next = 0
        number = self._next % MAX_STREAMS
        while number in self._taken:
            number = (number + 1) % MAX_STREAMS
        self._taken.add(number)
        self._next = number + 1
        return number

    def release(self, number: int) -> None:
        self._taken.discard(number)
