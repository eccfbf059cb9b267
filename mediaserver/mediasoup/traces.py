"""Trace events: what the worker tells of packets and estimates, once `enable_trace_event` asked for it.

Source: https://mediasoup.org/documentation/v3/mediasoup/api/#ProducerTraceEventData and its siblings.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

TraceDirection: TypeAlias = Literal["in", "out"]
TransportTraceEventType: TypeAlias = Literal["probation", "bwe"]
ProducerTraceEventType: TypeAlias = Literal["keyframe", "fir", "nack", "pli", "rtp", "sr"]
ConsumerTraceEventType: TypeAlias = Literal["keyframe", "fir", "nack", "pli", "rtp"]


class _Trace(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Base: immutable, camelCase when encoded."""


class RtpPacketDump(_Trace, frozen=True, kw_only=True):
    """The header of an RTP packet; sizes in bytes."""

    payload_type: int
    sequence_number: int
    timestamp: int
    marker: bool
    ssrc: int
    is_key_frame: bool
    size: int
    payload_size: int
    spatial_layer: int
    temporal_layer: int
    mid: str | None = None
    rid: str | None = None
    rrid: str | None = None
    wide_sequence_number: int | None = None


class RtpTraceInfo(_Trace, frozen=True, kw_only=True):
    """Of `rtp` and `keyframe`: the packet, and whether it came as a retransmission."""

    rtp_packet: RtpPacketDump
    is_rtx: bool


class KeyFrameRequestTraceInfo(_Trace, frozen=True, kw_only=True):
    """Of `pli` and `fir`: the stream that a key frame was requested of."""

    ssrc: int


class SrTraceInfo(_Trace, frozen=True, kw_only=True):
    """Of `sr`: a sender report (RFC 3550, 6.4.1)."""

    ssrc: int
    ntp_sec: int
    ntp_frac: int
    rtp_ts: int
    packet_count: int
    octet_count: int


class BweTraceInfo(_Trace, frozen=True, kw_only=True):
    """Of `bwe`: the estimate of the bandwidth towards the endpoint, in bit/s."""

    bwe_type: Literal["transport-cc", "remb"]
    desired_bitrate: int
    effective_desired_bitrate: int
    min_bitrate: int
    max_bitrate: int
    start_bitrate: int
    max_padding_bitrate: int
    available_bitrate: int


class ProducerTraceEventData(_Trace, frozen=True, kw_only=True):
    """`timestamp` in ms of the worker's clock; `info` is absent for `nack`."""

    type: ProducerTraceEventType
    timestamp: int
    direction: TraceDirection
    info: RtpTraceInfo | KeyFrameRequestTraceInfo | SrTraceInfo | None = None


class ConsumerTraceEventData(_Trace, frozen=True, kw_only=True):
    """`timestamp` in ms of the worker's clock; `info` is absent for `nack`."""

    type: ConsumerTraceEventType
    timestamp: int
    direction: TraceDirection
    info: RtpTraceInfo | KeyFrameRequestTraceInfo | None = None


class TransportTraceEventData(_Trace, frozen=True, kw_only=True):
    """`timestamp` in ms of the worker's clock; `info` is absent for `probation`."""

    type: TransportTraceEventType
    timestamp: int
    direction: TraceDirection
    info: BweTraceInfo | None = None
