"""Which routers a session gets, which are bound, and which are ended."""

from __future__ import annotations

from collections.abc import Mapping
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
from mafalda_operator.planning.names import free_router_name
from mafalda_operator.planning.topology import Member, Topology

MESH_INDEXES = 64
"""Indexes that are believed: the annotation can be edited, and status.generations is a list by index."""


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
    replaced = [member for member in topology.of("Unhealthy") if member.router.owned]
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


def end(
    session: MediaSession, topology: Topology, ready: Mapping[ObjectKey, bool], *, frozen: bool
) -> list[Action]:
    """Routers of ours to delete: those made for an earlier session, those whose replacement has a place, and
    those beyond the minimum or the mesh, the not ready and the newest first."""
    ended = [(member, member.reason, member.message) for member in topology.of("Foreign")]
    healthy = topology.of("Healthy")
    if len(healthy) >= session.min_routers and not frozen:
        ended += [
            (member, "Replaced", f"{member.message}; other routers have taken its place")
            for member in topology.of("Unhealthy") + topology.of("Impossible")
            if member.router.owned
        ]
    ended += [(member, "Excess", member.message) for member in topology.of("Beyond") if member.router.owned]
    owned = [member for member in healthy if member.router.owned]
    owned.sort(key=lambda member: (ready.get(member.router.key, False), _reversed(member)))
    for member in owned[: max(0, len(owned) - session.min_routers)]:
        ended.append((member, "Excess", f"session {session.key} asks for {session.min_routers} routers only"))
    return [
        DeleteRouter(member.router.key, member.router.uid, session.key, reason, message)
        for member, reason, message in ended
    ]


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
