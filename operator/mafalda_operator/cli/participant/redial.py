"""When to dial again after a socket closed: the close-code rules of docs/signalling, without I/O."""

from __future__ import annotations

from dataclasses import dataclass

from mediaserver.wire.close_codes import DIAL_AGAIN, DIAL_LATER, ENDED


@dataclass(frozen=True)
class Backoff:
    """Pauses in seconds: `first` before the second try, doubling up to `longest`."""

    first: float
    longest: float
    at_once: bool = False
    """Whether the first try needs no pause at all."""

    def pause(self, attempt: int) -> float:
        """Before try number `attempt`, counted from 0 since the last successful join."""
        if self.at_once:
            if attempt == 0:
                return 0.0
            attempt -= 1
        return min(self.longest, self.first * 2.0 ** min(attempt, 16))


AGAIN = Backoff(first=0.1, longest=1.0, at_once=True)
LATER = Backoff(first=1.0, longest=8.0)
LOST = Backoff(first=0.2, longest=2.0)
JITTER = 0.25
"""Part of a pause that is left to chance, so that many participants do not dial in step."""


def pause_before_dial(code: int | None, attempt: int, chance: float) -> float | None:
    """Seconds until the next dial, None for never. `code` is None when there was no close frame.

    `chance` is from 0 to 1 and spreads the pause.
    """
    if code == ENDED:
        return None
    backoff = {DIAL_AGAIN: AGAIN, DIAL_LATER: LATER}.get(code or 0, LOST)
    return backoff.pause(attempt) * (1 - JITTER * chance)
