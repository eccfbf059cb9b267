"""What a media server gives to applications' workers, and how long it waits for lost ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mediaserver.control.contract import TenantOffer
from mediaserver.remote.policy import TenantPolicy


@dataclass(frozen=True, kw_only=True)
class TenantSettings:
    """A media server without these runs no workers for applications."""

    policy: TenantPolicy
    """What addresses and ports their transports get."""
    binaries: Mapping[str, Path]
    """Workers by version."""
    cores: int
    """Of this server, which sessions and tenants share."""
    most_workers: int
    most_cores: float
    """While tenants use so many cores, no further worker is taken."""
    resume_timeout: float = 30.0
    """Seconds in which a lost connection may come back; then the worker ends."""
    buffer: int = 16 * 1024 * 1024
    """Bytes that wait for a lost connection at most; with more the worker ends."""
    heartbeat: float = 2.0
    """Seconds after which a side that has nothing to say says so."""
    silence: float = 6.0
    """Seconds without a word after which a connection counts as lost."""

    @property
    def offer(self) -> TenantOffer:
        """What the server's hello says of it."""
        return TenantOffer(versions=sorted(self.binaries), cores=self.cores)
