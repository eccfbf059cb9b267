"""What `dump()` and `get_stats()` return. Sizes in bytes, rates in bit/s, timestamps in ms."""

from __future__ import annotations

from typing import Literal

import msgspec

from .rtp_parameters import MediaKind, RtpEncodingParameters, RtpParameters
from .types import (
    ConsumerId,
    ConsumerType,
    DtlsParameters,
    DtlsState,
    IceCandidate,
    IceParameters,
    IceRole,
    IceState,
    ProducerId,
    ProducerType,
    RouterId,
    SctpNegotiatedCapabilities,
    SctpParameters,
    SctpState,
    SrtpParameters,
    TransportId,
    TransportTuple,
    WebRtcServerId,
)


class _Report(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Base: immutable, camelCase when encoded, absent optional fields omitted."""


class WorkerDump(_Report, frozen=True, kw_only=True):
    pid: int
    webrtc_server_ids: list[WebRtcServerId] = msgspec.field(name="webRtcServerIds")
    router_ids: list[RouterId]
    channel_request_handlers: list[str]
    channel_notification_handlers: list[str]


class IpPort(_Report, frozen=True, kw_only=True):
    ip: str
    port: int


class WebRtcServerDump(_Report, frozen=True, kw_only=True):
    """`local_ice_username_fragments` maps an ICE user name to the transport that it leads to."""

    id: WebRtcServerId
    udp_sockets: list[IpPort]
    tcp_servers: list[IpPort]
    webrtc_transport_ids: list[TransportId] = msgspec.field(name="webRtcTransportIds")
    local_ice_username_fragments: dict[str, TransportId]


class RouterDump(_Report, frozen=True, kw_only=True):
    id: RouterId
    transport_ids: list[TransportId]
    rtp_observer_ids: list[str]
    map_producer_id_consumer_ids: dict[ProducerId, list[ConsumerId]]
    map_consumer_id_producer_id: dict[ConsumerId, ProducerId]
    map_producer_id_observer_ids: dict[ProducerId, list[str]]
    map_data_producer_id_data_consumer_ids: dict[str, list[str]]
    map_data_consumer_id_data_producer_id: dict[str, str]


class RecvRtpHeaderExtensions(_Report, frozen=True, kw_only=True):
    """Ids of the header extensions that the transport reads by itself."""

    mid: int | None = None
    rid: int | None = None
    rrid: int | None = None
    abs_send_time: int | None = None
    transport_wide_cc01: int | None = None


class RtpListenerDump(_Report, frozen=True, kw_only=True):
    """How a received packet finds its producer."""

    ssrc_table: dict[int, ProducerId]
    mid_table: dict[str, ProducerId]
    rid_table: dict[str, ProducerId]


class TransportDump(_Report, frozen=True, kw_only=True):
    id: TransportId
    producer_ids: list[ProducerId]
    consumer_ids: list[ConsumerId]
    map_ssrc_consumer_id: dict[int, ConsumerId]
    map_rtx_ssrc_consumer_id: dict[int, ConsumerId]
    data_producer_ids: list[str]
    data_consumer_ids: list[str]
    recv_rtp_header_extensions: RecvRtpHeaderExtensions
    rtp_listener: RtpListenerDump
    max_send_message_size: int
    max_receive_message_size: int
    sctp_parameters: SctpParameters | None = None
    sctp_state: SctpState | None = None
    sctp_negotiated_capabilities: SctpNegotiatedCapabilities | None = None


class WebRtcTransportDump(TransportDump, frozen=True, kw_only=True):
    ice_role: IceRole
    ice_parameters: IceParameters
    ice_candidates: list[IceCandidate]
    ice_state: IceState
    dtls_parameters: DtlsParameters
    dtls_state: DtlsState
    ice_selected_tuple: TransportTuple | None = None


class PlainTransportDump(TransportDump, frozen=True, kw_only=True):
    rtcp_mux: bool
    comedia: bool
    tuple: TransportTuple
    rtcp_tuple: TransportTuple | None = None
    srtp_parameters: SrtpParameters | None = None


class PipeTransportDump(TransportDump, frozen=True, kw_only=True):
    tuple: TransportTuple
    rtx: bool
    srtp_parameters: SrtpParameters | None = None


class TransportStats(_Report, frozen=True, kw_only=True):
    """Counters since creation and current rates. `rtp_packet_loss_*` is a fraction from 0 to 1."""

    transport_id: TransportId
    timestamp: int
    bytes_received: int
    recv_bitrate: int
    bytes_sent: int
    send_bitrate: int
    rtp_bytes_received: int
    rtp_recv_bitrate: int
    rtp_bytes_sent: int
    rtp_send_bitrate: int
    rtx_bytes_received: int
    rtx_recv_bitrate: int
    rtx_bytes_sent: int
    rtx_send_bitrate: int
    probation_bytes_sent: int
    probation_send_bitrate: int
    sctp_state: SctpState | None = None
    available_outgoing_bitrate: int | None = None
    available_incoming_bitrate: int | None = None
    max_incoming_bitrate: int | None = None
    max_outgoing_bitrate: int | None = None
    min_outgoing_bitrate: int | None = None
    rtp_packet_loss_received: float | None = None
    rtp_packet_loss_sent: float | None = None


class WebRtcTransportStats(TransportStats, frozen=True, kw_only=True):
    type: Literal["webrtc-transport"]
    ice_role: IceRole
    ice_state: IceState
    dtls_state: DtlsState
    ice_selected_tuple: TransportTuple | None = None


class PlainTransportStats(TransportStats, frozen=True, kw_only=True):
    type: Literal["plain-rtp-transport"]
    rtcp_mux: bool
    comedia: bool
    tuple: TransportTuple
    rtcp_tuple: TransportTuple | None = None


class PipeTransportStats(TransportStats, frozen=True, kw_only=True):
    type: Literal["pipe-transport"]
    tuple: TransportTuple


class RtpStreamStats(_Report, frozen=True, kw_only=True):
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


class RtpStreamDump(_Report, frozen=True, kw_only=True):
    """One RTP stream as the worker sees it."""

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
    score: int
    rid: str | None = None
    rtx_ssrc: int | None = None
    rtx_payload_type: int | None = None


class CodecMapping(_Report, frozen=True, kw_only=True):
    payload_type: int
    mapped_payload_type: int


class EncodingMapping(_Report, frozen=True, kw_only=True):
    mapped_ssrc: int
    ssrc: int | None = None
    rid: str | None = None


class RtpMapping(_Report, frozen=True, kw_only=True):
    """What the router replaces in a producer's packets before consumers see them."""

    codecs: list[CodecMapping]
    encodings: list[EncodingMapping]


class ProducerDump(_Report, frozen=True, kw_only=True):
    id: ProducerId
    kind: MediaKind
    type: ProducerType
    rtp_parameters: RtpParameters
    rtp_mapping: RtpMapping
    rtp_streams: list[RtpStreamDump]
    paused: bool


class ConsumerDump(_Report, frozen=True, kw_only=True):
    """Layers are counted from 0, -1 meaning none; absent for consumers without layers."""

    id: ConsumerId
    producer_id: ProducerId
    kind: MediaKind
    type: ConsumerType
    rtp_parameters: RtpParameters
    consumable_rtp_encodings: list[RtpEncodingParameters]
    supported_codec_payload_types: list[int]
    rtp_streams: list[RtpStreamDump]
    paused: bool
    producer_paused: bool
    priority: int
    preferred_spatial_layer: int | None = None
    target_spatial_layer: int | None = None
    current_spatial_layer: int | None = None
    preferred_temporal_layer: int | None = None
    target_temporal_layer: int | None = None
    current_temporal_layer: int | None = None
