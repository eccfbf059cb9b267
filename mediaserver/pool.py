"""The workers of one media server, in numbered slots that the pool keeps filled.

A slot is an identity: router placements name it, its WebRtcServer always has the same port, and what
sits in it may be replaced. A worker that dies is replaced at once; one that keeps dying is replaced
after growing pauses and the slot says Failing with the reason, but the pool never gives up on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from mediaserver.addresses import by_host, family
from mediaserver.control.contract import CANNOT_LISTEN, WorkerState
from mediaserver.mediasoup import (
    Event,
    MediasoupError,
    RequestRejectedError,
    TransportListenInfo,
    TransportPortRange,
    TransportSocketFlags,
    WebRtcServer,
    Worker,
    WorkerDiedError,
    create_worker,
)
from mediaserver.wire.listen import ListenAddress

log = structlog.get_logger(__name__)

SlotState = Literal["Starting", "Running", "Failing"]

STABLE_AFTER = 30.0
"""Seconds a worker must live for its slot's earlier failures to be forgotten."""
FAILING_AFTER = 3
"""Failures in a row from which on a slot without a worker is Failing instead of Starting."""
LONGEST_PAUSE = 10.0
"""Seconds between two attempts, at most."""
START_DEADLINE = 15.0
"""Seconds a worker and its WebRtcServer may take to come up."""

SpawnWorker = Callable[[int], Awaitable[tuple[Worker, WebRtcServer]]]


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """What the pool listens on. Slot n has UDP and TCP port `client_port` + n for participants' media."""

    workers: int
    client_host: str
    client_port: int
    pipe_host: str
    pipe_port: int
    pipe_end_port: int
    more_client_hosts: tuple[str, ...] = ()
    """Listened on as well, at the same ports: the other IP family of a dual stack, say."""
    announced: tuple[str, ...] = ()
    """What participants are told, in order; empty: the addresses that are listened on."""
    worker_bin: str | None = None

    @property
    def client_hosts(self) -> tuple[str, ...]:
        """All addresses that workers listen on for participants' media."""
        return (self.client_host, *self.more_client_hosts)

    @property
    def announced_address(self) -> str | None:
        """The first announced one that leads to `client_host`."""
        return dict(by_host(self.client_hosts, self.announced))[self.client_host]


@dataclass(frozen=True, kw_only=True)
class Probing:
    """How a worker that lives but does nothing is found out: it is asked, again and again. Seconds.

    Several misses in a row are needed, since time in which this very process was stopped is one miss.
    """

    interval: float = 2.0
    deadline: float = 4.0
    misses: int = 3


