"""A session's routers judged: which count, which are linked, which can't be, which are on their way out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mafalda_operator.model import MediaRouter, MediaSession, ObjectKey, Snapshot
from mafalda_operator.planning.capacity import Occupied, Place
from mafalda_operator.planning.draining import Drain
from mafalda_operator.planning.recovery import Standing
from mediaserver.control.contract import router_key

MESH = 3
"""Routers that a session can have while they are linked each to each."""

Verdict = Literal[
    "Healthy", "Draining", "Drained", "Unhealthy", "Unbound", "Impossible", "Beyond", "Foreign", "Leaving"
]
"""Healthy: has a place that works. Unhealthy: has one that fails it (server lost, worker failing).
Draining: has one that works on a server that is being drained, and serves until another router does.
Drained: is on such a server, and nobody is on it any more, or the time is over.
Unbound: hand-written, waits for a place. Impossible: hand-written or left over, can't be where it says.
Beyond: more than a mesh takes. Foreign: made for an earlier session of the name. Leaving: being deleted."""


@dataclass(frozen=True, slots=True)
class Member:
    """One router of a session and what is said of it; ``place`` is None unless it names server and slot."""

    router: MediaRouter
    verdict: Verdict
    reason: str = ""
    message: str = ""
    server: ObjectKey | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """``members`` are all routers, oldest first; ``mesh`` those that are to be open and linked each to each:
    what works, and of what doesn't as many as have no replacement yet."""

    members: tuple[Member, ...]
    mesh: tuple[Member, ...]

    def of(self, verdict: Verdict) -> list[Member]:
        return [member for member in self.members if member.verdict == verdict]


def judge_routers(
    session: MediaSession,
    routers: Iterable[MediaRouter],
    standings: Mapping[ObjectKey, Standing],
    *,
    frozen: bool,
) -> Topology:
    """Of routers on one worker the oldest counts; of more than three the oldest three that work do."""
    ordered = sorted(routers, key=lambda router: (router.created, not router.owned, router.key))
    taken: dict[Place, MediaRouter] = {}
    members: list[Member] = []
    for router in ordered:
        member = _judge(session, router, standings, frozen=frozen)
        if member.place is not None and member.verdict in ("Healthy", "Draining", "Unhealthy"):
            holder = taken.setdefault(member.place, router)
            if holder is not router:
                member = _impossible(
                    router,
                    member.server,
                    "WorkerTaken",
                    f"worker {member.place.slot} of MediaServer {member.place.server} already has router "
                    f"{holder.key.name} of this session; delete one of them, or name another worker",
                )
        members.append(member)
    members = _limit(members)
    mesh = [member for member in members if member.verdict in ("Healthy", "Draining")]
    unreplaced = max(0, min(session.min_routers, MESH) - len(mesh))
    mesh += [member for member in members if member.verdict == "Unhealthy"][:unreplaced]
    return Topology(tuple(members), tuple(sorted(mesh, key=lambda member: member.router.key)))


def _judge(
    session: MediaSession, router: MediaRouter, standings: Mapping[ObjectKey, Standing], *, frozen: bool
) -> Member:
    server = ObjectKey(session.cluster.namespace, router.server_name) if router.server_name else None
    place = Place(server, router.worker_slot) if server and router.worker_slot is not None else None
    if router.deleting:
        return Member(router, "Leaving", "Deleting", "it is being deleted", server, place)
    if router.owner_uid is not None and router.owner_uid != session.uid:
        message = f"it was made for an earlier MediaSession {session.key} and is deleted"
        return Member(router, "Foreign", "SessionNotFound", message, server, place)
    if server is None:
        return Member(router, "Unbound", "Scheduling", "the operator looks for a place")
    standing = standings.get(server)
    if standing is None:
        return _impossible(
            router,
            server,
            "ServerNotFound",
            f"MediaCluster {session.cluster} has no MediaServer {server.name}; create the server, or delete "
            "the router",
        )
    if place is None:
        return Member(router, "Unbound", "Scheduling", f"the operator looks for a worker on {server}", server)
    return _judge_place(router, server, place, standing, frozen=frozen)


