"""What addresses and ports the transports of applications' workers get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TenantPolicy:
    """Set by the server's operator (and `pipe_srtp` by the token). Port ranges are (first, last)."""

    addresses: Literal["Rewrite", "RewritePipes", "Keep"]
    """What is put right: everything, only pipe transports, or nothing at all. What is kept binds whatever
    the application asks for, so the other two are for applications that are trusted with this host."""
    client_host: str
    """The address that WebRTC and plain transports and WebRtcServers listen on."""
    announced_address: str | None
    """What they are reached at, where that is another one."""
    client_ports: tuple[int, int]
    pipe_host: str
    """The address that pipe transports listen on, and are reached at."""
    pipe_ports: tuple[int, int]
    pipe_srtp: Literal["Auto", "Never"]
    """Auto: on for every pipe transport that asks for 127.0.0.1 or ::1, as pipeToRouter does."""
