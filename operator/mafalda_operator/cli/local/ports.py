"""Free ports for listeners that live long.

Linux hands out 32768-60999 as local ports of outgoing connections, so a listener up there can be robbed of
its port between two starts. What is found here lies below. Finding and binding are two steps: another process
may come in between, so who binds must be ready to pick again.
"""

import random
import socket
from collections.abc import Collection, Sequence
from typing import Literal

from mafalda_operator.cli.local.errors import NoFreePortsError

Protocol = Literal["tcp", "udp"]
LOWEST = 12000
HIGHEST = 32767
BOTH: tuple[Protocol, ...] = ("tcp", "udp")
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def is_free(port: int, *, host: str = "127.0.0.1", protocols: Sequence[Protocol] = ("tcp",)) -> bool:
    """Whether `port` of `host` (an IP address) can be bound now, for all of `protocols`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for protocol in protocols:
        with socket.socket(family, _KINDS[protocol]) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


class PortPicker:
    """Picks ports and never gives the same one twice, so that several can be picked before the first is
    bound.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", avoid: Collection[int] = (), rng: random.Random | None = None
    ):
        self._host = host
        self._given = set(avoid)
        self._rng = rng or random.Random()

    def port(self, *, protocols: Sequence[Protocol] = ("tcp",)) -> int:
        """One port from LOWEST to HIGHEST that is free for all of `protocols`. Raises NoFreePortsError."""
        return self.range(1, protocols=protocols).start

    def range(self, count: int, *, protocols: Sequence[Protocol] = BOTH) -> range:
        """`count` consecutive ports, each free for all of `protocols`. Raises NoFreePortsError.

        The search starts at a random place, so that processes that search at the same time rarely meet.
        """
        if count < 1:
            raise ValueError(f"count is {count}, but at least one port must be asked for")
        total = HIGHEST - LOWEST + 1
        first = self._rng.randrange(total)
        offset = 0
        while offset < total:
            start = LOWEST + (first + offset) % total
            free = self._free_run(start, count, protocols)
            if free == count:
                found = range(start, start + count)
                self._given.update(found)
                return found
            offset += free + 1
        raise NoFreePortsError(
            f"no {count} consecutive free {'/'.join(protocols)} ports on {self._host} "
            f"from {LOWEST} to {HIGHEST}; end what holds them"
        )

    def _free_run(self, start: int, count: int, protocols: Sequence[Protocol]) -> int:
        """How many ports from `start` on are usable, up to `count`."""
        for length in range(count):
            port = start + length
            if (
                port > HIGHEST
                or port in self._given
                or not is_free(port, host=self._host, protocols=protocols)
            ):
                return length
        return count


def find_free_port(*, host: str = "127.0.0.1", protocols: Sequence[Protocol] = ("tcp",)) -> int:
    """One free port; for several at once use a PortPicker. Raises NoFreePortsError."""
    return PortPicker(host=host).port(protocols=protocols)


def find_free_range(count: int, *, host: str = "127.0.0.1", protocols: Sequence[Protocol] = BOTH) -> range:
    """`count` consecutive free ports; for several ranges use a PortPicker. Raises NoFreePortsError."""
    return PortPicker(host=host).range(count, protocols=protocols)
