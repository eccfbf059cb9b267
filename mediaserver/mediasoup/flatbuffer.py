"""The part of the FlatBuffers encoding that the generated tables in `_fbs` are written with.

Source: https://flatbuffers.dev/internals/. Two things make it faster than the flatbuffers package:
a buffer grows forwards (parent first, offsets patched in), so that a table is one `struct.pack` after
its constant vtable; and a table is read in one pass into a msgspec struct. Alignment counts from the
size prefix, as in every finished size-prefixed buffer.

Reading never looks outside the buffer: what points outside raises struct.error, ValueError or
UnicodeDecodeError (`READ_ERRORS`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct, error, pack
from typing import ClassVar, Final, NoReturn, Protocol, Self, TypeVar

import msgspec

READ_ERRORS: Final = (error, ValueError, LookupError, OverflowError, RecursionError)
"""What reading a malformed buffer raises (KeyError for a union's unknown type)."""

U8: Final = Struct("<B")
U16: Final = Struct("<H")
U32: Final = Struct("<I")
I32: Final = Struct("<i")
# Bound once: these run several times for every message.
_read_u16, _read_u32, _read_i32 = U16.unpack_from, U32.unpack_from, I32.unpack_from
_read_vtable: Final = tuple(Struct(f"<{n}H").unpack_from for n in range(64))
_PAD: Final = tuple(bytes(n) for n in range(8))
NO_FIELD: Final = b"\0\0"


class Table(msgspec.Struct, kw_only=True):
    """Base of the generated tables."""

    FIELDS: ClassVar[int] = 0

    def write(self, b: bytearray) -> int:
        """Appends the table and what it refers to; returns the table's position."""
        raise NotImplementedError

    @classmethod
    def read(cls, b: bytes, pos: int) -> Self:
        """The table at `pos`. Raises one of READ_ERRORS when the buffer is malformed."""
        raise NotImplementedError


class _Readable(Protocol):
    @classmethod
    def read(cls, b: bytes, pos: int) -> Self: ...


R = TypeVar("R", bound=_Readable)
B = TypeVar("B", bound=Table)


def align(b: bytearray, size: int) -> None:
    """Pads the buffer to a multiple of `size` (a power of two, at most 8)."""
    b += _PAD[-len(b) & (size - 1)]


def write_string(b: bytearray, value: str) -> int:
    """Appends a string; returns its position."""
    align(b, 4)
    pos = len(b)
    data = value.encode()
    b += U32.pack(len(data))
    b += data
    b += b"\0"
    return pos


def write_bytes(b: bytearray, value: bytes) -> int:
    """Appends a vector of bytes; returns its position."""
    align(b, 4)
    pos = len(b)
    b += U32.pack(len(value))
    b += value
    return pos


def write_scalars(b: bytearray, kind: str, values: Sequence[int]) -> int:
    """Appends a vector of numbers of the struct format `kind`; returns its position."""
    align(b, 4)
    pos = len(b)
    b += pack(f"<I{len(values)}{kind}", len(values), *values)
    return pos


def _write_vector(b: bytearray, count: int) -> int:
    align(b, 4)
    pos = len(b)
    b += U32.pack(count)
    b += bytes(4 * count)
    return pos


def write_strings(b: bytearray, values: Sequence[str]) -> int:
    """Appends a vector of strings; returns its position."""
    pos = _write_vector(b, len(values))
    for slot, value in enumerate(values):
        link(b, pos + 4 + 4 * slot, write_string(b, value))
    return pos


class PackedTables(list[B]):
    """Tables that have been written before: appending them to a message is a copy. Not to be changed."""

    __slots__ = ("packed",)

    def __init__(self, tables: Iterable[B]) -> None:
        super().__init__(tables)
        out = bytearray()
        write_tables(out, list(self))
        self.packed = bytes(out)


def write_tables(b: bytearray, values: Sequence[Table]) -> int:
    """Appends a vector of tables; returns its position."""
    if type(values) is PackedTables:
        align(b, 8)
        pos = len(b)
        b += values.packed
        return pos
    pos = _write_vector(b, len(values))
    for slot, value in enumerate(values):
        link(b, pos + 4 + 4 * slot, value.write(b))
    return pos


def link(b: bytearray, at: int, target: int) -> None:
    """Makes the offset field at `at` point to `target`."""
    U32.pack_into(b, at, target - at)


def fields(b: bytes, pos: int, count: int) -> tuple[int, ...]:
    """Where the first `count` fields of the table at `pos` stand, relative to it; 0 where absent."""
    vtable: int = pos - _read_i32(b, pos)[0]
    if vtable < 0:
        raise ValueError(f"vtable of the table at {pos} lies before the buffer")
    have = (_read_u16(b, vtable)[0] - 4) >> 1
    if have < 0:
        raise ValueError(f"vtable at {vtable} is too short")
    found: tuple[int, ...] = _read_vtable[min(have, count)](b, vtable + 4)
    return found if have >= count else found + (0,) * (count - have)


def follow(b: bytes, at: int) -> int:
    """The position that the offset field at `at` points to."""
    offset: int = _read_u32(b, at)[0]
    if offset == 0:
        raise ValueError(f"offset at {at} points to itself")
    return at + offset


def read_string(b: bytes, at: int) -> str:
    """The string that the offset field at `at` points to."""
    pos = follow(b, at)
    end = pos + 4 + _read_u32(b, pos)[0]
    if end > len(b):
        raise ValueError(f"string at {pos} ends outside the buffer")
    return str(b[pos + 4 : end], "utf-8")


def _vector(b: bytes, at: int, size: int) -> tuple[int, int]:
    pos = follow(b, at)
    count = int(U32.unpack_from(b, pos)[0])
    if pos + 4 + count * size > len(b):
        raise ValueError(f"vector at {pos} ends outside the buffer")
    return pos + 4, count


def read_bytes(b: bytes, at: int) -> bytes:
    """The vector of bytes that the offset field at `at` points to."""
    start, count = _vector(b, at, 1)
    return b[start : start + count]


def read_scalars(b: bytes, at: int, kind: str, size: int) -> list[int]:
    """The vector of numbers that the offset field at `at` points to."""
    start, count = _vector(b, at, size)
    return list(Struct(f"<{count}{kind}").unpack_from(b, start))


def read_strings(b: bytes, at: int) -> list[str]:
    """The vector of strings that the offset field at `at` points to."""
    start, count = _vector(b, at, 4)
    return [read_string(b, slot) for slot in range(start, start + 4 * count, 4)]


def read_tables(b: bytes, at: int, table: type[R]) -> list[R]:
    """The vector of tables that the offset field at `at` points to."""
    start, count = _vector(b, at, 4)
    return [table.read(b, follow(b, slot)) for slot in range(start, start + 4 * count, 4)]


def missing(name: str) -> NoReturn:
    """Raises the error for a required field that is absent."""
    raise ValueError(f"required field {name} is missing")


def unexpected(what: str, value: object) -> NoReturn:
    """Raises the error for a union that holds a table which makes no sense there."""
    raise ValueError(f"{what} has the unexpected type {type(value).__name__}")
