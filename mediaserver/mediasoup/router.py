"""Router: forwards media between its transports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, overload

from . import create_transports, ortc
from ._fbs import active_speaker_observer as fbs_speaker
from ._fbs import audio_level_observer as fbs_level
from ._fbs import router as fbs
from ._fbs import worker as fbs_worker
from .active_speaker_observer import ActiveSpeakerObserver
from .audio_level_observer import AudioLevelObserver
from .errors import CloseReason, InvalidArgumentError, NotFoundError
from .events import EventSlot
from .messages import Body, Method
from .node import Undo, new_id
from .pipe_to_router import (
    PipedDataProducer,
    PipedProducer,
    PipeOptions,
    Pipes,
    PipeToRouterResult,
    pipe_data_producer,
    pipe_producer,
)
from .reports import RouterDump
from .router_transports import RouterTransports
from .rtp_observer import RtpObserver
from .rtp_parameters import RtpCapabilities, RtpCodecCapability
from .types import (
    AppData,
    ConsumerId,
    DataConsumerId,
    DataProducerId,
    ProducerId,
    RouterId,
    RtpObserverId,
    SctpOptions,
    TransportId,
    TransportListenInfo,
)

if TYPE_CHECKING:
    from .observers import RouterObserver
    from .worker import Worker

_LOOPBACK: Final = TransportListenInfo(ip="127.0.0.1")


class Router(RouterTransports):
    """Where producers' media is forwarded to consumers (https://mediasoup.org/documentation/v3/mediasoup/api/#Router).

    Made by `Worker.create_router`.
    """

    KIND = "Router"
    CHILDREN_REASON = CloseReason.ROUTER_CLOSED

    on_worker_close = EventSlot[CloseReason]()
    """Comes before `on_close` when the worker was closed or died."""
    on_new_rtp_observer = EventSlot[RtpObserver]()

    def __init__(
        self, worker: Worker, *, id: RouterId, rtp_capabilities: RtpCapabilities, app_data: AppData | None
    ) -> None:
        super().__init__(
            id=id,
            channel=worker._channel,
            hook=worker._hook,
            parents=(worker,),
            app_data=app_data,
            rtp_capabilities=rtp_capabilities,
        )
        self._worker = worker
        self._pipes = Pipes()

    @property
    def rtp_observers(self) -> list[RtpObserver]:
        return [child for child in self._children.values() if isinstance(child, RtpObserver)]

    @property
    def observer(self) -> RouterObserver:
        return self

    def can_consume(self, *, producer_id: ProducerId, rtp_capabilities: RtpCapabilities) -> bool:
        """Whether an endpoint with these capabilities can receive the producer; no if there is none such.

        Raises InvalidArgumentError for invalid capabilities.
        """
        producer = self._producers.get(producer_id)
        return producer is not None and ortc.can_consume(producer.consumable_rtp_parameters, rtp_capabilities)

    def update_media_codecs(self, media_codecs: Sequence[RtpCodecCapability]) -> None:
        """Replaces the codecs for producers to come; what runs is left alone. Raises as create_router."""
        self._rtp_capabilities = ortc.generate_router_rtp_capabilities(list(media_codecs))

    async def dump(self) -> RouterDump:
        return await self._request(Method.ROUTER_DUMP, None, _parse_dump)

    async def create_audio_level_observer(
        self,
        *,
        max_entries: int = 1,
        threshold: int = -80,
        interval: int = 1000,
        app_data: AppData | None = None,
    ) -> AudioLevelObserver:
        """Tells every `interval` ms (250 to 5000 take effect) of at most `max_entries` producers.

        `threshold` is the least average volume, -127 to 0 dBov. Raises InvalidArgumentError outside of that.
        """
        _check_range("max_entries", max_entries, 1, 65_535)
        _check_range("threshold", threshold, -127, 0)
        _check_range("interval", interval, 0, 65_535)
        observer_id = RtpObserverId(new_id())
        options = fbs_level.AudioLevelObserverOptions(
            max_entries=max_entries, threshold=threshold, interval=interval
        )
        return await self._create(
            Method.ROUTER_CREATE_AUDIOLEVELOBSERVER,
            fbs.CreateAudioLevelObserverRequest(rtp_observer_id=observer_id, options=options),
            lambda _: AudioLevelObserver(self, id=observer_id, app_data=app_data),
            child_id=observer_id,
            undo=_undo_observer(observer_id),
        )

    async def create_active_speaker_observer(
        self, *, interval: int = 300, app_data: AppData | None = None
    ) -> ActiveSpeakerObserver:
        """Decides every `interval` ms who speaks (100 to 5000 take effect)."""
        _check_range("interval", interval, 0, 65_535)
        observer_id = RtpObserverId(new_id())
        options = fbs_speaker.ActiveSpeakerObserverOptions(interval=interval)
        return await self._create(
            Method.ROUTER_CREATE_ACTIVESPEAKEROBSERVER,
            fbs.CreateActiveSpeakerObserverRequest(rtp_observer_id=observer_id, options=options),
            lambda _: ActiveSpeakerObserver(self, id=observer_id, app_data=app_data),
            child_id=observer_id,
            undo=_undo_observer(observer_id),
        )

    @overload
    async def pipe_to_router(
        self,
        *,
        router: Router,
        producer_id: ProducerId,
        keep_id: bool = ...,
        listen_info: TransportListenInfo = ...,
        enable_sctp: bool = ...,
        sctp_options: SctpOptions | None = ...,
        enable_rtx: bool = ...,
        enable_srtp: bool = ...,
    ) -> PipedProducer: ...
    @overload
    async def pipe_to_router(
        self,
        *,
        router: Router,
        data_producer_id: DataProducerId,
        keep_id: bool = ...,
        listen_info: TransportListenInfo = ...,
        enable_sctp: bool = ...,
        sctp_options: SctpOptions | None = ...,
        enable_rtx: bool = ...,
        enable_srtp: bool = ...,
    ) -> PipedDataProducer: ...
    async def pipe_to_router(
        self,
        *,
        router: Router,
        producer_id: ProducerId | None = None,
        data_producer_id: DataProducerId | None = None,
        keep_id: bool = True,
        listen_info: TransportListenInfo = _LOOPBACK,
        enable_sctp: bool = True,
        sctp_options: SctpOptions | None = None,
        enable_rtx: bool = False,
        enable_srtp: bool = False,
    ) -> PipeToRouterResult:
        """Makes a producer or data producer of this router one of another router of this process as well.

        Both routers get one PipeTransport for each other, made by the first call from either side with its
        options (those of later calls are ignored) and shared by all. The result's consumer and producer close
        together, and the producer pauses with the original. With `keep_id` it has the original's id, which
        must then be free in the other router's worker; else a new one.

        Raises InvalidArgumentError if not exactly one id is given or `router` is this one, NotFoundError
        without such a producer here.
        """
        self._check_open()
        if router is self:
            raise InvalidArgumentError("router is this one; give another")
        if (producer_id is None) == (data_producer_id is None):
            raise InvalidArgumentError("give exactly one of producer_id and data_producer_id")
        producer = None if producer_id is None else self._producers.get(producer_id)
        data_producer = None if data_producer_id is None else self._data_producers.get(data_producer_id)
        options = PipeOptions(
            listen_info=listen_info,
            enable_rtx=enable_rtx,
            enable_srtp=enable_srtp,
            enable_sctp=enable_sctp,
            sctp_options=create_transports.sctp_options(enable_sctp, sctp_options),
        )
        if producer is not None:
            pair = await self._pipes.between(self, router, options)
            return await pipe_producer(pair, producer, keep_id=keep_id)
        if data_producer is not None:
            pair = await self._pipes.between(self, router, options)
            return await pipe_data_producer(pair, data_producer, keep_id=keep_id)
        raise NotFoundError(f"{self!r} has no producer or data producer {producer_id or data_producer_id}")

    def _announce(self) -> None:
        self._worker.on_new_router.emit(self)

    def _tell_worker(self) -> None:
        self._channel.post(Method.WORKER_CLOSE_ROUTER, "", fbs_worker.CloseRouterRequest(router_id=self._id))

    def _closing(self, reason: CloseReason) -> None:
        if reason is not CloseReason.CLOSED:
            self.on_worker_close.emit(reason)


def _undo_observer(observer_id: RtpObserverId) -> Undo:
    return Method.ROUTER_CLOSE_RTPOBSERVER, fbs.CloseRtpObserverRequest(rtp_observer_id=observer_id)


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidArgumentError(f"{name} is {value}; it must be from {least} to {most}")


def _parse_dump(body: Body) -> RouterDump:
    dump = body.read(fbs.DumpResponse)
    return RouterDump(
        id=RouterId(dump.id),
        transport_ids=[TransportId(id) for id in dump.transport_ids],
        rtp_observer_ids=[RtpObserverId(id) for id in dump.rtp_observer_ids],
        map_producer_id_consumer_ids={
            ProducerId(entry.key): [ConsumerId(id) for id in entry.values]
            for entry in dump.map_producer_id_consumer_ids
        },
        map_consumer_id_producer_id={
            ConsumerId(entry.key): ProducerId(entry.value) for entry in dump.map_consumer_id_producer_id
        },
        map_producer_id_observer_ids={
            ProducerId(entry.key): [RtpObserverId(id) for id in entry.values]
            for entry in dump.map_producer_id_observer_ids
        },
        map_data_producer_id_data_consumer_ids={
            DataProducerId(entry.key): [DataConsumerId(id) for id in entry.values]
            for entry in dump.map_data_producer_id_data_consumer_ids
        },
        map_data_consumer_id_data_producer_id={
            DataConsumerId(entry.key): DataProducerId(entry.value)
            for entry in dump.map_data_consumer_id_data_producer_id
        },
    )
