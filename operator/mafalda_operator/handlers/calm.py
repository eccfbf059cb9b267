"""Keeps kopf from logging every attempt of every watch while the API server is away."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

REPEAT_SECONDS = 60.0
"""The same trouble with the same path is told once in so long."""

_ATTEMPT = re.compile(r"Request attempt \S+ (failed; [^:]+): \S+ ([^\s?]+)")


class Calm(logging.Filter):
    """Lets everything pass but what repeats; a failed attempt is a warning, since it is made again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        found = _ATTEMPT.match(record.getMessage())
        if found is None:
            return True
        path, now = found[2], self._clock()
        if now - self._told.get(path, float("-inf")) < REPEAT_SECONDS:
            return False
        self._told[path] = now
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def calm(logger: str = "kopf._cogs.clients.watching") -> None:
    """Put the filter in, once."""
    target = logging.getLogger(logger)
    if not any(isinstance(one, Calm) for one in target.filters):
        target.addFilter(Calm())
