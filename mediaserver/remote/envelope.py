"""The outer part of the channel's messages: cutting them from a stream, and what each is about.

A message's number and method are wherever its offsets and vtables say. `Layouts` remembers for each way of
laying them out which bytes say it, so that looking at a message is comparing these bytes. Nothing is guessed:
with all of them equal a reader ends up at the same places, whoever wrote the message.

The worker reads without looking at bounds, so a message that would make it read outside of it is none.
Positions count from the size prefix.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from mediaserver.mediasoup import flatbuffer
from mediaserver.mediasoup._fbs import log, message, notification, request, response
from mediaserver.mediasoup.flatbuffer import READ_ERRORS, U16, U32, Table
from mediaserver.mediasoup.messages import MAX_MESSAGE

REQUEST, RESPONSE, NOTIFICATION, LOG = (
    message.Body_TYPES[kind]
    for kind in (request.Request, response.Response, notification.Notification, log.Log)
)
SMALLEST: Final = 8
LARGEST: Final = MAX_MESSAGE - 4
"""Bytes of a message without its size prefix."""
_FIELDS: Final = {REQUEST: (4, 1, 4, 1, 4), RESPONSE: (4, 1, 1, 4, 4), NOTIFICATION: (4, 1, 1, 4), LOG: (4,)}
"""The sizes of their fields."""
KEY_END: Final = 40
"""A message's bytes from 4 to here choose the layout to compare it with. In front of them other writers put
offsets and vtables; numbers and methods come later."""
_MOST_LAYOUTS: Final = 256
_PREFIX: Final = 4
_I32: Final = Struct("<i")


class TapError(Exception):
    """A stream that is not the channel's: the worker must not see it, or the application can't."""


class Tail:
    """The incomplete message at the end of what has come so far."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._needed = 0

    def join(self, data: bytes) -> bytes:
        """What is to be looked at now, beginning with a message: empty until there is a whole one."""
        if not self._parts:
            return data
        self._parts.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return b""
        data = b"".join(self._parts)
        self._parts = []
        return data

    def keep(self, rest: bytes) -> None:
        """Holds the beginning of a message back. Its size, if it is there, has been checked."""
        self._parts = [rest]
        self._size = len(rest)
        self._needed = 4 + U32.unpack_from(rest)[0] if len(rest) >= 4 else 4


def check_size(size: int) -> None:
    """Raises TapError for a size prefix that no message has."""
    if not SMALLEST <= size <= LARGEST:
        raise TapError(f"a size prefix says {size} bytes")


class Layout:
    """Where a message's fields are, and the bytes that say so."""

    __slots__ = ("at", "expected", "extent", "first_at", "kind", "read", "second_at")

    def __init__(self, data: bytes) -> None:
        """Raises one of READ_ERRORS for a message that leads out of itself."""
        read = _Reader(data)
        root = read.offset(_PREFIX)
        kind_at, data_at = read.fields(root, 2)
        if not kind_at or not data_at:
            raise ValueError("a message without data")
        self.kind = read.byte(root + kind_at)
        sizes = _FIELDS.get(self.kind)
        if sizes is None:
            raise ValueError(f"a message of kind {self.kind}")
        table = read.offset(root + data_at)
        self.at = tuple(table + at if at else 0 for at in read.fields(table, len(sizes)))
        """Of each field of the request, answer or the like, 0 if it is absent."""
        runs = read.runs(KEY_END)
        ends = [at + size for at, size in zip(self.at, sizes, strict=True) if at]
        ends += [stop for _, stop in runs]
        if max(ends, default=0) > len(data):
            raise ValueError("a field lies outside of its message")
        self.extent = max([*ends, KEY_END]) - _PREFIX
        """The smallest size that a message laid out like this has."""
        layout, position = "<", 0
        for start, stop in runs:
            layout += f"{start - position}x{stop - start}s"
            position = stop
        self.read = Struct(layout).unpack_from if runs else None
        """Reads what else says so from a message at a position, to be compared with `expected`."""
        self.expected = tuple(data[start:stop] for start, stop in runs)
        self.first_at = self.at[0]
        """Of the number, in requests and answers."""
        self.second_at = self.at[1] if len(sizes) > 1 else 0
        """Of the method, of whether a request was accepted, or of the event; absent: it is 0."""

    @property
    def common(self) -> bool:
        """Whether others may have the same key: it holds neither number nor method."""
        return self.first_at >= KEY_END and (not self.second_at or self.second_at >= KEY_END)


