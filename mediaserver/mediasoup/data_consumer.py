"""DataConsumer: messages that leave a router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ._fbs import data_consumer as fbs
from ._fbs import transport as fbs_transport
from .convert_data import data_consumer_dump, data_consumer_stats
from .data_messages import check_subchannels, encode_data
from .errors import CloseReason, InvalidArgumentError
from .events import EventSlot
from .messages import Body, Method
from .messages import Event as WorkerEvent
from .node import Node
from .stream_reports import DataConsumerDump, DataConsumerStats
from .types import (
    AppData,
    DataConsumerId,
    DataConsumerType,
    DataMessage,
    DataProducerId,
    SctpStreamParameters,
)

if TYPE_CHECKING:
    from .observers import DataConsumerObserver
    from .transport_data import DataTransport

_UINT32: Final = range(2**32)


class DataConsumer(Node):
    """Messages that a transport sends (https://mediasoup.org/documentation/v3/mediasoup/api/#DataConsumer).

    Made by `Transport.consume_data`. It closes with its data producer: `on_data_producer_close`, then
    `on_close`.
    """

    KIND = "DataConsumer"
    CHILDREN_REASON = CloseReason.CLOSED

    on_transport_close = EventSlot[CloseReason]()
    """Comes before `on_close` when the transport, or a parent of it, was closed."""
    on_data_producer_close = EventSlot[None]()
    on_data_producer_pause = EventSlot[None]()
    on_data_producer_resume = EventSlot[None]()
    on_pause = EventSlot[None]()
    """Messages stopped: `pause()` here, or the data producer was paused while this was not."""
    on_resume = EventSlot[None]()
    on_message = EventSlot[DataMessage]()
    """A message arrived; on a DirectTransport only."""
    on_sctp_send_buffer_full = EventSlot[None]()
    """A message was dropped since the endpoint does not take them fast enough."""
    on_buffered_amount_low = EventSlot[int]()
    """The bytes that wait to be sent have fallen to the threshold; how many they are."""

    def __init__(
        self,
        transport: DataTransport,
        *,
        id: DataConsumerId,
        dump: DataConsumerDump,
        app_data: AppData | None,
    ) -> None:
        super().__init__(
            id=id, channel=transport._channel, hook=transport._hook, parents=(transport,), app_data=app_data
        )
        self._transport = transport
        self._data_producer_id = dump.data_producer_id
        self._type: DataConsumerType = dump.type
        self._sctp_stream_parameters = dump.sctp_stream_parameters
        self._label = dump.label
        self._protocol = dump.protocol
        self._paused = dump.paused
        self._data_producer_paused = dump.data_producer_paused
        self._subchannels = dump.subchannels

    @property
    def id(self) -> DataConsumerId:
        return DataConsumerId(self._id)

    @property
    def data_producer_id(self) -> DataProducerId:
        return self._data_producer_id

    @property
    def type(self) -> DataConsumerType:
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
        return self._protocol

    @property
    def paused(self) -> bool:
        """Whether this data consumer is paused, whatever its data producer is."""
        return self._paused

    @property
    def data_producer_paused(self) -> bool:
        return self._data_producer_paused

    @property
    def subchannels(self) -> list[int]:
        """Those that it gets messages of; sorted, without duplicates."""
        return list(self._subchannels)

    @property
    def observer(self) -> DataConsumerObserver:
        return self

    async def dump(self) -> DataConsumerDump:
        return await self._request(
            Method.DATACONSUMER_DUMP, None, lambda body: data_consumer_dump(body.read(fbs.DumpResponse))
        )

    async def get_stats(self) -> DataConsumerStats:
        return await self._request(
            Method.DATACONSUMER_GET_STATS,
            None,
            lambda body: data_consumer_stats(body.read(fbs.GetStatsResponse)),
        )

    async def pause(self) -> None:
        """Drops messages for this data consumer from now on."""
        await self._request(Method.DATACONSUMER_PAUSE)
        was_paused, self._paused = self._paused, True
        if not was_paused and not self._data_producer_paused:
            self.on_pause.emit(None)

    async def resume(self) -> None:
        await self._request(Method.DATACONSUMER_RESUME)
        was_paused, self._paused = self._paused, False
        if was_paused and not self._data_producer_paused:
            self.on_resume.emit(None)

    async def set_buffered_amount_low_threshold(self, threshold: int) -> None:
        """At how many waiting bytes `on_buffered_amount_low` comes; SCTP only (the worker rejects others)."""
        if threshold not in _UINT32:
            raise InvalidArgumentError(f"threshold is {threshold}; it must have 32 bits")
        request = fbs.SetBufferedAmountLowThresholdRequest(threshold=threshold)
        await self._request(Method.DATACONSUMER_SET_BUFFERED_AMOUNT_LOW_THRESHOLD, request)

    async def get_buffered_amount(self) -> int:
        """Bytes that wait to be sent to the endpoint; SCTP only."""
        return await self._request(
            Method.DATACONSUMER_GET_BUFFERED_AMOUNT,
            None,
            lambda body: body.read(fbs.GetBufferedAmountResponse).buffered_amount,
        )

    async def send(self, message: str | bytes, ppid: int | None = None) -> int:
        """Sends a message to this data consumer's endpoint only, past the data producer; SCTP only.

        Returns the bytes that then wait to be sent. `ppid` follows from the message's type unless given.
        Raises RequestRejectedError when the send buffer is full (and `on_sctp_send_buffer_full` comes).
        """
        data, ppid = encode_data(message, ppid)
        return await self._request(
            Method.DATACONSUMER_SEND,
            fbs.SendRequest(ppid=ppid, data=data),
            lambda body: body.read(fbs.SendResponse).buffered_amount,
        )

    async def set_subchannels(self, subchannels: Sequence[int]) -> None:
        """Replaces the subchannels that it gets messages of; 0 to 65535 each."""
        check_subchannels(*subchannels)
        self._subchannels = await self._request(
            Method.DATACONSUMER_SET_SUBCHANNELS,
            fbs.SetSubchannelsRequest(subchannels=list(subchannels)),
            lambda body: body.read(fbs.SetSubchannelsResponse).subchannels,
        )

    async def add_subchannel(self, subchannel: int) -> None:
        check_subchannels(subchannel)
        self._subchannels = await self._request(
            Method.DATACONSUMER_ADD_SUBCHANNEL,
            fbs.AddSubchannelRequest(subchannel=subchannel),
            lambda body: body.read(fbs.AddSubchannelResponse).subchannels,
        )

    async def remove_subchannel(self, subchannel: int) -> None:
        """Nothing happens if it does not have that."""
        check_subchannels(subchannel)
        self._subchannels = await self._request(
            Method.DATACONSUMER_REMOVE_SUBCHANNEL,
            fbs.RemoveSubchannelRequest(subchannel=subchannel),
            lambda body: body.read(fbs.RemoveSubchannelResponse).subchannels,
        )

    def _announce(self) -> None:
        self._transport.on_new_data_consumer.emit(self)

    def _tell_worker(self) -> None:
        self._channel.post(
            Method.TRANSPORT_CLOSE_DATACONSUMER,
            self._transport.id,
            fbs_transport.CloseDataConsumerRequest(data_consumer_id=self._id),
        )

    def _closing(self, reason: CloseReason) -> None:
        if self._sctp_stream_parameters is not None:
            self._transport._streams.release(self._sctp_stream_parameters.stream_id)
        if reason is CloseReason.PRODUCER_CLOSED:
            self.on_data_producer_close.emit(None)
        elif reason is not CloseReason.CLOSED:
            self.on_transport_close.emit(reason)

    def _on_notification(self, event: int, body: Body) -> None:
        if event == WorkerEvent.DATACONSUMER_MESSAGE:
            value = body.read(fbs.MessageNotification)
            self.on_message.emit(DataMessage(value.data, value.ppid))
        elif event == WorkerEvent.DATACONSUMER_BUFFERED_AMOUNT_LOW:
            self.on_buffered_amount_low.emit(body.read(fbs.BufferedAmountLowNotification).buffered_amount)
        elif event == WorkerEvent.DATACONSUMER_SCTP_SENDBUFFER_FULL:
            self.on_sctp_send_buffer_full.emit(None)
        elif event == WorkerEvent.DATACONSUMER_DATAPRODUCER_PAUSE:
            self._set_data_producer_paused(True)
        elif event == WorkerEvent.DATACONSUMER_DATAPRODUCER_RESUME:
            self._set_data_producer_paused(False)
        elif event == WorkerEvent.DATACONSUMER_DATAPRODUCER_CLOSE:
            self._close(CloseReason.PRODUCER_CLOSED)

    def _set_data_producer_paused(self, paused: bool) -> None:
        if self._data_producer_paused == paused:
            return
        self._data_producer_paused = paused
        (self.on_data_producer_pause if paused else self.on_data_producer_resume).emit(None)
        if not self._paused:
            (self.on_pause if paused else self.on_resume).emit(None)
