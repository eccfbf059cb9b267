"""`/worker`: where applications' workers come in, by way of the gateway. Verifies the token itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

import structlog
from aiohttp import web

from mediaserver import shim
from mediaserver.remote.errors import CannotStart, Refused
from mediaserver.remote.tenant import Tenant
from mediaserver.remote.tenants import Admission, Tenants, parse_hello
from mediaserver.remote.tunnel import Tunnel
from mediaserver.wire.upgrade import bearer, give_back, handshake_problem, switching_protocols, take_over

log = structlog.get_logger(__name__)

HELLO_SECONDS = 5.0
MAX_CONNECTIONS = 1024

Serve = Callable[[Tunnel], Awaitable[None]]


class WorkerEndpoint:
    """Serves `/worker` until `close`."""

    def __init__(self, tenants: Tenants | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Without ``tenants`` everybody is refused, and told why."""
        self._tenants = tenants
        self._clock = clock
        self._open: set[Tunnel] = set()

    async def close(self) -> None:
        """Ends every connection, then waits until they are gone."""
        for tunnel in tuple(self._open):
            tunnel.close("the media server stops")
        if self._open:
            await asyncio.gather(*(tunnel.closed.wait() for tunnel in tuple(self._open)))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The request handler of `/worker`."""
        with ExitStack() as held:
            try:
                serve = self._admit(request, held)
            except Refused as refusal:
                log.info("tenant refused", status=refusal.status, reason=str(refusal))
                return _refusal(refusal)
            tunnel = Tunnel(self._clock)
            try:
                take_over(request, tunnel, switching_protocols(request))
            except ConnectionResetError:
                return web.Response(status=400)
            self._open.add(tunnel)
            try:
                await self._serve(tunnel, serve)
            finally:
                tunnel.abort("the media server stops")
                self._open.discard(tunnel)
        return give_back(request)

    async def _serve(self, tunnel: Tunnel, serve: Serve) -> None:
        """Until the connection is gone."""
        try:
            await serve(tunnel)
        except CannotStart as error:
            log.info("tenant worker not started", reason=str(error))
            tunnel.welcome({"error": str(error), "exitCode": error.exit_code})
            tunnel.close(str(error))
        except shim.TunnelError as error:
            tunnel.close(str(error))
        await tunnel.closed.wait()

    def _admit(self, request: web.Request, held: ExitStack) -> Serve:
        """What to do with the connection once it is upgraded. Raises Refused.

        A place for a new worker is held in ``held``.
        """
        tenants = self._tenants
        if tenants is None:
            raise Refused(503, "this media server runs no applications' workers; it needs --tenant-ports")
        problem = handshake_problem(request)
        if problem is not None:
            raise Refused(400, problem)
        headers = request.headers
        protocol = headers.get(shim.PROTOCOL_HEADER, "")
        if protocol != str(shim.PROTOCOL):
            raise Refused(
                400,
                f"protocol {protocol!r} is not spoken here but {shim.PROTOCOL}: bring mafalda-worker and the "
                "media servers to one release",
            )
        if len(self._open) >= MAX_CONNECTIONS:
            raise Refused(503, f"{MAX_CONNECTIONS} connections are open", final=False)
        ticket = headers.get(shim.TICKET_HEADER)
        if ticket is not None:
            return partial(self._resume, tenants.find(ticket))
        token = bearer(headers.get("Authorization", ""))
        if not token:
            raise Refused(401, "there is no token: the header Authorization must be Bearer TOKEN")
        application = tenants.verify(token)
        asked = headers.get(shim.VERSION_HEADER, "")
        admission = held.enter_context(tenants.admit(application, asked))
        return partial(self._start, tenants, admission, held)

    async def _start(self, tenants: Tenants, admission: Admission, held: ExitStack, tunnel: Tunnel) -> None:
        hello = parse_hello(await tunnel.hello(HELLO_SECONDS))
        tenant = tenants.launch(admission, hello)
        held.close()
        try:
            await tenant.start()
            tenant.attach(tunnel, 0)
        except BaseException as error:
            await tenant.close("it could not be started", 0.0)
            if isinstance(error, OSError):
                raise CannotStart(f"the media server cannot start a worker: {error}") from error
            raise

    async def _resume(self, tenant: Tenant, tunnel: Tunnel) -> None:
        received = (await tunnel.hello(HELLO_SECONDS)).get("received")
        if not isinstance(received, int) or received < 0:
            raise shim.TunnelError("a hello that does not say what was received")
        tenant.attach(tunnel, received)


def _refusal(refused: Refused) -> web.Response:
    headers = {shim.FINAL_HEADER: "true"} if refused.final else {}
    return web.Response(status=refused.status, text=f"{refused}\n", headers=headers)
