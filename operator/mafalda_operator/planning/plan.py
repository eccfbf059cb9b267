"""Puts a plan together: servers first, then the sessions that changed, then what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from mafalda_operator.model import MediaSession, ObjectKey, Scope, Snapshot
from mafalda_operator.planning.access import judge_access, token_keys
from mafalda_operator.planning.actions import Action, EventNote, Plan, ServerEntries, StatusUpdate
from mafalda_operator.planning.capacity import Capacity
from mafalda_operator.planning.cluster_status import cluster_status, key_set_actions
from mafalda_operator.planning.desired import settings_of
from mafalda_operator.planning.draining import starts
from mafalda_operator.planning.fleet import Fleet, judge_fleet
from mafalda_operator.planning.memory import Memory, Reservation
from mafalda_operator.planning.owned import owned_actions
from mafalda_operator.planning.pods import PodPlan, asked, judge_all_pods, pod_actions, wishes_of
from mafalda_operator.planning.server_status import server_status, stray_status
from mafalda_operator.planning.session_plan import (
    SessionPlan,
    SessionPlanner,
    plan_ending,
    plan_missing,
    plan_refused,
)
from mediaserver.control.contract import SettingsEntry

ValueT = TypeVar("ValueT")


def plan(snapshot: Snapshot, memory: Memory, scope: Scope) -> Plan:
    """What the sessions, servers and clusters in scope need, and those that their servers' changes concern.

    Pure and deterministic: equal arguments give equal plans. Before all kinds have been listed
    (``snapshot.complete``) it does nothing.
    """
    if not snapshot.complete:
        return Plan((), {}, {}, (), (), memory)
    return _Planner(snapshot, memory, scope).run()


class _Planner:
    def __init__(self, snapshot: Snapshot, memory: Memory, scope: Scope) -> None:
        self.snapshot = snapshot
        self.memory = memory
        self.scope = scope
        self.pods: Mapping[ObjectKey, PodPlan] = judge_all_pods(snapshot, memory)
        self.fleet: Fleet = judge_fleet(snapshot, memory, wishes=wishes_of(self.pods))
        self.actions: list[Action] = []
        self.desired: dict[ObjectKey, Mapping[ObjectKey, ServerEntries]] = {}
        self.notes: list[EventNote] = []
        self.session_statuses: list[StatusUpdate] = []
        self.router_statuses: list[StatusUpdate] = []
        self.pending = dict(memory.pending)
        self.retries = dict(memory.retries)
        self.cluster_retries = dict(memory.cluster_retries)
        self.pod_names: dict[ObjectKey, str] = {}
        self.links_down = dict(memory.links_down)
        self.blocked: dict[ObjectKey, str] = {}
        self._capacities: dict[ObjectKey, Capacity] = {}
        self._keys: dict[tuple[ObjectKey, str], Mapping[str, str]] = {}
        self._reservations = [one for one in memory.reservations if one.until > snapshot.now]

    def run(self) -> Plan:
        self._make_keys()
        self._make_pods()
        for key in sorted(self._sessions()):
            self._take(key, self._plan_session(key))
        statuses = [*self.session_statuses, *self._cluster_statuses(), *self._server_statuses()]
        wakes = [*self.retries.values(), *self.cluster_retries.values()]
        if self.fleet.wake_at is not None:
            wakes.append(self.fleet.wake_at)
        return Plan(
            actions=tuple(self.actions),
            desired=self.desired,
            settings=self._settings(),
            statuses=(*statuses, *self.router_statuses),
            notes=(*self.notes, *self.fleet.notes),
            memory=self._next_memory(),
            whole=self.scope.sessions is None,
            wake_at=min(wakes, default=None),
            blocked=self.blocked,
        )

    # -- which ----------------------------------------------------------------------------------------------

    def _sessions(self) -> set[ObjectKey]:
        """Those in scope, those with a router on a server that changed, those that wait for a place where a
        server changed, and those whose time has come."""
        if self.scope.sessions is None:
            return set(self.snapshot.sessions) | set(self.snapshot.routers_by_session)
        chosen = set(self.scope.sessions)
        for server in self.fleet.changed:
            for router in self.snapshot.routers_by_server.get(server, ()):
                chosen.add(self.snapshot.routers[router].session)
        if self.fleet.changed:
            chosen.update(
                key for key, cluster in self.memory.pending.items() if cluster in self.fleet.changed_clusters
            )
        chosen.update(key for key, moment in self.memory.retries.items() if moment <= self.snapshot.now)
        return chosen

    def _clusters(self) -> Iterable[ObjectKey]:
        chosen = set(self.fleet.changed_clusters)
        chosen.update(self.snapshot.clusters if self.scope.clusters is None else self.scope.clusters)
        chosen.update(key for key, at in self.memory.cluster_retries.items() if at <= self.snapshot.now)
        chosen.update(key for key, judged in self.pods.items() if judged.wishes)
        return sorted(key for key in chosen if key in self.snapshot.clusters)

    # -- sessions -------------------------------------------------------------------------------------------

    def _plan_session(self, key: ObjectKey) -> SessionPlan:
        snapshot = self.snapshot
        routers = [snapshot.routers[router] for router in sorted(snapshot.routers_by_session.get(key, ()))]
        session = snapshot.sessions.get(key)
        if session is None:
            return plan_missing(key, routers, snapshot)
        if session.deleting:
            return plan_ending(session, routers)
        access = judge_access(session, snapshot)
        if not access.accepted:
            return plan_refused(session, access, routers, snapshot)
        planner = SessionPlanner(
            session,
            access,
            routers,
            self.fleet.clusters[session.cluster],
            self._capacity(session.cluster),
            snapshot,
            self.memory.links_down.get(key, frozenset()),
        )
        return planner.run(self._token_keys(session))

    def _take(self, key: ObjectKey, result: SessionPlan) -> None:
        self.actions += result.actions
        self.desired[key] = result.desired
        self.notes += result.notes
        self.router_statuses += result.router_statuses
        if result.session_status is not None:
            self.session_statuses.append(result.session_status)
        _remember(self.links_down, key, result.links_down or None)
        _remember(self.retries, key, result.retry_at)
        session = self.snapshot.sessions.get(key)
        _remember(self.pending, key, session.cluster if session and result.pending else None)
        if result.shortage is not None and result.pending:
            self.blocked[key] = result.shortage[0]

    def _capacity(self, cluster: ObjectKey) -> Capacity:
        capacity = self._capacities.get(cluster)
        if capacity is None:
            capacity = Capacity(self.fleet.clusters[cluster].servers, self.snapshot, self._reservations)
            self._capacities[cluster] = capacity
        return capacity

    def _token_keys(self, session: MediaSession) -> Mapping[str, str]:
        which = (session.cluster, session.key.namespace)
        keys = self._keys.get(which)
        if keys is None:
            cluster = self.snapshot.clusters[session.cluster]
            keys = self._keys[which] = token_keys(cluster, session.key.namespace, self.snapshot)
        return keys

    # -- clusters and servers -------------------------------------------------------------------------------

    def _make_keys(self) -> None:
        for key in self._clusters():
            self.actions += key_set_actions(self.snapshot.clusters[key], self.snapshot)

    def _make_pods(self) -> None:
        """For clusters in scope; the names of pods that were asked for are kept for all."""
        self.cluster_retries = {
            key: at for key, at in self.cluster_retries.items() if key in self.snapshot.clusters
        }
        in_scope = set(self._clusters())
        for key, judged in self.pods.items():
            if key not in in_scope:
                names = asked(judged.cluster, self.memory)
            else:
                retries: list[float] = []
                done = pod_actions(judged, self.snapshot, self.memory, self._is_drained)
                self.actions += owned_actions(judged, self.snapshot, retries)
                self.actions += done.actions
                names = done.names
                retries += [done.retry_at] if done.retry_at is not None else []
                _remember(self.cluster_retries, key, min(retries, default=None))
            self.pod_names.update(dict.fromkeys(names, judged.cluster.uid))

    def _is_drained(self, server: ObjectKey) -> bool:
        drain = self.fleet.drains.get(server)
        return drain is not None and drain.drained

    def _settings(self) -> dict[ObjectKey, SettingsEntry]:
        made = {}
        for cluster, standing in self.fleet.clusters.items():
            settings = settings_of(self.snapshot.clusters[cluster], self.snapshot)
            if settings is not None:
                made.update(dict.fromkeys(standing.servers, settings))
        return made

    def _cluster_statuses(self) -> Iterable[StatusUpdate]:
        for key in self._clusters():
            status = cluster_status(
                self.snapshot.clusters[key], self.fleet.clusters[key], self.snapshot, self.pods[key]
            )
            if status is not None:
                yield status

    def _server_statuses(self) -> Iterable[StatusUpdate]:
        chosen = set(self.fleet.changed) | set(self.fleet.drains)
        chosen.update(self.snapshot.servers if self.scope.servers is None else self.scope.servers)
        for key in sorted(chosen):
            server = self.snapshot.servers.get(key)
            if server is None:
                continue
            cluster = self.fleet.clusters.get(server.cluster)
            if cluster is None:
                status = stray_status(server, self.snapshot.wall_time)
            else:
                status = server_status(cluster.servers[key], self.snapshot.wall_time, self.snapshot.pods)
            if status is not None:
                yield status

    # -- memory ---------------------------------------------------------------------------------------------

    def _next_memory(self) -> Memory:
        clusters = self.fleet.clusters
        reserved = [one for capacity in self._capacities.values() for one in capacity.reserved]
        return replace(
            self.memory,
            facts=self.fleet.facts,
            first_seen=self.fleet.first_seen,
            silent_since={
                server: since
                for standing in clusters.values()
                for server, since in standing.silent_since.items()
            },
            unheard_since={
                server: since
                for standing in clusters.values()
                for server, since in standing.unheard_since.items()
            },
            settled=frozenset(key for key, standing in clusters.items() if standing.settled),
            frozen_until={
                key: standing.frozen_until
                for key, standing in clusters.items()
                if standing.frozen_until is not None
            },
            frozen=frozenset(key for key, standing in clusters.items() if standing.frozen_until is not None),
            pending=self.pending,
            links_down=self.links_down,
            drains=starts(self.fleet.drains),
            reservations=_merge(self._reservations, reserved),
            retries=self.retries,
            wishes=wishes_of(self.pods),
            pod_names=self.pod_names,
            cluster_retries=self.cluster_retries,
        )


def _remember(held: dict[ObjectKey, ValueT], key: ObjectKey, value: ValueT | None) -> None:
    """Set an entry, or with None remove it."""
    if value is None:
        held.pop(key, None)
    else:
        held[key] = value


def _merge(before: Iterable[Reservation], now: Iterable[Reservation]) -> tuple[Reservation, ...]:
    """One reservation for each server and time, however many routers it stands for."""
    ports: dict[tuple[ObjectKey, float], int] = {}
    for one in (*before, *now):
        ports[one.server, one.until] = ports.get((one.server, one.until), 0) + one.ports
    return tuple(Reservation(server, count, until) for (server, until), count in sorted(ports.items()))
