"""Data producers and consumers: the worker's tables to and from the types of the API."""

from __future__ import annotations

from typing import Final

from ._fbs import data_consumer, data_producer
from ._fbs import sctp_parameters as fbs_sctp
from .enums import named
from .stream_reports import DataConsumerDump, DataConsumerStats, DataProducerDump, DataProducerStats
from .types import DataConsumerId, DataConsumerType, DataProducerId, SctpStreamParameters

DATA_TYPE_NAMES: Final[tuple[DataConsumerType, ...]] = ("sctp", "direct")
"""In the order of both schemas' enums."""


def stream_parameters_to_fbs(parameters: SctpStreamParameters | None) -> fbs_sctp.SctpStreamParameters | None:
    if parameters is None:
        return None
    return fbs_sctp.SctpStreamParameters(
        stream_id=parameters.stream_id,
        ordered=parameters.ordered,
        max_packet_life_time=parameters.max_packet_life_time,
        max_retransmits=parameters.max_retransmits,
    )


def _stream_parameters(parameters: fbs_sctp.SctpStreamParameters | None) -> SctpStreamParameters | None:
    if parameters is None:
        return None
    return SctpStreamParameters(
        stream_id=parameters.stream_id,
        ordered=parameters.ordered,
        max_packet_life_time=parameters.max_packet_life_time,
        max_retransmits=parameters.max_retransmits,
    )


def data_producer_dump(dump: data_producer.DumpResponse) -> DataProducerDump:
    return DataProducerDump(
        id=DataProducerId(dump.id),
        type=named(DATA_TYPE_NAMES, dump.type, "data producer type"),
        sctp_stream_parameters=_stream_parameters(dump.sctp_stream_parameters),
        label=dump.label,
        protocol=dump.protocol,
        paused=dump.paused,
    )


def data_producer_stats(stats: data_producer.GetStatsResponse) -> DataProducerStats:
    return DataProducerStats(
        type="data-producer",
        timestamp=stats.timestamp,
        label=stats.label,
        protocol=stats.protocol,
        messages_received=stats.messages_received,
        bytes_received=stats.bytes_received,
    )


def data_consumer_dump(dump: data_consumer.DumpResponse) -> DataConsumerDump:
    return DataConsumerDump(
        id=DataConsumerId(dump.id),
        data_producer_id=DataProducerId(dump.data_producer_id),
        type=named(DATA_TYPE_NAMES, dump.type, "data consumer type"),
        sctp_stream_parameters=_stream_parameters(dump.sctp_stream_parameters),
        label=dump.label,
        protocol=dump.protocol,
        buffered_amount=dump.buffered_amount,
        buffered_amount_low_threshold=dump.buffered_amount_low_threshold,
        paused=dump.paused,
        data_producer_paused=dump.data_producer_paused,
        subchannels=dump.subchannels,
    )


def data_consumer_stats(stats: data_consumer.GetStatsResponse) -> DataConsumerStats:
    return DataConsumerStats(
        type="data-consumer",
        timestamp=stats.timestamp,
        label=stats.label,
        protocol=stats.protocol,
        messages_sent=stats.messages_sent,
        bytes_sent=stats.bytes_sent,
        buffered_amount=stats.buffered_amount,
    )
