"""WebRtcTransport: ICE, DTLS and SRTP with a WebRTC endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ._fbs import transport as fbs_transport
from ._fbs import web_rtc_transport as fbs
from .convert_transport import dtls_to_fbs, tuple_from_fbs, webrtc_dump, webrtc_stats
from .enums import DTLS_ROLE_NAMES, DTLS_STATE_NAMES, ICE_STATE_NAMES, named
from .errors import CloseReason
from .events import EventSlot
from .messages import Body, Method
from .messages import Event as WorkerEvent
from .reports import WebRtcTransportDump, WebRtcTransportStats
from .transport import EndpointTransport
from .types import (
    AppData,
    DtlsParameters,
    DtlsRole,
    DtlsState,
    IceCandidate,
    IceParameters,
    IceRole,
    IceState,
    TransportId,
    TransportTuple,
)

if TYPE_CHECKING:
    from .observers import WebRtcTransportObserver
    from .router_transports import RouterTransports
    from .webrtc_server import WebRtcServer


class WebRtcTransport(EndpointTransport):
    """A transport for a browser or another WebRTC endpoint; ICE lite, so the endpoint dials.

    Made by `Router.create_webrtc_transport`. The endpoint needs `ice_parameters`, `ice_candidates` and
    `dtls_parameters`; `connect` takes its DTLS parameters.
    """

    KIND = "WebRtcTransport"
    TYPE = "webrtc"

    on_ice_state_change = EventSlot[IceState]()
    on_ice_selected_tuple_change = EventSlot[TransportTuple]()
    on_dtls_state_change = EventSlot[DtlsState]()

    def __init__(
        self,
        router: RouterTransports,
        *,
        id: TransportId,
        dump: WebRtcTransportDump,
        webrtc_server: WebRtcServer | None,
        app_data: AppData | None,
    ) -> None:
        parents = (router,) if webrtc_server is None else (router, webrtc_server)
        super().__init__(router, id=id, dump=dump, parents=parents, app_data=app_data)
        self._webrtc_server = webrtc_server
        self._ice_role = dump.ice_role
        self._ice_parameters = dump.ice_parameters
        self._ice_candidates = dump.ice_candidates
        self._ice_state = dump.ice_state
        self._ice_selected_tuple = dump.ice_selected_tuple
        self._dtls_parameters = dump.dtls_parameters
        self._dtls_state = dump.dtls_state
        self._dtls_remote_cert: str | None = None

    @property
    def observer(self) -> WebRtcTransportObserver:
        return self

    @property
    def ice_role(self) -> IceRole:
        return self._ice_role

    @property
    def ice_parameters(self) -> IceParameters:
        return self._ice_parameters

    @property
    def ice_candidates(self) -> list[IceCandidate]:
        return self._ice_candidates

    @property
    def ice_state(self) -> IceState:
        return self._ice_state

    @property
    def ice_selected_tuple(self) -> TransportTuple | None:
        """Where the endpoint's packets come from; None until ICE found it."""
        return self._ice_selected_tuple

    @property
    def dtls_parameters(self) -> DtlsParameters:
        """Ours; the role is "auto" until `connect`."""
        return self._dtls_parameters

    @property
    def dtls_state(self) -> DtlsState:
        return self._dtls_state

    @property
    def dtls_remote_cert(self) -> str | None:
        """The endpoint's certificate (PEM), once DTLS is connected."""
        return self._dtls_remote_cert

    async def connect(self, *, dtls_parameters: DtlsParameters) -> None:
        """Takes the endpoint's DTLS parameters. Once only: the worker rejects a second call."""
        role = await self._request(
            Method.WEBRTCTRANSPORT_CONNECT,
            fbs.ConnectRequest(dtls_parameters=dtls_to_fbs(dtls_parameters)),
            _parse_local_role,
        )
        self._dtls_parameters = replace(self._dtls_parameters, role=role)

    async def restart_ice(self) -> IceParameters:
        """New ICE credentials, for the endpoint to dial again with; media flows on meanwhile."""
        self._ice_parameters = await self._request(Method.TRANSPORT_RESTART_ICE, None, _parse_ice_parameters)
        return self._ice_parameters

    async def dump(self) -> WebRtcTransportDump:
        return await self._request(
            Method.TRANSPORT_DUMP, None, lambda body: webrtc_dump(body.read(fbs.DumpResponse))
        )

    async def get_stats(self) -> WebRtcTransportStats:
        return await self._request(
            Method.TRANSPORT_GET_STATS, None, lambda body: webrtc_stats(body.read(fbs.GetStatsResponse))
        )

    def _closing(self, reason: CloseReason) -> None:
        self._ice_state = "closed"
        self._ice_selected_tuple = None
        self._dtls_state = "closed"
        super()._closing(reason)
        if self._webrtc_server is not None:
            self._webrtc_server.on_webrtc_transport_unhandled.emit(self)

    def _announce(self) -> None:
        super()._announce()
        if self._webrtc_server is not None:
            self._webrtc_server.on_webrtc_transport_handled.emit(self)

    def _on_notification(self, event: int, body: Body) -> None:
        if event == WorkerEvent.WEBRTCTRANSPORT_ICE_STATE_CHANGE:
            state = body.read(fbs.IceStateChangeNotification).ice_state
            self._ice_state = named(ICE_STATE_NAMES, state, "ICE state")
            self.on_ice_state_change.emit(self._ice_state)
        elif event == WorkerEvent.WEBRTCTRANSPORT_ICE_SELECTED_TUPLE_CHANGE:
            selected = tuple_from_fbs(body.read(fbs.IceSelectedTupleChangeNotification).tuple)
            self._ice_selected_tuple = selected
            self.on_ice_selected_tuple_change.emit(selected)
        elif event == WorkerEvent.WEBRTCTRANSPORT_DTLS_STATE_CHANGE:
            change = body.read(fbs.DtlsStateChangeNotification)
            self._dtls_state = named(DTLS_STATE_NAMES, change.dtls_state, "DTLS state")
            if self._dtls_state == "connected":
                self._dtls_remote_cert = change.remote_cert
            self.on_dtls_state_change.emit(self._dtls_state)
        else:
            super()._on_notification(event, body)


def _parse_local_role(body: Body) -> DtlsRole:
    return named(DTLS_ROLE_NAMES, body.read(fbs.ConnectResponse).dtls_local_role, "DTLS role")


def _parse_ice_parameters(body: Body) -> IceParameters:
    answer = body.read(fbs_transport.RestartIceResponse)
    return IceParameters(
        username_fragment=answer.username_fragment, password=answer.password, ice_lite=answer.ice_lite
    )
