"""Transports' values, dumps and statistics: the worker's tables to and from the types of the API."""

from __future__ import annotations

from typing import Any

from . import reports
from ._fbs import direct_transport, pipe_transport, plain_transport, web_rtc_transport
from ._fbs import sctp_parameters as fbs_sctp
from ._fbs import srtp_parameters as fbs_srtp
from ._fbs import transport as fbs
from .convert_trace import TRANSPORT_TRACE_NAMES, trace_types_from_fbs
from .enums import (
    DTLS_ROLE_NAMES,
    DTLS_STATE_NAMES,
    FINGERPRINT_NAMES,
    ICE_CANDIDATE_TCP_TYPE_NAMES,
    ICE_CANDIDATE_TYPE_NAMES,
    ICE_ROLE_NAMES,
    ICE_STATE_NAMES,
    PROTOCOL_NAMES,
    SCTP_STATE_NAMES,
    SRTP_SUITE_NAMES,
    named,
    numbered,
)
from .types import (
    ConsumerId,
    DataConsumerId,
    DataProducerId,
    DtlsFingerprint,
    DtlsParameters,
    IceCandidate,
    IceParameters,
    ProducerId,
    SctpNegotiatedCapabilities,
    SctpOptions,
    SctpParameters,
    SctpState,
    SrtpParameters,
    TransportId,
    TransportListenInfo,
    TransportTuple,
)


def listen_info_to_fbs(info: TransportListenInfo) -> fbs.ListenInfo:
    ports = info.port_range
    return fbs.ListenInfo(
        protocol=numbered(PROTOCOL_NAMES, info.protocol, "protocol"),
        ip=info.ip,
        announced_address=info.announced_address,
        expose_internal_ip=info.expose_internal_ip,
        port=info.port,
        port_range=fbs.PortRange(min=ports.min, max=ports.max) if ports else fbs.PortRange(),
        flags=fbs.SocketFlags(ipv6_only=info.flags.ipv6_only, udp_reuse_port=info.flags.udp_reuse_port),
        send_buffer_size=info.send_buffer_size,
        recv_buffer_size=info.recv_buffer_size,
    )


def options_to_fbs(
    *, sctp: SctpOptions | None, is_data_channel: bool, initial_available_outgoing_bitrate: int | None = None
) -> fbs.Options:
    values = sctp or SctpOptions()
    return fbs.Options(
        initial_available_outgoing_bitrate=initial_available_outgoing_bitrate,
        enable_sctp=sctp is not None,
        max_send_message_size=values.max_send_message_size,
        max_receive_message_size=values.max_receive_message_size,
        sctp_send_buffer_size=values.send_buffer_size,
        sctp_per_stream_send_queue_limit=values.per_stream_send_queue_limit,
        sctp_max_receiver_window_buffer_size=values.max_receiver_window_buffer_size,
        sctp_default_stream_buffered_amount_low_threshold=values.default_stream_buffered_amount_low_threshold,
        is_data_channel=is_data_channel,
    )


def tuple_from_fbs(value: fbs.Tuple) -> TransportTuple:
    protocol = named(PROTOCOL_NAMES, value.protocol, "protocol")
    return TransportTuple(
        local_address=value.local_address,
        local_port=value.local_port,
        protocol="udp" if protocol is None else protocol,
        remote_ip=value.remote_ip or None,
        remote_port=value.remote_port if value.remote_ip else None,
    )


def _optional_tuple(value: fbs.Tuple | None) -> TransportTuple | None:
    return None if value is None else tuple_from_fbs(value)


def srtp_to_fbs(parameters: SrtpParameters | None) -> fbs_srtp.SrtpParameters | None:
    if parameters is None:
        return None
    return fbs_srtp.SrtpParameters(
        crypto_suite=numbered(SRTP_SUITE_NAMES, parameters.crypto_suite, "crypto_suite"),
        key_base64=parameters.key_base64,
    )


def srtp_from_fbs(parameters: fbs_srtp.SrtpParameters | None) -> SrtpParameters | None:
    if parameters is None:
        return None
    return SrtpParameters(
        crypto_suite=named(SRTP_SUITE_NAMES, parameters.crypto_suite, "SRTP crypto suite"),
        key_base64=parameters.key_base64,
    )


