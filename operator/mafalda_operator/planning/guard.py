"""Which applies are withheld: those that would close many live routers without anybody having asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mafalda_operator.model import ObjectKey

ALWAYS_ALLOWED = 3
"""Routers that one apply may close on a server without confirmation."""

ALLOWED_SHARE = 0.2
"""… or this share of the server's live routers, when that is more."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """``ApplyWithheld``: the server, what it would lose, and what to look at."""

    server: ObjectKey
    closing: tuple[str, ...]
    live: int
    message: str


def check_apply(
    server: ObjectKey, live: Collection[str], desired: Iterable[str], confirmed: Collection[str]
) -> Withheld | None:
    """Judge an apply by the router keys that are live on a server, those desired afterwards, and those whose
    deletion (or move) a fresh read of the API server has confirmed. None: it may go out."""
    wanted = set(desired)
    closing = tuple(sorted(key for key in live if key not in wanted and key not in confirmed))
    allowed = max(ALWAYS_ALLOWED, int(len(live) * ALLOWED_SHARE))
    if len(closing) <= allowed:
        return None
    return Withheld(
        server=server,
        closing=closing,
        live=len(live),
        message=(
            f"would close {len(closing)} of {len(live)} live routers of {server} without confirmed deletion "
            f"(at most {allowed} go unconfirmed); check that the API server lists all MediaRouters"
        ),
    )
