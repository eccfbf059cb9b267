"""One end of a link: opens, watches and repairs this end of the pipe pair.

There is exactly one pair for an unordered pair of routers, used in both directions. The end of the
smaller router name is the initiator: it makes its pipe transport, asks the other end to make and connect
one, and then connects its own. Attempts are numbered; a newer one supersedes an older one, and whatever
goes wrong closes the side that exists and forgets the attempt. The pair stands for the acceptor when the
initiator's first route messages of that attempt come.
Losing the connection to the far end leaves a standing pair alone. When it is back, the initiator asks
whether the far end still has the pair, and otherwise makes a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import structlog

from mediaserver.cascade.errors import LinkError, LinkReason
from mediaserver.cascade.far import FarEnd, LinkOwner, Notice
from mediaserver.cascade.messages import (
    ERROR_NO_PORTS,
    ERROR_NO_SUCH_PIPE,
    ERROR_NOT_READY,
    ERROR_PIPE_FAILED,
    ERROR_PIPE_PROTOCOL,
    ClosePipe,
    LinkName,
    OpenPipe,
    PipeCounters,
    PipeOpened,
    PipeRef,
    ResumePipe,
    RouteMessage,
    RouterName,
    Routes,
    WantPipe,
)
from mediaserver.cascade.pipes import (
    OPEN_SECONDS,
    Pair,
    accept_pair,
    open_pair,
    pipe_address,
    protocol_problem,
)
from mediaserver.mediasoup import (
    MediasoupError,
    PipeTransport,
    PipeTransportStats,
    RequestRejectedError,
    Router,
    TransportListenInfo,
)
from mediaserver.wire.errors import RemoteError, WireError
from mediaserver.wire.rpc import RpcFailure

log = structlog.get_logger(__name__)

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
"""Seconds between two attempts."""
STAND_SECONDS = 10.0
"""How long the acceptor keeps a pair that the initiator does not use."""
WATCH_SECONDS = 1.0
"""Between two looks at the byte counters."""
MESSAGES_AT_ONCE = 32
"""Route messages in one notification, so that none grows too large."""


class LinkEnd:
    """Runs from `start` to `close`; see the module."""

    def __init__(
        self,
        *,
        name: LinkName,
        local: RouterName,
        srtp: bool,
        rtx: bool,
        router: Router,
        owner: LinkOwner,
        far: FarEnd,
        listen_info: Callable[[], TransportListenInfo],
        silence: Callable[[], float],
        on_change: Callable[[], None],
        pipe_protocol: int,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.local = local
        self.remote = name.second if local == name.first else name.first
        self.ready = False
        self.reason: LinkReason | Literal[""] = "Opening"
        self.message = ""
        self._srtp, self._rtx = srtp, rtx
        self._router = router
        self.owner = owner
        self._far = far
        self._listen_info = listen_info
        self._silence = silence
        self._on_change = on_change
        self._pipe_protocol = pipe_protocol
        self._clock = clock
        self._pair: Pair | None = None
        self._attempt = 0
        self._opening = asyncio.Lock()
        self._wake = asyncio.Event()
        self._unused_since = clock()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._log = log.bind(
            router=f"{name.namespace}/{local}",
            other_router=f"{name.namespace}/{self.remote}",
        )

    # -- what the router uses --

    @property
    def transport(self) -> PipeTransport | None:
        """This end of the standing pair, if there is one."""
        return self._pair.transport if self._pair is not None and self._pair.standing else None

    def send(self, messages: list[RouteMessage]) -> None:
        """To the far end's router, in order; lost unless both ends have the same pair."""
        pair = self._pair
        if pair is None or not pair.talking:
            return
        for start in range(0, len(messages), MESSAGES_AT_ONCE):
            part = messages[start : start + MESSAGES_AT_ONCE]
            self._far.notice(Routes(link=self.name, pipe=pair.ref, messages=part))

    def start(self) -> None:
        if not self._far.connected:
            self._set_state("PeerUnreachable", self._far.problem)
        if self._initiates:
            self._begin(self._initiate())
        else:
            self._ask()
        self._begin(self._watch())

    async def close(self, reason: str) -> None:
        """End this end and tell the other. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._discard(reason, tell=True)
        self._far.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._discard(reason, tell=False)

    # -- what the far end says (NearEnd) --

    async def opened(self, request: OpenPipe) -> PipeOpened:
        """Make and connect this end of the initiator's pair, superseding an older one."""
        self._check_request(request)
        async with self._opening:
            self._check_request(request)
            self._discard("superseded by a newer attempt", tell=False)
            try:
                pair = await accept_pair(self._router, self._listen_info(), request)
            except LinkError as error:
                self._set_state(error.reason, str(error))
                code = ERROR_NO_PORTS if error.reason == "NoPorts" else ERROR_PIPE_FAILED
                raise RpcFailure(code, str(error)) from error
            if self._closed or self._router.closed:
                pair.transport.close()
                raise RpcFailure(ERROR_NOT_READY, "the link was closed")
            self._keep(pair)
            return PipeOpened(address=pipe_address(pair.transport))

    async def resumed(self, request: ResumePipe) -> None:
        """The initiator still has its pair and asks for ours."""
        pair = self._pair
        if pair is None or pair.ref != request.pipe or not pair.standing:
            raise RpcFailure(ERROR_NO_SUCH_PIPE, f"{self.local} does not have that pipe (any more)")
        self._talk(pair)

    def noticed(self, notice: Notice) -> None:
        if isinstance(notice, WantPipe):
            self._wake.set()
            return
        pair = self._pair
        if pair is None or pair.ref != notice.pipe:
            return
        match notice:
            case Routes(messages=messages):
                if not pair.standing:
                    self._stand(pair)
                self.owner.routes_received(self.remote, messages)
            case PipeCounters(sent=sent, received=received):
                if pair.liveness.other(self._clock(), sent, received):
                    self._stalled()
            case ClosePipe(reason=reason):
                self._discard(f"closed by {self.remote}: {reason}", tell=False)

    def far_up(self, *, same_instance: bool) -> None:
        if not same_instance:
            self._discard("the other media server has restarted", tell=False)
        self._unused_since = self._clock()
        problem = protocol_problem(self._far.pipe_protocol, self._pipe_protocol)
        if problem is not None:
            self._set_state("PipeProtocol", problem)
        elif not self.ready:
            self._set_state("Opening", "")
        self._wake.set()
        self._ask()

    def far_down(self, reason: str) -> None:
        if self._pair is not None and self._pair.talking:
            # Only then: each failed dial says this again, and must not put the pair's end off for ever.
            self._unused_since = self._clock()
            self._pair.talking = False
        if not self.ready:
            self._set_state("PeerUnreachable", reason)
        self._wake.set()

    # -- the initiator --

    @property
    def _initiates(self) -> bool:
        return self.local == self.name.first

    async def _initiate(self) -> None:
        """Open the pair, and again whenever it is lost."""
        failures = 0
        while True:
            self._wake.clear()
            if self._settled():
                failures = 0
                await self._wake.wait()
                continue
            try:
                await self._advance()
            except LinkError as error:
                if error.reason != self.reason:
                    self._log.info("link not open", reason=error.reason, error=str(error))
                if self._pair is None:
                    self._set_state(error.reason, str(error))
                failures += 1
                await self._pause(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10)))

    def _settled(self) -> bool:
        """Nothing to do until something changes."""
        if not self._far.connected:
            if self._pair is None:
                self._set_state("PeerUnreachable", self._far.problem)
            return True
        return self._pair is not None and self._pair.talking

    async def _advance(self) -> None:
        """One step toward a pair that both ends have. Raises LinkError."""
        problem = protocol_problem(self._far.pipe_protocol, self._pipe_protocol)
        if problem is not None:
            raise LinkError("PipeProtocol", problem)
        if self._pair is not None:
            await self._ask_resume(self._pair)
        else:
            await self._open()

    async def _ask_resume(self, pair: Pair) -> None:
        try:
            await self._far.resume(ResumePipe(link=self.name, pipe=pair.ref), OPEN_SECONDS)
        except RemoteError as error:
            if self._pair is pair:
                self._discard(f"the far end has it no more: {error.message}", tell=False)
            return
        except (WireError, TimeoutError) as error:
            raise LinkError("PeerUnreachable", str(error)) from error
        if self._pair is pair:
            self._talk(pair)

    async def _open(self) -> None:
        self._attempt += 1
        ref = PipeRef(opener=self._router.id, attempt=self._attempt)
        pair = await open_pair(
            self._router, self._listen_info(), self._far, self.name, ref, srtp=self._srtp, rtx=self._rtx
        )
        self._keep(pair)
        self._stand(pair)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until something changes."""
        with contextlib.suppress(TimeoutError):
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    # -- the acceptor --

    def _ask(self) -> None:
        """Let the initiator try at once: it may have come too early, and be waiting."""
        if not self._initiates and self._pair is None and self._far.connected:
            self._far.notice(WantPipe(link=self.name))

    def _check_request(self, request: OpenPipe) -> None:
        """Raises RpcFailure unless the pair asked for is newer than ours and of the kind we were told."""
        if self._closed or self._router.closed:
            raise RpcFailure(ERROR_NOT_READY, f"router {self.local} is closed")
        problem = protocol_problem(self._far.pipe_protocol, self._pipe_protocol)
        if problem is not None:
            raise RpcFailure(ERROR_PIPE_PROTOCOL, problem)
        if (request.srtp, request.rtx) != (self._srtp, self._rtx):
            raise RpcFailure(
                ERROR_NOT_READY, "the operator has told the two ends different SRTP or RTX settings"
            )
        ref = self._pair.ref if self._pair is not None else None
        if ref is not None and ref.opener == request.pipe.opener and ref.attempt >= request.pipe.attempt:
            raise RpcFailure(ERROR_NO_SUCH_PIPE, "a newer attempt has taken its place")

    # -- a pair's life --

    def _keep(self, pair: Pair) -> None:
        self._pair = pair
        self._unused_since = self._clock()
        pair.transport.on_close.subscribe(lambda _: self._transport_closed(pair))
        if pair.transport.closed:
            self._transport_closed(pair)

    def _stand(self, pair: Pair) -> None:
        if self._pair is not pair:
            return
        pair.standing = True
        self._set_state("", "")
        self._log.info("link stands", attempt=pair.ref.attempt, srtp=self._srtp, rtx=self._rtx)
        self._talk(pair)

    def _talk(self, pair: Pair) -> None:
        pair.talking = True
        self.owner.link_up(self.remote)

    def _transport_closed(self, pair: Pair) -> None:
        if self._pair is pair:
            if self._router.closed:
                self.owner.router_closing()
            self._discard("its pipe transport closed", tell=True)

    def _stalled(self) -> None:
        self._discard("MediaStalled", tell=True)
        self._set_state(
            "MediaStalled",
            "RTP leaves one end of the pipe and does not arrive at the other: look for NAT or a firewall "
            "between the pipe addresses; it is made anew",
        )

    def _discard(self, why: str, *, tell: bool) -> None:
        """Close and forget this end of the pair, if there is one; the initiator makes another."""
        pair, self._pair = self._pair, None
        if pair is None:
            return
        pair.transport.close()
        if tell:
            self._far.notice(ClosePipe(link=self.name, pipe=pair.ref, reason=why))
        if pair.standing:
            self._log.info("link lost", attempt=pair.ref.attempt, reason=why)
            self._set_state("Opening", why)
            self.owner.link_down(self.remote)
        self._wake.set()

    async def _watch(self) -> None:
        """Exchange byte counters, and give up on a pair that nothing comes through."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            pair = self._pair
            if pair is None:
                continue
            try:
                stats = await pair.transport.get_stats()
            except RequestRejectedError as error:
                # The worker does not have it any more.
                if self._pair is pair:
                    self._discard(f"the worker says: {error.reason}", tell=True)
                continue
            except MediasoupError as error:
                self._log.info("no byte counters", error=str(error))
                continue
            if self._pair is pair:
                self._look_at(pair, stats)

    def _look_at(self, pair: Pair, stats: PipeTransportStats) -> None:
        now = self._clock()
        sent, received = stats.rtp_bytes_sent, stats.rtp_bytes_received
        pair.liveness.own(now, sent, received, stats.bytes_received)
        if pair.talking:
            self._unused_since = now
            self._far.notice(PipeCounters(link=self.name, pipe=pair.ref, sent=sent, received=received))
        elif not pair.standing or self._far.connected:
            if now - self._unused_since > STAND_SECONDS:
                self._discard("the far end makes no use of it", tell=True)
        elif now - self._unused_since > self._silence() and pair.silent(now):
            self._discard("the other media server is silent, as is the pipe", tell=False)
            self._set_state("PeerUnreachable", self._far.problem)

    def _set_state(self, reason: LinkReason | Literal[""], message: str) -> None:
        ready = reason == ""
        if (ready, reason, message) != (self.ready, self.reason, self.message):
            self.ready, self.reason, self.message = ready, reason, message
            self._on_change()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work, name=f"link {self.local}-{self.remote}"))
