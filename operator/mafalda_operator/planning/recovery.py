"""Who is heard, who is silent, who is lost, and when nothing may move.

A server is lost when the operator and every reachable peer have not heard it for the cluster's silence
timeout. A new leader first waits for every server, or the timeout and five seconds. When more than half of
the servers (and more than one) fall silent within ten seconds, that is our fault, not theirs: the cluster is
frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mafalda_operator.model import MediaCluster, MediaServer, ObjectKey, ServerView, Snapshot
from mafalda_operator.planning.draining import Drain
from mafalda_operator.planning.memory import Memory

State = Literal["Connected", "Silent", "HeardByPeer", "Lost", "Awaited", "NeverConnected"]
"""Awaited: connected under an earlier leader, and this one hasn't waited long enough to judge."""

LEADER_PATIENCE = 5.0
"""Seconds beyond the silence timeout that a new leader, or a new server's first answer, is waited for."""

FREEZE_WINDOW = 10.0
FREEZE_TIME = 60.0
SILENT_AFTER = 1.0
"""Seconds without a word before a server counts towards freezing: less than any silence timeout."""

LOAD_POLL = 0.1
"""Seconds between looks for the first load of a server that has just connected: nothing else tells of it."""

POLL = 0.5
"""Seconds between looks at what peers hear of a server that only they hear."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A server as planning sees it. ``awaited``: its first answer or load is to come, so placement waits."""

    server: MediaServer
    view: ServerView
    state: State
    awaited: bool
    drain: Drain | None = None
    """Set while it is being drained, and when it is."""

    @property
    def lost(self) -> bool:
        return self.state == "Lost"

    @property
    def unknown(self) -> bool:
        """What it carries can't be told now: its objects' statuses stay as they are."""
        if self.state == "Connected":
            return not self.view.report_received
        return self.state == "Awaited"


@dataclass(frozen=True, slots=True)
class ClusterStanding:
    servers: Mapping[ObjectKey, Standing]
    frozen: bool
    frozen_reason: str
    frozen_until: float | None
    settled: bool
    silent_since: Mapping[ObjectKey, float]
    unheard_since: Mapping[ObjectKey, float]
    wake_at: float | None


def judge_cluster(
    cluster: MediaCluster,
    servers: Iterable[MediaServer],
    snapshot: Snapshot,
    memory: Memory,
    drains: Mapping[ObjectKey, Drain] | None = None,
) -> ClusterStanding:
    """The standing of a cluster's servers, ordered by name."""
    judge = _Judge(cluster, snapshot, memory, drains or {})
    return judge.run(sorted(servers, key=lambda server: server.key))


