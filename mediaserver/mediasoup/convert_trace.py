"""Trace events: the worker's tables to and from the types of the API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from ._fbs import consumer, producer, rtp_packet, transport
from .enums import named
from .errors import InvalidArgumentError
from .flatbuffer import Table, unexpected
from .traces import (
    BweTraceInfo,
    ConsumerTraceEventData,
    ConsumerTraceEventType,
    KeyFrameRequestTraceInfo,
    ProducerTraceEventData,
    ProducerTraceEventType,
    RtpPacketDump,
    RtpTraceInfo,
    SrTraceInfo,
    TraceDirection,
    TransportTraceEventData,
    TransportTraceEventType,
)

T = TypeVar("T")

# In the order of the schemas' enums.
TRANSPORT_TRACE_NAMES: Final[tuple[TransportTraceEventType, ...]] = ("probation", "bwe")
PRODUCER_TRACE_NAMES: Final[tuple[ProducerTraceEventType, ...]] = (
    "keyframe",
    "fir",
    "nack",
    "pli",
    "rtp",
    "sr",
)
CONSUMER_TRACE_NAMES: Final[tuple[ConsumerTraceEventType, ...]] = ("keyframe", "fir", "nack", "pli", "rtp")
_DIRECTIONS: Final[tuple[TraceDirection, ...]] = ("in", "out")


def trace_types_to_fbs(names: tuple[T, ...], types: Iterable[T]) -> list[int]:
    """Raises InvalidArgumentError for a type that this kind of object does not trace."""
    numbers = []
    for type in types:
        if type not in names:
            raise InvalidArgumentError(
                f"there is no trace event {type!r}; there are {', '.join(map(str, names))}"
            )
        numbers.append(names.index(type))
    return numbers


def trace_types_from_fbs(names: tuple[T, ...], numbers: list[int]) -> list[T]:
    return [named(names, number, "trace event type") for number in numbers]


def transport_trace(value: transport.TraceNotification) -> TransportTraceEventData:
    info = value.info
    if info is not None and not isinstance(info, transport.BweTraceInfo):
        unexpected("the information of a transport's trace event", info)
    return TransportTraceEventData(
        type=named(TRANSPORT_TRACE_NAMES, value.type, "trace event type"),
        timestamp=value.timestamp,
        direction=named(_DIRECTIONS, value.direction, "trace direction"),
        info=None if info is None else _bwe(info),
    )


def _bwe(info: transport.BweTraceInfo) -> BweTraceInfo:
    return BweTraceInfo(
        bwe_type=named(("transport-cc", "remb"), info.bwe_type, "bandwidth estimation type"),
        desired_bitrate=info.desired_bitrate,
        effective_desired_bitrate=info.effective_desired_bitrate,
        min_bitrate=info.min_bitrate,
        max_bitrate=info.max_bitrate,
        start_bitrate=info.start_bitrate,
        max_padding_bitrate=info.max_padding_bitrate,
        available_bitrate=info.available_bitrate,
    )


def producer_trace(value: producer.TraceNotification) -> ProducerTraceEventData:
    info = value.info
    return ProducerTraceEventData(
        type=named(PRODUCER_TRACE_NAMES, value.type, "trace event type"),
        timestamp=value.timestamp,
        direction=named(_DIRECTIONS, value.direction, "trace direction"),
        info=_sr(info) if isinstance(info, producer.SrTraceInfo) else _packet_info(info),
    )


def consumer_trace(value: consumer.TraceNotification) -> ConsumerTraceEventData:
    return ConsumerTraceEventData(
        type=named(CONSUMER_TRACE_NAMES, value.type, "trace event type"),
        timestamp=value.timestamp,
        direction=named(_DIRECTIONS, value.direction, "trace direction"),
        info=_packet_info(value.info),
    )


def _packet_info(info: Table | None) -> RtpTraceInfo | KeyFrameRequestTraceInfo | None:
    if isinstance(
        info,
        producer.KeyFrameTraceInfo
        | producer.RtpTraceInfo
        | consumer.KeyFrameTraceInfo
        | consumer.RtpTraceInfo,
    ):
        return RtpTraceInfo(rtp_packet=_packet(info.rtp_packet), is_rtx=info.is_rtx)
    if isinstance(
        info, producer.PliTraceInfo | producer.FirTraceInfo | consumer.PliTraceInfo | consumer.FirTraceInfo
    ):
        return KeyFrameRequestTraceInfo(ssrc=info.ssrc)
    if info is not None:
        unexpected("the information of a trace event", info)
    return None


def _sr(info: producer.SrTraceInfo) -> SrTraceInfo:
    return SrTraceInfo(
        ssrc=info.ssrc,
        ntp_sec=info.ntp_sec,
        ntp_frac=info.ntp_frac,
        rtp_ts=info.rtp_ts,
        packet_count=info.packet_count,
        octet_count=info.octet_count,
    )


def _packet(packet: rtp_packet.Dump) -> RtpPacketDump:
    return RtpPacketDump(
        payload_type=packet.payload_type,
        sequence_number=packet.sequence_number,
        timestamp=packet.timestamp,
        marker=packet.marker,
        ssrc=packet.ssrc,
        is_key_frame=packet.is_key_frame,
        size=packet.size,
        payload_size=packet.payload_size,
        spatial_layer=packet.spatial_layer,
        temporal_layer=packet.temporal_layer,
        mid=packet.mid or None,
        rid=packet.rid or None,
        rrid=packet.rrid or None,
        wide_sequence_number=packet.wide_sequence_number,
    )
