"""The requests by which a router makes its transports."""

from __future__ import annotations

from collections.abc import Sequence

from ._fbs import direct_transport as fbs_direct
from ._fbs import pipe_transport as fbs_pipe
from ._fbs import plain_transport as fbs_plain
from ._fbs import router as fbs
from ._fbs import transport as fbs_transport
from ._fbs import web_rtc_transport as fbs_webrtc
from .convert_transport import listen_info_to_fbs, options_to_fbs
from .errors import InvalidArgumentError
from .messages import Method
from .node import Undo
from .types import SctpOptions, TransportId, TransportListenInfo, WebRtcServerId


def undo(transport_id: TransportId) -> Undo:
    """How a transport is closed that nobody waits for any more."""
    return Method.ROUTER_CLOSE_TRANSPORT, fbs.CloseTransportRequest(transport_id=transport_id)


def sctp_options(enable: bool, options: SctpOptions | None) -> SctpOptions | None:
    """The options, or the default ones; None without SCTP. Raises InvalidArgumentError for needless ones."""
    if options is not None and not enable:
        raise InvalidArgumentError("sctp_options need enable_sctp=True")
    return (options or SctpOptions()) if enable else None


def optional_listen_info(info: TransportListenInfo | None) -> fbs_transport.ListenInfo | None:
    return None if info is None else listen_info_to_fbs(info)


def webrtc_request(
    transport_id: TransportId,
    *,
    server_id: WebRtcServerId | None,
    listen_infos: Sequence[TransportListenInfo],
    sctp: SctpOptions | None,
    initial_available_outgoing_bitrate: int,
    enable_udp: bool,
    enable_tcp: bool,
    prefer_udp: bool,
    prefer_tcp: bool,
    ice_consent_timeout: int,
) -> tuple[Method, fbs.CreateWebRtcTransportRequest]:
    """On a server's ports if `server_id` is given, else on ports of its own."""
    listen: fbs_webrtc.ListenServer | fbs_webrtc.ListenIndividual
    if server_id is not None:
        method = Method.ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER
        listen = fbs_webrtc.ListenServer(web_rtc_server_id=server_id)
    else:
        method = Method.ROUTER_CREATE_WEBRTCTRANSPORT
        infos = [listen_info_to_fbs(info) for info in listen_infos]
        listen = fbs_webrtc.ListenIndividual(listen_infos=infos)
    options = fbs_webrtc.WebRtcTransportOptions(
        base=options_to_fbs(
            sctp=sctp,
            is_data_channel=True,
            initial_available_outgoing_bitrate=initial_available_outgoing_bitrate,
        ),
        listen=listen,
        enable_udp=enable_udp,
        enable_tcp=enable_tcp,
        prefer_udp=prefer_udp,
        prefer_tcp=prefer_tcp,
        ice_consent_timeout=ice_consent_timeout,
    )
    return method, fbs.CreateWebRtcTransportRequest(transport_id=transport_id, options=options)


def plain_request(
    transport_id: TransportId,
    *,
    listen_info: TransportListenInfo,
    rtcp_listen_info: TransportListenInfo | None,
    sctp: SctpOptions | None,
    rtcp_mux: bool,
    comedia: bool,
    enable_srtp: bool,
    srtp_crypto_suite: int,
) -> fbs.CreatePlainTransportRequest:
    options = fbs_plain.PlainTransportOptions(
        base=options_to_fbs(sctp=sctp, is_data_channel=False),
        listen_info=listen_info_to_fbs(listen_info),
        rtcp_listen_info=optional_listen_info(rtcp_listen_info),
        rtcp_mux=rtcp_mux,
        comedia=comedia,
        enable_srtp=enable_srtp,
        srtp_crypto_suite=srtp_crypto_suite,
    )
    return fbs.CreatePlainTransportRequest(transport_id=transport_id, options=options)


def pipe_request(
    transport_id: TransportId,
    *,
    listen_info: TransportListenInfo,
    sctp: SctpOptions | None,
    enable_rtx: bool,
    enable_srtp: bool,
) -> fbs.CreatePipeTransportRequest:
    options = fbs_pipe.PipeTransportOptions(
        base=options_to_fbs(sctp=sctp, is_data_channel=False),
        listen_info=listen_info_to_fbs(listen_info),
        enable_rtx=enable_rtx,
        enable_srtp=enable_srtp,
    )
    return fbs.CreatePipeTransportRequest(transport_id=transport_id, options=options)


def direct_request(
    transport_id: TransportId, *, max_send_message_size: int, max_receive_message_size: int
) -> fbs.CreateDirectTransportRequest:
    base = fbs_transport.Options(
        direct=True,
        max_send_message_size=max_send_message_size,
        max_receive_message_size=max_receive_message_size,
    )
    options = fbs_direct.DirectTransportOptions(base=base)
    return fbs.CreateDirectTransportRequest(transport_id=transport_id, options=options)