def sctp_state_from_fbs(state: int | None) -> SctpState | None:
    return None if state is None else named(SCTP_STATE_NAMES, state, "SCTP state")


def _sctp_from_fbs(parameters: fbs_sctp.SctpParameters | None) -> SctpParameters | None:
    if parameters is None:
        return None
    return SctpParameters(
        port=parameters.port,
        OS=65_535,
        MIS=65_535,
        max_message_size=parameters.max_receive_message_size,
        max_send_message_size=parameters.max_send_message_size,
        max_receive_message_size=parameters.max_receive_message_size,
        send_buffer_size=parameters.send_buffer_size,
        per_stream_send_queue_limit=parameters.per_stream_send_queue_limit,
        max_receiver_window_buffer_size=parameters.max_receiver_window_buffer_size,
        is_data_channel=parameters.is_data_channel,
    )


def ice_candidate_from_fbs(candidate: web_rtc_transport.IceCandidate) -> IceCandidate:
    protocol = named(PROTOCOL_NAMES, candidate.protocol, "protocol")
    tcp_type = candidate.tcp_type
    return IceCandidate(
        foundation=candidate.foundation,
        priority=candidate.priority,
        ip=candidate.address,
        address=candidate.address,
        protocol="udp" if protocol is None else protocol,
        port=candidate.port,
        type=named(ICE_CANDIDATE_TYPE_NAMES, candidate.type, "ICE candidate type"),
        tcp_type=None if tcp_type is None else named(ICE_CANDIDATE_TCP_TYPE_NAMES, tcp_type, "ICE TCP type"),
    )


def dtls_from_fbs(parameters: web_rtc_transport.DtlsParameters) -> DtlsParameters:
    return DtlsParameters(
        fingerprints=[
            DtlsFingerprint(
                algorithm=named(FINGERPRINT_NAMES, fingerprint.algorithm, "fingerprint algorithm"),
                value=fingerprint.value,
            )
            for fingerprint in parameters.fingerprints
        ],
        role=named(DTLS_ROLE_NAMES, parameters.role, "DTLS role"),
    )


def dtls_to_fbs(parameters: DtlsParameters) -> web_rtc_transport.DtlsParameters:
    return web_rtc_transport.DtlsParameters(
        fingerprints=[
            web_rtc_transport.Fingerprint(
                algorithm=numbered(FINGERPRINT_NAMES, fingerprint.algorithm, "algorithm of a fingerprint"),
                value=fingerprint.value,
            )
            for fingerprint in parameters.fingerprints
        ],
        role=numbered(DTLS_ROLE_NAMES, parameters.role, "DTLS role"),
    )


def _base_dump(base: fbs.Dump) -> dict[str, Any]:
    extensions, listener = base.recv_rtp_header_extensions, base.rtp_listener
    negotiated = base.sctp_negotiated_capabilities
    return {
        "id": TransportId(base.id),
        "producer_ids": [ProducerId(id) for id in base.producer_ids],
        "consumer_ids": [ConsumerId(id) for id in base.consumer_ids],
        "map_ssrc_consumer_id": {entry.key: ConsumerId(entry.value) for entry in base.map_ssrc_consumer_id},
        "map_rtx_ssrc_consumer_id": {
            entry.key: ConsumerId(entry.value) for entry in base.map_rtx_ssrc_consumer_id
        },
        "data_producer_ids": [DataProducerId(id) for id in base.data_producer_ids],
        "data_consumer_ids": [DataConsumerId(id) for id in base.data_consumer_ids],
        "recv_rtp_header_extensions": reports.RecvRtpHeaderExtensions(
            mid=extensions.mid,
            rid=extensions.rid,
            rrid=extensions.rrid,
            abs_send_time=extensions.abs_send_time,
            transport_wide_cc01=extensions.transport_wide_cc01,
        ),
        "rtp_listener": reports.RtpListenerDump(
            ssrc_table={entry.key: ProducerId(entry.value) for entry in listener.ssrc_table},
            mid_table={entry.key: ProducerId(entry.value) for entry in listener.mid_table},
            rid_table={entry.key: ProducerId(entry.value) for entry in listener.rid_table},
        ),
        "max_send_message_size": base.max_send_message_size,
        "max_receive_message_size": base.max_receive_message_size,
        "sctp_parameters": _sctp_from_fbs(base.sctp_parameters),
        "sctp_state": sctp_state_from_fbs(base.sctp_state),
        "sctp_negotiated_capabilities": negotiated
        and SctpNegotiatedCapabilities(
            negotiated_max_outbound_streams=negotiated.negotiated_max_outbound_streams,
            negotiated_max_inbound_streams=negotiated.negotiated_max_inbound_streams,
        ),
        "sctp_listener": base.sctp_listener
        and reports.SctpListenerDump(
            stream_id_table={
                entry.key: DataProducerId(entry.value) for entry in base.sctp_listener.stream_id_table
            }
        ),
        "trace_event_types": trace_types_from_fbs(TRANSPORT_TRACE_NAMES, base.trace_event_types),
    }


