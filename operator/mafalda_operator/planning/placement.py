"""Which routers a session gets, which are bound, and which are ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mafalda_operator.model import (
    ANNOTATION_GENERATION,
    ANNOTATION_INDEX,
    LABEL_CLUSTER,
    LABEL_SERVER,
    LABEL_SESSION,
    MediaRouter,
    MediaSession,
    ObjectKey,
    Snapshot,
)
from mafalda_operator.planning.actions import Action, BindRouter, CreateRouter, DeleteRouter, Owner
from mafalda_operator.planning.capacity import Capacity, Occupied, Place
from mafalda_operator.planning.links import Edge
from mafalda_operator.planning.names import free_router_name
from mafalda_operator.planning.recovery import Standing
from mafalda_operator.planning.topology import Member, Topology, Verdict, is_vacant
from mediaserver.control.contract import RouterState, router_key

MESH_INDEXES = 64
"""Indexes that are believed: the annotation can be edited, and status.generations is a list by index."""


_REPLACED: tuple[Verdict, ...] = ("Draining", "Drained", "Unhealthy")


@dataclass(slots=True)
class Placement:
    """What is done for one session. ``missing``: routers without a place; ``unplaced``: hand-written ones."""

    actions: list[Action] = field(default_factory=list)
    placed: list[tuple[ObjectKey, Place]] = field(default_factory=list)
    moved: list[tuple[Member, ObjectKey, Place]] = field(default_factory=list)
    missing: int = 0
    unplaced: set[ObjectKey] = field(default_factory=set)
    refused: tuple[str, str, float] | None = None
    """Reason, message and time of the next try, when the API server has refused a router."""
    held: tuple[str, str] | None = None
    """Reason and message, when nothing is placed for now."""


def place(
    session: MediaSession, topology: Topology, occupied: Occupied, capacity: Capacity, snapshot: Snapshot
) -> Placement:
    """Bind hand-written routers, then make what is missing to the minimum."""
    result = Placement()
    unbound = topology.of("Unbound")
    healthy = topology.of("Healthy")
    wanted = max(0, session.min_routers - len(healthy) - len(unbound))
    if not wanted and not unbound:
        return result
    count = len(healthy) + len(unbound) + wanted
    protocol = capacity.choose_protocol(count, occupied)
    for member in unbound:
        _bind(session, member, occupied, capacity, protocol, count - 1, result)
    _make(session, topology, wanted, occupied, capacity, protocol, count - 1, snapshot, result)
    return result


def _bind(
    session: MediaSession,
    member: Member,
    occupied: Occupied,
    capacity: Capacity,
    protocol: int | None,
    links: int,
    result: Placement,
) -> None:
    router = member.router
    best = capacity.pick(occupied, protocol=protocol, links=links, zone=router.zone, only=member.server)
    if best is None:
        result.unplaced.add(router.key)
        return
    capacity.take(best, occupied)
    result.placed.append((router.key, best))
    result.actions.append(
        BindRouter(
            router.key,
            router.uid,
            best.server,
            best.slot,
            "Scheduled",
            f"hand-written router of session {session.key} on {best.server} worker {best.slot}: "
            "least loaded free worker",
        )
    )


def _make(
    session: MediaSession,
    topology: Topology,
    wanted: int,
    occupied: Occupied,
    capacity: Capacity,
    protocol: int | None,
    links: int,
    snapshot: Snapshot,
    result: Placement,
) -> None:
    used = {member.router.index for member in topology.of("Healthy") if member.router.owned}
    replaced = [member for verdict in _REPLACED for member in topology.of(verdict) if member.router.owned]
    # A session all of whose routers have to go may go where another pipe protocol is spoken: as a whole.
    moves_whole = bool(topology.of("Draining")) and not topology.of("Healthy")
    index = 0
    for _ in range(wanted):
        while index in used:
            index += 1
        used.add(index)
        key, generation = free_router_name(
            session.key, session.uid, index, _next_generation(session, topology, index), snapshot.routers
        )
        refusal = snapshot.refusals.get(key)
        if refusal is not None and refusal.retry_at > snapshot.now:
            result.refused = (refusal.reason, refusal.message, refusal.retry_at)
            result.missing += 1
            continue
        best = capacity.pick(occupied, protocol=protocol, links=links)
        if best is None and moves_whole and not result.moved:
            protocol = capacity.choose_protocol(wanted, Occupied())
            best = capacity.pick(occupied, protocol=protocol, links=links)
        if best is None:
            result.missing += 1
            continue
        capacity.take(best, occupied)
        old = next((member for member in replaced if member.router.index == index), None)
        if old is not None:
            result.moved.append((old, key, best))
        else:
            result.placed.append((key, best))
        result.actions.append(_create(session, key, index, generation, best, old))


def generations(session: MediaSession, topology: Topology) -> list[int]:
    """By index, the highest generation known to have held it: by existing routers and status.generations."""
    stored = session.status.get("generations")
    known = [one for one in stored if isinstance(one, int)] if isinstance(stored, list | tuple) else []
    for member in topology.members:
        router = member.router
        if router.owner_uid != session.uid or router.index is None or router.replaced is None:
            continue
        if router.index >= MESH_INDEXES:
            continue
        known += [0] * (router.index + 1 - len(known))
        known[router.index] = max(known[router.index], router.replaced)
    return known


def _next_generation(session: MediaSession, topology: Topology, index: int) -> int:
    """One above every generation known to have held the index."""
    known = generations(session, topology)
    return known[index] + 1 if index < len(known) else 0


def _create(
    session: MediaSession, key: ObjectKey, index: int, generation: int, best: Place, old: Member | None
) -> CreateRouter:
    spec: Mapping[str, Any] = {
        "sessionName": session.key.name,
        "serverName": best.server.name,
        "workerSlot": best.slot,
    }
    where = f"on {best.server} worker {best.slot}: least loaded free worker"
    if old is None:
        reason, message = "Scheduled", f"router {index} of session {session.key} {where}"
    else:
        reason = "RouterMoved"
        message = f"replaces {old.router.key.name} ({old.reason}: {old.message}) {where}"
    return CreateRouter(
        key=key,
        spec=spec,
        labels={
            LABEL_CLUSTER: session.cluster.name,
            LABEL_SERVER: best.server.name,
            LABEL_SESSION: session.key.name,
        },
        annotations={ANNOTATION_INDEX: str(index), ANNOTATION_GENERATION: str(generation)},
        owner=Owner(session.key.name, session.uid),
        reason=reason,
        message=message,
    )


@dataclass(slots=True)
class Ending:
    """``leaving``: routers beyond the minimum whose participants have to go elsewhere first."""

    actions: list[Action]
    leaving: set[ObjectKey]


def end(
    session: MediaSession,
    topology: Topology,
    ready: Mapping[ObjectKey, bool],
    standings: Mapping[ObjectKey, Standing],
    *,
    frozen: bool,
) -> Ending:
    """Routers of ours to delete: those made for an earlier session, those that are drained, those whose
    replacement has a place, and those beyond the minimum or the mesh, the not ready and the newest first."""
    ended = [(member, member.reason, member.message) for member in topology.of("Foreign")]
    ended += [(member, "Drained", member.message) for member in topology.of("Drained") if member.router.owned]
    healthy = topology.of("Healthy")
    if len(healthy) >= session.min_routers and not frozen:
        ended += [
            (member, "Replaced", f"{member.message}; other routers have taken its place")
            for member in topology.of("Unhealthy") + topology.of("Impossible")
            if member.router.owned
        ]
    ended += [(member, "Excess", member.message) for member in topology.of("Beyond") if member.router.owned]
    owned = [member for member in healthy if member.router.owned]
    owned.sort(
        key=lambda member: (
            ready.get(member.router.key, False),
            not _is_leaving(member, standings),
            _reversed(member),
        )
    )
    leaving = set()
    for member in owned[: max(0, len(owned) - session.min_routers)]:
        if ready.get(member.router.key, False) and _can_be_left(member, standings):
            leaving.add(member.router.key)
            continue
        ended.append((member, "Excess", f"session {session.key} asks for {session.min_routers} routers only"))
    actions: list[Action] = [
        DeleteRouter(member.router.key, member.router.uid, session.key, reason, message)
        for member, reason, message in ended
    ]
    return Ending(actions, leaving)


def _is_leaving(member: Member, standings: Mapping[ObjectKey, Standing]) -> bool:
    state = _state_of(member, standings)
    return state is not None and state.leaving


def _can_be_left(member: Member, standings: Mapping[ObjectKey, Standing]) -> bool:
    """Whether its server sends its participants away, and somebody is still there."""
    assert member.server is not None  # it is healthy
    standing = standings[member.server]
    hello = standing.view.hello
    if hello is None or not hello.sends_away or standing.state != "Connected":
        return False
    return not is_vacant(member.router, standing)


def _state_of(member: Member, standings: Mapping[ObjectKey, Standing]) -> RouterState | None:
    standing = standings.get(member.server) if member.server is not None else None
    key = router_key(member.router.key.namespace, member.router.key.name)
    return standing.view.routers.get(key) if standing is not None else None


def leavers(
    session: MediaSession,
    topology: Topology,
    ready: Mapping[ObjectKey, bool],
    links: Iterable[Edge],
    standings: Mapping[ObjectKey, Standing],
) -> set[ObjectKey]:
    """Routers on draining servers whose participants can go.

    Those whose replacement is ready and linked, as many others as the session has more routers than it asks
    for, and all of a server that has waited long enough: the session's other routers serve as well.
    """
    waiting = {
        member.router.key for edge in links if edge.possible and not edge.ready for member in edge.ends
    }
    settled = [
        member
        for member in topology.of("Healthy")
        if ready.get(member.router.key, False) and member.router.key not in waiting
    ]
    if not settled:
        return set()
    indexes = {member.router.index for member in settled if member.router.owned}
    draining = topology.of("Draining")
    replaced = [m for m in draining if m.router.owned and m.router.index in indexes]
    others = [member for member in draining if member not in replaced]
    others.sort(key=lambda member: (not _is_leaving(member, standings), member.router.key))
    spare = max(0, len(settled) + len(others) - session.min_routers)
    urgent = [member for member in others if _is_urgent(member, standings)]
    return {member.router.key for member in (*replaced, *others[:spare], *urgent)}


def _is_urgent(member: Member, standings: Mapping[ObjectKey, Standing]) -> bool:
    standing = standings.get(member.server) if member.server is not None else None
    return standing is not None and standing.drain is not None and standing.drain.urgent


class _Reversed:
    """Orders the other way round: newest first in an ascending sort."""

    __slots__ = ("value",)

    def __init__(self, value: tuple[str, int, ObjectKey]) -> None:
        self.value = value

    def __lt__(self, other: _Reversed) -> bool:
        return other.value < self.value


def _reversed(member: Member) -> _Reversed:
    router = member.router
    return _Reversed((router.created, router.index or 0, router.key))


def orphans(session: ObjectKey, routers: list[MediaRouter], *, reason: str, message: str) -> list[Action]:
    """Routers of ours whose session is gone or going."""
    return [
        DeleteRouter(router.key, router.uid, session, reason, message)
        for router in routers
        if router.owned and not router.deleting
    ]