class _Judge:
    def __init__(
        self,
        cluster: MediaCluster,
        snapshot: Snapshot,
        memory: Memory,
        drains: Mapping[ObjectKey, Drain],
    ) -> None:
        self.cluster = cluster
        self.drains = drains
        self.snapshot = snapshot
        self.memory = memory
        self.now = snapshot.now
        self.timeout = cluster.silence_timeout
        self.patience = self.timeout + LEADER_PATIENCE
        self.wakes: list[float] = []

    def run(self, servers: list[MediaServer]) -> ClusterStanding:
        views = {
            server.key: self.snapshot.views.get(server.key) or ServerView(key=server.key)
            for server in servers
        }
        heard = {key for key, view in views.items() if self._heard(view)}
        known = [server.key for server in servers if was_connected(server, views[server.key])]
        settled = self._settled(known, heard)
        silent = {
            key: self._silent_since(key, views[key])
            for key in known
            if key not in heard
            and (settled or views[key].last_heard is not None)
            and not self._was_to_go(key)
        }
        frozen_until = self._frozen_until(silent, len(heard))
        none_connected = not heard and not all(self._was_to_go(key) for key in known)
        frozen = none_connected or frozen_until is not None
        standings = {
            server.key: Standing(
                server=server,
                view=views[server.key],
                state=self._state(server.key, views, heard, known, settled=settled, frozen=frozen),
                awaited=self._awaited(server, views[server.key]),
                drain=self.drains.get(server.key),
            )
            for server in servers
        }
        reason = "NoServerConnected" if none_connected else "ServersSilent" if frozen else "NotFrozen"
        return ClusterStanding(
            servers=standings,
            frozen=frozen,
            frozen_reason=reason,
            frozen_until=frozen_until,
            settled=settled,
            silent_since={key: since for key, since in silent.items() if self.now - since >= SILENT_AFTER},
            unheard_since={
                key: self._silent_since(key, view)
                for key, view in views.items()
                if key not in heard and view.last_heard is None
            },
            wake_at=min(self.wakes, default=None),
        )

    def _was_to_go(self, key: ObjectKey) -> bool:
        """Whether a server that is silent was drained before: its end says nothing of the others."""
        drain = self.drains.get(key)
        return drain is not None and drain.drained

    def _heard(self, view: ServerView) -> bool:
        if not view.connected:
            return False
        if view.last_heard is None or self.now - view.last_heard < self.timeout:
            if view.last_heard is not None:
                self.wakes.append(view.last_heard + self.timeout)
            return True
        return False

    def _silent_since(self, key: ObjectKey, view: ServerView) -> float:
        """When it was last heard; a server that this link never heard, since it was first missed."""
        if view.last_heard is not None:
            return view.last_heard
        return self.memory.unheard_since.get(key, self.now)

    def _settled(self, known: list[ObjectKey], heard: set[ObjectKey]) -> bool:
        if self.cluster.key in self.memory.settled or all(key in heard for key in known):
            return True
        end = self.snapshot.leading_since + self.patience
        return self._passed(end)

    def _passed(self, moment: float) -> bool:
        if self.now >= moment:
            return True
        self.wakes.append(moment)
        return False

    def _frozen_until(self, silent: Mapping[ObjectKey, float], heard: int) -> float | None:
        """When the freeze in force ends; None: there is none. Each silence can start one freeze only."""
        counted = {key: since for key, since in silent.items() if self._passed(since + SILENT_AFTER)}
        until = self.memory.frozen_until.get(self.cluster.key)
        if any(key not in self.memory.silent_since for key in counted):
            newest = max(counted.values())
            fallen = sum(1 for since in counted.values() if newest - since <= FREEZE_WINDOW)
            if fallen > 1 and fallen * 2 > fallen + heard:
                until = self.now + FREEZE_TIME
        return until if until is not None and not self._passed(until) else None

    def _state(
        self,
        key: ObjectKey,
        views: Mapping[ObjectKey, ServerView],
        heard: set[ObjectKey],
        known: list[ObjectKey],
        *,
        settled: bool,
        frozen: bool,
    ) -> State:
        if key in heard:
            return "Connected"
        if key not in known:
            return "NeverConnected"
        view = views[key]
        if not settled:
            return "Awaited" if view.last_heard is None else "Silent"
        if not self._passed(self._silent_since(key, view) + self.timeout):
            return "Silent"
        if self._peer_hears(key, [views[peer] for peer in heard]):
            self.wakes.append(self.now + POLL)
            return "HeardByPeer"
        return "Silent" if frozen else "Lost"

    def _peer_hears(self, key: ObjectKey, peers: list[ServerView]) -> bool:
        name = str(key)
        for peer in peers:
            if peer.load is None or peer.load_at is None or self.now - peer.load_at > self.timeout:
                continue
            for age in peer.load.peers:
                if age.server == name and age.age + (self.now - peer.load_at) < self.timeout:
                    return True
        return False

    def _awaited(self, server: MediaServer, view: ServerView) -> bool:
        answered = view.load is not None if view.connected else view.problem is not None
        if answered or (not view.connected and view.last_heard is not None):
            return False
        since = max(self.snapshot.leading_since, self.memory.first_seen.get(server.key, self.now))
        if self._passed(since + self.patience):
            return False
        if view.connected:
            self.wakes.append(self.now + LOAD_POLL)
        return True


def was_connected(server: MediaServer, view: ServerView) -> bool:
    """Whether the server has ever been connected, under this leader or (by its status) an earlier one."""
    return view.hello is not None or bool(server.status.get("version"))
