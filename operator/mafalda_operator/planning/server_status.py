"""The status of a MediaServer."""

from __future__ import annotations

from typing import Any

from mafalda_operator.model import MediaServer
from mafalda_operator.planning.actions import StatusUpdate
from mafalda_operator.planning.capacity import accepting_reason, zone_of
from mafalda_operator.planning.conditions import PROGRESS, Conditions, status_update
from mafalda_operator.planning.recovery import Standing

_ACCEPTING_MESSAGES = {
    "NotConnected": "the operator isn't connected to it",
    "Deleting": "it is being deleted",
    "NoLoadYet": "it has not told its load yet",
    "NoWorkerRunning": "none of its workers runs; see its log",
    "NoPipePorts": "it has no free pipe port, so routers there can't be linked; widen its --pipe-ports",
}

_AWAY = {
    "Silent": "it has not been heard for a moment; the operator dials it again",
    "HeardByPeer": "the operator doesn't hear it but other servers do, so its routers stay; check the "
    "network between operator and server",
    "Lost": "neither the operator nor any other server hears it, so its routers are placed elsewhere; check "
    "the process, its host and its network",
    "NeverConnected": "the operator dials it",
}


def server_status(standing: Standing, wall_time: str) -> StatusUpdate | None:
    """None when nothing changed, or while a new leader waits for a server that an earlier one knew."""
    if standing.state == "Awaited" and standing.view.problem is None:
        return None
    server, view = standing.server, standing.view
    conditions = Conditions(server, wall_time)
    connected = standing.state == "Connected"
    if connected:
        conditions.add("Connected", True, "Connected", f"the control link to {server.address} is up")
    else:
        conditions.add("Connected", False, *_why_away(standing))
    why_not = accepting_reason(standing)
    if why_not is None and view.load is not None and view.load.free_pipe_ports <= 0:
        why_not = "NoPipePorts"
    accepting = _ACCEPTING_MESSAGES[why_not] if why_not else "it takes new routers"
    conditions.add("Accepting", why_not is None, why_not or "Accepting", accepting)
    _judge_ready(standing, conditions)
    patience = PROGRESS if standing.awaited else 0.0
    return status_update("MediaServer", server, _fields(standing), conditions, patience)


def _why_away(standing: Standing) -> tuple[str, str]:
    problem = standing.view.problem
    if problem is not None:
        return problem.reason, problem.message
    reason = "Connecting" if standing.state == "NeverConnected" else "Silent"
    return reason, _AWAY.get(standing.state, _AWAY["Silent"])


def _judge_ready(standing: Standing, conditions: Conditions) -> None:
    failing = [worker for worker in standing.view.workers.values() if worker.state == "Failing"]
    if standing.lost:
        conditions.add("Ready", False, "ServerLost", _AWAY["Lost"])
    elif standing.state == "HeardByPeer":
        conditions.add("Ready", False, "HeardByPeer", _AWAY["HeardByPeer"])
    elif standing.state == "Connected" and failing:
        worker = min(failing, key=lambda one: one.slot)
        message = f"worker {worker.slot} keeps dying, its routers are moved: {worker.reason or 'see its log'}"
        conditions.add("Ready", False, "WorkerFailing", message)
    else:
        conditions.summarise("Ready", ("Connected", "Accepting"), "it is connected and takes routers")


def _fields(standing: Standing) -> dict[str, Any]:
    """What was last heard of it."""
    stored = standing.server.status
    hello = standing.view.hello
    if hello is None:
        kept = ("workers", "version", "workerVersion")
        return {"zone": zone_of(standing) or None} | {name: stored.get(name) for name in kept}
    workers = standing.view.workers
    return {
        "zone": zone_of(standing) or None,
        "workers": [{"slot": slot, "state": workers[slot].state} for slot in sorted(workers)],
        "version": hello.version,
        "workerVersion": hello.worker_version,
    }


def stray_status(server: MediaServer, wall_time: str) -> StatusUpdate | None:
    """A server whose MediaCluster doesn't exist: nothing dials it."""
    conditions = Conditions(server, wall_time)
    message = f"there is no MediaCluster {server.cluster}; create it, or delete this MediaServer"
    for kind in ("Connected", "Accepting", "Ready"):
        conditions.add(kind, False, "ClusterNotFound", message)
    kept = ("zone", "workers", "version", "workerVersion")
    fields = {name: server.status.get(name) for name in kept}
    return status_update("MediaServer", server, fields, conditions)
