"""SIGTERM and SIGINT, as all our programs take them.

The first process of a container gets no signal that it has no handler for yet: one that comes while Python
still imports would be lost, and the pod hang for its whole grace period. So the command of our pods
(`env --block-signal=TERM …`) starts with SIGTERM blocked, which keeps it, and it is let in here.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def take_stop_signals(stop: Callable[[signal.Signals], None]) -> None:
    """Have the running loop call ``stop`` for each, from now on and for one that has waited."""
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
