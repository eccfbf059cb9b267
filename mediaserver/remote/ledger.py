"""What an application has in its worker, as the worker's own answers tell.

A change counts once the worker has accepted the request that asked for it: it answers in the order in which
it acts. Only consumers count from the moment they are asked for, lest many that are asked for at once pass
a bound together.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


class Kind(enum.Enum):
    WEBRTC_SERVER = enum.auto()
    ROUTER = enum.auto()
    TRANSPORT = enum.auto()
    PIPE_TRANSPORT = enum.auto()
    DIRECT_TRANSPORT = enum.auto()
    PRODUCER = enum.auto()
    CONSUMER = enum.auto()


_WITH_SOCKETS = (Kind.TRANSPORT, Kind.PIPE_TRANSPORT)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A request that makes something, which ends with the first of its owners to end."""

    kind: Kind
    id: str
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Closing:
    """A request that ends something."""

    id: str


Change = Opening | Closing


@dataclass
class _Entry:
    opening: Opening
    dependants: dict[str, None] = field(default_factory=dict)


class Ledger:
    """Ids are unique in a worker, whatever they name: its channel finds things by them."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._counts: Counter[Kind] = Counter()
        self._asked = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def consumers(self) -> int:
        """Those that are open and those that the worker has been asked for."""
        return self._counts[Kind.CONSUMER] + self._asked

    @property
    def transports(self) -> int:
        return sum(self._counts[kind] for kind in (*_WITH_SOCKETS, Kind.DIRECT_TRANSPORT))

    @property
    def pipes(self) -> int:
        """Pipe transports, each of which has a port."""
        return self._counts[Kind.PIPE_TRANSPORT]

    @property
    def producers(self) -> int:
        return self._counts[Kind.PRODUCER]

    def network_transports(self) -> Iterator[str]:
        """The ids of the transports that have sockets."""
        if any(self._counts[kind] for kind in _WITH_SOCKETS):
            for ident, entry in self._entries.items():
                if entry.opening.kind in _WITH_SOCKETS:
                    yield ident

    def ask(self, change: Change) -> None:
        """The worker has been asked; exactly one `answer` follows."""
        if isinstance(change, Opening) and change.kind is Kind.CONSUMER:
            self._asked += 1

    def answer(self, change: Change, accepted: bool) -> None:
        """The worker has answered what it was asked."""
        if isinstance(change, Closing):
            if accepted:
                self._close(change.id)
            return
        if change.kind is Kind.CONSUMER:
            self._asked -= 1
        if accepted:
            self._open(change)

    def _open(self, opening: Opening) -> None:
        owners = [self._entries.get(owner) for owner in opening.owners]
        if opening.id in self._entries or None in owners:
            return  # no worker accepts this
        self._entries[opening.id] = _Entry(opening)
        self._counts[opening.kind] += 1
        for owner in owners:
            if owner is not None:
                owner.dependants[opening.id] = None

    def _close(self, ident: str) -> None:
        entry = self._entries.pop(ident, None)
        if entry is None:
            return
        self._counts[entry.opening.kind] -= 1
        for owner in entry.opening.owners:
            if owner in self._entries:
                self._entries[owner].dependants.pop(ident, None)
        for dependant in list(entry.dependants):
            self._close(dependant)
