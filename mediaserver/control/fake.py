"""A media server without workers, which keeps the contract of `/control`.

For tests of planner, loop and gateway, and for benchmarks: many fit into one process. It speaks the real
wire, converges at once or after ``converge_delay``, and has a switch for each fault that a real one can
show. It passes the same contract tests as the real one (tests/contract).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping

import structlog
from aiohttp import web

from mediaserver.control import fake_state
from mediaserver.control.contract import (
    CONTROL_PATH,
    Address,
    DesiredEntry,
    Dump,
    LinkEntry,
    Load,
    PeerAge,
    PortRange,
    ReportedEntry,
    RouterEntry,
    RouterLoad,
    ServerHello,
    TenantLoad,
    TenantOffer,
    TenantWorker,
    WorkerLoad,
)
from mediaserver.control.fake_session import FakeSession
from mediaserver.control.fake_state import FakeFaults
from mediaserver.wire.errors import WireError
from mediaserver.wire.listen import ListenAddress, Listener, listen
from mediaserver.wire.membership import Credential

__all__ = ["FakeFaults", "FakeMediaServer", "FakeNetwork"]

log = structlog.get_logger()

LOAD_INTERVAL = 1.0
_IDLE = RouterLoad(participants=0, producers=0, consumers=0)


class FakeNetwork:
    """Fake servers that hear each other: where the ages of peers come from."""

    def __init__(self) -> None:
        self._servers: dict[str, FakeMediaServer] = {}

    def join(self, name: str, server: FakeMediaServer) -> None:
        self._servers[name] = server

    def peer_age(self, name: str, now: float) -> PeerAge | None:
        """What the others last heard of a server; None when it never was there."""
        server = self._servers.get(name)
        if server is None:
            return None
        age = 0.0 if server.quiet_since is None else now - server.quiet_since
        return PeerAge(server=name, instance_id=server.instance_id, age=age)


class FakeMediaServer:
    """Serves `/control` on a loopback port of its own from ``start`` to ``close``.

    ``cluster_uid``, ``highest_epoch`` are kept over kill() and restart(), as in a state directory.
    """

    def __init__(
        self,
        key: Credential,
        *,
        workers: int = 2,
        zone: str = "",
        converge_delay: float = 0.0,
        cluster_uid: str = "",
        participants: Address | None = None,
        network: FakeNetwork | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = key
        self.workers = workers
        self.zone = zone
        self.converge_delay = converge_delay
        self.cluster_uid = cluster_uid
        self.cluster_name = ""
        self.server_name = ""
        """`namespace/name`, once an operator greeted."""
        self.highest_epoch = 0
        self.instance_id = secrets.token_hex(8)
        self.faults = FakeFaults()
        self.participants = participants
        self.desired: Mapping[str, DesiredEntry] = {}
        """What the operator applied last."""
        self.router_loads: dict[str, RouterLoad] = {}
        """Load to tell of routers, by router key; the others are empty."""
        self.worker_cpu: dict[int, float] = {}
        self.tenant_offer: TenantOffer | None = None
        self.tenant_load: TenantLoad | None = None
        self.tenant_workers: list[TenantWorker] = []
        """What to tell of applications' workers; at first: it runs none."""
        self.peers: list[PeerAge] | None = None
        """Ages to tell; None: those of the network."""
        self.quiet_since: float | None = None
        self.applies = 0
        """How many deltas were taken."""
        self.address = ListenAddress("127.0.0.1", 0)
        self.awake = asyncio.Event()
        self.awake.set()
        self._network = network or FakeNetwork()
        self._clock = clock
        self._sessions: set[FakeSession] = set()
        self._operator: FakeSession | None = None
        self._reported: dict[str, ReportedEntry] = {}
        self._listener: Listener | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._converging: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()

    # -- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen; the port stays the same when started again. Raises ListenError."""
        app = web.Application()
        app.router.add_get(CONTROL_PATH, self._handle)
        self._listener = await listen(app, self.address, secured=self.key.listening())
        self.address = self._listener.address
        self.quiet_since = None
        self._converge()
        self._ticker = asyncio.create_task(self._tick())

    async def close(self) -> None:
        """Stop listening and cut every connection. What is desired stays, as while a process is away."""
        if self.quiet_since is None:
            self.quiet_since = self._clock()
        if self._converging is not None:
            self._converging.cancel()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        self.awake.set()
        cutting = [session.cut() for session in tuple(self._sessions)]
        await asyncio.gather(*cutting, *self._background, return_exceptions=True)
        if self._listener is not None:
            await self._listener.close()

    async def __aenter__(self) -> FakeMediaServer:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def kill(self) -> None:
        """The process dies: routers and what was desired are gone, connections are refused."""
        await self.close()
        self.desired, self._reported = {}, {}
        self._operator = None

    async def restart(self) -> None:
        """A new process at the same address, with the state directory of the old one."""
        await self.kill()
        self.instance_id = secrets.token_hex(8)
        self.faults = FakeFaults()
        await self.start()

    def silence(self) -> None:
        """As SIGSTOP."""
        self.faults.silent = True
        self.quiet_since = self._clock()
        self.awake.clear()

    def wake(self) -> None:
        """As SIGCONT."""
        self.faults.silent = False
        self.quiet_since = None
        self.awake.set()

    def forget(self) -> None:
        """As a start with `--forget`: the next MediaCluster that greets owns it."""
        self.cluster_uid = self.cluster_name = ""
        self.highest_epoch = 0

    @property
    def endpoint(self) -> str:
        """For `spec.endpoint.address` of a MediaServer."""
        return str(self.address)

    @property
    def reported(self) -> Mapping[str, ReportedEntry]:
        """What the server says that there is."""
        return self._reported

    @property
    def connections(self) -> dict[str, int]:
        """Greeted connections by role."""
        roles = [session.role for session in self._sessions if session.role]
        return {role: roles.count(role) for role in roles}

    # -- for the sessions -----------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        await self.awake.wait()
        session = await FakeSession.accept(self, request)
        self._sessions.add(session)
        try:
            await session.run()
        except WireError as error:
            log.debug("control connection ended", server=self.server_name, reason=str(error))
        finally:
            self._sessions.discard(session)
            if self._operator is session:
                self._operator = None
        return session.connection.response

    def bind(self, uid: str, name: str, server_name: str) -> None:
        """A member greeted: the server is its cluster's from now on."""
        self.cluster_uid, self.cluster_name = uid, name
        if server_name:
            self.server_name = server_name
            self._network.join(server_name, self)

    def take_operator(self, session: FakeSession) -> FakeSession | None:
        """``session`` commands from now on; the one that did before."""
        before, self._operator = self._operator, session
        return before

    def spawn(self, work: Coroutine[object, None, None]) -> None:
        """Run ``work`` beside; ``close`` waits for it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def commanded_by(self, session: FakeSession) -> bool:
        return self._operator is session

    def set_desired(self, entries: Mapping[str, DesiredEntry]) -> None:
        """Make it so, ``converge_delay`` seconds later."""
        self.applies += 1
        self.desired = dict(entries)
        if self._converging is not None:
            self._converging.cancel()
            self._converging = None
        if self.converge_delay:
            loop = asyncio.get_running_loop()
            self._converging = loop.call_later(self.converge_delay, self._converge)
        else:
            self._converge()

    def report(self) -> None:
        """Tell everybody what there is now; call it after switching a fault of a worker, router or link."""
        self._converge()

    def _converge(self) -> None:
        self._reported = fake_state.states(self.desired, self.faults, self.workers)
        for session in self._sessions:
            if session.role is not None:
                session.report(self._reported)

    # -- what it says ---------------------------------------------------------------------------------

    def hello(self, nonce: str) -> ServerHello:
        here = Address(host=self.address.host, port=self.address.port)
        return ServerHello(
            protocol_version=self.faults.control_protocol,
            cluster_uid=self.cluster_uid,
            instance_id=self.instance_id,
            highest_epoch=self.highest_epoch,
            version="fake",
            worker_version="fake",
            pipe_protocol=self.faults.pipe_protocol,
            sends_away=True,
            workers=[self.faults.worker(slot) for slot in range(self.workers)],
            control=here,
            peer=here,
            participants=self.participants or here,
            client=PortRange(host=here.host, port=10000, end_port=10000 + self.workers - 1),
            pipe=PortRange(host=here.host, port=20000, end_port=20999),
            nonce=nonce,
            proof="",
            zone=self.zone,
            tenants=self.tenant_offer,
        )

    def load(self) -> Load:
        routers = {key: entry for key, entry in self.desired.items() if isinstance(entry, RouterEntry)}
        on_slot = Counter(entry.worker_slot for entry in routers.values())
        return Load(
            workers=[
                WorkerLoad(
                    slot=slot,
                    cpu=self.worker_cpu.get(slot, 0.0),
                    routers=on_slot[slot],
                    producers=0,
                    consumers=0,
                )
                for slot in range(self.workers)
            ],
            routers={key: self.router_loads.get(key, _IDLE) for key in routers},
            peers=self._peer_ages() if self.peers is None else self.peers,
            free_pipe_ports=1000,
            tenants=self.tenant_load,
        )

    def _peer_ages(self) -> list[PeerAge]:
        links = [entry for entry in self.desired.values() if isinstance(entry, LinkEntry)]
        names = sorted({link.remote_server for link in links} - {self.server_name})
        ages = [self._network.peer_age(name, self._clock()) for name in names]
        return [age for age in ages if age is not None]

    def dump(self) -> Dump:
        """One worker object for each router that is ready."""
        return fake_state.dump(self._reported, self.workers)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(LOAD_INTERVAL)
            if not self.faults.silent:
                load = self.load()
                for session in tuple(self._sessions):
                    session.tick(load)
