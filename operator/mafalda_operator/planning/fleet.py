"""The servers of all clusters judged, and which sessions that concerns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mafalda_operator.model import MediaServer, ObjectKey, Snapshot
from mafalda_operator.planning.actions import EventNote
from mafalda_operator.planning.capacity import zone_of
from mafalda_operator.planning.conditions import counted
from mafalda_operator.planning.memory import PLENTY, Memory, ServerFacts
from mafalda_operator.planning.recovery import ClusterStanding, Standing, judge_cluster


@dataclass(frozen=True, slots=True)
class Fleet:
    """``changed``: servers whose facts differ from the last plan's, those that came and went too."""

    clusters: Mapping[ObjectKey, ClusterStanding]
    facts: Mapping[ObjectKey, ServerFacts]
    changed: frozenset[ObjectKey]
    changed_clusters: frozenset[ObjectKey]
    first_seen: Mapping[ObjectKey, float]
    wake_at: float | None
    notes: tuple[EventNote, ...]


def judge_fleet(snapshot: Snapshot, memory: Memory) -> Fleet:
    """Looks at every server, and no session: some microseconds each."""
    first_seen = {key: memory.first_seen.get(key, snapshot.now) for key in snapshot.servers}
    clusters: dict[ObjectKey, ClusterStanding] = {}
    facts: dict[ObjectKey, ServerFacts] = {}
    for key in sorted(snapshot.clusters):
        servers = [snapshot.servers[server] for server in snapshot.servers_by_cluster.get(key, ())]
        standing = judge_cluster(snapshot.clusters[key], servers, snapshot, memory)
        clusters[key] = standing
        for server, one in standing.servers.items():
            facts[server] = _facts(one, frozen=standing.frozen)
    for server in snapshot.servers:
        facts.setdefault(server, ServerFacts())
    changed = {key for key, fact in facts.items() if memory.facts.get(key) != fact}
    changed.update(key for key in memory.facts if key not in facts)
    wakes = [standing.wake_at for standing in clusters.values() if standing.wake_at is not None]
    return Fleet(
        clusters=clusters,
        facts=facts,
        changed=frozenset(changed),
        changed_clusters=frozenset(_clusters_of(changed, snapshot)),
        first_seen=first_seen,
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
    )


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
            if facts[server].state == "Lost" and (before is None or before.state != "Lost"):
                yield _lost(one.server, snapshot)


def _lost(server: MediaServer, snapshot: Snapshot) -> EventNote:
    routers = len(snapshot.routers_by_server.get(server.key, ()))
    what = f"{counted(routers, 'router')} to be placed elsewhere"
    message = f"neither the operator nor any other server hears it; {what}"
    return EventNote("MediaServer", server.key, server.uid, "Warning", "ServerLost", message)
