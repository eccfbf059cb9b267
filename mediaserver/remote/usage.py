"""What all workers of one token use here together, and whether they may have more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediaserver.wire.worker_tokens import WorkerClaims

if TYPE_CHECKING:
    from mediaserver.remote.tap import ChannelTap


class TokenUse:
    """The gate of every tap of one token; `taps` is kept by whoever makes and ends them."""

    def __init__(self, claims: WorkerClaims) -> None:
        self.claims = claims
        self.taps: dict[str, ChannelTap] = {}
        """By the worker's id."""

    def may_consume(self) -> str | None:
        """Why no consumer is added now; None: it may be."""
        bound = self.claims.consumers
        if bound is not None and sum(tap.consumers for tap in self.taps.values()) >= bound:
            return (
                f"the token's bound of {bound} consumers on one media server is reached; "
                "close consumers, or have a token with more (claim consumers)"
            )
        return self.may_produce()

    def may_produce(self) -> str | None:
        """Why no producer is added now; None: it may be."""
        bound = self.claims.bandwidth
        if bound is None:
            return None
        used = sum(tap.bitrate for tap in self.taps.values())
        if used < bound:
            return None
        return (
            f"the token's workers on this media server carry {used} bits a second, its bound is {bound}; "
            "close producers or consumers, or have a token with more (claim bandwidth)"
        )
