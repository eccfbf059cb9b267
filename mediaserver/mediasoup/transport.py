"""Transport: what all kinds of transports can do."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from . import ortc
from ._fbs import transport as fbs
from .consumer import Consumer
from .convert_rtp import encodings_to_fbs, rtp_mapping_to_fbs, rtp_parameters_to_fbs
from .convert_stream import layers_to_fbs, producer_type_from_fbs
from .enums import KIND_NAMES, TYPE_NAMES
from .errors import InvalidArgumentError, NotFoundError
from .events import EventSlot
from .messages import Body, Method
from .node import Node, new_id
from .producer import Producer
from .reports import TransportDump
from .rtp_parameters import MediaKind, RtpCapabilities, RtpEncodingParameters, RtpParameters
from .transport_data import DataTransport
from .types import (
    AppData,
    ConsumerId,
    ConsumerLayers,
    ConsumerType,
    ProducerId,
    TransportId,
)

if TYPE_CHECKING:
    from .observers import TransportObserver
    from .router_transports import RouterTransports

_MAX_MID: Final = 100_000_000
"""mediasoup sends at most 8 bytes of MID."""


def random_ssrc() -> int:
    """An SSRC to count up from, in mediasoup's range, so that there is room above."""
    return random.randint(100_000_000, 999_999_999)


class Transport(DataTransport):
    """A connection of a router with the outside; see the kinds of transport."""

    on_new_producer = EventSlot[Producer]()
    on_new_consumer = EventSlot[Consumer]()

    def __init__(
        self,
        router: RouterTransports,
        *,
        id: TransportId,
        dump: TransportDump,
        parents: tuple[Node, ...],
        app_data: AppData | None,
    ) -> None:
        super().__init__(router, id=id, dump=dump, parents=parents, app_data=app_data)
        self._cname: str | None = None
        self._next_mid = 0

    @property
    def observer(self) -> TransportObserver:
        return self

    @property
    def producers(self) -> list[Producer]:
        return [child for child in self._children.values() if isinstance(child, Producer)]

    @property
    def consumers(self) -> list[Consumer]:
        return [child for child in self._children.values() if isinstance(child, Consumer)]

    async def produce(
        self,
        *,
        kind: MediaKind,
        rtp_parameters: RtpParameters,
        id: ProducerId | None = None,
        paused: bool = False,
        key_frame_request_delay: int = 0,
        enable_mediasoup_packet_id_header_extension: bool = False,
        app_data: AppData | None = None,
    ) -> Producer:
        """Receives media that the endpoint sends with these parameters.

        `id` must be unique in the worker, not only in the router; absent, it is random.
        `key_frame_request_delay` (ms) is how long key frame requests are gathered into one, video only.
        Raises InvalidArgumentError and UnsupportedError for parameters that don't fit the router's codecs,
        RequestRejectedError for an id or SSRC in use.
        """
        if kind not in ("audio", "video"):
            raise InvalidArgumentError(f"kind is {kind!r}; it must be audio or video")
        if id is not None and id in self._router._producers:
            raise InvalidArgumentError(f"id: {self._router!r} already has a producer {id}")
        params = self._with_cname(ortc.validate_rtp_parameters(rtp_parameters))
        if not params.encodings:
            params = replace(params, encodings=[RtpEncodingParameters()])
        caps = self._router.rtp_capabilities
        params, mapping = ortc.get_producer_rtp_parameters_mapping(params, caps, ssrc=random_ssrc())
        consumable = ortc.get_consumable_rtp_parameters(kind, params, caps, mapping)
        producer_id = id or ProducerId(new_id())

        def build(body: Body) -> Producer:
            producer = Producer(
                self,
                id=producer_id,
                kind=kind,
                type=producer_type_from_fbs(body.read(fbs.ProduceResponse).type),
                rtp_parameters=params,
                consumable_rtp_parameters=consumable,
                paused=paused,
                app_data=app_data,
            )
            self._router._producers[producer_id] = producer
            return producer

        request = fbs.ProduceRequest(
            producer_id=producer_id,
            kind=KIND_NAMES.index(kind),
            rtp_parameters=rtp_parameters_to_fbs(params),
            rtp_mapping=rtp_mapping_to_fbs(mapping),
            paused=paused,
            key_frame_request_delay=key_frame_request_delay,
            enable_mediasoup_packet_id_header_extension=enable_mediasoup_packet_id_header_extension,
        )
        undo = (Method.TRANSPORT_CLOSE_PRODUCER, fbs.CloseProducerRequest(producer_id=producer_id))
        return await self._create(Method.TRANSPORT_PRODUCE, request, build, child_id=producer_id, undo=undo)

    def _with_cname(self, params: RtpParameters) -> RtpParameters:
        """All producers of an endpoint share one CNAME, so that consumers can synchronise them."""
        if self._cname is None:
            self._cname = params.rtcp.cname or new_id()[:8]
        return replace(params, rtcp=replace(params.rtcp, cname=self._cname))

    async def _consume(
        self,
        producer: Producer,
        *,
        type: ConsumerType,
        rtp_parameters: RtpParameters,
        paused: bool = False,
        preferred_layers: ConsumerLayers | None = None,
        ignore_dtx: bool = False,
        app_data: AppData | None = None,
    ) -> Consumer:
        consumer_id = ConsumerId(new_id())

        def build(body: Body) -> Consumer:
            return Consumer(
                self,
                id=consumer_id,
                producer_id=producer.id,
                kind=producer.kind,
                type=type,
                rtp_parameters=rtp_parameters,
                status=body.read(fbs.ConsumeResponse),
                app_data=app_data,
            )

        request = fbs.ConsumeRequest(
            consumer_id=consumer_id,
            producer_id=producer.id,
            kind=KIND_NAMES.index(producer.kind),
            rtp_parameters=rtp_parameters_to_fbs(rtp_parameters),
            type=TYPE_NAMES.index(type),
            consumable_rtp_encodings=encodings_to_fbs(producer.consumable_rtp_parameters.encodings),
            paused=paused,
            preferred_layers=None if preferred_layers is None else layers_to_fbs(preferred_layers),
            ignore_dtx=ignore_dtx,
        )
        undo = (Method.TRANSPORT_CLOSE_CONSUMER, fbs.CloseConsumerRequest(consumer_id=consumer_id))
        return await self._create(Method.TRANSPORT_CONSUME, request, build, child_id=consumer_id, undo=undo)

    def _find_producer(self, producer_id: ProducerId) -> Producer:
        self._check_open()
        producer = self._router._producers.get(producer_id)
        if producer is None:
            raise NotFoundError(f"{self._router!r} has no producer {producer_id}")
        return producer

    def _announce(self) -> None:
        self._router.on_new_transport.emit(self)


