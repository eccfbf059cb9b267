"""How the suite is run."""

from __future__ import annotations

from dataclasses import dataclass

ADDRESSES = ("Keep", "RewritePipes", "Rewrite")
"""What the media server does with the addresses that an application asks for (--tenant-addresses)."""


@dataclass(frozen=True)
class Mode:
    """Where the workers run; without ``addresses``: as the suite's own children, with no tunnel."""

    addresses: str | None = None
    netns: bool = False
    """The media server is in a network namespace of its own; the gateway and the suite are in ours."""

    @property
    def name(self) -> str:
        """As expected.toml says it."""
        if self.addresses is None:
            return "direct"
        return f"{'netns' if self.netns else 'here'}-{self.addresses}"


MODES = (Mode(), *(Mode(addresses, netns) for netns in (False, True) for addresses in ADDRESSES))
