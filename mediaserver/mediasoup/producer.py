"""Producer: media that enters a router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import reports
from ._fbs import producer as fbs
from ._fbs import transport as fbs_transport
from .convert_stream import producer_dump, producer_scores, stream_stats
from .errors import CloseReason
from .events import Event
from .messages import Body, Method
from .messages import Event as WorkerEvent
from .node import Node
from .rtp_parameters import MediaKind, RtpParameters
from .types import AppData, ProducerId, ProducerScore, ProducerType, ProducerVideoOrientation

if TYPE_CHECKING:
    from .transport import Transport


class Producer(Node):
    """Audio or video that a transport receives (https://mediasoup.org/documentation/v3/mediasoup/api/#Producer).

    Made by `Transport.produce`. Closing it closes its consumers on every transport of the router.
    """

    KIND = "Producer"
    CHILDREN_REASON = CloseReason.PRODUCER_CLOSED

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
        self._transport_id = transport.id
        self._kind: MediaKind = kind
        self._type: ProducerType = type
        self._rtp_parameters = rtp_parameters
        self._consumable_rtp_parameters = consumable_rtp_parameters
        self._paused = paused
        self._score: list[ProducerScore] = []
        self.on_transport_close: Event[CloseReason] = self._event("on_transport_close")
        """Comes before `on_close` when it was not this producer that was closed."""
        self.on_pause: Event[None] = self._event("on_pause")
        """`pause()` succeeded on a producer that was not paused."""
        self.on_resume: Event[None] = self._event("on_resume")
        self.on_score: Event[list[ProducerScore]] = self._event("on_score")
        self.on_video_orientation_change: Event[ProducerVideoOrientation] = self._event(
            "on_video_orientation_change"
        )

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

    def _tell_worker(self) -> None:
        self._channel.post(
            Method.TRANSPORT_CLOSE_PRODUCER,
            self._transport_id,
            fbs_transport.CloseProducerRequest(producer_id=self._id),
        )

    def _closing(self, reason: CloseReason) -> None:
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


def _parse_stats(body: Body) -> list[reports.RtpStreamStats]:
    return [stream_stats(stats) for stats in body.read(fbs.GetStatsResponse).stats]