class WorkerSlot:
    """One numbered place for a worker; `worker` and `webrtc_server` are None while there is none."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.worker: Worker | None = None
        self.webrtc_server: WebRtcServer | None = None
        self.state: SlotState = "Starting"
        self.restarts = 0
        """Workers that ended here without having been told to."""
        self.reason = ""
        """Why there is no worker, or why the last one ended."""

    def reported(self) -> WorkerState:
        """The slot as the control link reports it."""
        reason = "" if self.state == "Running" else self.reason
        return WorkerState(slot=self.index, state=self.state, restarts=self.restarts, reason=reason)

    def __repr__(self) -> str:
        return f"<WorkerSlot {self.index} {self.state}>"


class WorkerPool:
    """Owns the workers of a media server from `start` to `close`.

    `on_slot_up` tells of a slot that has a fresh worker, `on_slot_down` of one that lost its worker, with
    the reason; by then `slot.worker` is None and every object of that worker is closed.
    """

    def __init__(
        self,
        config: PoolConfig,
        *,
        spawn: SpawnWorker | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        probing: Probing | None = None,
    ) -> None:
        self.config = config
        self.slots = [WorkerSlot(index) for index in range(config.workers)]
        self.on_slot_up: Event[WorkerSlot] = Event("slot up")
        self.on_slot_down: Event[tuple[WorkerSlot, str]] = Event("slot down")
        self.on_change: Event[WorkerSlot] = Event("slot change")
        """A slot's state or reason changed; comes before the two above."""
        self._spawn = spawn or self._spawn_worker
        self._clock = clock
        self._sleep = sleep
        self._probing = probing or Probing()
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Fills the slots; returns once each has had its first attempt, which may have failed."""
        settled = [asyncio.Event() for _ in self.slots]
        self._keepers = [
            asyncio.create_task(self._keep(slot, event), name=f"worker slot {slot.index}")
            for slot, event in zip(self.slots, settled, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in settled))

    async def close(self) -> None:
        """Ends every worker and waits for its process; no slot is refilled. Idempotent."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []

    def pipe_listen_info(self) -> TransportListenInfo:
        """Where pipe transports listen: the internal address, never announced, any port of the pipe range.

        The range is shared by all slots: a worker skips the ports that another one has bound.
        """
        ports = TransportPortRange(min=self.config.pipe_port, max=self.config.pipe_end_port)
        return TransportListenInfo(ip=self.config.pipe_host, protocol="udp", port_range=ports)

    async def _keep(self, slot: WorkerSlot, settled: asyncio.Event) -> None:
        """Keeps one slot filled until cancelled."""
        failures = 0
        while True:
            try:
                worker, server = await self._spawn(slot.index)
            except (MediasoupError, OSError, TimeoutError) as error:
                failures += 1
                self._vacate(slot, failures, f"no worker could be started: {error}")
            except Exception as error:  # a bug, but one that must not leave the slot empty for ever
                log.exception("starting a worker failed unexpectedly", worker=slot.index)
                failures += 1
                self._vacate(slot, failures, f"no worker could be started: {error!r}")
            else:
                born = self._clock()
                reason = await self._occupy(slot, worker, server, settled)
                lived_long = self._clock() - born >= STABLE_AFTER
                failures = 1 if lived_long else failures + 1
                slot.restarts += 1
                self._vacate(slot, failures, reason)
                self.on_slot_down.emit((slot, reason))
            settled.set()
            await self._sleep(pause_after(failures))

    async def _occupy(
        self, slot: WorkerSlot, worker: Worker, server: WebRtcServer, settled: asyncio.Event
    ) -> str:
        """Lets a worker have the slot until it dies; returns why it did. Ends the worker when cancelled."""
        died: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_died(error: WorkerDiedError) -> None:
            # At once, so that nobody is handed a worker that is dead.
            slot.worker = slot.webrtc_server = None
            slot.state, slot.reason = "Starting", str(error)
            if not died.done():
                died.set_result(str(error))

        unsubscribe = worker.on_died.subscribe(on_died)
        probe = asyncio.create_task(self._probe(slot, worker, died), name=f"probe of slot {slot.index}")
        try:
            if worker.died:
                return f"worker {worker.pid} died as soon as it ran"
            slot.worker, slot.webrtc_server = worker, server
            slot.state, slot.reason = "Running", ""
            log.info("worker runs", worker=slot.index, pid=worker.pid, restarts=slot.restarts)
            self.on_change.emit(slot)
            self.on_slot_up.emit(slot)
            settled.set()
            return await died
        finally:
            unsubscribe()
            probe.cancel()
            slot.worker = slot.webrtc_server = None
            worker.close()
            await worker.wait_closed()

    async def _probe(self, slot: WorkerSlot, worker: Worker, died: asyncio.Future[str]) -> None:
        """Kills the worker when it does not answer any more. Ends when the worker does."""
        probing = self._probing
        misses = 0
        while misses < probing.misses:
            await asyncio.sleep(probing.interval)
            try:
                async with asyncio.timeout(probing.deadline):
                    await worker.get_resource_usage()
                misses = 0
            except TimeoutError:
                misses += 1
                log.warning("a worker does not answer", worker=slot.index, pid=worker.pid, misses=misses)
            except MediasoupError:
                return  # it is closed
        if not died.done():
            died.set_result(f"worker {worker.pid} did not answer {misses} times in a row and was killed")
            os.kill(worker.pid, signal.SIGKILL)

    def _vacate(self, slot: WorkerSlot, failures: int, reason: str) -> None:
        slot.state = "Failing" if failures >= FAILING_AFTER else "Starting"
        slot.reason = reason if failures < 2 else f"{reason} ({failures} times in a row)"
        log.warning("worker slot is empty", worker=slot.index, reason=slot.reason, failures=failures)
        self.on_change.emit(slot)

    async def _spawn_worker(self, index: int) -> tuple[Worker, WebRtcServer]:
        """A running worker and its WebRtcServer; none is left behind when this fails or is cancelled."""
        async with asyncio.timeout(START_DEADLINE), contextlib.AsyncExitStack() as undo:
            worker = await create_worker(worker_bin=self.config.worker_bin)
            undo.push_async_callback(worker.wait_closed)
            undo.callback(worker.close)
            server = await self._listen(worker, self.config.client_port + index)
            undo.pop_all()
            return worker, server

    async def _listen(self, worker: Worker, port: int) -> WebRtcServer:
        try:
            return await worker.create_webrtc_server(listen_infos=listen_infos(self.config, port))
        except RequestRejectedError as error:
            raise SlotPortError(self.config.client_hosts, port, error) from error


def listen_infos(config: PoolConfig, port: int) -> list[TransportListenInfo]:
    """UDP and TCP on every address, each told of as the first announced address that leads there."""
    hosts = config.client_hosts
    # Without the flag `::` takes IPv4 too, and the IPv4 address beside it could not be bound.
    with_ipv4 = any(family(host) == 4 for host in hosts)
    return [
        TransportListenInfo(
            ip=host,
            protocol=protocol,
            announced_address=announced,
            port=port,
            flags=TransportSocketFlags(ipv6_only=with_ipv4 and family(host) == 6),
        )
        for host, announced in by_host(hosts, config.announced)
        for protocol in ("udp", "tcp")
    ]


class SlotPortError(MediasoupError):
    """A slot's port for participants' media can't be listened on."""

    def __init__(self, hosts: Sequence[str], port: int, error: MediasoupError) -> None:
        where = " and ".join(str(ListenAddress(host, port)) for host in hosts)
        super().__init__(
            f"{CANNOT_LISTEN} {where} (UDP and TCP) for participants' media: {error}; "
            "free the port, or choose others with --client-port or --client-address"
        )


def pause_after(failures: int) -> float:
    """Seconds to wait before the next attempt: none after the first failure, then 0.1 s doubling to 10 s."""
    if failures <= 1:
        return 0.0
    return float(min(LONGEST_PAUSE, 0.1 * 2 ** min(failures - 2, 10)))
