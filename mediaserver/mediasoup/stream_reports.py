"""What `dump()` and `get_stats()` of producers and consumers return; units as in `reports`."""

from __future__ import annotations

from typing import Literal

from .reports import Report, RtpMapping
from .rtp_parameters import MediaKind, RtpEncodingParameters, RtpParameters
from .traces import ConsumerTraceEventType, ProducerTraceEventType
from .types import (
    ConsumerId,
    ConsumerType,
    DataConsumerId,
    DataConsumerType,
    DataProducerId,
    DataProducerType,
    ProducerId,
    ProducerType,
    SctpStreamParameters,
)


class RtpStreamStats(Report, frozen=True, kw_only=True):
    """One RTP stream. `jitter` in RTP clock units, `round_trip_time` in ms, `fraction_lost` of 256."""

    type: Literal["inbound-rtp", "outbound-rtp"]
    timestamp: int
    ssrc: int
    kind: MediaKind
    mime_type: str
    packets_lost: int
    fraction_lost: int
    jitter: int
    packets_discarded: int
    packets_retransmitted: int
    packets_repaired: int
    nack_count: int
    nack_packet_count: int
    pli_count: int
    fir_count: int
    round_trip_time: float
    score: int
    packet_count: int
    byte_count: int
    bitrate: int
    rid: str | None = None
    rtx_ssrc: int | None = None
    rtx_packets_discarded: int | None = None
    bitrate_by_layer: dict[str, int] = {}


class RtpStreamParametersDump(Report, frozen=True, kw_only=True):
    """How the worker reads or writes one RTP stream."""

    encoding_idx: int
    ssrc: int
    payload_type: int
    mime_type: str
    clock_rate: int
    cname: str
    use_nack: bool
    use_pli: bool
    use_fir: bool
    use_in_band_fec: bool
    use_dtx: bool
    spatial_layers: int
    temporal_layers: int
    rid: str | None = None
    rtx_ssrc: int | None = None
    rtx_payload_type: int | None = None


class RtxStreamParameters(Report, frozen=True, kw_only=True):
    """How the worker reads or writes the retransmissions of a stream."""

    ssrc: int
    payload_type: int
    mime_type: str
    clock_rate: int
    cname: str
    rrid: str | None = None


class RtxStreamDump(Report, frozen=True, kw_only=True):
    params: RtxStreamParameters


class RtpStreamDump(Report, frozen=True, kw_only=True):
    """One RTP stream; `score` from 0 to 10."""

    params: RtpStreamParametersDump
    score: int
    rtx_stream: RtxStreamDump | None = None


class ProducerDump(Report, frozen=True, kw_only=True):
    id: ProducerId
    kind: MediaKind
    type: ProducerType
    rtp_parameters: RtpParameters
    rtp_mapping: RtpMapping
    rtp_streams: list[RtpStreamDump]
    trace_event_types: list[ProducerTraceEventType]
    paused: bool


class ConsumerDump(Report, frozen=True, kw_only=True):
    """Layers are counted from 0, -1 meaning none; absent for consumers without layers."""

    id: ConsumerId
    producer_id: ProducerId
    kind: MediaKind
    type: ConsumerType
    rtp_parameters: RtpParameters
    consumable_rtp_encodings: list[RtpEncodingParameters]
    supported_codec_payload_types: list[int]
    rtp_streams: list[RtpStreamDump]
    trace_event_types: list[ConsumerTraceEventType]
    paused: bool
    producer_paused: bool
    priority: int
    preferred_spatial_layer: int | None = None
    target_spatial_layer: int | None = None
    current_spatial_layer: int | None = None
    preferred_temporal_layer: int | None = None
    target_temporal_layer: int | None = None
    current_temporal_layer: int | None = None


class DataProducerDump(Report, frozen=True, kw_only=True):
    id: DataProducerId
    type: DataProducerType
    label: str
    protocol: str
    paused: bool
    sctp_stream_parameters: SctpStreamParameters | None = None


class DataProducerStats(Report, frozen=True, kw_only=True):
    type: Literal["data-producer"]
    timestamp: int
    label: str
    protocol: str
    messages_received: int
    bytes_received: int


class DataConsumerDump(Report, frozen=True, kw_only=True):
    """`buffered_amount` and its threshold in bytes."""

    id: DataConsumerId
    data_producer_id: DataProducerId
    type: DataConsumerType
    label: str
    protocol: str
    buffered_amount: int
    buffered_amount_low_threshold: int
    paused: bool
    data_producer_paused: bool
    subchannels: list[int]
    sctp_stream_parameters: SctpStreamParameters | None = None


class DataConsumerStats(Report, frozen=True, kw_only=True):
    type: Literal["data-consumer"]
    timestamp: int
    label: str
    protocol: str
    messages_sent: int
    bytes_sent: int
    buffered_amount: int
