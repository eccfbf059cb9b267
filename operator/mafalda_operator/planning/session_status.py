"""A session's status: what a user looks at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mafalda_operator.model import MediaSession, ObjectKey
from mafalda_operator.planning.access import Access
from mafalda_operator.planning.actions import StatusUpdate
from mafalda_operator.planning.conditions import PROGRESS, Conditions, counted, status_update
from mafalda_operator.planning.links import Edge
from mafalda_operator.planning.placement import generations
from mafalda_operator.planning.router_status import RouterCondition
from mafalda_operator.planning.topology import Member, Topology

_UNDER_WAY = frozenset({"Scheduling", "Opening", "WaitingForServers"})
_PARTS = ("Accepted", "Scheduled", "Available", "Linked")


@dataclass(frozen=True, slots=True)
class SessionFindings:
    """What planning found out about a session. ``shortage``: why Scheduled is False (reason, message)."""

    access: Access
    topology: Topology
    routers: Mapping[ObjectKey, RouterCondition]
    links: Sequence[Edge]
    shortage: tuple[str, str] | None

    @property
    def unknown(self) -> bool:
        return any(condition.ready is None for condition in self.routers.values())


def session_status(session: MediaSession, findings: SessionFindings, wall_time: str) -> StatusUpdate | None:
    """None when nothing changed, or while a server that matters hasn't been heard by a new leader."""
    if findings.unknown:
        return None
    conditions = Conditions(session, wall_time)
    access = findings.access
    conditions.add("Accepted", access.accepted, access.reason, access.message)
    if access.accepted:
        _judge(session, findings, conditions)
    else:
        for kind in ("Available", "Scheduled", "Linked", "Spread"):
            conditions.add(kind, False, access.reason, access.message)
    conditions.summarise("Ready", _PARTS, "all of spec holds")
    under_way = conditions.items[-1]["reason"] in _UNDER_WAY
    return status_update(
        "MediaSession",
        session,
        _fields(session, findings),
        conditions,
        PROGRESS if under_way else 0.0,
    )


def _judge(session: MediaSession, findings: SessionFindings, conditions: Conditions) -> None:
    mesh = findings.topology.mesh
    ready = [member for member in mesh if findings.routers[member.router.key].ready]
    shortage = findings.shortage
    if ready:
        message = f"{len(ready)} of {counted(len(mesh), 'router')} ready for participants"
        conditions.add("Available", True, "Available", message)
    else:
        reason, message = _first_unready(mesh, findings) or shortage or ("Scheduling", "it has no router yet")
        conditions.add("Available", False, reason, message)
    if shortage is None:
        conditions.add("Scheduled", True, "Scheduled", f"{counted(len(mesh), 'router')} with a worker")
    else:
        conditions.add("Scheduled", False, *shortage)
    _judge_links(findings, conditions)
    _judge_spread(mesh, conditions)


def _first_unready(mesh: Sequence[Member], findings: SessionFindings) -> tuple[str, str] | None:
    for member in mesh:
        condition = findings.routers[member.router.key]
        if not condition.ready:
            return condition.reason, f"{member.router.key.name}: {condition.message}"
    return None


def _judge_links(findings: SessionFindings, conditions: Conditions) -> None:
    broken = next((edge for edge in findings.links if not edge.ready), None)
    if broken is not None:
        message = f"{broken.names[0]} to {broken.names[1]}: {broken.message}"
        conditions.add("Linked", False, broken.reason, message)
    elif findings.links:
        conditions.add("Linked", True, "Linked", f"{counted(len(findings.links), 'link')} open")
    else:
        conditions.add("Linked", True, "NoLinkNeeded", "there is at most one router")


def _judge_spread(mesh: Sequence[Member], conditions: Conditions) -> None:
    by_server: dict[ObjectKey, list[str]] = {}
    for member in mesh:
        if member.server is not None:
            by_server.setdefault(member.server, []).append(member.router.key.name)
    shared = next((server for server in sorted(by_server) if len(by_server[server]) > 1), None)
    if shared is None:
        message = f"{counted(len(mesh), 'router')} on {counted(len(by_server), 'server')}"
        conditions.add("Spread", True, "Spread", message)
        return
    conditions.add(
        "Spread",
        False,
        "SharedServer",
        f"{' and '.join(by_server[shared])} share MediaServer {shared}; routers made from now on use other "
        "servers where they are ready, and deleting one of these moves it",
    )


def _fields(session: MediaSession, findings: SessionFindings) -> dict[str, Any]:
    access = findings.access
    placed = sorted(
        (
            member
            for member in findings.topology.members
            if member.verdict in ("Healthy", "Draining", "Unhealthy")
        ),
        key=lambda member: member.router.key,
    )
    ready = sum(1 for member in placed if findings.routers[member.router.key].ready)
    accepted = access.accepted and access.cluster is not None
    return {
        "url": _url(session, access) if accepted else None,
        "desiredRouters": desired_routers(session, findings.topology),
        "readyRouters": ready if accepted else 0,
        "servers": len({member.server for member in findings.topology.mesh}) if accepted else 0,
        "mediaCodecs": _frozen_codecs(session, findings),
        "generations": generations(session, findings.topology) or None,
        "routers": [_router(member, findings) for member in placed] if accepted else [],
        "links": [
            {"from": edge.names[0], "to": edge.names[1], "ready": edge.ready} for edge in findings.links
        ],
    }


def _frozen_codecs(session: MediaSession, findings: SessionFindings) -> list[dict[str, Any]] | None:
    """Resolved when the session gets its first router, and the same from then on."""
    stored: list[dict[str, Any]] | None = session.status.get("mediaCodecs")
    if stored or not findings.topology.members:
        return stored
    return [dict(codec) for codec in findings.access.codecs]


def desired_routers(session: MediaSession, topology: Topology) -> int:
    """The minimum, or more where hand-written routers add to it."""
    counted = [member.router for member in topology.members if member.verdict in ("Healthy", "Unbound")]
    owned = sum(1 for router in counted if router.owned)
    return max(session.min_routers, len(counted) - owned + min(owned, session.min_routers))


def _url(session: MediaSession, access: Access) -> str | None:
    public_url = access.cluster.public_url if access.cluster else None
    return f"{public_url.rstrip('/')}/?roomId={session.key}" if public_url else None


def _router(member: Member, findings: SessionFindings) -> dict[str, Any]:
    router = member.router
    item: dict[str, Any] = {"name": router.key.name}
    if member.place is not None:
        item["serverName"] = member.place.server.name
        item["workerSlot"] = member.place.slot
    item["ready"] = bool(findings.routers[router.key].ready)
    return item
