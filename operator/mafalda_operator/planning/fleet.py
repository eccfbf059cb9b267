"""The servers of all clusters judged, and which sessions that concerns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mafalda_operator.model import MediaServer, ObjectKey, Snapshot
from mafalda_operator.planning import draining
from mafalda_operator.planning.actions import EventNote
from mafalda_operator.planning.capacity import zone_of
from mafalda_operator.planning.conditions import counted
from mafalda_operator.planning.draining import Drain, judge_drains
from mafalda_operator.planning.memory import PLENTY, Memory, ServerFacts, Wish
from mafalda_operator.planning.recovery import ClusterStanding, Standing, judge_cluster


@dataclass(frozen=True, slots=True)
class Fleet:
    """``changed``: servers whose facts differ from the last plan's, those that came and went too."""

    clusters: Mapping[ObjectKey, ClusterStanding]
    facts: Mapping[ObjectKey, ServerFacts]
    changed: frozenset[ObjectKey]
    changed_clusters: frozenset[ObjectKey]
    first_seen: Mapping[ObjectKey, float]
    drains: Mapping[ObjectKey, Drain]
    """By server."""
    wake_at: float | None
    notes: tuple[EventNote, ...]


def judge_fleet(
    snapshot: Snapshot,
    memory: Memory,
    *,
    wishes: Mapping[ObjectKey, Wish] | None = None,
) -> Fleet:
    """Looks at every server, and no session: some microseconds each.

    ``wishes`` says why the planning of pods wants servers gone.
    """
    drains = judge_drains(snapshot, memory, wishes=wishes)
    first_seen = {key: memory.first_seen.get(key, snapshot.now) for key in snapshot.servers}
    clusters: dict[ObjectKey, ClusterStanding] = {}
    facts: dict[ObjectKey, ServerFacts] = {}
    for key in sorted(snapshot.clusters):
        servers = [snapshot.servers[server] for server in snapshot.servers_by_cluster.get(key, ())]
        standing = judge_cluster(snapshot.clusters[key], servers, snapshot, memory, drains)
        clusters[key] = standing
        for server, one in standing.servers.items():
            facts[server] = _facts(one, frozen=standing.frozen)
    for server in snapshot.servers:
        facts.setdefault(server, ServerFacts())
    changed = {key for key, fact in facts.items() if memory.facts.get(key) != fact}
    changed.update(key for key in memory.facts if key not in facts)
    wakes = [standing.wake_at for standing in clusters.values() if standing.wake_at is not None]
    look = draining.wake_at(drains, snapshot.now)
    if look is not None:
        wakes.append(look)
    return Fleet(
        clusters=clusters,
        facts=facts,
        changed=frozenset(changed),
        changed_clusters=frozenset(_clusters_of(changed, snapshot)),
        first_seen=first_seen,
        drains=drains,
        wake_at=min(wakes, default=None),
        notes=tuple(_notes(snapshot, memory, clusters, facts)),
    )


def _clusters_of(servers: Iterable[ObjectKey], snapshot: Snapshot) -> Iterable[ObjectKey]:
    for key in servers:
        server = snapshot.servers.get(key)
        if server is not None and server.cluster in snapshot.clusters:
            yield server.cluster


def _facts(standing: Standing, *, frozen: bool) -> ServerFacts:
    view = standing.view
    hello = view.hello
    return ServerFacts(
        state=standing.state,
        awaited=standing.awaited,
        frozen=frozen,
        problem=view.problem.reason if view.problem else "",
        instance_id=view.instance_id,
        peer=(hello.peer.host, hello.peer.port) if hello else None,
        pipe_protocol=hello.pipe_protocol if hello else 0,
        slots=tuple(sorted((slot, worker.state) for slot, worker in view.workers.items())),
        free_ports=max(0, min(PLENTY, view.load.free_pipe_ports)) if view.load else -1,
        report_received=view.report_received,
        zone=zone_of(standing),
        leaving=_leaving(standing),
        urgent=standing.drain is not None and standing.drain.urgent,
        expired=standing.drain is not None and standing.drain.expired,
        drained=standing.drain is not None and standing.drain.drained,
    )


def _leaving(standing: Standing) -> str:
    if standing.drain is not None:
        return standing.drain.reason
    return "Cordoned" if standing.server.desired_state == "Cordoned" else ""


def _notes(
    snapshot: Snapshot,
    memory: Memory,
    clusters: Mapping[ObjectKey, ClusterStanding],
    facts: Mapping[ObjectKey, ServerFacts],
) -> Iterable[EventNote]:
    for key, standing in clusters.items():
        if standing.frozen and key not in memory.frozen and standing.frozen_until is not None:
            cluster = snapshot.clusters[key]
            message = "more than half of the servers fell silent at once; nothing is moved for a minute"
            yield EventNote("MediaCluster", key, cluster.uid, "Warning", "Frozen", message)
        for server, one in standing.servers.items():
            before = memory.facts.get(server)
            newly_lost = facts[server].state == "Lost" and (before is None or before.state != "Lost")
            if newly_lost and not facts[server].drained:
                yield _lost(one.server, snapshot)
            yield from _drain_notes(one, before)


def _drain_notes(standing: Standing, before: ServerFacts | None) -> Iterable[EventNote]:
    """Its beginning and its end, told when they are first seen; a new leader tells of no earlier ones."""
    server, drain = standing.server, standing.drain
    stored = server.drain_status
    was_draining = stored is not None if before is None else before.leaving not in ("", "Cordoned")

    def note(reason: str, message: str) -> EventNote:
        return EventNote("MediaServer", server.key, server.uid, "Normal", reason, message)

    if drain is None:
        if was_draining:
            yield note("DrainCancelled", "nobody wants it drained any more; it takes routers again")
        return
    if not was_draining:
        left = (
            f"{counted(drain.routers_left, 'router')} and {counted(drain.participants_left, 'participant')}"
        )
        yield note(
            "Draining",
            f"{drain.reason}: {drain.message}; {left} move until {drain.deadline_time} at the latest",
        )
    stored_drained = server.condition("Drained")
    told = (
        stored_drained is not None and stored_drained.status == "True" if before is None else before.drained
    )
    if drain.drained and not told:
        if drain.routers_left or drain.participants_left or drain.tenants_left:
            left = ", ".join(
                (
                    counted(drain.routers_left, "router"),
                    counted(drain.participants_left, "participant"),
                    counted(drain.tenants_left, "worker") + " of applications",
                )
            )
            yield note("Drained", f"{drain.reason}: its time is over; {left} are left")
        else:
            yield note("Drained", f"{drain.reason}: nothing is left on it")


def _lost(server: MediaServer, snapshot: Snapshot) -> EventNote:
    routers = len(snapshot.routers_by_server.get(server.key, ()))
    what = f"{counted(routers, 'router')} to be placed elsewhere"
    message = f"neither the operator nor any other server hears it; {what}"
    return EventNote("MediaServer", server.key, server.uid, "Warning", "ServerLost", message)