def webrtc_dump(dump: web_rtc_transport.DumpResponse) -> reports.WebRtcTransportDump:
    ice = dump.ice_parameters
    return reports.WebRtcTransportDump(
        **_base_dump(dump.base),
        ice_role=named(ICE_ROLE_NAMES, dump.ice_role, "ICE role"),
        ice_parameters=IceParameters(
            username_fragment=ice.username_fragment, password=ice.password, ice_lite=ice.ice_lite
        ),
        ice_candidates=[ice_candidate_from_fbs(candidate) for candidate in dump.ice_candidates],
        ice_state=named(ICE_STATE_NAMES, dump.ice_state, "ICE state"),
        ice_selected_tuple=_optional_tuple(dump.ice_selected_tuple),
        dtls_parameters=dtls_from_fbs(dump.dtls_parameters),
        dtls_state=named(DTLS_STATE_NAMES, dump.dtls_state, "DTLS state"),
    )


def plain_dump(dump: plain_transport.DumpResponse) -> reports.PlainTransportDump:
    return reports.PlainTransportDump(
        **_base_dump(dump.base),
        rtcp_mux=dump.rtcp_mux,
        comedia=dump.comedia,
        tuple=tuple_from_fbs(dump.tuple),
        rtcp_tuple=_optional_tuple(dump.rtcp_tuple),
        srtp_parameters=srtp_from_fbs(dump.srtp_parameters),
    )


def pipe_dump(dump: pipe_transport.DumpResponse) -> reports.PipeTransportDump:
    return reports.PipeTransportDump(
        **_base_dump(dump.base),
        tuple=tuple_from_fbs(dump.tuple),
        rtx=dump.rtx,
        srtp_parameters=srtp_from_fbs(dump.srtp_parameters),
    )


def direct_dump(dump: direct_transport.DumpResponse) -> reports.DirectTransportDump:
    return reports.DirectTransportDump(**_base_dump(dump.base))


def _base_stats(base: fbs.Stats) -> dict[str, Any]:
    values = {name: getattr(base, name) for name in reports.TransportStats.__struct_fields__}
    values["sctp_state"] = sctp_state_from_fbs(base.sctp_state)
    return values


def webrtc_stats(stats: web_rtc_transport.GetStatsResponse) -> reports.WebRtcTransportStats:
    return reports.WebRtcTransportStats(
        **_base_stats(stats.base),
        type="webrtc-transport",
        ice_role=named(ICE_ROLE_NAMES, stats.ice_role, "ICE role"),
        ice_state=named(ICE_STATE_NAMES, stats.ice_state, "ICE state"),
        ice_selected_tuple=_optional_tuple(stats.ice_selected_tuple),
        dtls_state=named(DTLS_STATE_NAMES, stats.dtls_state, "DTLS state"),
    )


def plain_stats(stats: plain_transport.GetStatsResponse) -> reports.PlainTransportStats:
    return reports.PlainTransportStats(
        **_base_stats(stats.base),
        type="plain-rtp-transport",
        rtcp_mux=stats.rtcp_mux,
        comedia=stats.comedia,
        tuple=tuple_from_fbs(stats.tuple),
        rtcp_tuple=_optional_tuple(stats.rtcp_tuple),
    )


def pipe_stats(stats: pipe_transport.GetStatsResponse) -> reports.PipeTransportStats:
    return reports.PipeTransportStats(
        **_base_stats(stats.base), type="pipe-transport", tuple=tuple_from_fbs(stats.tuple)
    )


def direct_stats(stats: direct_transport.GetStatsResponse) -> reports.DirectTransportStats:
    return reports.DirectTransportStats(**_base_stats(stats.base), type="direct-transport")
