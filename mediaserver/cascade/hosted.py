"""One router of a session at this server: the session as seen from it, and producers brought to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from mediaserver.cascade.errors import (
    AttachError,
    AttachTimeoutError,
    RouterClosedError,
    UnknownProducerError,
)
from mediaserver.cascade.legs import Legs
from mediaserver.cascade.links import LinkEnd
from mediaserver.cascade.messages import EntryKey, ParticipantInfo, ProducerInfo, RouteMessage, RouterName
from mediaserver.cascade.routes import (
    Attached,
    AttachFailed,
    Effect,
    Flow,
    Mirror,
    ParticipantAppeared,
    ParticipantChanged,
    ParticipantGone,
    ParticipantReplaced,
    Produce,
    ProducerAppeared,
    ProducerChanged,
    ProducerGone,
    Restored,
    RouteTable,
    Send,
    Serve,
    Unproduce,
    Unserve,
)
from mediaserver.control.contract import RouterEntry, SessionEntry, router_key
from mediaserver.mediasoup import AppData, Event, PipeTransport, Producer, ProducerScore, Router
from mediaserver.pool import WorkerSlot

log = structlog.get_logger(__name__)


class HostedRouter:
    """Made by CascadeHost; closed by it, or when its mediasoup router closes (its worker died, say)."""

    def __init__(
        self,
        *,
        entry: RouterEntry,
        session: SessionEntry,
        router: Router,
        slot: WorkerSlot,
        server_name: Callable[[], str],
        prune_delay: float,
        clock: Callable[[], float],
    ) -> None:
        self.key = router_key(entry.namespace, entry.name)
        self.entry = entry
        self.session = session
        self.router = router
        self.slot = slot
        self.closed = False
        self.on_participant: Event[ParticipantInfo] = Event("participant")
        self.on_participant_changed: Event[ParticipantInfo] = Event("participant changed")
        self.on_participant_gone: Event[ParticipantInfo] = Event("participant gone")
        self.on_participant_replaced: Event[ParticipantInfo] = Event("participant replaced")
        """One attached to this router lost to a newer join of the same participant; it is ended already."""
        self.on_producer: Event[ProducerInfo] = Event("producer")
        self.on_producer_changed: Event[ProducerInfo] = Event("producer changed")
        self.on_producer_gone: Event[ProducerInfo] = Event("producer gone")
        """Its references are void, a pending attach of it fails."""
        self.on_producer_restored: Event[ProducerInfo] = Event("producer restored")
        """It is on this router again, after it was lost while references were held: consume it anew."""
        self.on_closed: Event[str] = Event("router closed")
        self._server_name = server_name
        self._clock = clock
        self._table = RouteTable(RouterName(entry.name), prune_delay=prune_delay)
        self._legs = Legs(
            table=self._table,
            router=router,
            pipe=self._pipe,
            apply=self._apply,
            app_data=self._app_data,
            clock=clock,
        )
        self._links: dict[RouterName, LinkEnd] = {}
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._published: dict[str, list[Callable[[], None]]] = {}
        self._effects: list[Effect] = []
        self._outgoing: dict[RouterName, list[RouteMessage]] = {}
        self._applying = False
        self._timer: asyncio.TimerHandle | None = None
        self._log = log.bind(
            session=f"{entry.namespace}/{entry.session}", router=f"{entry.namespace}/{entry.name}"
        )

    @property
    def server_name(self) -> str:
        """`namespace/name` of this MediaServer; empty until an operator has told it."""
        return self._server_name()

    # -- participants --

    @property
    def participants(self) -> Mapping[str, ParticipantInfo]:
        """Of the whole session by peer id; of each the attachment that counts (the newest join)."""
        return self._table.participants

    def add_participant(self, info: ParticipantInfo) -> None:
        """Announce an attachment to this router, or change it when ``info.version`` is greater."""
        self._check_open()
        self._apply(self._table.open(info, self._clock()))

    def remove_participant(self, peer_id: str, attachment: str) -> None:
        """The attachment has ended. Idempotent."""
        if not self.closed:
            key = EntryKey(kind="participant", id=attachment)
            self._apply(self._table.end(key, self._clock()))

    # -- producers --

    @property
    def producers(self) -> Mapping[str, ProducerInfo]:
        """Of the whole session by id, whether or not they are on this router."""
        return self._table.producers

    def publish(
        self, producer: Producer, *, peer_id: str, source: str, app_data: dict[str, Any] | None = None
    ) -> None:
        """Announce a producer of this router; it is withdrawn when it closes, its state follows it."""
        self._check_open()
        if producer.closed:
            return
        info = ProducerInfo(
            id=producer.id,
            kind=producer.kind,
            peer_id=peer_id,
            source=source,
            router=self.entry.name,
            app_data=app_data or {},
            paused=producer.paused,
            score=[score.score for score in producer.score],
        )
        self._published[producer.id] = [
            producer.on_pause.subscribe(lambda _: self._describe(producer.id, paused=True)),
            producer.on_resume.subscribe(lambda _: self._describe(producer.id, paused=False)),
            producer.on_score.subscribe(lambda scores: self._describe_score(producer.id, scores)),
            producer.on_close.subscribe(lambda _: self._withdraw(producer.id)),
        ]
        self._apply(self._table.open(info, self._clock()))

    async def attach(self, producer_id: str, *, timeout: float = 5.0) -> None:
        """Bring a producer of the session to this router, hop by hop; counts a reference.

        When it returns, this router has a mediasoup producer of that id (which may close again: then
        `on_producer_restored` or `on_producer_gone` follows). Raises UnknownProducerError, AttachError,
        AttachTimeoutError or RouterClosedError; no reference is held then.
        """
        self._check_open()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(producer_id, set())
        waiters.add(waiter)
        acquired = False
        try:
            self._acquire(producer_id)
            acquired = True
            async with asyncio.timeout(timeout):
                await waiter
            acquired = False  # the caller's from now on
        except TimeoutError as error:
            raise AttachTimeoutError(
                f"no path to producer {producer_id} within {timeout:g} s ({self._describe_path(producer_id)})"
            ) from error
        finally:
            waiters.discard(waiter)
            waiter.cancel()
            if not waiters and self._waiters.get(producer_id) is waiters:
                del self._waiters[producer_id]
            if acquired:
                self.release(producer_id)

    def release(self, producer_id: str) -> None:
        """Drop a reference; at zero the producer is left after the prune delay. Never raises."""
        if not self.closed:
            self._apply(self._table.release(producer_id, self._clock()))

    # -- for CascadeHost --

    @property
    def table(self) -> RouteTable:
        """For inspection."""
        return self._table

    def set_prune_delay(self, seconds: float) -> None:
        self._table.prune_delay = seconds

    def add_link(self, end: LinkEnd) -> None:
        self._links[end.remote] = end

    def remove_link(self, end: LinkEnd) -> None:
        if self._links.get(end.remote) is end:
            del self._links[end.remote]

    async def close(self, reason: str) -> None:
        """End everything of this router; its links are closed by the host afterwards. Idempotent."""
        if self.closed:
            return
        self.router_closing()
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        for unsubscribe in (each for subscribed in self._published.values() for each in subscribed):
            unsubscribe()
        for waiters in list(self._waiters.values()):
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(RouterClosedError(f"router {self.entry.name} closed: {reason}"))
        self.router.close()
        self._log.info("router closed", reason=reason)
        self.on_closed.emit(reason)
        await self._legs.close()

    # -- for its links (LinkOwner) --

    def router_closing(self) -> None:
        """Tell the neighbours that what was attached here has ended, so that they need not wait and see."""
        for effect in self._table.end_all(self._clock()):
            if isinstance(effect, Send):
                self._outgoing.setdefault(effect.link, []).append(effect.message)
        self._flush()

    def link_up(self, link: RouterName) -> None:
        if not self.closed:
            self._apply(self._table.link_up(link, self._clock()))
            self._legs.resync(link)

    def link_down(self, link: RouterName) -> None:
        if not self.closed:
            self._apply(self._table.link_down(link, self._clock()))

    def routes_received(self, link: RouterName, messages: list[RouteMessage]) -> None:
        if not self.closed:
            now = self._clock()
            self._apply([each for message in messages for each in self._table.receive(link, message, now)])

    # -- effects --

    def _apply(self, effects: list[Effect]) -> None:
        """Carry out effects in order; those that come up meanwhile follow."""
        self._effects.extend(effects)
        if self._applying:
            return
        self._applying = True
        try:
            # A handler may add effects while this runs.
            for effect in _drain(self._effects):
                if self.closed:
                    break
                self._carry_out(effect)
        finally:
            self._applying = False
            self._effects.clear()
        self._flush()
        self._arm()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(link=link, message=message):
                self._outgoing.setdefault(link, []).append(message)
            case Attached() | AttachFailed():
                self._wake(effect)
            case Restored(producer=producer):
                if (info := self.producers.get(producer)) is not None:
                    self.on_producer_restored.emit(info)
            case Serve() | Unserve() | Flow() | Produce() | Unproduce() | Mirror():
                self._pipe_media(effect)
            case _:
                self._tell(effect)

    def _pipe_media(self, effect: Serve | Unserve | Flow | Produce | Unproduce | Mirror) -> None:
        match effect:
            case Serve(leg=leg):
                self._legs.serve(leg)
            case Unserve(leg=leg):
                self._legs.unserve(leg)
            case Flow(leg=leg):
                self._legs.flow(leg)
            case Produce():
                self._legs.produce(effect)
            case Unproduce(leg=leg):
                self._legs.unproduce(leg)
            case Mirror(leg=leg, paused=paused):
                self._legs.mirror(leg, paused)

    def _tell(self, effect: Effect) -> None:
        match effect:
            case ParticipantAppeared(participant=who):
                self.on_participant.emit(who)
            case ParticipantChanged(participant=who):
                self.on_participant_changed.emit(who)
            case ParticipantGone(participant=who):
                self.on_participant_gone.emit(who)
            case ParticipantReplaced(participant=who):
                self.on_participant_replaced.emit(who)
            case ProducerAppeared(producer=info):
                self.on_producer.emit(info)
            case ProducerChanged(producer=info):
                self.on_producer_changed.emit(info)
            case ProducerGone(producer=info):
                self.on_producer_gone.emit(info)

    def _wake(self, effect: Attached | AttachFailed) -> None:
        for waiter in tuple(self._waiters.get(effect.producer, ())):
            if waiter.done():
                continue
            if isinstance(effect, Attached):
                waiter.set_result(None)
            else:
                waiter.set_exception(AttachError(f"producer {effect.producer}: {effect.reason}"))

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, {}
        for link, messages in outgoing.items():
            end = self._links.get(link)
            if end is not None:
                end.send(messages)

    def _arm(self) -> None:
        """Come back when the table has something due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._table.deadline
        if deadline is not None and not self.closed:
            delay = max(0.0, deadline - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        if not self.closed:
            self._apply(self._table.tick(self._clock()))

    # -- inner workings --

    def _acquire(self, producer_id: str) -> None:
        try:
            effects = self._table.acquire(producer_id, self._clock())
        except KeyError as error:
            raise UnknownProducerError(f"the session has no producer {producer_id} (any more)") from error
        self._apply(effects)

    def _describe(self, producer_id: str, **changes: Any) -> None:
        info = self.producers.get(producer_id)
        if info is not None and not self.closed:
            changed = msgspec.structs.replace(info, version=info.version + 1, **changes)
            self._apply(self._table.open(changed, self._clock()))

    def _describe_score(self, producer_id: str, scores: list[ProducerScore]) -> None:
        self._describe(producer_id, score=[score.score for score in scores])

    def _withdraw(self, producer_id: str) -> None:
        self._published.pop(producer_id, None)
        if not self.closed:
            key = EntryKey(kind="producer", id=producer_id)
            self._apply(self._table.end(key, self._clock()))

    def _pipe(self, link: RouterName) -> PipeTransport | None:
        end = self._links.get(link)
        return end.transport if end is not None else None

    def _app_data(self, producer_id: str) -> AppData:
        info = self.producers.get(producer_id)
        return {} if info is None else {"peerId": info.peer_id, "source": info.source, **info.app_data}

    def _describe_path(self, producer_id: str) -> str:
        path = self._table.path(EntryKey(kind="producer", id=producer_id))
        return "it has no route" if path is None else "by " + " > ".join((self.entry.name, *path))

    def _check_open(self) -> None:
        if self.closed:
            raise RouterClosedError(f"router {self.entry.namespace}/{self.entry.name} is closed")


def _drain(effects: list[Effect]) -> Any:
    """Yield effects from the front, also those that are appended meanwhile."""
    index = 0
    while index < len(effects):
        yield effects[index]
        index += 1