class EndpointTransport(Transport):
    """A transport whose other end is an endpoint with RTP capabilities of its own."""

    async def consume(
        self,
        *,
        producer_id: ProducerId,
        rtp_capabilities: RtpCapabilities,
        paused: bool = False,
        mid: str | None = None,
        preferred_layers: ConsumerLayers | None = None,
        ignore_dtx: bool = False,
        enable_rtx: bool | None = None,
        pipe: bool = False,
        app_data: AppData | None = None,
    ) -> Consumer:
        """Sends a producer's media to the endpoint, which has these capabilities.

        Create video paused and resume once the endpoint is ready, else its first key frame is lost. `mid`
        is counted up if absent; `enable_rtx` absent means for video only; `pipe` sends all encodings.
        Raises NotFoundError without such a producer in the router, UnsupportedError if the endpoint lacks
        its codecs, InvalidArgumentError for invalid capabilities.
        """
        producer = self._find_producer(producer_id)
        if mid == "":
            raise InvalidArgumentError("mid is empty; leave it out to have one made")
        ortc.check_rtp_capabilities(rtp_capabilities)
        params = ortc.get_consumer_rtp_parameters(
            producer.consumable_rtp_parameters,
            rtp_capabilities,
            enable_rtx=producer.kind == "video" if enable_rtx is None else enable_rtx,
            pipe=pipe,
            ssrc=random_ssrc(),
            rtx_ssrc=random_ssrc(),
        )
        if not pipe:
            params = replace(params, mid=mid or self._take_mid())
        return await self._consume(
            producer,
            type="pipe" if pipe else producer.type,
            rtp_parameters=params,
            paused=paused,
            preferred_layers=preferred_layers,
            ignore_dtx=ignore_dtx,
            app_data=app_data,
        )

    def _take_mid(self) -> str:
        mid = self._next_mid
        self._next_mid = (mid + 1) % _MAX_MID
        return str(mid)
