"""SIGTERM and SIGINT: the first asks to stop, the second to stop at once."""

from __future__ import annotations

import asyncio
import signal
from types import TracebackType

import structlog

from mediaserver.wire.stop_signals import STOP_SIGNALS, take_stop_signals

log = structlog.get_logger(__name__)


class StopRequests:
    """Counts the stop signals of this process while entered as a context."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """The first signal came."""
        self.insisted = asyncio.Event()
        """A second one came."""

    def request(self, number: signal.Signals) -> None:
        """What a signal does."""
        if self.asked.is_set():
            self.insisted.set()
        self.asked.set()
        log.info("asked to stop", signal=number.name, at_once=self.insisted.is_set())

    def __enter__(self) -> StopRequests:
        take_stop_signals(self.request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
