"""One session, from its routers as they are to what is done and said."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mafalda_operator.model import MediaRouter, MediaSession, ObjectKey, Snapshot
from mafalda_operator.planning import placement
from mafalda_operator.planning.access import Access
from mafalda_operator.planning.actions import Action, EventNote, ServerEntries, StatusUpdate
from mafalda_operator.planning.capacity import Capacity, Occupied
from mafalda_operator.planning.desired import session_entries
from mafalda_operator.planning.links import Edge, edges
from mafalda_operator.planning.memory import Link
from mafalda_operator.planning.placement import Placement
from mafalda_operator.planning.recovery import ClusterStanding
from mafalda_operator.planning.router_status import (
    RouterCondition,
    member_status,
    router_condition,
    stranded_status,
)
from mafalda_operator.planning.session_status import SessionFindings, session_status
from mafalda_operator.planning.shortage import no_capacity
from mafalda_operator.planning.topology import Topology, add_open_workers, judge_routers, occupied_by

LOAD_RETRY = 1.0
"""Seconds between looks at the load of an older server that says nothing else of empty routers."""

PORTS_RETRY = 3.0
"""Seconds until a session that lacks pipe ports is planned again: loads come, reservations lapse."""


@dataclass(slots=True)
class SessionPlan:
    """``desired`` by server; ``pending``: it lacks a place and is to be planned when a server changes."""

    actions: list[Action] = field(default_factory=list)
    desired: Mapping[ObjectKey, ServerEntries] = field(default_factory=dict)
    session_status: StatusUpdate | None = None
    router_statuses: list[StatusUpdate] = field(default_factory=list)
    notes: list[EventNote] = field(default_factory=list)
    links_down: frozenset[Link] = frozenset()
    pending: bool = False
    shortage: tuple[str, str] | None = None
    retry_at: float | None = None


def plan_missing(key: ObjectKey, routers: list[MediaRouter], snapshot: Snapshot) -> SessionPlan:
    """A session that doesn't exist: our routers go, hand-written ones say that it is missing."""
    plan = SessionPlan()
    plan.actions = placement.orphans(
        key, routers, reason="SessionGone", message=f"MediaSession {key} doesn't exist any more"
    )
    message = f"there is no MediaSession {key}; create it, or delete this router"
    _strand(plan, routers, "SessionNotFound", message, snapshot)
    return plan


def plan_ending(session: MediaSession, routers: list[MediaRouter]) -> SessionPlan:
    """A session that is being deleted: everything of it ends."""
    message = f"MediaSession {session.key} is being deleted"
    return SessionPlan(
        actions=placement.orphans(session.key, routers, reason="SessionEnding", message=message)
    )


def plan_refused(
    session: MediaSession, access: Access, routers: list[MediaRouter], snapshot: Snapshot
) -> SessionPlan:
    """A session that its cluster doesn't admit. Our routers end, save while there is no cluster at all."""
    plan = SessionPlan()
    if session.cluster in snapshot.clusters:
        plan.actions = placement.orphans(session.key, routers, reason=access.reason, message=access.message)
    message = f"MediaSession {session.key} is not accepted: {access.message}"
    _strand(plan, routers, "SessionNotAccepted", message, snapshot)
    findings = SessionFindings(access, Topology((), ()), {}, (), (access.reason, access.message))
    plan.session_status = session_status(session, findings, snapshot.wall_time)
    return plan


def _strand(
    plan: SessionPlan, routers: list[MediaRouter], reason: str, message: str, snapshot: Snapshot
) -> None:
    for router in routers:
        if router.deleting or (router.owned and reason == "SessionNotFound"):
            continue
        status = stranded_status(router, reason, message, snapshot.wall_time)
        if status is not None:
            plan.router_statuses.append(status)


