"""Which of the servers' addresses for media a participant has reached, over all attachments."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DIAL_SECONDS = 2.0


@dataclass(frozen=True, order=True)
class MediaAddress:
    """A candidate that a server announced."""

    host: str
    port: int
    protocol: str
    """udp or tcp."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Reachability:
    """What media transports were told of, and whether any of it answered."""

    def __init__(self) -> None:
        self._tried: set[MediaAddress] = set()
        self._reached: set[MediaAddress] = set()

    def tried(self, candidates: Iterable[Mapping[str, Any]]) -> None:
        """A transport dials these."""
        self._tried |= _parsed(candidates)

    def reached(self, candidates: Iterable[Mapping[str, Any]]) -> None:
        """A transport is connected to one of these, so none of them is suspected."""
        self._reached |= _parsed(candidates)

    @property
    def silent(self) -> tuple[MediaAddress, ...]:
        """Those of transports that never were connected."""
        return tuple(sorted(self._tried - self._reached))


def _parsed(candidates: Iterable[Mapping[str, Any]]) -> set[MediaAddress]:
    return {
        MediaAddress(str(one.get("address") or one["ip"]), int(one["port"]), str(one["protocol"]).lower())
        for one in candidates
    }


async def dial(address: MediaAddress) -> str:
    """Why nobody listens there by TCP as far as can be seen from here; empty: somebody does."""
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError:
        return f"no answer within {DIAL_SECONDS:g} s"
    except OSError as error:
        return str(error.strerror or error)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


async def describe(silent: Iterable[MediaAddress]) -> str:
    """What cannot be reached and how that is known, for people; empty if there is nothing to tell.

    UDP that did not carry the participants' own media is not asked again.
    """
    by_port: dict[str, dict[str, MediaAddress]] = {}
    for address in silent:
        by_port.setdefault(str(address), {})[address.protocol] = address
    found = []
    for where, protocols in sorted(by_port.items()):
        words = ["UDP does not answer"] if "udp" in protocols else []
        if "tcp" in protocols:
            fault = await dial(protocols["tcp"])
            words.append(f"TCP cannot be dialled ({fault})" if fault else "TCP answers")
        found.append(f"{where}: {', '.join(words)}")
    return "; ".join(found)
