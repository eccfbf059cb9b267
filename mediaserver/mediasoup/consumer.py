"""Consumer: media that leaves a router."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from . import stream_reports as reports
from ._fbs import consumer as fbs
from ._fbs import transport as fbs_transport
from .convert_stream import consumer_dump, consumer_score, layers_from_fbs, layers_to_fbs, stream_stats
from .convert_trace import CONSUMER_TRACE_NAMES, consumer_trace, trace_types_to_fbs
from .errors import CloseReason, InvalidArgumentError
from .events import EventSlot
from .messages import Body, Method
from .messages import Event as WorkerEvent
from .node import Node
from .rtp_parameters import MediaKind, RtpParameters
from .traces import ConsumerTraceEventData, ConsumerTraceEventType
from .types import AppData, ConsumerId, ConsumerLayers, ConsumerScore, ConsumerType, ProducerId

if TYPE_CHECKING:
    from .observers import ConsumerObserver
    from .transport import Transport

BEST_SCORE: Final = ConsumerScore(score=10, producer_score=10, producer_scores=[])


class Consumer(Node):
    """Audio or video that a transport sends (https://mediasoup.org/documentation/v3/mediasoup/api/#Consumer).

    Made by `Transport.consume`. It closes with its producer: `on_producer_close`, then `on_close`. An event
    may have come before `consume` returned, so look at `closed` and `producer_paused` then.
    """

    KIND = "Consumer"
    CHILDREN_REASON = CloseReason.CLOSED

    on_transport_close = EventSlot[CloseReason]()
    """Comes before `on_close` when the transport, or a parent of it, was closed."""
    on_producer_close = EventSlot[None]()
    on_producer_pause = EventSlot[None]()
    on_producer_resume = EventSlot[None]()
    on_pause = EventSlot[None]()
    """Media stopped: `pause()` here, or the producer was paused while this was not."""
    on_resume = EventSlot[None]()
    on_score = EventSlot[ConsumerScore]()
    on_layers_change = EventSlot[ConsumerLayers | None]()
    """The layers now sent; None when none are."""
    on_trace = EventSlot[ConsumerTraceEventData]()
    """What `enable_trace_event` asked for."""
    on_rtp = EventSlot[bytes]()
    """An RTP packet; on a DirectTransport only."""

    def __init__(
        self,
        transport: Transport,
        *,
        id: ConsumerId,
        producer_id: ProducerId,
        kind: MediaKind,
        type: ConsumerType,
        rtp_parameters: RtpParameters,
        status: fbs_transport.ConsumeResponse,
        app_data: AppData | None,
    ) -> None:
        super().__init__(
            id=id, channel=transport._channel, hook=transport._hook, parents=(transport,), app_data=app_data
        )
        self._transport = transport
        self._producer_id = producer_id
        self._kind: MediaKind = kind
        self._type: ConsumerType = type
        self._rtp_parameters = rtp_parameters
        self._paused = status.paused
        self._producer_paused = status.producer_paused
        # What goes into a pipe has no score of its own.
        self._score = BEST_SCORE if transport.type == "pipe" else consumer_score(status.score)
        self._preferred_layers = layers_from_fbs(status.preferred_layers)
        self._current_layers: ConsumerLayers | None = None
        self._priority = 1

    @property
    def id(self) -> ConsumerId:
        return ConsumerId(self._id)

    @property
    def producer_id(self) -> ProducerId:
        return self._producer_id

    @property
    def kind(self) -> MediaKind:
        return self._kind

    @property
    def type(self) -> ConsumerType:
        return self._type

    @property
    def rtp_parameters(self) -> RtpParameters:
        """For the endpoint that receives; what `consume` of mediasoup-client takes."""
        return self._rtp_parameters

    @property
    def paused(self) -> bool:
        """Whether this consumer is paused, whatever its producer is."""
        return self._paused

    @property
    def producer_paused(self) -> bool:
        return self._producer_paused

    @property
    def priority(self) -> int:
        return self._priority

    @property
    def score(self) -> ConsumerScore:
        return self._score

    @property
    def preferred_layers(self) -> ConsumerLayers | None:
        """The most that is sent; None without simulcast or SVC, or when nothing was preferred."""
        return self._preferred_layers

    @property
    def current_layers(self) -> ConsumerLayers | None:
        return self._current_layers

    @property
    def observer(self) -> ConsumerObserver:
        return self

    async def dump(self) -> reports.ConsumerDump:
        return await self._request(
            Method.CONSUMER_DUMP, None, lambda body: consumer_dump(body.read(fbs.DumpResponse).data)
        )

    async def get_stats(self) -> list[reports.RtpStreamStats]:
        """What is sent (outbound-rtp), and what the producer receives of it (inbound-rtp) once known."""
        return await self._request(Method.CONSUMER_GET_STATS, None, _parse_stats)

    async def pause(self) -> None:
        await self._request(Method.CONSUMER_PAUSE)
        was_paused, self._paused = self._paused, True
        if not was_paused and not self._producer_paused:
            self.on_pause.emit(None)

    async def resume(self) -> None:
        """Undoes `pause`; for video a key frame is requested."""
        await self._request(Method.CONSUMER_RESUME)
        was_paused, self._paused = self._paused, False
        if was_paused and not self._producer_paused:
            self.on_resume.emit(None)

    async def set_preferred_layers(self, layers: ConsumerLayers) -> None:
        """Limits what is sent of simulcast or SVC; no effect on other consumers.

        The worker lowers layers that do not exist; `preferred_layers` has what it took.
        Raises InvalidArgumentError for layers outside 0 to 255.
        """
        for name, value in (
            ("spatial_layer", layers.spatial_layer),
            ("temporal_layer", layers.temporal_layer or 0),
        ):
            if not 0 <= value <= 255:
                raise InvalidArgumentError(f"{name} is {value}; it must be from 0 to 255")
        request = fbs.SetPreferredLayersRequest(preferred_layers=layers_to_fbs(layers))
        self._preferred_layers = await self._request(
            Method.CONSUMER_SET_PREFERRED_LAYERS, request, _parse_preferred_layers
        )

    async def set_priority(self, priority: int) -> None:
        """Which of a transport's consumers get bandwidth first: 1 (the default) to 255 (first)."""
        if not 1 <= priority <= 255:
            raise InvalidArgumentError(f"priority is {priority}; it must be from 1 to 255")
        self._priority = await self._request(
            Method.CONSUMER_SET_PRIORITY,
            fbs.SetPriorityRequest(priority=priority),
            lambda body: body.read(fbs.SetPriorityResponse).priority,
        )

    async def unset_priority(self) -> None:
        await self.set_priority(1)

    async def request_key_frame(self) -> None:
        """Asks the producer's endpoint for a key frame (RTCP PLI or FIR); no effect on audio."""
        await self._request(Method.CONSUMER_REQUEST_KEY_FRAME)

    async def enable_trace_event(self, types: Sequence[ConsumerTraceEventType] = ()) -> None:
        """Which `on_trace` events to send from now on; none if empty.

        Raises InvalidArgumentError for a type that consumers don't have.
        """
        request = fbs.EnableTraceEventRequest(events=trace_types_to_fbs(CONSUMER_TRACE_NAMES, types))
        await self._request(Method.CONSUMER_ENABLE_TRACE_EVENT, request)

    def _announce(self) -> None:
        self._transport.on_new_consumer.emit(self)

    def _tell_worker(self) -> None:
        self._channel.post(
            Method.TRANSPORT_CLOSE_CONSUMER,
            self._transport.id,
            fbs_transport.CloseConsumerRequest(consumer_id=self._id),
        )

    def _closing(self, reason: CloseReason) -> None:
        if reason is CloseReason.PRODUCER_CLOSED:
            self.on_producer_close.emit(None)
        elif reason is not CloseReason.CLOSED:
            self.on_transport_close.emit(reason)

    def _on_notification(self, event: int, body: Body) -> None:
        react = _REACTIONS.get(event)
        if react is not None:
            react(self, body)

    def _on_rtp(self, body: Body) -> None:
        self.on_rtp.emit(body.read(fbs.RtpNotification).data)

    def _on_score(self, body: Body) -> None:
        self._score = consumer_score(body.read(fbs.ScoreNotification).score)
        Consumer.on_score.emit(self, self._score)

    def _on_layers_change(self, body: Body) -> None:
        self._current_layers = layers_from_fbs(body.read(fbs.LayersChangeNotification).layers)
        Consumer.on_layers_change.emit(self, self._current_layers)

    def _on_trace(self, body: Body) -> None:
        self.on_trace.emit(consumer_trace(body.read(fbs.TraceNotification)))

    def _set_producer_paused(self, paused: bool) -> None:
        if self._producer_paused == paused:
            return
        self._producer_paused = paused
        (Consumer.on_producer_pause if paused else Consumer.on_producer_resume).emit(self, None)
        if not self._paused:
            (Consumer.on_pause if paused else Consumer.on_resume).emit(self, None)


_REACTIONS: Final[dict[int, Callable[[Consumer, Body], None]]] = {
    WorkerEvent.CONSUMER_RTP: Consumer._on_rtp,
    WorkerEvent.CONSUMER_SCORE: Consumer._on_score,
    WorkerEvent.CONSUMER_LAYERS_CHANGE: Consumer._on_layers_change,
    WorkerEvent.CONSUMER_PRODUCER_PAUSE: lambda consumer, _: consumer._set_producer_paused(True),
    WorkerEvent.CONSUMER_PRODUCER_RESUME: lambda consumer, _: consumer._set_producer_paused(False),
    WorkerEvent.CONSUMER_PRODUCER_CLOSE: lambda consumer, _: consumer._close(CloseReason.PRODUCER_CLOSED),
    WorkerEvent.CONSUMER_TRACE: Consumer._on_trace,
}


def _parse_stats(body: Body) -> list[reports.RtpStreamStats]:
    return [stream_stats(stats) for stats in body.read(fbs.GetStatsResponse).stats]


def _parse_preferred_layers(body: Body) -> ConsumerLayers | None:
    # Empty for consumers without layers.
    return layers_from_fbs(body.read(fbs.SetPreferredLayersResponse).preferred_layers) if body else None