class SessionPlanner:
    """Plans an accepted session; one object for each."""

    def __init__(
        self,
        session: MediaSession,
        access: Access,
        routers: list[MediaRouter],
        standing: ClusterStanding,
        capacity: Capacity,
        snapshot: Snapshot,
        links_down: frozenset[Link],
    ) -> None:
        self.session = session
        self.access = access
        self.standing = standing
        self.standings = standing.servers
        self.capacity = capacity
        self.snapshot = snapshot
        self.links_down = links_down
        self.topology = judge_routers(session, routers, self.standings, frozen=standing.frozen)

    def run(self, keys: Mapping[str, str]) -> SessionPlan:
        assert self.access.cluster is not None
        plan = SessionPlan()
        conditions = {
            member.router.key: router_condition(self.session, member, self.standings)
            for member in self.topology.members
        }
        links = edges(self.session, self.topology, self.access.cluster.links, self.standings)
        placed, occupied = self._place()
        ready = {key: bool(condition.ready) for key, condition in conditions.items()}
        ending = placement.end(
            self.session, self.topology, ready, self.standings, frozen=self.standing.frozen
        )
        plan.actions = placed.actions + ending.actions
        leaving = ending.leaving | placement.leavers(
            self.session, self.topology, ready, links, self.standings
        )
        plan.desired = session_entries(
            self.session, self.access, self.topology, links, keys, self.standings, leaving
        )
        plan.shortage = self._shortage(placed, occupied)
        plan.pending = bool(placed.missing or placed.unplaced)
        plan.retry_at = self._retry_at(placed, occupied, leaving)
        self._say(plan, placed, conditions, links)
        return plan

    def _place(self) -> tuple[Placement, Occupied]:
        occupied = occupied_by(self.session, self.topology, self.snapshot)
        held = self._held()
        if held is not None:
            unbound = self.topology.of("Unbound")
            missing = self.session.min_routers - len(self.topology.of("Healthy")) - len(unbound)
            unplaced = {member.router.key for member in unbound}
            return Placement(missing=max(0, missing), unplaced=unplaced, held=held), occupied
        add_open_workers(occupied, self.session.uid, self.standings)
        placed = placement.place(self.session, self.topology, occupied, self.capacity, self.snapshot)
        return placed, occupied

    def _held(self) -> tuple[str, str] | None:
        """Why nothing is placed now at all: reason and message."""
        namespace = self.snapshot.namespaces.get(self.session.key.namespace)
        if namespace is not None and namespace.terminating:
            return "NamespaceTerminating", f"namespace {self.session.key.namespace} is being deleted"
        awaited = [key.name for key, standing in self.standings.items() if standing.awaited]
        if awaited:
            return "WaitingForServers", f"waits for the first answer of {', '.join(awaited[:3])}"
        return None

    def _shortage(self, placed: Placement, occupied: Occupied) -> tuple[str, str] | None:
        healthy = len(self.topology.of("Healthy"))
        if placed.missing or placed.unplaced:
            if placed.held is not None:
                return placed.held
            if placed.refused is not None:
                reason, message, _ = placed.refused
                return reason, f"the API server refuses a router: {message}"
            wanted = max(self.session.min_routers, healthy + len(placed.unplaced))
            message = no_capacity(
                self.session, wanted, occupied, self.capacity, self.standings, self.snapshot.wall_time
            )
            return "NoCapacity", message + self._meanwhile()
        if healthy < self.session.min_routers:
            names = ", ".join(str(place.server) for _, place in placed.placed) or "other servers"
            return "Scheduling", f"routers are being made on {names}"
        return None

    def _meanwhile(self) -> str:
        """What becomes of routers that have to move and can't, as a clause."""
        staying = [
            f"{member.router.key.name} stays, at most until {drain.deadline_time}, though {member.message}"
            for member in self.topology.of("Draining")
            if member.server is not None and (drain := self.standings[member.server].drain) is not None
        ]
        return f"; {'; '.join(staying)}" if staying else ""

    def _retry_at(
        self, placed: Placement, occupied: Occupied, leaving: AbstractSet[ObjectKey]
    ) -> float | None:
        if leaving and self._tell_by_load(leaving):
            return self.snapshot.now + LOAD_RETRY
        if placed.refused is not None:
            return placed.refused[2]
        if (
            (placed.missing or placed.unplaced)
            and placed.held is None
            and self.capacity.lacks_ports(occupied)
        ):
            return self.snapshot.now + PORTS_RETRY
        return None

    def _tell_by_load(self, leaving: AbstractSet[ObjectKey]) -> bool:
        """Whether only load, which wakes nobody, tells that nobody is on one of the routers any more."""
        for member in self.topology.mesh:
            if member.router.key in leaving and member.server is not None:
                hello = self.standings[member.server].view.hello
                if hello is None or not hello.sends_away:
                    return True
        return False

    # -- what is said ---------------------------------------------------------------------------------------

    def _say(
        self,
        plan: SessionPlan,
        placed: Placement,
        conditions: Mapping[ObjectKey, RouterCondition],
        links: list[Edge],
    ) -> None:
        findings = SessionFindings(self.access, self.topology, conditions, links, plan.shortage)
        wall_time = self.snapshot.wall_time
        plan.session_status = session_status(self.session, findings, wall_time)
        for member in self.topology.members:
            unplaced = plan.shortage if member.router.key in placed.unplaced else None
            status = member_status(member, conditions[member.router.key], unplaced, wall_time)
            if status is not None:
                plan.router_statuses.append(status)
        plan.notes = self._placement_notes(placed)
        plan.links_down = self.links_down
        if not findings.unknown:
            notes, plan.links_down = self._link_notes(links)
            plan.notes += notes

    def _placement_notes(self, placed: Placement) -> list[EventNote]:
        notes = []
        if placed.placed:
            places = ", ".join(
                f"{key.name} on {place.server} worker {place.slot}" for key, place in placed.placed
            )
            notes.append(self._note("Normal", "Scheduled", places))
        for old, key, place in placed.moved:
            message = (
                f"{old.router.key.name} is replaced by {key.name} on {place.server} worker {place.slot}: "
                f"{old.message}"
            )
            kind = "Normal" if old.verdict in ("Draining", "Drained") else "Warning"
            notes.append(self._note(kind, "RouterMoved", message))
        return notes

    def _link_notes(self, links: list[Edge]) -> tuple[list[EventNote], frozenset[Link]]:
        """A link that was ready by the stored status and isn't: told once, until it is ready again."""
        stored = self.session.status.get("links")
        were_ready = {
            (item.get("from"), item.get("to"))
            for item in (stored if isinstance(stored, list | tuple) else ())
            if isinstance(item, Mapping) and item.get("ready") is True
        }
        notes: list[EventNote] = []
        down: set[Link] = set()
        for edge in links:
            told = edge.names in self.links_down
            between = f"{edge.names[0]} to {edge.names[1]}"
            if edge.ready:
                if told:
                    notes.append(self._note("Normal", "LinkRestored", between))
                continue
            if told or edge.names in were_ready:
                down.add(edge.names)
            if not told and edge.names in were_ready:
                notes.append(self._note("Warning", "LinkDown", f"{between}: {edge.message}"))
        return notes, frozenset(down)

    def _note(self, kind: str, reason: str, message: str) -> EventNote:
        return EventNote(
            "MediaSession",
            self.session.key,
            self.session.uid,
            "Warning" if kind == "Warning" else "Normal",
            reason,
            message,
        )
