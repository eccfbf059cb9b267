"""`/control`: the media server's side of the contract with the operator and with observers.

Any number of observers and one operator are connected: the newest one of the highest epoch. An older
operator's connection is closed when a newer one greets. Reports go to everybody who has greeted, as
changes to what that connection was told before; figures of load follow every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Protocol

import structlog
from aiohttp import web

from mediaserver.control.contract import (
    ControlHello,
    Dump,
    Load,
    ReportedEntry,
    ServerHello,
    TenantWorkers,
)
from mediaserver.control.converge import Converger
from mediaserver.control.facts import ServerFacts
from mediaserver.control.membership_state import MembershipState
from mediaserver.control.session import ControlSession
from mediaserver.pool import WorkerPool
from mediaserver.wire import rpc
from mediaserver.wire.errors import WireError
from mediaserver.wire.membership import Credential

log = structlog.get_logger(__name__)

SILENCE = 10.0
"""Seconds without a word (heartbeats come every second) after which a connection is given up."""
LOAD_INTERVAL = 1.0
GATHERING = 0.005
"""Seconds in which changes are gathered into one report."""
MAX_CONNECTIONS = 256


class Reporting(Protocol):
    """Where reports, load, dumps and the list of applications' workers come from."""

    @property
    def last_load(self) -> Load | None: ...
    def states(self) -> dict[str, ReportedEntry]: ...
    def load(self) -> Load: ...
    async def dump(self) -> Dump: ...
    async def tenants(self) -> TenantWorkers: ...


class ControlEndpoint:
    """Serves `/control` from `start` to `close`.

    `on_identity` is called with each operator's hello, before any of its `apply` is taken.
    """

    def __init__(
        self,
        *,
        facts: ServerFacts,
        pool: WorkerPool,
        converger: Converger,
        reporting: Reporting,
        membership: MembershipState,
        credential: Credential,
        on_identity: Callable[[ControlHello], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.facts = facts
        self.converger = converger
        self.membership = membership
        self.credential = credential
        self._pool = pool
        self._reporting = reporting
        self._on_identity = on_identity
        self._clock = clock
        self._sessions: set[ControlSession] = set()
        self._operator: ControlSession | None = None
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[None]] = set()
        self._closing = False

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._publish(), name="control reports"),
            asyncio.create_task(self._measure(), name="control load"),
        ]

    async def close(self) -> None:
        """Closes every connection, saying that the server stops, and admits no more. Idempotent."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        closing = [session.close("the media server stops") for session in self._sessions]
        await asyncio.gather(*self._tasks, *self._background, *closing, return_exceptions=True)

    def changed(self) -> None:
        """Something that reports tell of may have changed."""
        self._changed.set()

    def connections(self) -> Counter[str]:
        """Greeted connections by role."""
        return Counter(session.role for session in self._sessions if session.role is not None)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The request handler of `/control`."""
        if self._closing or len(self._sessions) >= MAX_CONNECTIONS:
            reason = "the media server stops" if self._closing else f"{MAX_CONNECTIONS} connections are open"
            return web.Response(status=503, text=reason + "\n")
        methods = rpc.Methods()
        name = f"control {request.remote}"
        connection = await rpc.accept(request, methods, name=name, silence=SILENCE, clock=self._clock)
        local = request.get_extra_info("sockname")
        session = ControlSession(self, connection, methods, reached_at=local[0] if local else "")
        self._sessions.add(session)
        try:
            await session.run()
        except WireError as error:
            log.info("control connection ended", other=name, role=session.role, reason=str(error))
        finally:
            self._sessions.discard(session)
            if self._operator is session:
                self._operator = None
                log.warning("no operator is connected; everything stays as it is")
        return connection.response

    # -- for the sessions -----------------------------------------------------------------------------

    def hello(self, nonce: str, reached_at: str) -> ServerHello:
        """This server's hello, without its proof."""
        kept = self.membership.current
        return self.facts.hello(
            cluster_uid=kept.cluster_uid,
            highest_epoch=kept.highest_epoch,
            workers=[slot.reported() for slot in self._pool.slots],
            nonce=nonce,
            reached_at=reached_at,
        )

    def is_operator(self, session: ControlSession) -> bool:
        return self._operator is session

    def admit(self, session: ControlSession, hello: ControlHello) -> None:
        """A session has greeted; an operator takes the place of the one before."""
        if hello.role == "operator":
            before, self._operator = self._operator, session
            if before is not None:
                reason = f"replaced by a newer connection of an operator, of epoch {hello.epoch}"
                self._spawn(before.close(reason))
            self._on_identity(hello)
        log.info("greeted", role=hello.role, cluster=hello.cluster_name, epoch=hello.epoch)
        self.changed()

    def states(self) -> dict[str, ReportedEntry]:
        return self._reporting.states()

    async def dump(self) -> Dump:
        return await self._reporting.dump()

    async def tenants(self) -> TenantWorkers:
        return await self._reporting.tenants()

    # -- reporting ------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHERING)
            self._changed.clear()
            with _surviving("reports"):
                greeted = self._greeted()
                states = self._reporting.states() if greeted else {}
                for session in greeted:
                    session.report(states)
                self._tell_first_load([session for session in greeted if not session.has_load])

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(LOAD_INTERVAL)
            with _surviving("load"):
                load = self._reporting.load()
                for session in self._greeted():
                    session.tell("load", load)

    def _tell_first_load(self, newcomers: list[ControlSession]) -> None:
        """Placement waits for a server's figures: a newcomer gets the last ones at once."""
        for session in newcomers:
            session.has_load = True
            session.tell("load", self._reporting.last_load or self._reporting.load())

    def _greeted(self) -> list[ControlSession]:
        return [session for session in self._sessions if session.role is not None]

    def _spawn(self, work: Coroutine[object, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


@contextlib.contextmanager
def _surviving(what: str) -> Iterator[None]:
    """One round that fails is logged; the next one is due all the same."""
    try:
        yield
    except Exception:  # a bug: observers must not lose all later rounds by it
        log.exception("a round failed", what=what)
