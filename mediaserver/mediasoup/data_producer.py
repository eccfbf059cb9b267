"""DataProducer: messages that enter a router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._fbs import data_producer as fbs
from ._fbs import transport as fbs_transport
from .convert_data import data_producer_dump, data_producer_stats
from .data_messages import check_subchannels, encode_data
from .errors import CloseReason
from .events import EventSlot
from .messages import Event as WorkerEvent
from .messages import Method
from .node import Node
from .stream_reports import DataProducerDump, DataProducerStats
from .types import AppData, DataProducerId, DataProducerType, SctpStreamParameters

if TYPE_CHECKING:
    from .observers import DataProducerObserver
    from .transport_data import DataTransport


class DataProducer(Node):
    """Messages that a transport receives (https://mediasoup.org/documentation/v3/mediasoup/api/#DataProducer).

    Made by `Transport.produce_data`. Closing it closes its data consumers on every transport of the router.
    """

    KIND = "DataProducer"
    CHILDREN_REASON = CloseReason.PRODUCER_CLOSED

    on_transport_close = EventSlot[CloseReason]()
    """Comes before `on_close` when it was not this data producer that was closed."""
    on_pause = EventSlot[None]()
    """`pause()` succeeded on a data producer that was not paused."""
    on_resume = EventSlot[None]()

    def __init__(
        self,
        transport: DataTransport,
        *,
        id: DataProducerId,
        dump: DataProducerDump,
        app_data: AppData | None,
    ) -> None:
        super().__init__(
            id=id, channel=transport._channel, hook=transport._hook, parents=(transport,), app_data=app_data
        )
        self._transport = transport
        self._type: DataProducerType = dump.type
        self._sctp_stream_parameters = dump.sctp_stream_parameters
        self._label = dump.label
        self._protocol = dump.protocol
        self._paused = dump.paused

    @property
    def id(self) -> DataProducerId:
        return DataProducerId(self._id)

    @property
    def type(self) -> DataProducerType:
        """`direct` on a DirectTransport, else `sctp`."""
        return self._type

    @property
    def sctp_stream_parameters(self) -> SctpStreamParameters | None:
        """None on a DirectTransport."""
        return self._sctp_stream_parameters

    @property
    def label(self) -> str:
        return self._label

    @property
    def protocol(self) -> str:
        """The name of the protocol spoken on it, as the application calls it."""
        return self._protocol

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def observer(self) -> DataProducerObserver:
        return self

    async def dump(self) -> DataProducerDump:
        return await self._request(
            Method.DATAPRODUCER_DUMP, None, lambda body: data_producer_dump(body.read(fbs.DumpResponse))
        )

    async def get_stats(self) -> DataProducerStats:
        return await self._request(
            Method.DATAPRODUCER_GET_STATS,
            None,
            lambda body: data_producer_stats(body.read(fbs.GetStatsResponse)),
        )

    async def pause(self) -> None:
        """Drops messages from now on; data consumers get `on_data_producer_pause`."""
        await self._request(Method.DATAPRODUCER_PAUSE)
        was_paused, self._paused = self._paused, True
        if not was_paused:
            self.on_pause.emit(None)

    async def resume(self) -> None:
        await self._request(Method.DATAPRODUCER_RESUME)
        was_paused, self._paused = self._paused, False
        if was_paused:
            self.on_resume.emit(None)

    def send(
        self,
        message: str | bytes,
        ppid: int | None = None,
        *,
        subchannels: Sequence[int] = (),
        required_subchannel: int | None = None,
        ignored_subchannel: int | None = None,
    ) -> None:
        """Sends a message from here to the data consumers; on a DirectTransport only.

        With `subchannels` only consumers that have one of them get it; of those, ones without
        `required_subchannel` and ones with `ignored_subchannel` don't. `ppid` follows from the message's type
        unless given. Returns before the worker has read it; nothing tells whether it arrived. It drops a
        message larger than the transport's `max_receive_message_size`. Raises ClosedError,
        InvalidArgumentError, and ChannelOverflowError when the worker has stopped reading.
        """
        data, ppid = encode_data(message, ppid)
        check_subchannels(*subchannels, required_subchannel, ignored_subchannel)
        notification = fbs.SendNotification(
            ppid=ppid,
            data=data,
            subchannels=list(subchannels),
            required_subchannel=required_subchannel,
            ignored_subchannel=ignored_subchannel,
        )
        self._send(WorkerEvent.DATAPRODUCER_SEND, notification, data)

    def _announce(self) -> None:
        self._transport.on_new_data_producer.emit(self)

    def _tell_worker(self) -> None:
        self._channel.post(
            Method.TRANSPORT_CLOSE_DATAPRODUCER,
            self._transport.id,
            fbs_transport.CloseDataProducerRequest(data_producer_id=self._id),
        )

    def _closing(self, reason: CloseReason) -> None:
        self._transport._router._data_producers.pop(self.id, None)
        if reason is not CloseReason.CLOSED:
            self.on_transport_close.emit(reason)
