"""Which media server gets an application's worker: the least loaded one. No I/O; times are arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mediaserver.control.contract import Address, Load, TenantLoad, TenantOffer
from mediaserver.gateway.errors import Refused
from mediaserver.gateway.resources import ObjectKey
from mediaserver.wire import worker_versions

AVOID_SECONDS = 2.0
"""How long a server that did not take a worker comes last."""

Lack = Literal["leaving", "away", "noOffer", "noFigures", "noVersion", "full"]
"""Why a server gets no worker."""

_TOLD: Final[dict[Lack, str]] = {
    "full": "full",
    "noVersion": "without a worker of that version",
    "noOffer": "not set up for it",
    "noFigures": "without load figures",
    "away": "not connected",
    "leaving": "being deleted or drained",
}
_FOR_NOW: Final = ("away", "noFigures")
"""May be over in a moment."""


@dataclass(frozen=True)
class WorkerServer:
    """What is known of a MediaServer of the cluster."""

    key: ObjectKey
    zone: str
    leaving: bool
    """Its object is being deleted."""
    address: Address | None
    """Of its participants listener; None: the link is down."""
    offer: TenantOffer | None
    load: Load | None
    load_at: float
    """When ``load`` came."""


@dataclass(frozen=True)
class Wish:
    """What an application asks for and may have."""

    cluster: ObjectKey
    version: str
    token: str
    """Its `jti`."""
    zone: str = ""
    server: str | None = None
    bound: int | None = None
    """Workers that may run with the token."""


@dataclass(frozen=True, eq=False)
class Placement:
    """One worker that this gateway has brought to a server, while its first connection lasts."""

    server: ObjectKey
    token: str
    at: float


class WorkerPlacements:
    """What this gateway does at the moment, on top of what servers report, which follows late.

    What was begun after a server's last report is certainly not in it; so it is never counted twice.
    """

    def __init__(self) -> None:
        self._by_server: dict[ObjectKey, dict[Placement, None]] = {}
        self._by_token: Counter[tuple[ObjectKey, str]] = Counter()
        self._avoid: dict[ObjectKey, float] = {}

    def begin(self, server: ObjectKey, token: str, now: float) -> Placement:
        """A worker is being brought to the server."""
        placement = Placement(server, token, now)
        self._by_server.setdefault(server, {})[placement] = None
        self._by_token[server, token] += 1
        return placement

    def end(self, placement: Placement) -> None:
        """Its connection ended, or the server did not take it. Once only."""
        placements = self._by_server[placement.server]
        del placements[placement]
        if not placements:
            del self._by_server[placement.server]
        key = placement.server, placement.token
        self._by_token[key] -= 1
        if not self._by_token[key]:
            del self._by_token[key]

    def failed(self, server: ObjectKey, now: float) -> None:
        """The server did not take a worker: others first, for a while."""
        self._avoid = {key: until for key, until in self._avoid.items() if until > now}
        self._avoid[server] = now + AVOID_SECONDS

    def avoided(self, server: ObjectKey, now: float) -> bool:
        return self._avoid.get(server, now) > now

    def since(self, server: ObjectKey, moment: float) -> list[Placement]:
        """Begun on the server at that time or later."""
        begun = []
        for placement in reversed(self._by_server.get(server, {})):
            if placement.at < moment:
                break
            begun.append(placement)
        return begun

    def held(self, server: ObjectKey, token: str | None = None) -> int:
        """Workers, the token's or all, that were started on the server through here and are connected."""
        return len(self._by_server.get(server, ())) if token is None else self._by_token[server, token]


def choose(
    wish: Wish, servers: Sequence[WorkerServer], placements: WorkerPlacements, now: float
) -> list[WorkerServer]:
    """Servers that may take the worker, best first; ``servers`` are all of the cluster.

    Those whose room this gateway may have filled since they last reported come at the end: they know better.
    Raises Refused when there is none, and when the token's bound of workers is reached.
    """
    _check_bound(wish, servers, placements)
    considered = _pinned(wish, servers) if wish.server is not None else servers
    lacks = {server.key: lack for server in considered if (lack := _lack(wish, server)) is not None}
    able = [server for server in considered if server.key not in lacks]
    if not able:
        raise _refusal(wish, considered, list(lacks.values()))

    def cost(server: WorkerServer) -> tuple[bool, bool, bool, float, int, ObjectKey]:
        offer, load, tenants = _figures(server)
        own = len(placements.since(server.key, server.load_at))
        busy = sum(worker.cpu for worker in load.workers) + tenants.cpu
        return (
            placements.avoided(server.key, now),
            tenants.free <= own,
            bool(wish.zone) and server.zone != wish.zone,
            round(busy / offer.cores, 1),
            max(tenants.workers + own, placements.held(server.key)),
            server.key,
        )

    return sorted(able, key=cost)


