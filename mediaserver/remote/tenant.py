"""One worker that runs for an application: its process, what has been said, and the connection, if any.

    application ⇄ Tunnel ⇄ Stream (records) ⇄ Tenant ⇄ ChannelTap ⇄ worker's descriptors 3 and 4

A tenant is attached while it has a tunnel. One that lost it goes on for the resume timeout and is then ended;
whatever ends a tenant, the worker's process is gone before `ended` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import structlog

from mediaserver import shim
from mediaserver.remote.backlog import Backlog
from mediaserver.remote.descriptors import Descriptors
from mediaserver.remote.errors import CannotStart
from mediaserver.remote.process import DtlsFiles, TenantProcess, wait_exit
from mediaserver.remote.settings import TenantSettings
from mediaserver.remote.tap import ChannelTap, TapError
from mediaserver.remote.tokens import Origin, gone
from mediaserver.remote.tunnel import Tunnel

log = structlog.get_logger(__name__)

EXIT_GRACE = 5.0
"""Seconds that a worker has to end once its channel is closed."""
LAST_WORDS = 2.0
"""Seconds that an ended worker's descriptors have to reach their end."""
_MIRRORED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGQUIT})


class Tenant:
    """Owns the process from `start` until `ended`. `finished` is called once, when nothing is left of it."""

    def __init__(
        self,
        origin: Origin,
        process: TenantProcess,
        tap: ChannelTap,
        files: DtlsFiles,
        settings: TenantSettings,
        *,
        clock: Callable[[], float],
        finished: Callable[[Tenant], None],
    ) -> None:
        self.origin = origin
        self.process = process
        self.tap = tap
        self.born = clock()
        self.ended = asyncio.Event()
        """The process is gone and its end has been told, as far as it could be."""
        self._files = files
        self._settings = settings
        self._clock = clock
        self._finished = finished
        self._stream = shim.Stream()
        self._tunnel: Tunnel | None = None
        self._confirmed = False
        """Whether the application has the ticket: it has sent something since the welcome, or come back."""
        self._welcomed = False
        self._lost_at = self.born
        self._verdict: str | None = None
        """Why this server ended it."""
        self._exit: tuple[int, int] | None = None
        self._exit_at = 0.0
        self._held = Backlog()
        self._descriptors = Descriptors(
            on_answers=self._on_answers,
            on_output=partial(self._say, shim.OUTPUT),
            on_errors=partial(self._say, shim.ERRORS),
            on_congestion=self._on_congestion,
        )
        self._life: asyncio.Task[None] | None = None
        self._kill: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Tenant {self.origin.id} of {self.origin.subject}>"

    @property
    def attached(self) -> bool:
        return self._tunnel is not None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return not self.process.exited.done()

    async def start(self) -> None:
        """Begins to read what the worker says. Raises OSError."""
        await self._descriptors.open(self.process)
        self._life = asyncio.create_task(self._live(), name=f"tenant {self.origin.id}")

    # -- connections ----------------------------------------------------------------------------------

    def attach(self, tunnel: Tunnel, received: int) -> None:
        """Goes on over a tunnel whose other side has `received` records; an older one is cut.

        Raises TunnelError when the other side cannot go on where it was, or is gone already; CannotStart
        when the worker is.
        """
        if self.ended.is_set():
            raise CannotStart(str(gone()))
        if tunnel.closed.is_set():
            raise shim.TunnelError("the connection is gone")
        again = self._stream.resume(received)
        if self._tunnel is not None:
            self._tunnel.on_lost = self._tunnel.on_record = None
            self._tunnel.abort("the application has connected anew")
            self._held.clear()
        self._tunnel = tunnel
        self._confirmed = self._welcomed  # only the ticket leads here again
        self._welcomed = True
        tunnel.on_record = self._on_record
        tunnel.on_lost = self._on_lost
        settings = self._settings
        tunnel.welcome(
            {
                "worker": self.origin.id,
                "ticket": self.origin.ticket,
                "received": self._stream.received,
                "heartbeat": settings.heartbeat,
                "silence": settings.silence,
                "resume": settings.resume_timeout,
                "buffer": settings.buffer,
            }
        )
        for record in again:
            tunnel.send(record)
        self._on_congestion()
        self._pace()

    def _on_lost(self, reason: str) -> None:
        self._tunnel = None
        self._held.clear()
        self._lost_at = self._clock()
        self._pace()  # what is said now is bounded by the buffer
        if self._exit is not None and not self._stream.waiting:
            self._finish()
        elif not self._confirmed:
            self.end("the application was gone before its worker ran")
        else:
            log.info("tenant lost its application", **self._names(), reason=reason)

    def tick(self, now: float) -> None:
        """Does what is due: heartbeats, and giving up on what has been silent or away for too long."""
        settings, tunnel = self._settings, self._tunnel
        if tunnel is None:
            if now - self._lost_at >= settings.resume_timeout:
                self.end(f"the application was away for {settings.resume_timeout:g} s")
        elif self._exit is not None and now - self._exit_at >= settings.resume_timeout:
            self._finish()  # the application was told, and does not say that it was
        elif tunnel.reading and now - tunnel.heard >= settings.silence:
            tunnel.abort(f"nothing was heard for {settings.silence:g} s")
        elif now - tunnel.said >= settings.heartbeat:
            tunnel.send(self._stream.heartbeat())

    # -- from the application -------------------------------------------------------------------------

    def _on_record(self, message: bytes) -> None:
        self._confirmed = True
        waits = self._held or self._full or self._verdict is not None
        if not waits or not self._stream.look(message):
            self._take(message)
        elif self._verdict is None:
            self._hold(message)
        while self._held and not self._full:
            self._take(self._held.take())
        if self._stream.unacknowledged > shim.ACKNOWLEDGE_EVERY and self._tunnel is not None:
            self._tunnel.send(self._stream.heartbeat())
        self._pace()
        if self._exit is not None and not self._stream.waiting:
            self._finish()

    def _hold(self, message: bytes) -> None:
        self._held.add(message)
        bound = self._settings.buffer + 2 * shim.CHUNK
        if self._held.size > bound:
            self._held.clear()
            self.end(f"{bound} bytes of requests waited, as the application did not read the answers")

    def _take(self, message: bytes) -> None:
        record = self._stream.receive(message)
        if record is None:
            pass
        elif record.kind == shim.REQUESTS:
            self._pass_on(record.payload)
        elif record.kind == shim.SIGNAL and len(record.payload) == 1:
            if record.payload[0] in _MIRRORED:
                self.process.send_signal(record.payload[0])
        elif record.kind == shim.END:
            self._close_channel()
        else:
            raise shim.TunnelError(f"a record of kind {record.kind} and {len(record.payload)} bytes")

    def _pass_on(self, data: bytes) -> None:
        requests = self._descriptors.requests
        if requests is None or self._verdict is not None:
            return
        with self._reading("the application's channel"):
            to_worker, answers = self.tap.to_worker(data)
            if to_worker:
                requests.write_now(to_worker)
            if answers:
                self._say(shim.ANSWERS, answers)

    def ask_for_figures(self) -> None:
        """Has the worker tell what its transports carry (the token's bandwidth)."""
        requests = self.tap.stats_requests()
        if requests and self._descriptors.requests is not None and self.alive:
            self._descriptors.requests.write(requests)

    def _close_channel(self) -> None:
        if self._descriptors.requests is not None:
            self._descriptors.requests.close()
        if self._kill is None and self.alive:
            self._kill = asyncio.get_running_loop().call_later(EXIT_GRACE, self.process.kill)

    def _on_congestion(self) -> None:
        """The worker reads more slowly than the application writes, or has caught up."""
        if self._tunnel is not None:
            self._tunnel.read(not (self._descriptors.congested and self.alive))

    # -- from the worker ------------------------------------------------------------------------------

    def _on_answers(self, data: bytes) -> None:
        with self._reading("the worker's channel"):
            answers = self.tap.to_application(data)
            if self.tap.running:
                self._files.remove()
            if answers:
                self._say(shim.ANSWERS, answers)

    @contextlib.contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """A channel that cannot be read ends the worker: with messages missing nobody could go on."""
        try:
            yield
        except TapError as error:
            self.end(f"{what} cannot be read: {error}")
        except Exception:  # a bug, which must not leave an application waiting for ever
            log.exception("reading a tenant's channel failed unexpectedly", **self._names(), channel=what)
            self.end(f"{what} cannot be read: the media server failed, its log says how")

    def _say(self, kind: int, data: bytes) -> None:
        tunnel = self._tunnel
        for start in range(0, len(data), shim.CHUNK):
            record = self._stream.send(kind, data[start : start + shim.CHUNK])
            if tunnel is not None:
                tunnel.send(record)
        if tunnel is None:
            if self._stream.waiting > self._settings.buffer:
                self.end(f"more than {self._settings.buffer} bytes waited for the application to come back")
        elif self._stream.waiting > self._settings.buffer // 2:
            self._pace()

    def _pace(self) -> None:
        """Reads from the worker only what the application keeps up with."""
        self._descriptors.read(not self._full)

    @property
    def _full(self) -> bool:
        """Whether the application lags behind. What a worker said at its end is all read: it is bounded."""
        return self._stream.waiting > self._settings.buffer // 2 and self._tunnel is not None and self.alive

    # -- the end --------------------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """Ends the worker at once and tells the application why. Idempotent."""
        if self._verdict is not None or self._exit is not None:
            if self._exit is not None and self._tunnel is None:
                self._finish()
            return
        self._verdict = reason
        self.process.kill()

    async def _live(self) -> None:
        """Until the process has ended and all that it said was read; then its exit is told."""
        how = await wait_exit(self.process)
        self._pace()
        self._on_congestion()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._descriptors.wait_read()
        if self._verdict is not None:
            text = f"mafalda-worker: the media server has ended the worker: {self._verdict}\n"
            self._say(shim.ERRORS, text.encode())
            how = 0, shim.EXIT_UNAVAILABLE
        self._exit, self._exit_at = how, self._clock()
        self._release()
        log.info(
            "tenant worker ended",
            **self._names(),
            reason=self._verdict or (f"signal {how[1]}" if how[0] else f"exit code {how[1]}"),
        )
        if self._tunnel is not None:
            self._say(shim.EXIT, bytes(how))
        elif self._confirmed and self._verdict is None:
            self._stream.send(shim.EXIT, bytes(how))  # for an application that comes back in time
        else:
            self._finish()

    def _release(self) -> None:
        if self._kill is not None:
            self._kill.cancel()
        self._descriptors.close()
        self._files.remove()

    def _finish(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            tunnel, self._tunnel = self._tunnel, None
            if tunnel is not None:
                tunnel.on_lost = tunnel.on_record = None
                tunnel.close("the worker has ended")
            self._finished(self)

    async def close(self, reason: str, seconds: float) -> None:
        """Ends it and waits, at most so many seconds for the application to hear of it."""
        self.end(reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await wait_exit(self.process)
            if self._life is not None:
                self._life.cancel()
                await asyncio.gather(self._life, return_exceptions=True)
        finally:
            self._release()
            self._finish()

    def _names(self) -> dict[str, Any]:
        return {"tenant": self.origin.id, "subject": self.origin.subject, "pid": self.process.pid}
