"""How long to wait before trying again: growing, with jitter, never less than what the far side asks."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from mafalda_operator.effects.errors import ApiRefused

FIRST = 0.5
LONGEST = 5.0
"""Seconds."""


@dataclass
class Backoff:
    """The pauses of one thing that fails; ``reset`` when it succeeds."""

    first: float = FIRST
    longest: float = LONGEST
    rng: random.Random = field(default_factory=random.Random)
    failures: int = 0

    def next(self, error: BaseException | None = None) -> float:
        """Seconds to wait now: half to all of a span that doubles up to ``longest``, at least ``first``."""
        span = min(self.longest, self.first * float(2 ** min(self.failures, 16)))
        self.failures += 1
        pause = max(self.first, span * self.rng.uniform(0.5, 1.0))
        asked = error.retry_after if isinstance(error, ApiRefused) else None
        return pause if asked is None else max(pause, asked)

    def reset(self) -> None:
        self.failures = 0
