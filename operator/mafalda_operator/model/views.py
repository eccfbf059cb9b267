"""What the operator knows from outside the API server's custom resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mafalda_operator.model.keys import ObjectKey
from mediaserver.control.contract import (
    LEAVING_KEY,
    LeavingState,
    LinkState,
    Load,
    PeerAge,
    ReportedEntry,
    RouterState,
    ServerHello,
    WorkerState,
)
from mediaserver.wire.worker_tokens import REVOKED, read_revoked


@dataclass(frozen=True, slots=True)
class ConnectionProblem:
    """Why a server isn't connected.

    ``reason`` is one word (Refused, Timeout, Garbage, VersionSkew, OtherCluster, BadProof, …); ``message``
    names the address and the remedy, and holds no figure that changes with each attempt.
    """

    reason: str
    message: str


class Reported:
    """A server's reported map, by kind, with an index by session. Its owner changes it, planners only read.

    Kept as last heard while the server is not connected; the next connection's first report replaces it.
    """

    def __init__(self) -> None:
        self.workers: dict[int, WorkerState] = {}
        self.routers: dict[str, RouterState] = {}
        self.links: dict[str, LinkState] = {}
        self.routers_by_session: dict[str, dict[str, RouterState]] = {}
        self.leaving: LeavingState | None = None
        """The server was told to end, and says so."""
        self._slots: dict[str, int] = {}

    def put(self, key: str, entry: ReportedEntry) -> None:
        """Set the entry of a replica key (router/…, link/…, worker/…)."""
        self.discard(key)
        if isinstance(entry, WorkerState):
            self.workers[entry.slot] = entry
            self._slots[key] = entry.slot
        elif isinstance(entry, RouterState):
            self.routers[key] = entry
            self.routers_by_session.setdefault(entry.session_uid, {})[key] = entry
        elif isinstance(entry, LeavingState):
            self.leaving = entry
        else:
            self.links[key] = entry

    def discard(self, key: str) -> None:
        slot = self._slots.pop(key, None)
        if slot is not None:
            self.workers.pop(slot, None)
        if key == LEAVING_KEY:
            self.leaving = None
        self.links.pop(key, None)
        router = self.routers.pop(key, None)
        if router is not None:
            of_session = self.routers_by_session[router.session_uid]
            del of_session[key]
            if not of_session:
                del self.routers_by_session[router.session_uid]

    def replace(self, entries: Mapping[str, ReportedEntry]) -> None:
        """Hold exactly these entries."""
        for held in (self.workers, self.routers, self.links, self.routers_by_session, self._slots):
            held.clear()
        self.leaving = None
        for key, entry in entries.items():
            self.put(key, entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """A media server as seen over its control link. Times are monotonic seconds of this process."""

    key: ObjectKey
    connected: bool = False
    """The control link is up and greeted."""
    last_heard: float | None = None
    """When anything was last received over a greeted connection; None: never under this leadership."""
    hello: ServerHello | None = None
    """Of the present or the last connection."""
    problem: ConnectionProblem | None = None
    """Why it isn't connected, once a dial has failed; None while connected or while the first dial runs."""
    reported: Reported = field(default_factory=Reported)
    report_received: bool = False
    """The present connection has delivered its first whole report."""
    load: Load | None = None
    load_at: float | None = None
    """When ``load`` arrived; None: never under this leadership."""

    @property
    def instance_id(self) -> str:
        return self.hello.instance_id if self.hello else ""

    @property
    def workers(self) -> Mapping[int, WorkerState]:
        """By slot: as reported, before the first report as greeted."""
        if self.reported.workers or self.hello is None:
            return self.reported.workers
        return {worker.slot: worker for worker in self.hello.workers}

    @property
    def routers(self) -> Mapping[str, RouterState]:
        """By contract.router_key."""
        return self.reported.routers

    @property
    def links(self) -> Mapping[str, LinkState]:
        """By contract.link_key."""
        return self.reported.links

    @property
    def peers(self) -> Mapping[str, PeerAge]:
        """What this server says of others, by `namespace/name`."""
        return {peer.server: peer for peer in self.load.peers} if self.load else {}


@dataclass(frozen=True, slots=True)
class NamespaceInfo:
    labels: Mapping[str, str]
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class KeySecret:
    """What the Secret of a key set holds: key id to key. ``exists`` is False when there is no such Secret."""

    keys: Mapping[str, bytes] = field(repr=False)
    exists: bool = True
    revoked: frozenset[str] = frozenset()
    """Ids (`jti`) of applications' tokens that count no more."""
    revoked_readable: bool = True
    """False: some of what ``REVOKED`` holds is no text, so that it revokes nothing."""

    @classmethod
    def read(cls, data: Mapping[str, bytes]) -> KeySecret:
        """From the decoded data of a Secret."""
        keys = {kid: key for kid, key in data.items() if kid != REVOKED}
        revoked = read_revoked(data.get(REVOKED, b""))
        return cls(keys, revoked=revoked.tokens, revoked_readable=revoked.readable)


@dataclass(frozen=True, slots=True)
class TlsSecret:
    """The Secret with the certificate of a MediaCluster's pods, as far as its status tells of it."""

    secret: ObjectKey
    given: bool
    """By spec.tls.secretRef; else the operator makes it, or should find it."""
    state: Literal["Off", "Pending", "Missing", "Invalid", "Taken", "Failed", "Good"]
    """Off: the operator itself has no TLS. Taken: somebody else's, which is not overwritten. Failed: it could
    not be written."""
    detail: str = ""
    not_after: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server refused to create a router; nothing is tried again before ``retry_at`` (monotonic)."""

    reason: str
    """QuotaExceeded, Forbidden, Invalid, …"""
    message: str
    retry_at: float
    passing: bool = False
    """It may well succeed next time, so nobody has to be told."""
