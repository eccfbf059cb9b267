"""BaseTransport: what a transport is, apart from what it carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._fbs import router as fbs_router
from ._fbs import transport as fbs
from .convert_trace import TRANSPORT_TRACE_NAMES, trace_types_to_fbs, transport_trace
from .convert_transport import sctp_state_from_fbs
from .errors import CloseReason, InvalidArgumentError
from .events import EventSlot
from .messages import Body, Method
from .messages import Event as WorkerEvent
from .node import Node
from .reports import TransportDump, TransportStats
from .sctp_streams import SctpStreams
from .traces import TransportTraceEventData, TransportTraceEventType
from .types import (
    AppData,
    SctpNegotiatedCapabilities,
    SctpParameters,
    SctpState,
    TransportId,
    TransportType,
)

if TYPE_CHECKING:
    from .router_transports import RouterTransports


class BaseTransport(Node):
    """Identity, state, limits and traces of a transport."""

    CHILDREN_REASON = CloseReason.TRANSPORT_CLOSED
    TYPE: TransportType

    on_router_close = EventSlot[CloseReason]()
    """Comes before `on_close` when the router or worker was closed, or the worker died."""
    on_listen_server_close = EventSlot[None]()
    """Comes before `on_close` when the WebRtcServer was closed."""
    on_sctp_state_change = EventSlot[SctpState]()
    on_trace = EventSlot[TransportTraceEventData]()
    """What `enable_trace_event` asked for."""

    def __init__(
        self,
        router: RouterTransports,
        *,
        id: TransportId,
        dump: TransportDump,
        parents: tuple[Node, ...],
        app_data: AppData | None,
    ) -> None:
        super().__init__(
            id=id, channel=router._channel, hook=router._hook, parents=parents, app_data=app_data
        )
        self._router = router
        self._sctp_parameters = dump.sctp_parameters
        self._sctp_state = dump.sctp_state
        self._sctp_negotiated_capabilities: SctpNegotiatedCapabilities | None = None
        self._streams = SctpStreams()

    @property
    def id(self) -> TransportId:
        return TransportId(self._id)

    @property
    def type(self) -> TransportType:
        return self.TYPE

    @property
    def sctp_parameters(self) -> SctpParameters | None:
        """None without `enable_sctp`."""
        return self._sctp_parameters

    @property
    def sctp_state(self) -> SctpState | None:
        return self._sctp_state

    @property
    def sctp_negotiated_capabilities(self) -> SctpNegotiatedCapabilities | None:
        """None until the SCTP association is up."""
        return self._sctp_negotiated_capabilities

    async def dump(self) -> TransportDump:
        """The transport as the worker sees it."""
        raise NotImplementedError

    async def get_stats(self) -> TransportStats:
        """Counters and rates of the transport as a whole."""
        raise NotImplementedError

    async def set_max_incoming_bitrate(self, bitrate: int) -> None:
        """Asks the endpoint (by REMB or transport-cc) to send at most so many bit/s; 0 lifts the limit."""
        request = fbs.SetMaxIncomingBitrateRequest(max_incoming_bitrate=_bitrate(bitrate))
        await self._request(Method.TRANSPORT_SET_MAX_INCOMING_BITRATE, request)

    async def set_max_outgoing_bitrate(self, bitrate: int) -> None:
        """Sends at most so many bit/s, whatever the endpoint could take; 0 lifts the limit."""
        request = fbs.SetMaxOutgoingBitrateRequest(max_outgoing_bitrate=_bitrate(bitrate))
        await self._request(Method.TRANSPORT_SET_MAX_OUTGOING_BITRATE, request)

    async def set_min_outgoing_bitrate(self, bitrate: int) -> None:
        """Never estimates less than so many bit/s; 0 lifts the limit."""
        request = fbs.SetMinOutgoingBitrateRequest(min_outgoing_bitrate=_bitrate(bitrate))
        await self._request(Method.TRANSPORT_SET_MIN_OUTGOING_BITRATE, request)

    async def enable_trace_event(self, types: Sequence[TransportTraceEventType] = ()) -> None:
        """Which `on_trace` events to send from now on; none if empty.

        Raises InvalidArgumentError for a type that transports don't have.
        """
        request = fbs.EnableTraceEventRequest(events=trace_types_to_fbs(TRANSPORT_TRACE_NAMES, types))
        await self._request(Method.TRANSPORT_ENABLE_TRACE_EVENT, request)

    def _tell_worker(self) -> None:
        self._channel.post(
            Method.ROUTER_CLOSE_TRANSPORT,
            self._router.id,
            fbs_router.CloseTransportRequest(transport_id=self._id),
        )

    def _closing(self, reason: CloseReason) -> None:
        if self._sctp_state is not None:
            self._sctp_state = "closed"
        if reason is CloseReason.WEBRTC_SERVER_CLOSED:
            self.on_listen_server_close.emit(None)
        elif reason is not CloseReason.CLOSED:
            self.on_router_close.emit(reason)

    def _on_notification(self, event: int, body: Body) -> None:
        if event == WorkerEvent.TRANSPORT_SCTP_STATE_CHANGE:
            state = sctp_state_from_fbs(body.read(fbs.SctpStateChangeNotification).sctp_state)
            if state is not None:
                self._sctp_state = state
                self.on_sctp_state_change.emit(state)
        elif event == WorkerEvent.TRANSPORT_SCTP_NEGOTIATED_CAPABILITIES:
            self._take_negotiated(body.read(fbs.SctpNegotiatedCapabilitiesNotification))
        elif event == WorkerEvent.TRANSPORT_TRACE:
            self.on_trace.emit(transport_trace(body.read(fbs.TraceNotification)))

    def _take_negotiated(self, notification: fbs.SctpNegotiatedCapabilitiesNotification) -> None:
        value = notification.negotiated_capabilities
        if value is not None:
            self._streams.limit = value.negotiated_max_outbound_streams
            self._sctp_negotiated_capabilities = SctpNegotiatedCapabilities(
                negotiated_max_outbound_streams=value.negotiated_max_outbound_streams,
                negotiated_max_inbound_streams=value.negotiated_max_inbound_streams,
            )


def _bitrate(bitrate: int) -> int:
    if not 0 <= bitrate < 2**64:
        raise InvalidArgumentError(f"bitrate is {bitrate}; it must be at least 0 bit/s")
    return bitrate
