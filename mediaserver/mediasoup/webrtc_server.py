"""WebRtcServer: ports shared by many WebRtcTransports of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._fbs import web_rtc_server as fbs
from ._fbs import worker as fbs_worker
from .errors import CloseReason
from .events import EventSlot
from .messages import Body, Method
from .node import Node
from .reports import IpPort, WebRtcServerDump
from .types import AppData, TransportId, WebRtcServerId
from .webrtc_transport import WebRtcTransport

if TYPE_CHECKING:
    from .observers import WebRtcServerObserver
    from .worker import Worker


class WebRtcServer(Node):
    """One UDP and/or TCP port for all WebRtcTransports made with it, of any router of the worker.

    Made by `Worker.create_webrtc_server`. Closing it closes those transports.
    """

    KIND = "WebRtcServer"
    CHILDREN_REASON = CloseReason.WEBRTC_SERVER_CLOSED

    on_worker_close = EventSlot[CloseReason]()
    """Comes before `on_close` when the worker was closed or died."""
    on_webrtc_transport_handled = EventSlot[WebRtcTransport]()
    """A transport was made on this server's ports."""
    on_webrtc_transport_unhandled = EventSlot[WebRtcTransport]()
    """A transport on this server's ports closed."""

    def __init__(self, worker: Worker, *, id: WebRtcServerId, app_data: AppData | None) -> None:
        super().__init__(
            id=id, channel=worker._channel, hook=worker._hook, parents=(worker,), app_data=app_data
        )
        self._worker = worker

    @property
    def observer(self) -> WebRtcServerObserver:
        return self

    @property
    def id(self) -> WebRtcServerId:
        return WebRtcServerId(self._id)

    @property
    def webrtc_transports(self) -> list[WebRtcTransport]:
        return [child for child in self._children.values() if isinstance(child, WebRtcTransport)]

    async def dump(self) -> WebRtcServerDump:
        return await self._request(Method.WEBRTCSERVER_DUMP, None, _parse_dump)

    def _tell_worker(self) -> None:
        self._channel.post(
            Method.WORKER_WEBRTCSERVER_CLOSE,
            "",
            fbs_worker.CloseWebRtcServerRequest(web_rtc_server_id=self._id),
        )

    def _announce(self) -> None:
        self._worker.on_new_webrtc_server.emit(self)

    def _closing(self, reason: CloseReason) -> None:
        if reason is not CloseReason.CLOSED:
            self.on_worker_close.emit(reason)


def _parse_dump(body: Body) -> WebRtcServerDump:
    dump = body.read(fbs.DumpResponse)
    return WebRtcServerDump(
        id=WebRtcServerId(dump.id),
        udp_sockets=[IpPort(ip=socket.ip, port=socket.port) for socket in dump.udp_sockets],
        tcp_servers=[IpPort(ip=server.ip, port=server.port) for server in dump.tcp_servers],
        webrtc_transport_ids=[TransportId(id) for id in dump.web_rtc_transport_ids],
        local_ice_username_fragments={
            entry.local_ice_username_fragment: TransportId(entry.web_rtc_transport_id)
            for entry in dump.local_ice_username_fragments
        },
    )
