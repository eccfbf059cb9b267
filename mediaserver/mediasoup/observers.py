"""The observer API: views for monitoring (https://mediasoup.org/documentation/v3/mediasoup/api/#observer-api).

`object.observer` has those of the object's events that a monitor may watch, and nothing by which it could
change the object: what is made in it, what happens to it, and its end. They are the object's own events, of
which any number of handlers may be subscribed without disturbing each other. Begin at the module's
`observer`:

    observer.on_new_worker.subscribe(lambda worker: worker.observer.on_new_router.subscribe(...))

A `new` event comes at the moment that the object exists, before the call that makes it returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from .errors import CloseReason
from .events import ErrorHook, Event, EventSlot, log_handler_error
from .traces import ConsumerTraceEventData, ProducerTraceEventData, TransportTraceEventData
from .types import (
    ConsumerLayers,
    ConsumerScore,
    DtlsState,
    IceState,
    ProducerScore,
    ProducerVideoOrientation,
    SctpState,
    TransportTuple,
)

if TYPE_CHECKING:
    from .active_speaker_observer import ActiveSpeakerObserverDominantSpeaker
    from .audio_level_observer import AudioLevelObserverVolume
    from .consumer import Consumer
    from .data_consumer import DataConsumer
    from .data_producer import DataProducer
    from .producer import Producer
    from .router import Router
    from .rtp_observer import RtpObserver
    from .transport import Transport
    from .webrtc_server import WebRtcServer
    from .webrtc_transport import WebRtcTransport
    from .worker import Worker


class Observer:
    """Tells of every worker that this process makes; see `observer`."""

    KIND: ClassVar[str] = "Observer"
    on_new_worker: EventSlot[Worker] = EventSlot()

    def __init__(self) -> None:
        self._hook: ErrorHook = log_handler_error


observer: Final = Observer()
"""Where monitoring begins. A handler's exception is logged."""


class NodeObserver(Protocol):
    """What every object tells."""

    @property
    def on_close(self) -> Event[CloseReason]: ...


class WorkerObserver(NodeObserver, Protocol):
    """A worker's."""

    @property
    def on_new_webrtc_server(self) -> Event[WebRtcServer]: ...

    @property
    def on_new_router(self) -> Event[Router]: ...


class WebRtcServerObserver(NodeObserver, Protocol):
    """A WebRtcServer's: transports that begin and cease to use it."""

    @property
    def on_webrtc_transport_handled(self) -> Event[WebRtcTransport]: ...

    @property
    def on_webrtc_transport_unhandled(self) -> Event[WebRtcTransport]: ...


class RouterObserver(NodeObserver, Protocol):
    """A router's."""

    @property
    def on_new_transport(self) -> Event[Transport]: ...

    @property
    def on_new_rtp_observer(self) -> Event[RtpObserver]: ...


class TransportObserver(NodeObserver, Protocol):
    """What all kinds of transports tell."""

    @property
    def on_new_producer(self) -> Event[Producer]: ...

    @property
    def on_new_consumer(self) -> Event[Consumer]: ...

    @property
    def on_new_data_producer(self) -> Event[DataProducer]: ...

    @property
    def on_new_data_consumer(self) -> Event[DataConsumer]: ...

    @property
    def on_trace(self) -> Event[TransportTraceEventData]: ...


class WebRtcTransportObserver(TransportObserver, Protocol):
    """A WebRtcTransport's."""

    @property
    def on_ice_state_change(self) -> Event[IceState]: ...

    @property
    def on_ice_selected_tuple_change(self) -> Event[TransportTuple]: ...

    @property
    def on_dtls_state_change(self) -> Event[DtlsState]: ...

    @property
    def on_sctp_state_change(self) -> Event[SctpState]: ...


class PlainTransportObserver(TransportObserver, Protocol):
    """A PlainTransport's."""

    @property
    def on_tuple(self) -> Event[TransportTuple]: ...

    @property
    def on_rtcp_tuple(self) -> Event[TransportTuple]: ...

    @property
    def on_sctp_state_change(self) -> Event[SctpState]: ...


class PipeTransportObserver(TransportObserver, Protocol):
    """A PipeTransport's."""

    @property
    def on_sctp_state_change(self) -> Event[SctpState]: ...


class DirectTransportObserver(TransportObserver, Protocol):
    """A DirectTransport's."""

    @property
    def on_rtcp(self) -> Event[bytes]: ...


class ProducerObserver(NodeObserver, Protocol):
    """A producer's."""

    @property
    def on_pause(self) -> Event[None]: ...

    @property
    def on_resume(self) -> Event[None]: ...

    @property
    def on_score(self) -> Event[list[ProducerScore]]: ...

    @property
    def on_video_orientation_change(self) -> Event[ProducerVideoOrientation]: ...

    @property
    def on_trace(self) -> Event[ProducerTraceEventData]: ...


class ConsumerObserver(NodeObserver, Protocol):
    """A consumer's."""

    @property
    def on_pause(self) -> Event[None]: ...

    @property
    def on_resume(self) -> Event[None]: ...

    @property
    def on_score(self) -> Event[ConsumerScore]: ...

    @property
    def on_layers_change(self) -> Event[ConsumerLayers | None]: ...

    @property
    def on_trace(self) -> Event[ConsumerTraceEventData]: ...


class DataProducerObserver(NodeObserver, Protocol):
    """A data producer's."""

    @property
    def on_pause(self) -> Event[None]: ...

    @property
    def on_resume(self) -> Event[None]: ...


class DataConsumerObserver(NodeObserver, Protocol):
    """A data consumer's."""

    @property
    def on_pause(self) -> Event[None]: ...

    @property
    def on_resume(self) -> Event[None]: ...


class RtpObserverObserver(NodeObserver, Protocol):
    """What both kinds of RTP observers tell."""

    @property
    def on_pause(self) -> Event[None]: ...

    @property
    def on_resume(self) -> Event[None]: ...

    @property
    def on_add_producer(self) -> Event[Producer]: ...

    @property
    def on_remove_producer(self) -> Event[Producer]: ...


class AudioLevelObserverObserver(RtpObserverObserver, Protocol):
    """An AudioLevelObserver's."""

    @property
    def on_volumes(self) -> Event[list[AudioLevelObserverVolume]]: ...

    @property
    def on_silence(self) -> Event[None]: ...


class ActiveSpeakerObserverObserver(RtpObserverObserver, Protocol):
    """An ActiveSpeakerObserver's."""

    @property
    def on_dominant_speaker(self) -> Event[ActiveSpeakerObserverDominantSpeaker]: ...
