"""Producer: media that enters a router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import stream_reports as reports
from ._fbs import producer as fbs
from ._fbs import transport as fbs_transport
from .convert_stream import producer_dump, producer_scores, stream_stats
from .convert_trace import PRODUCER_TRACE_NAMES, producer_trace, trace_types_to_fbs
from .errors import CloseReason
from .events import EventSlot
from .messages import Body, Method
from .messages import Event as WorkerEvent
from .node import Node
from .rtp_parameters import MediaKind, RtpParameters
from .traces import ProducerTraceEventData, ProducerTraceEventType
from .types import AppData, ProducerId, ProducerScore, ProducerType, ProducerVideoOrientation

if TYPE_CHECKING:
    from .observers import ProducerObserver
    from .transport import Transport


class Producer(Node):
    """Audio or video that a transport receives (https://mediasoup.org/documentation/v3/mediasoup/api/#Producer).

    Made by `Transport.produce`. Closing it closes its consumers on every transport of the router.
    """

    KIND = "Producer"
    CHILDREN_REASON = CloseReason.PRODUCER_CLOSED

    on_transport_close = EventSlot[CloseReason]()
    """Comes before `on_close` when it was not this producer that was closed."""
    on_pause = EventSlot[None]()
    """`pause()` succeeded on a producer that was not paused."""
    on_resume = EventSlot[None]()
    on_score = EventSlot[list[ProducerScore]]()
    on_video_orientation_change = EventSlot[ProducerVideoOrientation]()
    on_trace = EventSlot[ProducerTraceEventData]()
    """What `enable_trace_event` asked for."""

    def __init__(
        self,
        transport: Transport,
        *,
        id: ProducerId,
        kind: MediaKind,
        type: ProducerType,
        rtp_parameters: RtpParameters,
        consumable_rtp_parameters: RtpParameters,
        paused: bool,
        app_data: AppData | None,
    ) -> None:
        super().__init__(
            id=id, channel=transport._channel, hook=transport._hook, parents=(transport,), app_data=app_data
        )
        self._transport = transport
        self._kind: MediaKind = kind
        self._type: ProducerType = type
        self._rtp_parameters = rtp_parameters
        self._consumable_rtp_parameters = consumable_rtp_parameters
        self._paused = paused
        self._score: list[ProducerScore] = []

    @property
    def id(self) -> ProducerId:
        return ProducerId(self._id)

    @property
    def kind(self) -> MediaKind:
        return self._kind

    @property
    def type(self) -> ProducerType:
        """How it is encoded: one stream, simulcast or SVC."""
        return self._type

    @property
    def rtp_parameters(self) -> RtpParameters:
        """As given to `produce`, with defaults and the CNAME filled in."""
        return self._rtp_parameters

    @property
    def consumable_rtp_parameters(self) -> RtpParameters:
        """The same in the router's payload types and SSRCs: what consumers are derived from."""
        return self._consumable_rtp_parameters

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def score(self) -> list[ProducerScore]:
        """The last known quality of each received stream; empty before the first packets."""
        return self._score

    @property
    def observer(self) -> ProducerObserver:
        return self

    async def dump(self) -> reports.ProducerDump:
        return await self._request(
            Method.PRODUCER_DUMP, None, lambda body: producer_dump(body.read(fbs.DumpResponse))
        )

    async def get_stats(self) -> list[reports.RtpStreamStats]:
        """One entry for each received stream; none before the first packets."""
        return await self._request(Method.PRODUCER_GET_STATS, None, _parse_stats)

    async def pause(self) -> None:
        """Stops the media for all consumers, which get `on_producer_pause`."""
        await self._request(Method.PRODUCER_PAUSE)
        was_paused, self._paused = self._paused, True
        if not was_paused:
            self.on_pause.emit(None)

    async def resume(self) -> None:
        """Undoes `pause`; video consumers get a key frame requested for them."""
        await self._request(Method.PRODUCER_RESUME)
        was_paused, self._paused = self._paused, False
        if was_paused:
            self.on_resume.emit(None)

    async def enable_trace_event(self, types: Sequence[ProducerTraceEventType] = ()) -> None:
        """Which `on_trace` events to send from now on; none if empty.

        Raises InvalidArgumentError for a type that producers don't have.
        """
        request = fbs.EnableTraceEventRequest(events=trace_types_to_fbs(PRODUCER_TRACE_NAMES, types))
        await self._request(Method.PRODUCER_ENABLE_TRACE_EVENT, request)

    def send(self, rtp_packet: bytes) -> None:
        """Gives the router an RTP packet, as if an endpoint had sent it; on a DirectTransport only.

        Returns before the worker has read it. Raises ClosedError, InvalidArgumentError if it is too large,
        and ChannelOverflowError when the worker has stopped reading.
        """
        self._send(WorkerEvent.PRODUCER_SEND, fbs.SendNotification(data=rtp_packet), rtp_packet)

    def _set_paused(self, paused: bool) -> None:
        """Pauses or resumes without waiting; what pipes do when the original pauses or resumes."""
        if self.closed or self._paused == paused:
            return
        self._channel.post(Method.PRODUCER_PAUSE if paused else Method.PRODUCER_RESUME, self._id, None)
        self._paused = paused
        (self.on_pause if paused else self.on_resume).emit(None)

    def _announce(self) -> None:
        self._transport.on_new_producer.emit(self)

    def _tell_worker(self) -> None:
        self._channel.post(
            Method.TRANSPORT_CLOSE_PRODUCER,
            self._transport.id,
            fbs_transport.CloseProducerRequest(producer_id=self._id),
        )

    def _closing(self, reason: CloseReason) -> None:
        self._transport._router._producers.pop(self.id, None)
        if reason is not CloseReason.CLOSED:
            self.on_transport_close.emit(reason)

    def _on_notification(self, event: int, body: Body) -> None:
        if event == WorkerEvent.PRODUCER_SCORE:
            self._score = producer_scores(body.read(fbs.ScoreNotification).scores)
            self.on_score.emit(self._score)
        elif event == WorkerEvent.PRODUCER_VIDEO_ORIENTATION_CHANGE:
            value = body.read(fbs.VideoOrientationChangeNotification)
            self.on_video_orientation_change.emit(
                ProducerVideoOrientation(camera=value.camera, flip=value.flip, rotation=value.rotation)
            )
        elif event == WorkerEvent.PRODUCER_TRACE:
            self.on_trace.emit(producer_trace(body.read(fbs.TraceNotification)))


def _parse_stats(body: Body) -> list[reports.RtpStreamStats]:
    return [stream_stats(stats) for stats in body.read(fbs.GetStatsResponse).stats]
