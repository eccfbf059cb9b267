"""DirectTransport: between a router and this very process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from ._fbs import direct_transport as fbs
from ._fbs import transport as fbs_transport
from .convert_transport import direct_dump, direct_stats
from .errors import UnsupportedError
from .events import EventSlot
from .messages import Body, Method
from .messages import Event as WorkerEvent
from .reports import DirectTransportDump, DirectTransportStats
from .transport import EndpointTransport
from .types import AppData, TransportId

if TYPE_CHECKING:
    from .observers import DirectTransportObserver
    from .router_transports import RouterTransports


class DirectTransport(EndpointTransport):
    """RTP packets, RTCP packets and messages to and from this process, over the worker's channel.

    Made by `Router.create_direct_transport` (https://mediasoup.org/documentation/v3/mediasoup/api/#DirectTransport).
    Send with `Producer.send`, `DataProducer.send` and `send_rtcp`; receive with `Consumer.on_rtp`,
    `DataConsumer.on_message` and `on_rtcp`.
    """

    KIND = "DirectTransport"
    TYPE = "direct"

    on_rtcp = EventSlot[bytes]()
    """An RTCP packet from the router, for a consumer's or producer's other end."""

    def __init__(
        self,
        router: RouterTransports,
        *,
        id: TransportId,
        dump: DirectTransportDump,
        app_data: AppData | None,
    ) -> None:
        super().__init__(router, id=id, dump=dump, parents=(router,), app_data=app_data)

    @property
    def observer(self) -> DirectTransportObserver:
        return self

    async def connect(self) -> None:
        """Does nothing: there is nothing to connect."""
        self._check_open()

    async def set_max_incoming_bitrate(self, bitrate: int) -> NoReturn:
        """Raises UnsupportedError: nothing limits a DirectTransport."""
        raise UnsupportedError(f"{self!r} has no bitrate limits")

    async def set_max_outgoing_bitrate(self, bitrate: int) -> NoReturn:
        """Raises UnsupportedError: nothing limits a DirectTransport."""
        raise UnsupportedError(f"{self!r} has no bitrate limits")

    async def set_min_outgoing_bitrate(self, bitrate: int) -> NoReturn:
        """Raises UnsupportedError: nothing limits a DirectTransport."""
        raise UnsupportedError(f"{self!r} has no bitrate limits")

    def send_rtcp(self, rtcp_packet: bytes) -> None:
        """Gives the router an RTCP packet (it may be compound), as if an endpoint had sent it.

        Returns before the worker has read it. Raises ClosedError, InvalidArgumentError if it is too large,
        and ChannelOverflowError when the worker has stopped reading.
        """
        notification = fbs_transport.SendRtcpNotification(data=rtcp_packet)
        self._send(WorkerEvent.TRANSPORT_SEND_RTCP, notification, rtcp_packet)

    async def dump(self) -> DirectTransportDump:
        return await self._request(
            Method.TRANSPORT_DUMP, None, lambda body: direct_dump(body.read(fbs.DumpResponse))
        )

    async def get_stats(self) -> DirectTransportStats:
        return await self._request(
            Method.TRANSPORT_GET_STATS, None, lambda body: direct_stats(body.read(fbs.GetStatsResponse))
        )

    def _on_notification(self, event: int, body: Body) -> None:
        if event == WorkerEvent.DIRECTTRANSPORT_RTCP:
            self.on_rtcp.emit(body.read(fbs.RtcpNotification).data)
        else:
            super()._on_notification(event, body)
