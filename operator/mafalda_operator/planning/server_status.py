"""The status of a MediaServer."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from mafalda_operator.model import ADDRESS_INTERNAL, MediaServer, ObjectKey, PodView, pod_address
from mafalda_operator.planning.actions import StatusUpdate
from mafalda_operator.planning.capacity import accepting_reason, zone_of
from mafalda_operator.planning.conditions import PROGRESS, Conditions, status_update
from mafalda_operator.planning.draining import Drain
from mafalda_operator.planning.recovery import Standing
from mediaserver.control.contract import Address, ServerHello

COUNTING = 1.0
"""Seconds that a status may wait which only counts down."""

_ACCEPTING_MESSAGES = {
    "NotConnected": "the operator isn't connected to it",
    "Deleting": "it is being deleted",
    "Draining": "it is being drained",
    "Drained": "it is drained",
    "Cordoned": "spec.desiredState is Cordoned: it keeps its routers and takes no new ones; set it to Active "
    "to have it take some again",
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


def server_status(
    standing: Standing, wall_time: str, pods: Mapping[ObjectKey, PodView] | None = None
) -> StatusUpdate | None:
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
    if standing.drain is not None:
        accepting = drain_message(standing.drain)
    conditions.add("Accepting", why_not is None, why_not or "Accepting", accepting)
    if standing.drain is not None:
        drained = standing.drain.drained
        conditions.add("Drained", drained, "Drained" if drained else "Draining", accepting)
    _judge_ready(standing, conditions)
    patience = PROGRESS if standing.awaited else COUNTING if _only_counts(standing, conditions) else 0.0
    return status_update("MediaServer", server, _fields(standing, pods or {}), conditions, patience)


def drain_message(drain: Drain) -> str:
    """Why it is drained and what becomes of what is there; holds no figure that changes all the time."""
    why = f"{drain.reason}: {drain.message}"
    if drain.drained:
        return f"{why}; nothing has to be waited for any more"
    if drain.expired:
        return f"{why}; its time is over, what is left there ends"
    return f"{why}; what is there moves elsewhere, until {drain.deadline_time} at the latest"


def _only_counts(standing: Standing, conditions: Conditions) -> bool:
    """Whether at most the figures of its drain differ from what is stored."""
    stored = standing.server.status
    return standing.drain is not None and stored.get("conditions") == conditions.items


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


def _fields(standing: Standing, pods: Mapping[ObjectKey, PodView]) -> dict[str, Any]:
    """What was last heard of it."""
    stored = standing.server.status
    hello = standing.view.hello
    known: dict[str, Any] = {"zone": zone_of(standing) or None}
    known |= {name: stored.get(name) for name in ("node", "pod")}
    pod = pods.get(standing.server.key)
    if pod is not None and pod.uid == standing.server.pod_uid:
        known |= {"node": pod.node or None, "pod": pod.key.name}
    internal = pod_address(standing.server, pods) or standing.server.address
    drain = standing.drain
    if drain is not None:
        known["drain"] = {
            "reason": drain.reason,
            "startTime": drain.start_time,
            "deadline": drain.deadline_time,
            "routersLeft": drain.routers_left,
            "participantsLeft": drain.participants_left,
        }
    if hello is None:
        kept = ("workers", "version", "workerVersion")
        addresses = stored.get("addresses") or _own_address(internal) or None
        return known | {"addresses": addresses} | {name: stored.get(name) for name in kept}
    workers = standing.view.workers
    return known | {
        "addresses": _addresses(internal, hello),
        "workers": [{"slot": slot, "state": workers[slot].state} for slot in sorted(workers)],
        "version": hello.version,
        "workerVersion": hello.worker_version,
    }


def _addresses(internal: str, hello: ServerHello) -> list[dict[str, str]]:
    """Where it is reached: as the operator dials it, and as it says itself."""
    found = [
        *_own_address(internal),
        _address("Participants", join_host_port(hello.participants), hello.participants.host),
        *(_address("Client", address, address) for address in hello.client_addresses or [hello.client.host]),
        _address("Pipe", hello.pipe.host, hello.pipe.host),
    ]
    return [item for item in found if item["address"]]


def _own_address(internal: str) -> list[dict[str, str]]:
    return [_address(ADDRESS_INTERNAL, internal, internal.rpartition(":")[0])] if internal else []


def join_host_port(address: Address) -> str:
    """HOST:PORT, an IPv6 address in brackets."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def _address(kind: str, address: str, host: str) -> dict[str, str]:
    item = {"type": kind, "address": address}
    try:
        family = ip_address(host.strip("[]")).version
    except ValueError:
        return item
    return item | {"ipFamily": f"IPv{family}"}


def stray_status(server: MediaServer, wall_time: str) -> StatusUpdate | None:
    """A server whose MediaCluster doesn't exist: nothing dials it."""
    conditions = Conditions(server, wall_time)
    message = f"there is no MediaCluster {server.cluster}; create it, or delete this MediaServer"
    for kind in ("Connected", "Accepting", "Ready"):
        conditions.add(kind, False, "ClusterNotFound", message)
    kept = ("zone", "node", "pod", "addresses", "workers", "version", "workerVersion")
    fields = {name: server.status.get(name) for name in kept}
    return status_update("MediaServer", server, fields, conditions)
