"""DataTransport: the messages that a transport carries."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from . import ortc
from ._fbs import data_consumer as fbs_consumer
from ._fbs import data_producer as fbs_producer
from ._fbs import transport as fbs
from .convert_data import (
    DATA_TYPE_NAMES,
    data_consumer_dump,
    data_producer_dump,
    stream_parameters_to_fbs,
)
from .data_consumer import DataConsumer
from .data_messages import check_subchannels
from .data_producer import DataProducer
from .errors import InvalidArgumentError, NotFoundError
from .events import EventSlot
from .messages import Body, Method
from .node import new_id
from .transport_base import BaseTransport
from .types import AppData, DataConsumerId, DataProducerId, SctpStreamParameters

logger: Final = logging.getLogger("mediaserver.mediasoup")


class DataTransport(BaseTransport):
    """A transport that carries messages: over SCTP, or directly if it is a DirectTransport."""

    on_new_data_producer = EventSlot[DataProducer]()
    on_new_data_consumer = EventSlot[DataConsumer]()

    @property
    def data_producers(self) -> list[DataProducer]:
        return [child for child in self._children.values() if isinstance(child, DataProducer)]

    @property
    def data_consumers(self) -> list[DataConsumer]:
        return [child for child in self._children.values() if isinstance(child, DataConsumer)]

    async def produce_data(
        self,
        *,
        sctp_stream_parameters: SctpStreamParameters | None = None,
        label: str = "",
        protocol: str = "",
        id: DataProducerId | None = None,
        paused: bool = False,
        app_data: AppData | None = None,
    ) -> DataProducer:
        """Receives the messages of one of the endpoint's streams.

        `sctp_stream_parameters` are needed but on a DirectTransport, which ignores them (and warns). `id`
        must be unique in the worker; absent, it is random. Raises InvalidArgumentError for parameters that
        don't go together, RequestRejectedError without `enable_sctp`, and for a stream or id in use.
        """
        if id is not None and id in self._router._data_producers:
            raise InvalidArgumentError(f"id: {self._router!r} already has a data producer {id}")
        stream = self._producer_stream(sctp_stream_parameters)
        producer_id = id or DataProducerId(new_id())

        def build(body: Body) -> DataProducer:
            dump = data_producer_dump(body.read(fbs_producer.DumpResponse))
            producer = DataProducer(self, id=producer_id, dump=dump, app_data=app_data)
            self._router._data_producers[producer_id] = producer
            return producer

        request = fbs.ProduceDataRequest(
            data_producer_id=producer_id,
            type=DATA_TYPE_NAMES.index("sctp" if stream else "direct"),
            sctp_stream_parameters=stream_parameters_to_fbs(stream),
            label=label,
            protocol=protocol,
            paused=paused,
        )
        undo = (
            Method.TRANSPORT_CLOSE_DATAPRODUCER,
            fbs.CloseDataProducerRequest(data_producer_id=producer_id),
        )
        return await self._create(
            Method.TRANSPORT_PRODUCE_DATA, request, build, child_id=producer_id, undo=undo
        )

    async def consume_data(
        self,
        *,
        data_producer_id: DataProducerId,
        ordered: bool | None = None,
        max_packet_life_time: int | None = None,
        max_retransmits: int | None = None,
        paused: bool = False,
        subchannels: Sequence[int] = (),
        app_data: AppData | None = None,
    ) -> DataConsumer:
        """Sends a data producer's messages to the endpoint, on a stream of its own.

        Reliability is the data producer's (ordered and reliable if that has none) but for what is given:
        `ordered`, or unordered with `max_packet_life_time` (ms) or `max_retransmits`; a DirectTransport
        ignores these (and warns). `subchannels` limit which messages of `DataProducer.send` it gets. Raises
        NotFoundError without such a data producer in the router, InvalidStateError when all streams are
        taken, RequestRejectedError without `enable_sctp`.
        """
        producer = self._find_data_producer(data_producer_id)
        check_subchannels(*subchannels)
        stream = self._consumer_stream(producer, ordered, max_packet_life_time, max_retransmits)
        consumer_id = DataConsumerId(new_id())

        def build(body: Body) -> DataConsumer:
            dump = data_consumer_dump(body.read(fbs_consumer.DumpResponse))
            return DataConsumer(self, id=consumer_id, dump=dump, app_data=app_data)

        request = fbs.ConsumeDataRequest(
            data_consumer_id=consumer_id,
            data_producer_id=data_producer_id,
            type=DATA_TYPE_NAMES.index("sctp" if stream else "direct"),
            sctp_stream_parameters=stream_parameters_to_fbs(stream),
            label=producer.label,
            protocol=producer.protocol,
            paused=paused,
            subchannels=list(subchannels),
        )
        undo = (
            Method.TRANSPORT_CLOSE_DATACONSUMER,
            fbs.CloseDataConsumerRequest(data_consumer_id=consumer_id),
        )
        try:
            return await self._create(
                Method.TRANSPORT_CONSUME_DATA, request, build, child_id=consumer_id, undo=undo
            )
        except BaseException:
            if stream is not None:
                self._streams.release(stream.stream_id)
            raise

    def _producer_stream(self, params: SctpStreamParameters | None) -> SctpStreamParameters | None:
        if self.TYPE == "direct":
            if params is not None:
                logger.warning("%r ignores sctp_stream_parameters", self)
            return None
        if params is None:
            raise InvalidArgumentError("sctp_stream_parameters are needed on all but a DirectTransport")
        return ortc.validate_sctp_stream_parameters(params)

    def _consumer_stream(
        self,
        producer: DataProducer,
        ordered: bool | None,
        max_packet_life_time: int | None,
        max_retransmits: int | None,
    ) -> SctpStreamParameters | None:
        """The stream to send on, which is taken with it; None on a DirectTransport."""
        limits = {"max_packet_life_time": max_packet_life_time, "max_retransmits": max_retransmits}
        given = {name: value for name, value in limits.items() if value is not None}
        if self.TYPE == "direct":
            if ordered is not None or given:
                logger.warning("%r ignores ordered, max_packet_life_time and max_retransmits", self)
            return None
        params = producer.sctp_stream_parameters or SctpStreamParameters(stream_id=0, ordered=True)
        if ordered:
            params = replace(params, ordered=True, max_packet_life_time=None, max_retransmits=None)
        elif ordered is not None or given:
            params = replace(params, ordered=False if given else ordered, **given)
        params = ortc.validate_sctp_stream_parameters(params)
        return replace(params, stream_id=self._streams.take())

    def _find_data_producer(self, data_producer_id: DataProducerId) -> DataProducer:
        self._check_open()
        producer = self._router._data_producers.get(data_producer_id)
        if producer is None:
            raise NotFoundError(f"{self._router!r} has no data producer {data_producer_id}")
        return producer
