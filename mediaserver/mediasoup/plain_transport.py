"""PlainTransport: RTP and RTCP over plain UDP, or SRTP with keys given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._fbs import plain_transport as fbs
from .convert_transport import plain_dump, plain_stats, srtp_from_fbs, srtp_to_fbs, tuple_from_fbs
from .events import EventSlot
from .messages import Body, Method
from .messages import Event as WorkerEvent
from .reports import PlainTransportDump, PlainTransportStats
from .transport import EndpointTransport
from .types import AppData, SrtpParameters, TransportId, TransportTuple

if TYPE_CHECKING:
    from .observers import PlainTransportObserver
    from .router_transports import RouterTransports


class PlainTransport(EndpointTransport):
    """A transport for endpoints such as FFmpeg, GStreamer or recorders.

    Made by `Router.create_plain_transport`. With `comedia` the remote address is that of the first packet,
    and `connect` is only for SRTP parameters.
    """

    KIND = "PlainTransport"
    TYPE = "plain"

    on_tuple = EventSlot[TransportTuple]()
    """With `comedia`: the remote address became known."""
    on_rtcp_tuple = EventSlot[TransportTuple]()

    def __init__(
        self, router: RouterTransports, *, id: TransportId, dump: PlainTransportDump, app_data: AppData | None
    ) -> None:
        super().__init__(router, id=id, dump=dump, parents=(router,), app_data=app_data)
        self._rtcp_mux = dump.rtcp_mux
        self._comedia = dump.comedia
        self._tuple = dump.tuple
        self._rtcp_tuple = dump.rtcp_tuple
        self._srtp_parameters = dump.srtp_parameters

    @property
    def observer(self) -> PlainTransportObserver:
        return self

    @property
    def rtcp_mux(self) -> bool:
        """Whether RTP and RTCP share a port."""
        return self._rtcp_mux

    @property
    def comedia(self) -> bool:
        return self._comedia

    @property
    def tuple(self) -> TransportTuple:
        return self._tuple

    @property
    def rtcp_tuple(self) -> TransportTuple | None:
        """None when RTCP shares RTP's port."""
        return self._rtcp_tuple

    @property
    def srtp_parameters(self) -> SrtpParameters | None:
        """Ours, for the other side; None without SRTP."""
        return self._srtp_parameters

    async def connect(
        self,
        *,
        ip: str | None = None,
        port: int | None = None,
        rtcp_port: int | None = None,
        srtp_parameters: SrtpParameters | None = None,
    ) -> None:
        """Takes the remote address (without comedia), `rtcp_port` (without rtcp_mux) and SRTP parameters.

        Raises RequestRejectedError for a combination that does not fit the transport.
        """
        request = fbs.ConnectRequest(
            ip=ip, port=port, rtcp_port=rtcp_port, srtp_parameters=srtp_to_fbs(srtp_parameters)
        )
        answer = await self._request(
            Method.PLAINTRANSPORT_CONNECT, request, lambda body: body.read(fbs.ConnectResponse)
        )
        if answer.tuple is not None:
            self._tuple = tuple_from_fbs(answer.tuple)
        if answer.rtcp_tuple is not None:
            self._rtcp_tuple = tuple_from_fbs(answer.rtcp_tuple)
        if answer.srtp_parameters is not None:
            self._srtp_parameters = srtp_from_fbs(answer.srtp_parameters)

    async def dump(self) -> PlainTransportDump:
        return await self._request(
            Method.TRANSPORT_DUMP, None, lambda body: plain_dump(body.read(fbs.DumpResponse))
        )

    async def get_stats(self) -> PlainTransportStats:
        return await self._request(
            Method.TRANSPORT_GET_STATS, None, lambda body: plain_stats(body.read(fbs.GetStatsResponse))
        )

    def _on_notification(self, event: int, body: Body) -> None:
        if event == WorkerEvent.PLAINTRANSPORT_TUPLE:
            self._tuple = tuple_from_fbs(body.read(fbs.TupleNotification).tuple)
            self.on_tuple.emit(self._tuple)
        elif event == WorkerEvent.PLAINTRANSPORT_RTCP_TUPLE:
            self._rtcp_tuple = tuple_from_fbs(body.read(fbs.RtcpTupleNotification).tuple)
            self.on_rtcp_tuple.emit(self._rtcp_tuple)
        else:
            super()._on_notification(event, body)
