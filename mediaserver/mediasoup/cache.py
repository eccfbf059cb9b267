"""Results of pure functions, kept by what their arguments contain.

The same few sets of capabilities come again with every endpoint of a session, mostly as equal but distinct
objects. To encode them (C code) and look the result up takes a tenth of the time of working it out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

T = TypeVar("T")

_LONGEST_KEY: Final = 32 * 1024
"""Larger arguments are not kept, so that an endpoint can't fill the memory with its capabilities."""
_encode: Final = msgspec.msgpack.Encoder().encode


class ContentCache(Generic[T]):
    """At most `size` results; the oldest goes first. Results are shared, so they must not be changed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._results: dict[bytes, T] = {}

    def get(self, arguments: object, make: Callable[[], T]) -> T:
        """What `make` returned for equal arguments, or returns now. What it raises is not kept."""
        try:
            key = _encode(arguments)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return make()  # no data; `make` says what is wrong with it
        result = self._results.get(key)
        if result is not None:
            return result
        result = make()
        if len(key) <= _LONGEST_KEY:
            if len(self._results) >= self._size:
                self._results.pop(next(iter(self._results)), None)
            self._results[key] = result
        return result
