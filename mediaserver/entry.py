"""Where the program `mafalda-mediaserver` begins: it can be told to end before all of it is loaded.

The kernel keeps from a container's first process every signal that it has no handler for, so a SIGTERM during
the seconds that imports take on a busy node would be lost, and the pod be there for all of its grace period.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """`mediaserver.__main__.main`, which takes the signal over once it runs."""
    signal.signal(signal.SIGTERM, _end)
    from mediaserver.__main__ import main as run

    run()


def _end(*_: object) -> None:
    sys.exit(0)
