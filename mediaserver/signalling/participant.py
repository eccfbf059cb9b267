"""One attachment of a participant to a room: what it may do, has, and receives.

Everything that it has in mediasoup hangs on its transports, so closing those frees all.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
import structlog

from mediaserver.cascade.messages import ParticipantInfo, ProducerInfo
from mediaserver.mediasoup import CloseReason, Consumer, Producer, RtpCapabilities, WebRtcTransport
from mediaserver.signalling.errors import FORBIDDEN, NOT_FOUND, OUT_OF_ORDER, Refused
from mediaserver.signalling.settings import SignallingSettings
from mediaserver.signalling.subscription import Subscription
from mediaserver.wire.tokens import ParticipantClaims

if TYPE_CHECKING:
    from mediaserver.cascade import HostedRouter

log = structlog.get_logger(__name__)

OwnedT = TypeVar("OwnedT")


class Peer(Protocol):
    """The participant's connection, as far as its media needs it."""

    @property
    def closed(self) -> bool: ...

    def notify(self, method: str, data: Any) -> None: ...

    async def request(self, method: str, data: Any) -> None: ...

    def end(self, code: int, reason: str) -> None: ...


class Participant:
    """State of one attachment. Its room changes membership; verbs.py carries out what it asks for."""

    def __init__(
        self,
        hosted: HostedRouter,
        claims: ParticipantClaims,
        connection: Peer,
        settings: SignallingSettings,
    ) -> None:
        self.hosted = hosted
        self.claims = claims
        self.connection = connection
        self.settings = settings
        self.peer_id = claims.sub
        self.attachment = secrets.token_hex(8)
        self.info: ParticipantInfo | None = None
        """Set by join."""
        self.rtp_capabilities: RtpCapabilities | None = None
        self.transports: dict[str, WebRtcTransport] = {}
        self.producers: dict[str, Producer] = {}
        self.consumers: dict[str, Consumer] = {}
        self.offers = asyncio.Semaphore(settings.max_offers)
        """newConsumer requests that may be under way."""
        self.closed = False
        self.asked = False
        """Whether it was asked to attach elsewhere."""
        self.superseded = False
        """Whether it has, so that this attachment counts no more and ends soon."""
        self.timers: list[asyncio.TimerHandle] = []
        """What is due for this attachment; cancelled when it is freed."""
        self._subscriptions: dict[str, Subscription] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def joined(self) -> bool:
        return self.info is not None

    # -- what verbs ask for ----------------------------------------------------------------------------------

    def require_joined(self) -> ParticipantInfo:
        if self.info is None:
            raise Refused(OUT_OF_ORDER, "not joined yet; send join first")
        return self.info

    def require(self, right: bool, name: str) -> None:
        if not right:
            raise Refused(FORBIDDEN, f"your token does not allow to {name}")

    def transport(self, transport_id: str) -> WebRtcTransport:
        return _found(self.transports, "transport", transport_id)

    def producer(self, producer_id: str) -> Producer:
        return _found(self.producers, "producer", producer_id)

    def consumer(self, consumer_id: str) -> Consumer:
        return _found(self.consumers, "consumer", consumer_id)

    def receiving_transport(self) -> WebRtcTransport | None:
        """The first transport that was made for consuming."""
        return next((t for t in self.transports.values() if t.app_data.get("consuming")), None)

    def own(self, transport: WebRtcTransport) -> None:
        """Takes a new transport in; it leaves when it closes."""
        self.transports[transport.id] = transport
        _forget_when_closed(self.transports, transport)

    def producer_of(self, source: str) -> Producer | None:
        return next((p for p in self.producers.values() if p.app_data.get("source") == source), None)

    def own_producer(self, producer: Producer) -> None:
        """Takes a new producer in; its score is told to the participant until it closes."""
        self.producers[producer.id] = producer
        _forget_when_closed(self.producers, producer)
        producer.on_score.subscribe(
            lambda score: self.connection.notify("producerScore", {"producerId": producer.id, "score": score})
        )

    # -- receiving -------------------------------------------------------------------------------------------

    def receive(self, producers: Iterable[ProducerInfo]) -> None:
        """Begins to receive those of `producers` that it does not receive and may and can."""
        if self.closed or not (self.joined and self.claims.subscribe and self.rtp_capabilities):
            return
        if self.receiving_transport() is None:
            return
        for producer in producers:
            if producer.peer_id == self.peer_id or producer.id in self._subscriptions:
                continue
            if len(self._subscriptions) >= self.settings.max_consumers:
                log.warning("participant receives no more", participant=self.peer_id, limit="max_consumers")
                return
            self._subscribe(producer)

    def _subscribe(self, producer: ProducerInfo) -> None:
        subscription = Subscription(self, producer)
        self._subscriptions[producer.id] = subscription
        task = subscription.done
        self._ending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("subscription failed", participant=self.peer_id, exc_info=error)

    def changed(self, producer: ProducerInfo) -> None:
        if (subscription := self._subscriptions.get(producer.id)) is not None:
            subscription.update(producer)

    def restored(self, producer: ProducerInfo) -> None:
        if (subscription := self._subscriptions.get(producer.id)) is not None:
            subscription.restored()

    def gone(self, producer_id: str) -> None:
        """The producer has left the session."""
        if (subscription := self._subscriptions.pop(producer_id, None)) is not None:
            subscription.gone()

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Frees everything in mediasoup, at once. Idempotent."""
        self.closed = True
        for timer in self.timers:
            timer.cancel()
        for subscription in self._subscriptions.values():
            subscription.end()
        self._subscriptions.clear()
        for transport in tuple(self.transports.values()):
            transport.close()

    async def ended(self) -> None:
        """Waits until what `close` ended has ended."""
        if self._ending:
            await asyncio.wait(tuple(self._ending))

    def describe(
        self, name: str, device: dict[str, Any], joined_at: int, *, moved: bool = False
    ) -> ParticipantInfo:
        """This attachment as the session is told of it."""
        return ParticipantInfo(
            peer_id=self.peer_id,
            attachment=self.attachment,
            joined_at=joined_at,
            server=self.hosted.server_name,
            router=self.hosted.entry.name,
            display_name=name,
            device=device,
            moved=moved,
        )

    def renamed(self, name: str) -> ParticipantInfo:
        info = self.require_joined()
        return msgspec.structs.replace(info, display_name=name, version=info.version + 1)


def _forget_when_closed(objects: dict[str, Any], made: Producer | WebRtcTransport) -> None:
    def forget(_: CloseReason) -> None:
        objects.pop(made.id, None)

    made.on_close.subscribe(forget)


def _found(objects: dict[str, OwnedT], kind: str, object_id: str) -> OwnedT:
    found = objects.get(object_id)
    if found is None:
        raise Refused(NOT_FOUND, f"you have no {kind} {object_id[:64]!r} (any more)")
    return found
