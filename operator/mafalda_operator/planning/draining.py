"""Which servers are being drained, why, until when, and what is still there.

A drain begins when a user, the server's pod, the server itself or the planning of pods wishes it, and ends
when nobody does any more. Its beginning is kept in status.drain, so that a new leader neither prolongs nor
shortens it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from mafalda_operator.model import MediaCluster, MediaServer, ObjectKey, ServerView, Snapshot
from mafalda_operator.planning.memory import DrainStart, Memory, Wish

DrainReason = Literal["Requested", "PodDeleting", "ServerLeaving", "ScaleDown", "Update", "ClusterDeleting"]

DRAIN_POLL = 0.5
"""Seconds between two looks at what is left: loads, which tell of participants, wake nobody."""

PLACE_PATIENCE = 60.0
"""Seconds (or half of the time until the deadline, if that is less) that a router waits for another place.
Then its participants are sent to the session's other routers: they miss nothing by it, and an update of a
cluster that has no room to spare need not take the whole of that time for each of its servers."""

LAST_CALL = 5.0
"""Seconds beyond the deadline that a server has to end its routers before it counts as drained regardless."""

_MESSAGES: Mapping[str, str] = {
    "Requested": "spec.desiredState is Drained",
    "PodDeleting": "its pod is being deleted",
    "ServerLeaving": "its process was told to end",
    "ScaleDown": "its MediaCluster has more replicas than it asks for",
    "Update": "its pod is replaced by one of the newest revision",
    "ClusterDeleting": "its MediaCluster is being deleted",
}


@dataclass(frozen=True, slots=True)
class Drain:
    """One server's drain. Moments are monotonic seconds of this process, times RFC 3339."""

    reason: DrainReason
    message: str
    """Why, as a clause: `its pod is being deleted`."""
    start_time: str
    deadline_time: str
    started: float
    deadline: float
    urgent: bool
    """It has lasted long enough: better fewer routers than the session asks for than to wait on."""
    expired: bool
    """The deadline has passed: what is left ends, whether it has a place elsewhere or not."""
    routers_left: int
    """Routers of the operator's that are bound to it, and those that it reports."""
    participants_left: int
    """By the last load, from whatever time that is."""
    tenants_left: int
    """Workers that run there for applications: they are not moved, and count until the deadline."""
    drained: bool
    """Nothing is left there, or the deadline passed some seconds ago: the process may end."""


def judge_drains(
    snapshot: Snapshot,
    memory: Memory,
    *,
    wishes: Mapping[ObjectKey, Wish] | None = None,
) -> dict[ObjectKey, Drain]:
    """The drains of all servers whose MediaCluster exists, ordered by name.

    ``wishes`` is what the planning of pods wants.
    """
    drains: dict[ObjectKey, Drain] = {}
    for key in sorted(snapshot.servers):
        server = snapshot.servers[key]
        cluster = snapshot.clusters.get(server.cluster)
        if cluster is None:
            continue
        view = snapshot.views.get(key) or ServerView(key=key)
        reason = _reason(server, view, _pod_ends(server, snapshot), (wishes or {}).get(key))
        if reason is not None:
            drains[key] = _drain(reason, server, cluster, view, snapshot, memory)
    return drains


def wake_at(drains: Mapping[ObjectKey, Drain], now: float) -> float | None:
    """When to look again: loads tell nobody, nor do deadlines. None: nothing is being drained."""
    moments = [
        moment
        for drain in drains.values()
        if not drain.drained
        for moment in (now + DRAIN_POLL, drain.deadline, drain.deadline + LAST_CALL)
        if moment > now  # when one becomes urgent is found by the looks every DRAIN_POLL
    ]
    return min(moments, default=None)


def starts(drains: Mapping[ObjectKey, Drain]) -> dict[ObjectKey, DrainStart]:
    """What the next plan has to remember of them."""
    return {key: DrainStart(drain.start_time, drain.started) for key, drain in drains.items()}


def _reason(server: MediaServer, view: ServerView, deleting: bool, wish: Wish | None) -> DrainReason | None:
    """The strongest of the reasons there are: those that can't be called off come first."""
    if deleting:
        return "PodDeleting"
    if _leaving(server, view):
        return "ServerLeaving"
    if wish is not None:
        return wish
    return "Requested" if server.desired_state == "Drained" else None


def _pod_ends(server: MediaServer, snapshot: Snapshot) -> bool:
    """Whether the server's pod is being deleted, or is gone: then the MediaServer is about to go, too."""
    pod = snapshot.pods.get(server.key)
    if pod is not None and server.pod_uid in ("", pod.uid):
        return pod.deleting
    return bool(server.pod_uid) and snapshot.followed.get(server.key.namespace) == ""


def _leaving(server: MediaServer, view: ServerView) -> bool:
    """Whether the server said last that it was told to end, if only to an earlier leader."""
    if view.last_heard is None or not (view.report_received or view.reported.leaving):
        stored = server.drain_status
        return stored is not None and stored.reason == "ServerLeaving"
    return view.reported.leaving is not None


def _drain(
    reason: DrainReason,
    server: MediaServer,
    cluster: MediaCluster,
    view: ServerView,
    snapshot: Snapshot,
    memory: Memory,
) -> Drain:
    start = memory.drains.get(server.key) or _resume(server, snapshot)
    timeout = cluster.drain_timeout
    if view.reported.leaving is not None:
        timeout = min(timeout, view.reported.leaving.deadline)
    deadline = start.started + timeout
    routers, participants, tenants = left_on(server.key, view, snapshot)
    empty = not (routers or participants or tenants)
    return Drain(
        reason=reason,
        message=_MESSAGES[reason],
        start_time=start.time,
        deadline_time=_later(start.time, timeout),
        started=start.started,
        deadline=deadline,
        urgent=snapshot.now >= start.started + min(PLACE_PATIENCE, timeout / 2),
        expired=snapshot.now >= deadline,
        routers_left=routers,
        participants_left=participants,
        tenants_left=tenants,
        drained=empty or snapshot.now >= deadline + LAST_CALL,
    )


def _resume(server: MediaServer, snapshot: Snapshot) -> DrainStart:
    """Now, or when an earlier leader saw it begin."""
    stored = server.drain_status
    began = _parse(stored.start_time) if stored is not None else None
    now = _parse(snapshot.wall_time)
    if stored is None or began is None or now is None or began > now:
        return DrainStart(snapshot.wall_time, snapshot.now)
    return DrainStart(stored.start_time, snapshot.now - (now - began).total_seconds())


def left_on(key: ObjectKey, view: ServerView, snapshot: Snapshot) -> tuple[int, int, int]:
    """Routers, participants and applications' workers that a server has.

    Routers written by hand count while the server has them open only: they stay bound for good. What a
    server that is not connected said last counts no more.
    """
    bound = {
        f"router/{router}"
        for router in snapshot.routers_by_server.get(key, ())
        if snapshot.routers[router].owned
    }
    if not view.connected:
        return len(bound), 0, 0
    load = view.load
    participants = sum(one.participants for one in load.routers.values()) if load else 0
    tenants = load.tenants.workers if load and load.tenants else 0
    return len(bound | set(view.routers)), participants, tenants


def _parse(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _later(text: str, seconds: float) -> str:
    began = _parse(text)
    if began is None:
        return text
    return (began + timedelta(seconds=min(seconds, 10**8))).strftime("%Y-%m-%dT%H:%M:%SZ")
