"""What a fake media server makes of its desired state, and what can be wrong with it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mediaserver.control.contract import (
    CONTROL_PROTOCOL,
    LEAVING_KEY,
    PIPE_PROTOCOL,
    DesiredEntry,
    Dump,
    LeavingState,
    LinkEntry,
    LinkState,
    ReportedEntry,
    RouterEntry,
    RouterState,
    WorkerState,
    router_key,
    session_key,
    worker_key,
)

Problem = tuple[str, str]
"""Reason (one word) and message; two empty strings: none."""


@dataclass
class FakeFaults:
    """What is wrong with a fake server; each may be switched at any time."""

    hang: bool = False
    """Takes connections and never challenges."""
    garbage: bool = False
    """Sends what is no JSON-RPC instead of a challenge."""
    silent: bool = False
    """As if stopped by SIGSTOP: sockets stay open, nothing is read, answered or sent. See silence()."""
    bad_proof: bool = False
    """Cannot prove that it is a member."""
    control_protocol: int = CONTROL_PROTOCOL
    pipe_protocol: int = PIPE_PROTOCOL
    workers: dict[int, WorkerState] = field(default_factory=dict)
    """Slots that are not Running."""
    routers: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Reason and message of routers (by router key) that do not become ready."""
    links: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The same of links, by link key."""
    leaving: LeavingState | None = None
    """Its process was told to end, and waits until it is empty."""
    attended: set[str] = field(default_factory=set)
    """Routers, by key, that their participants don't leave when they are asked to."""

    def worker(self, slot: int) -> WorkerState:
        return self.workers.get(slot) or WorkerState(slot=slot, state="Running")


def states(desired: Mapping[str, DesiredEntry], faults: FakeFaults, workers: int) -> dict[str, ReportedEntry]:
    """What the server reports once it has converged."""
    made: dict[str, ReportedEntry] = {worker_key(slot): faults.worker(slot) for slot in range(workers)}
    if faults.leaving is not None:
        made[LEAVING_KEY] = faults.leaving
    taken: dict[tuple[str, int], str] = {}
    for key, entry in sorted(desired.items()):
        if isinstance(entry, RouterEntry):
            place = (entry.session_uid, entry.worker_slot)
            rival = taken.setdefault(place, key)
            problem = _router_problem(key, entry, rival, desired, faults, workers)
            made[key] = _router(entry, problem, vacant=key not in faults.attended)
    for key, entry in desired.items():
        if isinstance(entry, LinkEntry):
            made[key] = _link(entry, faults.links.get(key) or _link_problem(entry, made))
    return made


def _router_problem(
    key: str,
    entry: RouterEntry,
    rival: str,
    desired: Mapping[str, DesiredEntry],
    faults: FakeFaults,
    workers: int,
) -> Problem:
    if key in faults.routers:
        return faults.routers[key]
    if session_key(entry.namespace, entry.session) not in desired:
        return "SessionMissing", f"the operator sent no entry for session {entry.session}"
    if entry.worker_slot >= workers:
        return "NoSuchSlot", f"worker slot {entry.worker_slot}: the server has 0 to {workers - 1}"
    worker = faults.worker(entry.worker_slot)
    if worker.state != "Running":
        return f"Worker{worker.state}", worker.reason
    if rival != key:
        return "SlotTaken", f"worker slot {entry.worker_slot} carries {rival} of this session"
    return "", ""


def _link_problem(entry: LinkEntry, made: Mapping[str, ReportedEntry]) -> Problem:
    local = made.get(router_key(entry.namespace, entry.local_router))
    if isinstance(local, RouterState) and local.ready:
        return "", ""
    return "Opening", f"waits for router {entry.local_router}"


def _router(entry: RouterEntry, problem: Problem, *, vacant: bool) -> RouterState:
    reason, message = problem
    leaving = entry.leaving and not reason
    return RouterState(
        namespace=entry.namespace,
        name=entry.name,
        session_uid=entry.session_uid,
        worker_slot=entry.worker_slot,
        ready=not reason,
        id="" if reason else f"fake-{entry.uid}",
        reason=reason,
        message=message,
        leaving=leaving,
        vacant=leaving and vacant,
    )


def _link(entry: LinkEntry, problem: Problem) -> LinkState:
    reason, message = problem
    return LinkState(
        namespace=entry.namespace,
        local_router=entry.local_router,
        remote_router=entry.remote_router,
        ready=not reason,
        reason=reason,
        message=message,
    )


def dump(reported: Mapping[str, ReportedEntry], workers: int) -> Dump:
    """One worker object for each router that is ready."""
    slots: list[dict[str, object]] = []
    for slot in range(workers):
        routers = [
            {
                "id": state.id,
                "name": f"{state.namespace}/{state.name}",
                "transports": [],
                "producers": [],
                "consumers": [],
            }
            for state in reported.values()
            if isinstance(state, RouterState) and state.ready and state.worker_slot == slot
        ]
        slots.append({"slot": slot, "pid": 0, "routers": routers})
    return Dump(workers=slots)
