"""RouterTransports: how a router makes its transports, and the producers that these have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import create_transports
from ._fbs import direct_transport as fbs_direct
from ._fbs import pipe_transport as fbs_pipe
from ._fbs import plain_transport as fbs_plain
from ._fbs import web_rtc_transport as fbs_webrtc
from .convert_transport import direct_dump, pipe_dump, plain_dump, webrtc_dump
from .data_producer import DataProducer
from .direct_transport import DirectTransport
from .enums import SRTP_SUITE_NAMES, numbered
from .errors import CloseReason, InvalidArgumentError
from .events import EventSlot
from .messages import Body, Method
from .node import Node, new_id
from .pipe_transport import PipeTransport
from .plain_transport import PlainTransport
from .producer import Producer
from .rtp_parameters import RtpCapabilities
from .transport import Transport
from .types import (
    AppData,
    DataProducerId,
    ProducerId,
    RouterId,
    SctpOptions,
    SrtpCryptoSuite,
    TransportId,
    TransportListenInfo,
)
from .webrtc_transport import WebRtcTransport

if TYPE_CHECKING:
    from .webrtc_server import WebRtcServer


class RouterTransports(Node):
    """The transports of a router, and what enters through them."""

    CHILDREN_REASON = CloseReason.ROUTER_CLOSED

    on_new_transport = EventSlot[Transport]()

    def __init__(self, *, rtp_capabilities: RtpCapabilities, **node: Any) -> None:
        super().__init__(**node)
        self._rtp_capabilities = rtp_capabilities
        self._producers: dict[ProducerId, Producer] = {}
        self._data_producers: dict[DataProducerId, DataProducer] = {}

    @property
    def id(self) -> RouterId:
        return RouterId(self._id)

    @property
    def rtp_capabilities(self) -> RtpCapabilities:
        """What endpoints may send to this router; mediasoup-client's Device loads it."""
        return self._rtp_capabilities

    @property
    def producers(self) -> Mapping[ProducerId, Producer]:
        """All open producers of this router's transports (a live, read-only view)."""
        return MappingProxyType(self._producers)

    @property
    def data_producers(self) -> Mapping[DataProducerId, DataProducer]:
        """All open data producers of this router's transports (a live, read-only view)."""
        return MappingProxyType(self._data_producers)

    @property
    def transports(self) -> list[Transport]:
        return [child for child in self._children.values() if isinstance(child, Transport)]

    async def create_webrtc_transport(
        self,
        *,
        webrtc_server: WebRtcServer | None = None,
        listen_infos: Sequence[TransportListenInfo] | None = None,
        enable_udp: bool = True,
        enable_tcp: bool | None = None,
        prefer_udp: bool = False,
        prefer_tcp: bool = False,
        ice_consent_timeout: int = 30,
        initial_available_outgoing_bitrate: int = 600_000,
        enable_sctp: bool = False,
        sctp_options: SctpOptions | None = None,
        app_data: AppData | None = None,
    ) -> WebRtcTransport:
        """A transport for a WebRTC endpoint, on a WebRtcServer's ports or on some of its own.

        Exactly one of `webrtc_server` and `listen_infos` is given, else InvalidArgumentError. `enable_tcp`
        absent means with a server only; `ice_consent_timeout` in seconds, 0 is none; the bitrate in bit/s.
        """
        if (webrtc_server is None) == (listen_infos is None):
            raise InvalidArgumentError("give exactly one of webrtc_server and listen_infos")
        if webrtc_server is not None:
            webrtc_server._check_open()
        transport_id = TransportId(new_id())

        def build(body: Body) -> WebRtcTransport:
            dump = webrtc_dump(body.read(fbs_webrtc.DumpResponse))
            return WebRtcTransport(
                self, id=transport_id, dump=dump, webrtc_server=webrtc_server, app_data=app_data
            )

        method, request = create_transports.webrtc_request(
            transport_id,
            server_id=None if webrtc_server is None else webrtc_server.id,
            listen_infos=listen_infos or (),
            sctp=create_transports.sctp_options(enable_sctp, sctp_options),
            initial_available_outgoing_bitrate=initial_available_outgoing_bitrate,
            enable_udp=enable_udp,
            enable_tcp=webrtc_server is not None if enable_tcp is None else enable_tcp,
            prefer_udp=prefer_udp,
            prefer_tcp=prefer_tcp,
            ice_consent_timeout=ice_consent_timeout,
        )
        undo = create_transports.undo(transport_id)
        return await self._create(method, request, build, child_id=transport_id, undo=undo)

    async def create_plain_transport(
        self,
        *,
        listen_info: TransportListenInfo,
        rtcp_listen_info: TransportListenInfo | None = None,
        rtcp_mux: bool = True,
        comedia: bool = False,
        enable_srtp: bool = False,
        srtp_crypto_suite: SrtpCryptoSuite = "AES_CM_128_HMAC_SHA1_80",
        enable_sctp: bool = False,
        sctp_options: SctpOptions | None = None,
        app_data: AppData | None = None,
    ) -> PlainTransport:
        """A transport for plain RTP or SRTP over UDP.

        `rtcp_listen_info` is for RTCP on a port of its own, so it needs `rtcp_mux` off, else
        InvalidArgumentError; without it that port is chosen by the worker.
        """
        if rtcp_mux and rtcp_listen_info is not None:
            raise InvalidArgumentError("rtcp_listen_info needs rtcp_mux=False")
        transport_id = TransportId(new_id())

        def build(body: Body) -> PlainTransport:
            dump = plain_dump(body.read(fbs_plain.DumpResponse))
            return PlainTransport(self, id=transport_id, dump=dump, app_data=app_data)

        request = create_transports.plain_request(
            transport_id,
            listen_info=listen_info,
            rtcp_listen_info=rtcp_listen_info,
            sctp=create_transports.sctp_options(enable_sctp, sctp_options),
            rtcp_mux=rtcp_mux,
            comedia=comedia,
            enable_srtp=enable_srtp,
            srtp_crypto_suite=numbered(SRTP_SUITE_NAMES, srtp_crypto_suite, "srtp_crypto_suite"),
        )
        method, undo = Method.ROUTER_CREATE_PLAINTRANSPORT, create_transports.undo(transport_id)
        return await self._create(method, request, build, child_id=transport_id, undo=undo)

    async def create_pipe_transport(
        self,
        *,
        listen_info: TransportListenInfo,
        enable_rtx: bool = False,
        enable_srtp: bool = False,
        enable_sctp: bool = False,
        sctp_options: SctpOptions | None = None,
        app_data: AppData | None = None,
    ) -> PipeTransport:
        """One end of a pipe to another router; `enable_*` must be the same on both ends."""
        transport_id = TransportId(new_id())

        def build(body: Body) -> PipeTransport:
            dump = pipe_dump(body.read(fbs_pipe.DumpResponse))
            return PipeTransport(self, id=transport_id, dump=dump, app_data=app_data)

        request = create_transports.pipe_request(
            transport_id,
            listen_info=listen_info,
            sctp=create_transports.sctp_options(enable_sctp, sctp_options),
            enable_rtx=enable_rtx,
            enable_srtp=enable_srtp,
        )
        method, undo = Method.ROUTER_CREATE_PIPETRANSPORT, create_transports.undo(transport_id)
        return await self._create(method, request, build, child_id=transport_id, undo=undo)

    async def create_direct_transport(
        self,
        *,
        max_send_message_size: int = 262_144,
        max_receive_message_size: int = 262_144,
        app_data: AppData | None = None,
    ) -> DirectTransport:
        """A transport whose other end is this process. Larger messages (bytes) are dropped by the worker."""
        transport_id = TransportId(new_id())

        def build(body: Body) -> DirectTransport:
            dump = direct_dump(body.read(fbs_direct.DumpResponse))
            return DirectTransport(self, id=transport_id, dump=dump, app_data=app_data)

        request = create_transports.direct_request(
            transport_id,
            max_send_message_size=max_send_message_size,
            max_receive_message_size=max_receive_message_size,
        )
        method, undo = Method.ROUTER_CREATE_DIRECTTRANSPORT, create_transports.undo(transport_id)
        return await self._create(method, request, build, child_id=transport_id, undo=undo)
