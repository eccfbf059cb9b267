"""Records of an application that are not received yet, while it lags behind in reading its worker's."""

from __future__ import annotations

from collections import deque

_OVERHEAD = 64
"""Bytes that keeping a record costs besides."""


class Backlog:
    """In the order in which they came. What is not received is not acknowledged: the application's side holds
    back once enough waits here, and sends it again where the connection is lost."""

    def __init__(self) -> None:
        self.size = 0
        self._records: deque[bytes] = deque()

    def __bool__(self) -> bool:
        return bool(self._records)

    def add(self, record: bytes) -> None:
        self._records.append(record)
        self.size += len(record) + _OVERHEAD

    def take(self) -> bytes:
        """The oldest."""
        record = self._records.popleft()
        self.size -= len(record) + _OVERHEAD
        return record

    def clear(self) -> None:
        self._records.clear()
        self.size = 0
