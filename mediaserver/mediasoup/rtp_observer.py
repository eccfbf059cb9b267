"""RtpObserver: watches the audio of producers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._fbs import router as fbs_router
from ._fbs import rtp_observer as fbs
from .errors import CloseReason, NotFoundError
from .events import EventSlot
from .messages import Method
from .node import Node
from .producer import Producer
from .types import AppData, ProducerId, RtpObserverId, RtpObserverType

if TYPE_CHECKING:
    from .observers import RtpObserverObserver
    from .router import Router


class RtpObserver(Node):
    """What the kinds of observers can do (https://mediasoup.org/documentation/v3/mediasoup/api/#RtpObserver)."""

    CHILDREN_REASON = CloseReason.CLOSED
    TYPE: RtpObserverType

    on_router_close = EventSlot[CloseReason]()
    """Comes before `on_close` when the router or worker was closed, or the worker died."""
    on_pause = EventSlot[None]()
    on_resume = EventSlot[None]()
    on_add_producer = EventSlot[Producer]()
    on_remove_producer = EventSlot[Producer]()

    def __init__(self, router: Router, *, id: RtpObserverId, app_data: AppData | None) -> None:
        super().__init__(
            id=id, channel=router._channel, hook=router._hook, parents=(router,), app_data=app_data
        )
        self._router = router
        self._paused = False

    @property
    def id(self) -> RtpObserverId:
        return RtpObserverId(self._id)

    @property
    def type(self) -> RtpObserverType:
        return self.TYPE

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def observer(self) -> RtpObserverObserver:
        return self

    async def pause(self) -> None:
        """Observes nothing until `resume`."""
        await self._request(Method.RTPOBSERVER_PAUSE)
        was_paused, self._paused = self._paused, True
        if not was_paused:
            self.on_pause.emit(None)

    async def resume(self) -> None:
        await self._request(Method.RTPOBSERVER_RESUME)
        was_paused, self._paused = self._paused, False
        if was_paused:
            self.on_resume.emit(None)

    async def add_producer(self, *, producer_id: ProducerId) -> None:
        """Observes a producer, until it closes or is removed; audio only (the worker rejects video).

        Raises NotFoundError without such a producer in the router.
        """
        producer = self._find_producer(producer_id)
        request = fbs.AddProducerRequest(producer_id=producer_id)
        await self._request(Method.RTPOBSERVER_ADD_PRODUCER, request)
        self.on_add_producer.emit(producer)

    async def remove_producer(self, *, producer_id: ProducerId) -> None:
        """Raises NotFoundError without such a producer in the router."""
        producer = self._find_producer(producer_id)
        request = fbs.RemoveProducerRequest(producer_id=producer_id)
        await self._request(Method.RTPOBSERVER_REMOVE_PRODUCER, request)
        self.on_remove_producer.emit(producer)

    def _find_producer(self, producer_id: ProducerId) -> Producer:
        self._check_open()
        producer = self._router._producers.get(producer_id)
        if producer is None:
            raise NotFoundError(f"{self._router!r} has no producer {producer_id}")
        return producer

    def _announce(self) -> None:
        self._router.on_new_rtp_observer.emit(self)

    def _tell_worker(self) -> None:
        self._channel.post(
            Method.ROUTER_CLOSE_RTPOBSERVER,
            self._router.id,
            fbs_router.CloseRtpObserverRequest(rtp_observer_id=self._id),
        )

    def _closing(self, reason: CloseReason) -> None:
        if reason is not CloseReason.CLOSED:
            self.on_router_close.emit(reason)