def running(token: str, servers: Sequence[WorkerServer], placements: WorkerPlacements) -> int:
    """Workers of a token, as far as is known; what servers have that cannot be heard is not."""
    count = 0
    for server in servers:
        reported = server.load.tenants.by_token.get(token, 0) if server.load and server.load.tenants else 0
        begun = sum(placement.token == token for placement in placements.since(server.key, server.load_at))
        count += max(reported + begun, placements.held(server.key, token))
    return count


def _check_bound(wish: Wish, servers: Sequence[WorkerServer], placements: WorkerPlacements) -> None:
    if wish.bound is None:
        return
    count = running(wish.token, servers, placements)
    if count >= wish.bound:
        text = (
            f"the token admits {_many(wish.bound, 'worker')} at the same time and {count} run: "
            "close one, or make a token with a larger `workers`"
        )
        raise Refused(403, "workersBound", text, final=True)


def _pinned(wish: Wish, servers: Sequence[WorkerServer]) -> list[WorkerServer]:
    """The one server that the token names. Raises Refused."""
    found = [server for server in servers if wish.server in (str(server.key), server.key.name)]
    if not found:
        text = (
            f"the token's `server` {wish.server!r} is no MediaServer of MediaCluster {wish.cluster}: "
            "make a token with another one, or without"
        )
        raise Refused(403, "noSuchServer", text, final=True)
    return found


def _lack(wish: Wish, server: WorkerServer) -> Lack | None:
    """Why the server gets no worker; None: it may."""
    if server.leaving:
        return "leaving"
    if server.address is None:
        return "away"
    if server.offer is None or server.offer.cores < 1:
        return "noOffer"
    if worker_versions.choose(wish.version, server.offer.versions) is None:
        return "noVersion"
    if server.load is None or server.load.tenants is None:
        return "noFigures"
    return "full" if server.load.tenants.free <= 0 else None


def _figures(server: WorkerServer) -> tuple[TenantOffer, Load, TenantLoad]:
    """Of a server that lacks nothing."""
    if server.offer is None or server.load is None or server.load.tenants is None:
        raise ValueError(f"{server.key} was not to be considered")
    return server.offer, server.load, server.load.tenants


# -- telling why there is none ----------------------------------------------------------------------------


def _refusal(wish: Wish, servers: Sequence[WorkerServer], lacks: list[Lack]) -> Refused:
    if "noVersion" in lacks and not {"full", "noFigures"} & set(lacks):
        held = {version for server in servers if server.offer for version in server.offer.versions}
        return Refused(409, "noVersion", worker_versions.refusal(wish.version, held), final=True)
    if wish.server is not None:
        return _pinned_refusal(wish, lacks[0])
    # Servers that are full are the answer; where there are none, one that comes back may be it.
    final = "full" in lacks or not any(lack in _FOR_NOW for lack in lacks)
    reason = "full" if "full" in lacks else "noServer"
    return Refused(503, reason, _no_room(wish, lacks), final=final)


def _no_room(wish: Wish, lacks: list[Lack]) -> str:
    """Says of how many servers each thing keeps the worker away, and what to do about it."""
    if not lacks:
        return f"MediaCluster {wish.cluster} has no media server: add one that is started with --tenant-ports"
    counts = Counter(lacks)
    kinds = [f"{counts[lack]} {told}" for lack, told in _TOLD.items() if counts[lack]]
    remedy = "add media servers or raise their --tenant-workers"
    if "full" not in counts:
        remedy = "start media servers with --tenant-ports" if "noOffer" in counts else "try again"
    return (
        f"no media server has room for a worker of mediasoup {wish.version}: "
        f"MediaCluster {wish.cluster} has {len(lacks)}, {', '.join(kinds)}; {remedy}"
    )


def _pinned_refusal(wish: Wish, lack: Lack) -> Refused:
    text = f"the token's `server` {wish.server!r} takes no worker: it is {_TOLD[lack]}"
    if lack == "noOffer":
        return Refused(403, "noOffer", f"{text}, start it with --tenant-ports", final=True)
    if lack == "full":
        return Refused(503, "full", f"{text}, raise its --tenant-workers or pin no server", final=True)
    return Refused(503, "noServer", text, final=lack not in _FOR_NOW)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
