"""Router: forwards media between its transports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from . import ortc
from ._fbs import pipe_transport as fbs_pipe
from ._fbs import plain_transport as fbs_plain
from ._fbs import router as fbs
from ._fbs import transport as fbs_transport
from ._fbs import web_rtc_transport as fbs_webrtc
from ._fbs import worker as fbs_worker
from .convert_transport import listen_info_to_fbs, options_to_fbs, pipe_dump, plain_dump, webrtc_dump
from .enums import SRTP_SUITE_NAMES
from .errors import CloseReason, InvalidArgumentError
from .events import Event
from .messages import Body, Method
from .node import Node, Undo, new_id
from .pipe_transport import PipeTransport
from .plain_transport import PlainTransport
from .producer import Producer
from .reports import RouterDump
from .rtp_parameters import RtpCapabilities, RtpCodecCapability
from .transport import Transport
from .types import (
    AppData,
    ConsumerId,
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
    from .worker import Worker


class Router(Node):
    """Where producers' media is forwarded to consumers (https://mediasoup.org/documentation/v3/mediasoup/api/#Router).

    Made by `Worker.create_router`.
    """

    KIND = "Router"
    CHILDREN_REASON = CloseReason.ROUTER_CLOSED

    def __init__(
        self, worker: Worker, *, id: RouterId, rtp_capabilities: RtpCapabilities, app_data: AppData | None
    ) -> None:
        super().__init__(
            id=id, channel=worker._channel, hook=worker._hook, parents=(worker,), app_data=app_data
        )
        self._rtp_capabilities = rtp_capabilities
        self._producers: dict[ProducerId, Producer] = {}
        self.on_worker_close: Event[CloseReason] = self._event("on_worker_close")
        """Comes before `on_close` when the worker was closed or died."""

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
    def transports(self) -> list[Transport]:
        return [child for child in self._children.values() if isinstance(child, Transport)]

    def can_consume(self, *, producer_id: ProducerId, rtp_capabilities: RtpCapabilities) -> bool:
        """Whether an endpoint with these capabilities can receive the producer; no if there is none such.

        Raises InvalidArgumentError for invalid capabilities.
        """
        producer = self._producers.get(producer_id)
        return producer is not None and ortc.can_consume(producer.consumable_rtp_parameters, rtp_capabilities)

    def update_media_codecs(self, media_codecs: Sequence[RtpCodecCapability]) -> None:
        """Replaces the codecs for producers to come; what runs is left alone. Raises as create_router."""
        self._rtp_capabilities = ortc.generate_router_rtp_capabilities(list(media_codecs))

    async def dump(self) -> RouterDump:
        return await self._request(Method.ROUTER_DUMP, None, _parse_dump)

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
        listen: fbs_webrtc.ListenServer | fbs_webrtc.ListenIndividual
        if webrtc_server is not None:
            webrtc_server._check_open()
            method = Method.ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER
            listen = fbs_webrtc.ListenServer(web_rtc_server_id=webrtc_server.id)
        else:
            method = Method.ROUTER_CREATE_WEBRTCTRANSPORT
            infos = [listen_info_to_fbs(info) for info in listen_infos or ()]
            listen = fbs_webrtc.ListenIndividual(listen_infos=infos)
        transport_id = TransportId(new_id())

        def build(body: Body) -> WebRtcTransport:
            dump = webrtc_dump(body.read(fbs_webrtc.DumpResponse))
            return WebRtcTransport(
                self, id=transport_id, dump=dump, webrtc_server=webrtc_server, app_data=app_data
            )

        request = fbs.CreateWebRtcTransportRequest(
            transport_id=transport_id,
            options=fbs_webrtc.WebRtcTransportOptions(
                base=options_to_fbs(
                    sctp=_sctp(enable_sctp, sctp_options),
                    is_data_channel=True,
                    initial_available_outgoing_bitrate=initial_available_outgoing_bitrate,
                ),
                listen=listen,
                enable_udp=enable_udp,
                enable_tcp=webrtc_server is not None if enable_tcp is None else enable_tcp,
                prefer_udp=prefer_udp,
                prefer_tcp=prefer_tcp,
                ice_consent_timeout=ice_consent_timeout,
            ),
        )
        return await self._create(method, request, build, child_id=transport_id, undo=_undo(transport_id))

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

        request = fbs.CreatePlainTransportRequest(
            transport_id=transport_id,
            options=fbs_plain.PlainTransportOptions(
                base=options_to_fbs(sctp=_sctp(enable_sctp, sctp_options), is_data_channel=False),
                listen_info=listen_info_to_fbs(listen_info),
                rtcp_listen_info=_optional(rtcp_listen_info),
                rtcp_mux=rtcp_mux,
                comedia=comedia,
                enable_srtp=enable_srtp,
                srtp_crypto_suite=SRTP_SUITE_NAMES.index(srtp_crypto_suite),
            ),
        )
        return await self._create(
            Method.ROUTER_CREATE_PLAINTRANSPORT,
            request,
            build,
            child_id=transport_id,
            undo=_undo(transport_id),
        )

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

        request = fbs.CreatePipeTransportRequest(
            transport_id=transport_id,
            options=fbs_pipe.PipeTransportOptions(
                base=options_to_fbs(sctp=_sctp(enable_sctp, sctp_options), is_data_channel=False),
                listen_info=listen_info_to_fbs(listen_info),
                enable_rtx=enable_rtx,
                enable_srtp=enable_srtp,
            ),
        )
        return await self._create(
            Method.ROUTER_CREATE_PIPETRANSPORT,
            request,
            build,
            child_id=transport_id,
            undo=_undo(transport_id),
        )

    def _add_producer(self, producer: Producer) -> None:
        self._producers[producer.id] = producer
        # Subscribed first of all, so the lookup is right in every other handler.
        producer.on_close.subscribe(lambda _: self._drop_producer(producer.id))

    def _drop_producer(self, producer_id: ProducerId) -> None:
        self._producers.pop(producer_id, None)

    def _tell_worker(self) -> None:
        self._channel.post(Method.WORKER_CLOSE_ROUTER, "", fbs_worker.CloseRouterRequest(router_id=self._id))

    def _closing(self, reason: CloseReason) -> None:
        if reason is not CloseReason.CLOSED:
            self.on_worker_close.emit(reason)


def _undo(transport_id: TransportId) -> Undo:
    return Method.ROUTER_CLOSE_TRANSPORT, fbs.CloseTransportRequest(transport_id=transport_id)


def _sctp(enable: bool, options: SctpOptions | None) -> SctpOptions | None:
    if options is not None and not enable:
        raise InvalidArgumentError("sctp_options need enable_sctp=True")
    return (options or SctpOptions()) if enable else None


def _optional(info: TransportListenInfo | None) -> fbs_transport.ListenInfo | None:
    return None if info is None else listen_info_to_fbs(info)


def _parse_dump(body: Body) -> RouterDump:
    dump = body.read(fbs.DumpResponse)
    return RouterDump(
        id=RouterId(dump.id),
        transport_ids=[TransportId(id) for id in dump.transport_ids],
        rtp_observer_ids=dump.rtp_observer_ids,
        map_producer_id_consumer_ids={
            ProducerId(entry.key): [ConsumerId(id) for id in entry.values]
            for entry in dump.map_producer_id_consumer_ids
        },
        map_consumer_id_producer_id={
            ConsumerId(entry.key): ProducerId(entry.value) for entry in dump.map_consumer_id_producer_id
        },
        map_producer_id_observer_ids={
            ProducerId(entry.key): entry.values for entry in dump.map_producer_id_observer_ids
        },
        map_data_producer_id_data_consumer_ids={
            entry.key: entry.values for entry in dump.map_data_producer_id_data_consumer_ids
        },
        map_data_consumer_id_data_producer_id={
            entry.key: entry.value for entry in dump.map_data_consumer_id_data_producer_id
        },
    )
