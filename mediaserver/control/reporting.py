"""What a media server tells about itself: states when they change, load each second, dumps when asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from mediaserver.cascade import CascadeHost, HostedRouter
from mediaserver.control.contract import (
    LEAVING_KEY,
    Dump,
    LeavingState,
    LinkEntry,
    LinkState,
    Load,
    ReportedEntry,
    RouterEntry,
    RouterLoad,
    RouterState,
    TenantLoad,
    TenantWorker,
    TenantWorkers,
    WorkerLoad,
    link_key,
    router_key,
    worker_key,
)
from mediaserver.control.converge import Converger
from mediaserver.mediasoup import PipeTransport, Router, Worker
from mediaserver.pool import WorkerPool, WorkerSlot
from mediaserver.processes import cpu_seconds

DUMP_DEADLINE = 4.0
"""Seconds that the workers have to dump what they hold."""


class TenantsView(Protocol):
    """Who runs workers here for applications, as far as it is told about."""

    @property
    def pipes(self) -> int:
        """Ports of the pipe range that they use."""

    def load(self) -> TenantLoad:
        """All of them together, over the last second."""

    def workers(self) -> list[TenantWorker]:
        """Each of them, as it is now."""


class Reporting:
    """Reads pool, cascade, converger and tenants; owns nothing but the figures of the last second."""

    def __init__(
        self,
        host: CascadeHost,
        pool: WorkerPool,
        converger: Converger,
        *,
        tenants: TenantsView | None = None,
        attached: Callable[[str], int] = lambda _: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`attached` counts the attachments to a router, those included that count no more for its session:
        a participant that moves is attached twice for a moment, and its old media must not be cut off."""
        self.leaving: LeavingState | None = None
        """What is reported of the server's own end."""
        self.last_load: Load | None = None
        """What `load` said last."""
        self._host = host
        self._pool = pool
        self._converger = converger
        self._tenants = tenants
        self._attached = attached
        self._clock = clock
        self._cpu: dict[int, tuple[int, float, float]] = {}
        """By slot: pid, moment and CPU seconds of the last reading."""
        pool.on_slot_up.subscribe(self._note_worker)

    def states(self) -> dict[str, ReportedEntry]:
        """Every worker slot, every router and link that is open, and why desired ones are not."""
        states: dict[str, ReportedEntry] = {
            worker_key(slot.index): slot.reported() for slot in self._pool.slots
        }
        if self.leaving is not None:
            states[LEAVING_KEY] = self.leaving
        for key, problem in self._converger.problems.items():
            entry = self._converger.desired.get(key)
            if isinstance(entry, RouterEntry):
                states[key] = RouterState(
                    namespace=entry.namespace,
                    name=entry.name,
                    session_uid=entry.session_uid,
                    worker_slot=entry.worker_slot,
                    ready=False,
                    reason=problem.reason,
                    message=problem.message,
                )
            elif isinstance(entry, LinkEntry):
                states[key] = LinkState(
                    namespace=entry.namespace,
                    local_router=entry.local_router,
                    remote_router=entry.remote_router,
                    ready=False,
                    reason=problem.reason,
                    message=problem.message,
                )
        for router in self._host.router_states():
            key = router_key(router.namespace, router.name)
            if router.leaving and not self._participants(key):
                router = msgspec.structs.replace(router, vacant=True)
            states[key] = router
        for link in self._host.link_states():
            states[link_key(link.namespace, link.local_router, link.remote_router)] = link
        return states

    # -- load -----------------------------------------------------------------------------------------

    def load(self) -> Load:
        """Live figures. A worker whose CPU time is not known yet is left out, for it would read as idle."""
        cpu = self._measure_cpu()
        by_slot: dict[int, list[RouterLoad]] = {slot.index: [] for slot in self._pool.slots}
        routers = {}
        pipes = 0 if self._tenants is None else self._tenants.pipes
        for key, hosted in self._host.routers.items():
            routers[key] = router_load(hosted, self._participants(key))
            by_slot[hosted.slot.index].append(routers[key])
            pipes += sum(isinstance(transport, PipeTransport) for transport in hosted.router.transports)
        config = self._pool.config
        self.last_load = Load(
            workers=[
                WorkerLoad(
                    slot=slot,
                    cpu=cores,
                    routers=len(by_slot[slot]),
                    producers=sum(load.producers for load in by_slot[slot]),
                    consumers=sum(load.consumers for load in by_slot[slot]),
                )
                for slot, cores in sorted(cpu.items())
            ],
            routers=routers,
            peers=self._host.peer_ages(),
            free_pipe_ports=max(0, config.pipe_end_port - config.pipe_port + 1 - pipes),
            tenants=None if self._tenants is None else self._tenants.load(),
        )
        return self.last_load

    def _participants(self, key: str) -> int:
        return max(local_participants(self._host.routers[key]), self._attached(key))

    def _note_worker(self, slot: WorkerSlot) -> None:
        self._read_cpu(slot)

    def _read_cpu(self, slot: WorkerSlot) -> tuple[int, float, float] | None:
        """Note pid, moment and CPU seconds of a slot's worker; None when there is none."""
        pid = None if slot.worker is None else slot.worker.pid
        seconds = None if pid is None else cpu_seconds(pid)
        if pid is None or seconds is None:
            self._cpu.pop(slot.index, None)
            return None
        self._cpu[slot.index] = (pid, self._clock(), seconds)
        return self._cpu[slot.index]

    def _measure_cpu(self) -> dict[int, float]:
        """Cores used since the last reading, by slot, of the workers that were there then, too."""
        cores = {}
        for slot in self._pool.slots:
            before = self._cpu.get(slot.index)
            now = self._read_cpu(slot)
            if before is not None and now is not None and before[0] == now[0] and now[1] > before[1]:
                cores[slot.index] = (now[2] - before[2]) / (now[1] - before[1])
        return cores

    async def tenants(self) -> TenantWorkers:
        """The workers that run here for applications; none on a server that runs none."""
        return TenantWorkers(workers=[] if self._tenants is None else self._tenants.workers())

    # -- dump -----------------------------------------------------------------------------------------

    async def dump(self) -> Dump:
        """What the workers themselves say that exists in them. Raises MediasoupError, TimeoutError."""
        names = {
            str(hosted.router.id): f"{hosted.entry.namespace}/{hosted.entry.name}"
            for hosted in self._host.routers.values()
        }
        dumps = [
            self._dump_worker(slot.index, slot.worker, names)
            for slot in self._pool.slots
            if slot.worker is not None
        ]
        async with asyncio.timeout(DUMP_DEADLINE):
            return Dump(workers=list(await asyncio.gather(*dumps)))

    async def _dump_worker(self, index: int, worker: Worker, names: dict[str, str]) -> dict[str, Any]:
        known = {router.id: router for router in worker.routers}
        dump = await worker.dump()
        routers = []
        for router_id in dump.router_ids:
            router = known.get(router_id)
            found: dict[str, list[str]] = {"transports": [], "producers": [], "consumers": []}
            if router is not None:
                found = await dump_router(router)
            routers.append({"id": str(router_id), "name": names.get(str(router_id), ""), **found})
        return {"slot": index, "pid": worker.pid, "routers": routers}


async def dump_router(router: Router) -> dict[str, list[str]]:
    """Ids of a router's transports, producers and consumers, from its worker."""
    dump = await router.dump()
    return {
        "transports": [str(transport) for transport in dump.transport_ids],
        "producers": [str(producer) for producer in dump.map_producer_id_consumer_ids],
        "consumers": [str(consumer) for consumer in dump.map_consumer_id_producer_id],
    }


def router_load(hosted: HostedRouter, participants: int) -> RouterLoad:
    """Counts of one router: producers and consumers with those of pipes."""
    transports = hosted.router.transports
    return RouterLoad(
        participants=participants,
        producers=len(hosted.router.producers),
        consumers=sum(len(transport.consumers) for transport in transports),
    )


def local_participants(hosted: HostedRouter) -> int:
    """Participants attached to this router, of all that its session has."""
    return sum(info.router == hosted.entry.name for info in hosted.participants.values())