def _judge_place(
    router: MediaRouter, server: ObjectKey, place: Place, standing: Standing, *, frozen: bool
) -> Member:
    workers = standing.view.workers
    if standing.state == "Connected" and workers and place.slot not in workers:
        return _impossible(
            router,
            server,
            "WorkerSlotOutOfRange",
            f"MediaServer {server} has worker slots 0 to {max(workers)}, not {place.slot}; name one of those",
        )
    if standing.state == "NeverConnected":
        message = f"MediaServer {server} has never been connected; see its conditions"
        return Member(router, "Unhealthy", "ServerNotConnected", message, server, place)
    if standing.lost:
        message = f"MediaServer {server} is lost: neither the operator nor any other server hears it"
        return Member(router, "Unhealthy", "ServerLost", message, server, place)
    if standing.drain is not None and standing.drain.expired:
        message = f"{_drained_server(server, standing.drain)}, and its time is over"
        return Member(router, "Drained", "ServerDrained", message, server, place)
    worker = workers.get(place.slot)
    if worker is not None and worker.state == "Failing" and not frozen:
        message = f"worker {place.slot} of MediaServer {server} keeps dying: {worker.reason or 'see its log'}"
        return Member(router, "Unhealthy", "WorkerFailing", message, server, place)
    if standing.drain is not None:
        message = _drained_server(server, standing.drain)
        if is_vacant(router, standing):
            return Member(router, "Drained", "ServerDrained", message, server, place)
        return Member(router, "Draining", "ServerDraining", message, server, place)
    return Member(router, "Healthy", server=server, place=place)


def _drained_server(server: ObjectKey, drain: Drain) -> str:
    return f"MediaServer {server} is being drained ({drain.reason}: {drain.message})"


def is_vacant(router: MediaRouter, standing: Standing) -> bool:
    """Whether a router is not open on its server, or nobody is on it any more after they were sent away.

    A server that can't send participants away tells by its load only.
    """
    if standing.unknown:
        return False
    key = router_key(router.key.namespace, router.key.name)
    view = standing.view
    state = view.routers.get(key)
    if state is None:
        return True
    if view.hello is not None and view.hello.sends_away:
        return state.leaving and state.vacant
    load = view.load.routers.get(key) if view.load is not None else None
    return load is not None and load.participants == 0


def _impossible(router: MediaRouter, server: ObjectKey | None, reason: str, message: str) -> Member:
    return Member(router, "Impossible", reason, message, server)


def _limit(members: list[Member]) -> list[Member]:
    """Mark what is beyond three: bound ones in their order, then those that wait for a place."""
    room = MESH + _replaced(members)
    limited: dict[ObjectKey, Member] = {}
    for verdict in ("Healthy", "Unbound"):
        for member in members:
            if member.verdict != verdict:
                continue
            room -= 1
            if room < 0:
                limited[member.router.key] = Member(
                    member.router,
                    "Beyond",
                    "TopologyLimit",
                    f"a session has at most {MESH} routers for now, and others have that place; delete one "
                    "of them, or this one",
                    member.server,
                )
    return [limited.get(member.router.key, member) for member in members]


def _replaced(members: list[Member]) -> int:
    """Routers that share their index with another one: a drain was called off when its replacement was
    there, so one of them goes as soon as nobody is on it."""
    indexes = [m.router.index for m in members if m.verdict == "Healthy" and m.router.owned]
    return len(indexes) - len(set(indexes))


def occupied_by(session: MediaSession, topology: Topology, snapshot: Snapshot) -> Occupied:
    """The workers that a further router can't take, and the routers that it would be linked to.

    Taken are the workers of all its routers, those being deleted too; `add_open_workers` adds those where a
    server reports a router of the session open though its object is gone.
    """
    workers: set[Place] = set()
    healthy: list[Place] = []
    draining: list[Place] = []
    for member in topology.members:
        router = member.router
        server = ObjectKey(session.cluster.namespace, router.server_name) if router.server_name else None
        if server is not None and router.worker_slot is not None:
            workers.add(Place(server, router.worker_slot))
        if member.verdict == "Healthy" and member.place is not None:
            healthy.append(member.place)
        if member.verdict == "Draining" and member.place is not None:
            draining.append(member.place)
    protocol: int | None = None
    for place in (*healthy, *draining):
        view = snapshot.views.get(place.server)
        if view is not None and view.hello is not None:
            protocol = view.hello.pipe_protocol
            break
    return Occupied(workers, [*healthy, *draining], protocol)


def add_open_workers(occupied: Occupied, session_uid: str, standings: Mapping[ObjectKey, Standing]) -> None:
    """Take in the workers on which a server still reports a router of the session."""
    for key, standing in standings.items():
        for state in standing.view.reported.routers_by_session.get(session_uid, {}).values():
            occupied.workers.add(Place(key, state.worker_slot))
