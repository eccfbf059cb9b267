"""Stand-ins for mediasoup's objects, as far as signalling touches them; no worker behind."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from mediaserver.mediasoup import (
    CloseReason,
    ConsumerScore,
    DtlsFingerprint,
    DtlsParameters,
    Event,
    IceParameters,
    InvalidArgumentError,
    NotFoundError,
    RtpCapabilities,
    RtpCodecParameters,
    RtpParameters,
)

_ids = itertools.count(1)


class FakeNode:
    def __init__(self, kind: str, app_data: dict[str, Any] | None = None) -> None:
        self.id = f"{kind}-{next(_ids)}"
        self.app_data = app_data or {}
        self.closed = False
        self.close_reason: CloseReason | None = None
        self.calls: list[Any] = []
        self.on_close: Event[CloseReason] = Event("on_close")

    def close(self, reason: CloseReason = CloseReason.CLOSED) -> None:
        if not self.closed:
            self.closed, self.close_reason = True, reason
            self.on_close.emit(reason)

    async def get_stats(self) -> list[Any]:
        return [{"type": "fake", "id": self.id}]


class FakeConsumer(FakeNode):
    def __init__(self, producer: FakeProducer, paused: bool) -> None:
        super().__init__("consumer")
        self.producer_id, self.kind, self.type = producer.id, producer.kind, "simple"
        self.paused, self.producer_paused = paused, False
        self.rtp_parameters = rtp_parameters()
        self.score = ConsumerScore(score=10, producer_score=10, producer_scores=[10])
        self.on_producer_pause: Event[None] = Event("pause")
        self.on_producer_resume: Event[None] = Event("resume")
        self.on_score: Event[ConsumerScore] = Event("score")
        self.on_layers_change: Event[Any] = Event("layers")

    async def pause(self) -> None:
        self.paused = True

    async def resume(self) -> None:
        self.paused = False

    async def set_preferred_layers(self, layers: Any) -> None:
        self.calls.append(("layers", layers.spatial_layer, layers.temporal_layer))

    async def set_priority(self, priority: int) -> None:
        if not 1 <= priority <= 255:
            raise InvalidArgumentError(f"priority is {priority}; it must be from 1 to 255")
        self.calls.append(("priority", priority))

    async def request_key_frame(self) -> None:
        self.calls.append(("key frame",))


class FakeProducer(FakeNode):
    def __init__(self, kind: str, app_data: dict[str, Any] | None = None) -> None:
        super().__init__("producer", app_data)
        self.kind, self.paused = kind, False
        self.on_score: Event[Any] = Event("score")
        self.consumers: list[FakeConsumer] = []

    async def pause(self) -> None:
        self.paused = True

    async def resume(self) -> None:
        self.paused = False

    def close(self, reason: CloseReason = CloseReason.CLOSED) -> None:
        super().close(reason)
        for consumer in self.consumers:
            consumer.close(CloseReason.PRODUCER_CLOSED)


class FakeTransport(FakeNode):
    def __init__(self, router: FakeRouter, app_data: dict[str, Any]) -> None:
        super().__init__("transport", app_data)
        self._router = router
        self.ice_parameters = IceParameters(username_fragment="u", password="p", ice_lite=True)
        self.ice_candidates: list[Any] = []
        self.dtls_parameters = DtlsParameters(fingerprints=[DtlsFingerprint(algorithm="sha-256", value="00")])
        self._mine: list[FakeNode] = []

    async def connect(self, *, dtls_parameters: DtlsParameters) -> None:
        self.calls.append(("connect", dtls_parameters.role))

    async def restart_ice(self) -> IceParameters:
        return self.ice_parameters

    async def produce(self, *, kind: str, rtp_parameters: Any, paused: bool, app_data: Any) -> FakeProducer:
        await self._router.slowly()
        producer = FakeProducer(kind, app_data)
        self._router.add(producer)
        self._mine.append(producer)
        return producer

    async def consume(
        self, *, producer_id: str, rtp_capabilities: Any, paused: bool, ignore_dtx: bool
    ) -> FakeConsumer:
        await self._router.slowly()
        producer = self._router.producers.get(producer_id)
        if producer is None:
            raise NotFoundError(f"no producer {producer_id}")
        consumer = FakeConsumer(producer, paused)
        producer.consumers.append(consumer)
        self._mine.append(consumer)
        return consumer

    def close(self, reason: CloseReason = CloseReason.CLOSED) -> None:
        super().close(reason)
        for node in self._mine:
            node.close(CloseReason.TRANSPORT_CLOSED)


class FakeRouter(FakeNode):
    def __init__(self) -> None:
        super().__init__("router")
        self.rtp_capabilities = RtpCapabilities()
        self.producers: dict[str, FakeProducer] = {}
        self.transports: list[FakeTransport] = []
        self.delay = 0.0

    async def slowly(self) -> None:
        await asyncio.sleep(self.delay)

    def add(self, producer: FakeProducer) -> None:
        self.producers[producer.id] = producer
        producer.on_close.subscribe(lambda _: self.producers.pop(producer.id, None) and None)

    def can_consume(self, *, producer_id: str, rtp_capabilities: RtpCapabilities) -> bool:
        return producer_id in self.producers

    async def create_webrtc_transport(self, *, app_data: dict[str, Any], **options: Any) -> FakeTransport:
        await self.slowly()
        transport = FakeTransport(self, app_data)
        transport.calls.append(("options", options))
        self.transports.append(transport)
        return transport

    @property
    def open_transports(self) -> list[FakeTransport]:
        return [transport for transport in self.transports if not transport.closed]

    def close(self, reason: CloseReason = CloseReason.CLOSED) -> None:
        super().close(reason)
        for transport in self.transports:
            transport.close(CloseReason.ROUTER_CLOSED)


def rtp_parameters() -> RtpParameters:
    return RtpParameters(
        codecs=[RtpCodecParameters(mime_type="audio/opus", payload_type=100, clock_rate=48000, channels=2)]
    )