class _Reader:
    """Reads a message and keeps note of the bytes that it went by."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._seen: list[tuple[int, int]] = []

    def _note(self, start: int, size: int) -> int:
        if start < _PREFIX or start + size > len(self._data):
            raise ValueError(f"an offset leads to {start}, outside of its message")
        self._seen.append((start, start + size))
        return start

    def byte(self, at: int) -> int:
        return self._data[self._note(at, 1)]

    def offset(self, at: int) -> int:
        return at + int(U32.unpack_from(self._data, self._note(at, 4))[0])

    def fields(self, pos: int, count: int) -> list[int]:
        vtable: int = pos - _I32.unpack_from(self._data, self._note(pos, 4))[0]
        size: int = U16.unpack_from(self._data, self._note(vtable, 2))[0]
        if size < 4 or size & 1:
            raise ValueError(f"a vtable has {size} bytes")
        have = min(count, (size - 4) >> 1)
        self._note(vtable + 4, 2 * have)
        return [U16.unpack_from(self._data, vtable + 4 + 2 * n)[0] if n < have else 0 for n in range(count)]

    def runs(self, known: int) -> list[tuple[int, int]]:
        """The noted bytes from `known` on, as disjoint ranges in order."""
        runs: list[tuple[int, int]] = []
        for start, stop in sorted((max(start, known), stop) for start, stop in self._seen if stop > known):
            if runs and start <= runs[-1][1]:
                runs[-1] = runs[-1][0], max(stop, runs[-1][1])
            else:
                runs.append((start, stop))
        return runs


class Layouts(dict[bytes, Layout]):
    """The layouts seen, by the messages' bytes from 4 to KEY_END."""

    def learn(self, data: bytes, start: int, stop: int) -> Layout:
        """The layout of the message between these positions. Raises TapError."""
        whole = data[start:stop]
        try:
            layout = Layout(whole)
        except READ_ERRORS as problem:
            raise TapError(f"a message of {len(whole)} bytes: {problem}") from problem
        if len(whole) >= KEY_END and layout.common:
            if len(self) >= _MOST_LAYOUTS:
                self.clear()
            self[whole[_PREFIX:KEY_END]] = layout
        return layout


def fields(data: bytes, pos: int, count: int) -> tuple[int, ...]:
    """Where the fields of the table at `pos` are, as the worker reads it, 0 where absent.

    Raises one of READ_ERRORS; so does what takes a vtable for shorter than the worker does.
    """
    vtable: int = pos - _I32.unpack_from(data, pos)[0]
    if vtable < _PREFIX or U16.unpack_from(data, vtable)[0] & 1:
        raise ValueError(f"the table at {pos} has no vtable")
    return flatbuffer.fields(data, pos, count)


def encode(body: Table) -> bytes:
    """A message, size prefix included."""
    out = bytearray(2 * _PREFIX)
    flatbuffer.link(out, _PREFIX, message.Message(data=body).write(out))
    flatbuffer.align(out, 8)
    U32.pack_into(out, 0, len(out) - _PREFIX)
    return bytes(out)


__all__ = [
    "LOG",
    "NOTIFICATION",
    "READ_ERRORS",
    "REQUEST",
    "RESPONSE",
    "Layout",
    "Layouts",
    "Tail",
    "TapError",
    "check_size",
    "encode",
    "fields",
]
