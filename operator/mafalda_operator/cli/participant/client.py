"""A participant that stays in a session: dials, joins, publishes, receives, and dials again after faults."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import structlog
from aiohttp import ClientSession

from mafalda_operator.cli.participant.address import claims_of, dial_url
from mafalda_operator.cli.participant.attachment import Attachment, Hooks, OnFrame, Welcome
from mafalda_operator.cli.participant.errors import CallEnded, ParticipantError, SourceError
from mafalda_operator.cli.participant.reachability import Reachability
from mafalda_operator.cli.participant.received import Received
from mafalda_operator.cli.participant.redial import JITTER, Backoff, pause_before_dial
from mafalda_operator.cli.participant.shared import SharedTrack
from mafalda_operator.cli.participant.signalling import Closed
from mafalda_operator.cli.participant.sources import Source

log = structlog.get_logger(__name__)

OVERLAP = 2.0
"""Seconds that both attachments send while a participant moves: what others need to receive the newer one."""
SETTLE_LIMIT = 6.0
"""Seconds after which the older attachment is left, though not everything comes over the newer one."""
SETTLE_LOOK = 0.05
MOVE_RETRY = Backoff(first=0.3, longest=2.0)

FIRST_JOIN_TIMEOUT = 30.0
"""Seconds within which the first join must succeed; after it, dialling goes on until `close`."""


@dataclass(frozen=True)
class Joined:
    """The participant is in the session (again)."""

    router: str
    peers: tuple[str, ...]
    again: bool


@dataclass(frozen=True)
class Left:
    """The attachment ended; `pause` is the time until the next dial, None if there will be none."""

    code: int | None
    reason: str
    pause: float | None


Event = Joined | Left


def _ignore(*_: object) -> None:
    pass


class Participant:
    """`async with Participant(url, token) as p:` joins, and leaves at the end.

    `received` has the figures of every (peer, source), over all attachments.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        name: str = "",
        publish: Iterable[Source] = (),
        on_event: Callable[[Event], None] = _ignore,
        on_frame: OnFrame | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises AddressError for a URL or token that can't be used. `clock` is in seconds, monotonic."""
        self._address = dial_url(url, token)
        claims = claims_of(token)
        self.peer_id = claims.sub
        self.name = name or claims.sub
        self.received: dict[tuple[str, str], Received] = {}
        self.dialled_at: float | None = None
        """When the first dial began."""
        self.joined_at: float | None = None
        """When the last join succeeded."""
        self.published_at: dict[str, float] = {}
        """By source: when the server accepted it, last."""
        self.joins = 0
        self.router = ""
        """`namespace/name` of the MediaRouter it is, or was last, attached to."""
        self._may = claims
        self._sources = {source.name: _shared(source) for source in publish}
        self._on_event = on_event
        self._clock = clock
        self.reachability = Reachability()
        """Which of the servers' addresses for media answered."""
        self._hooks = Hooks(self._received, on_frame or _ignore, clock, self.reachability)
        self._attachment: Attachment | None = None
        self._older: Attachment | None = None
        """The one before, while it goes on because this participant moves."""
        self._entered = False
        """Whether the present attachment got as far as it was to: joined, everything published."""
        self._first_join: asyncio.Future[None] | None = None
        self._run: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Returns once joined. Raises CallEnded when refused, or not joined within 30 s."""
        self._first_join = asyncio.get_running_loop().create_future()
        self._run = asyncio.create_task(self._stay())
        try:
            await asyncio.wait((self._first_join, self._run), return_when=asyncio.FIRST_COMPLETED)
            if self._run.done():
                self._run.result()
        except BaseException:
            await self.close()
            raise

    async def wait(self) -> None:
        """Until the call ends. Raises CallEnded with the server's reason; returns after `close`."""
        if self._run is not None:
            await asyncio.wait((self._run,))
            if not self._run.cancelled():
                self._run.result()

    async def close(self) -> None:
        """Leaves with a goodbye and frees everything. Idempotent."""
        if self._run is not None:
            self._run.cancel()
            await asyncio.wait((self._run,))

    async def publish(self, source: Source) -> None:
        """Publishes `source` from now on, after a re-dial too.

        Raises SourceError for a name that is taken, ParticipantError when the server refuses; while the
        participant is between two attachments the source is published with the next.
        """
        if source.name in self._sources:
            raise SourceError(f"{source.name} is published already")
        self._sources[source.name] = shared = _shared(source)
        if self._attachment is not None:
            try:
                await self._publish(self._attachment, shared)
            except ParticipantError:
                del self._sources[source.name]
                raise

    async def unpublish(self, name: str) -> None:
        """Ends a source. Raises SourceError when there is none of that name."""
        if self._sources.pop(name, None) is None:
            raise SourceError(f"{name} is not published")
        for attachment in (self._attachment, self._older):
            if attachment is not None and attachment.publishes(name):
                await attachment.unpublish(name)

    async def pause(self, name: str, *, paused: bool = True) -> None:
        """Holds a source back at the server, or lets it through again; not kept over a re-dial."""
        if self._attachment is None:
            raise SourceError(f"{name} can't be paused while the participant is not joined")
        await self._attachment.pause(name, paused=paused)

    @property
    def attached(self) -> bool:
        """Whether it is joined at this moment."""
        return self._attachment is not None

    @property
    def sources(self) -> Mapping[str, Source]:
        """What it publishes, by name."""
        return self._sources

    # -- staying -------------------------------------------------------------------------------------------

    async def _stay(self) -> None:
        attempt = 0
        deadline = self._clock() + FIRST_JOIN_TIMEOUT
        async with ClientSession() as http:
            try:
                while True:
                    self._entered = False
                    closed = await self._attach(http)
                    attempt = 0 if self._entered else attempt + 1
                    pause = pause_before_dial(closed.code, max(0, attempt - 1), random.random())
                    self._on_event(Left(closed.code, closed.reason, pause))
                    late = self._clock() + (pause or 0) > deadline
                    if pause is None or (late and not self._has_entered()):
                        raise CallEnded(closed.reason)
                    await asyncio.sleep(pause)
            finally:
                if self._leaving:
                    await asyncio.wait(self._leaving)

    def _has_entered(self) -> bool:
        return self._first_join is not None and self._first_join.done()

    async def _attach(self, http: ClientSession) -> Closed:
        if self.dialled_at is None:
            self.dialled_at = self._clock()
        try:
            attachment = await Attachment.dial(http, self._address, self._hooks)
        except ParticipantError as error:
            return Closed(None, str(error))
        entering = asyncio.create_task(self._enter(attachment))
        try:
            await asyncio.wait((entering, attachment.closed), return_when=asyncio.FIRST_COMPLETED)
            if entering.done() and (fault := entering.exception()) is not None:
                return await self._fault(attachment, fault)
            while True:
                await asyncio.wait((attachment.closed, attachment.move), return_when=asyncio.FIRST_COMPLETED)
                newer = None if attachment.closed.done() else await self._move(http, attachment)
                if newer is None:
                    return await asyncio.shield(attachment.closed)
                attachment, older = newer, attachment
                self._part(older, entering)
        finally:
            self._attachment = None
            entering.cancel()
            self._part(attachment, entering)

    def _part(self, attachment: Attachment, entering: asyncio.Task[None]) -> None:
        """Take an attachment down; not awaited, for the next dial need not wait until that is done."""
        attachment.detach()
        leaving = asyncio.create_task(self._leave(attachment, entering))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    # -- moving --------------------------------------------------------------------------------------------

    async def _move(self, http: ClientSession, older: Attachment) -> Attachment | None:
        """Attach elsewhere while the older attachment goes on, and return once nothing is missed without it.

        None: that did not succeed in the time given; the server closes the older attachment then.
        """
        wish = older.move.result()
        log.info(
            "asked to attach elsewhere", participant=self.peer_id, within=wish.within, reason=wish.reason
        )
        until = self._clock() + wish.within
        attempt = 0
        self._older = older
        try:
            while self._clock() < until and not older.closed.done():
                newer = await self._attach_beside(http, until)
                if newer is not None:
                    await self._settle(older, newer)
                    return newer
                await asyncio.sleep(MOVE_RETRY.pause(attempt) * (1 - JITTER * random.random()))
                attempt += 1
            await asyncio.wait((older.closed,))
            return None
        finally:
            self._older = None

    async def _attach_beside(self, http: ClientSession, until: float) -> Attachment | None:
        """Another attachment, joined and with everything published; None when that failed."""
        try:
            newer = await Attachment.dial(http, self._address, self._hooks)
        except ParticipantError as error:
            log.info("could not dial elsewhere", participant=self.peer_id, reason=str(error))
            return None
        entering = asyncio.create_task(self._enter(newer, moved=True))
        succeeded = False
        try:
            await asyncio.wait(
                (entering, newer.closed),
                return_when=asyncio.FIRST_COMPLETED,
                timeout=max(0.0, until - self._clock()),
            )
            succeeded = entering.done() and not entering.cancelled() and entering.exception() is None
            return newer if succeeded else None
        finally:
            if not succeeded:
                if self._attachment is newer:
                    self._attachment = self._older
                entering.cancel()
                self._part(newer, entering)

    async def _settle(self, older: Attachment, newer: Attachment) -> None:
        """Until all that came over the older attachment comes over the newer one, and others had time to
        turn to what is produced there; not for ever."""
        begin = self._clock()
        while not older.closed.done() and not newer.closed.done():
            elapsed = self._clock() - begin
            missing = older.flowing() - newer.flowing()
            if elapsed >= SETTLE_LIMIT or (elapsed >= self._overlap() and not missing):
                return
            await asyncio.wait((older.closed, newer.closed), timeout=SETTLE_LOOK)

    def _overlap(self) -> float:
        return OVERLAP if self._sources else 0.0

    async def _fault(self, attachment: Attachment, fault: BaseException) -> Closed:
        """Joining failed. The close code counts if the server closed the socket, which ends requests too."""
        if not isinstance(fault, ParticipantError):
            raise fault
        await asyncio.wait((attachment.closed,), timeout=0.5)
        if attachment.closed.done():
            return attachment.closed.result()
        return Closed(None, str(fault))

    async def _enter(self, attachment: Attachment, *, moved: bool = False) -> None:
        welcome = await attachment.enter(
            name=self.name, send=self._may.publish, receive=self._may.subscribe, moved=moved
        )
        self._welcome(welcome)
        self._attachment = attachment
        for source in tuple(self._sources.values()):
            await self._publish(attachment, source)
        self._entered = True
        if self._first_join is not None and not self._first_join.done():
            self._first_join.set_result(None)

    def _welcome(self, welcome: Welcome) -> None:
        self.joins += 1
        self.joined_at = self._clock()
        self.router = welcome.router
        if welcome.resume:
            self._address = self._address.update_query(token=welcome.resume)
        self._on_event(Joined(welcome.router, welcome.peers, again=self.joins > 1))

    async def _publish(self, attachment: Attachment, source: Source) -> None:
        await attachment.publish(source)
        self.published_at[source.name] = self._clock()

    async def _leave(self, attachment: Attachment, entering: asyncio.Task[None]) -> None:
        await asyncio.wait((entering,))
        await attachment.leave()

    def _received(self, peer: str, source: str, kind: str) -> Received:
        key = (peer, source)
        if key not in self.received:
            self.received[key] = Received(peer, source, kind, self._clock())
        return self.received[key]


def _shared(source: Source) -> Source:
    """The same, whose tracks are one: two attachments at a time send the same frames."""
    return replace(source, open=SharedTrack(source.open).tap)
