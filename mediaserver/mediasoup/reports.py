"""What `dump()` and `get_stats()` return. Sizes in bytes, rates in bit/s, timestamps in ms."""

from __future__ import annotations

from typing import Literal

import msgspec

from .traces import TransportTraceEventType
from .types import (
    ConsumerId,
    DataConsumerId,
    DataProducerId,
    DtlsParameters,
    DtlsState,
    IceCandidate,
    IceParameters,
    IceRole,
    IceState,
    ProducerId,
    RouterId,
    RtpObserverId,
    SctpNegotiatedCapabilities,
    SctpParameters,
    SctpState,
    SrtpParameters,
    TransportId,
    TransportTuple,
    WebRtcServerId,
)


class Report(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Base: immutable, camelCase when encoded, absent optional fields omitted."""


class WorkerDump(Report, frozen=True, kw_only=True):
    pid: int
    webrtc_server_ids: list[WebRtcServerId] = msgspec.field(name="webRtcServerIds")
    router_ids: list[RouterId]
    channel_request_handlers: list[str]
    channel_notification_handlers: list[str]


class IpPort(Report, frozen=True, kw_only=True):
    ip: str
    port: int


class WebRtcServerDump(Report, frozen=True, kw_only=True):
    """`local_ice_username_fragments` maps an ICE user name to the transport that it leads to."""

    id: WebRtcServerId
    udp_sockets: list[IpPort]
    tcp_servers: list[IpPort]
    webrtc_transport_ids: list[TransportId] = msgspec.field(name="webRtcTransportIds")
    local_ice_username_fragments: dict[str, TransportId]


class RouterDump(Report, frozen=True, kw_only=True):
    id: RouterId
    transport_ids: list[TransportId]
    rtp_observer_ids: list[RtpObserverId]
    map_producer_id_consumer_ids: dict[ProducerId, list[ConsumerId]]
    map_consumer_id_producer_id: dict[ConsumerId, ProducerId]
    map_producer_id_observer_ids: dict[ProducerId, list[RtpObserverId]]
    map_data_producer_id_data_consumer_ids: dict[DataProducerId, list[DataConsumerId]]
    map_data_consumer_id_data_producer_id: dict[DataConsumerId, DataProducerId]


class RecvRtpHeaderExtensions(Report, frozen=True, kw_only=True):
    """Ids of the header extensions that the transport reads by itself."""

    mid: int | None = None
    rid: int | None = None
    rrid: int | None = None
    abs_send_time: int | None = None
    transport_wide_cc01: int | None = None


class RtpListenerDump(Report, frozen=True, kw_only=True):
    """How a received packet finds its producer."""

    ssrc_table: dict[int, ProducerId]
    mid_table: dict[str, ProducerId]
    rid_table: dict[str, ProducerId]


class SctpListenerDump(Report, frozen=True, kw_only=True):
    """How a received message finds its data producer: by its SCTP stream."""

    stream_id_table: dict[int, DataProducerId]


class TransportDump(Report, frozen=True, kw_only=True):
    id: TransportId
    producer_ids: list[ProducerId]
    consumer_ids: list[ConsumerId]
    map_ssrc_consumer_id: dict[int, ConsumerId]
    map_rtx_ssrc_consumer_id: dict[int, ConsumerId]
    data_producer_ids: list[DataProducerId]
    data_consumer_ids: list[DataConsumerId]
    recv_rtp_header_extensions: RecvRtpHeaderExtensions
    rtp_listener: RtpListenerDump
    max_send_message_size: int
    max_receive_message_size: int
    trace_event_types: list[TransportTraceEventType]
    sctp_parameters: SctpParameters | None = None
    sctp_state: SctpState | None = None
    sctp_negotiated_capabilities: SctpNegotiatedCapabilities | None = None
    sctp_listener: SctpListenerDump | None = None


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


class DirectTransportDump(TransportDump, frozen=True, kw_only=True):
    """Nothing more than every transport has."""


class TransportStats(Report, frozen=True, kw_only=True):
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


class DirectTransportStats(TransportStats, frozen=True, kw_only=True):
    type: Literal["direct-transport"]


class CodecMapping(Report, frozen=True, kw_only=True):
    payload_type: int
    mapped_payload_type: int


class EncodingMapping(Report, frozen=True, kw_only=True):
    mapped_ssrc: int
    ssrc: int | None = None
    rid: str | None = None


class RtpMapping(Report, frozen=True, kw_only=True):
    """What the router replaces in a producer's packets before consumers see them."""

    codecs: list[CodecMapping]
    encodings: list[EncodingMapping]
