"""Producers' and consumers' dumps, statistics and scores, from the worker's tables."""

from __future__ import annotations

from . import stream_reports as reports
from ._fbs import consumer as fbs_consumer
from ._fbs import producer as fbs_producer
from ._fbs import rtp_stream, rtx_stream
from .convert_rtp import encodings_from_fbs, rtp_mapping_from_fbs, rtp_parameters_from_fbs
from .convert_trace import CONSUMER_TRACE_NAMES, PRODUCER_TRACE_NAMES, trace_types_from_fbs
from .enums import KIND_NAMES, TYPE_NAMES, named
from .flatbuffer import unexpected
from .types import (
    ConsumerId,
    ConsumerLayers,
    ConsumerScore,
    ProducerId,
    ProducerScore,
    ProducerType,
)


def producer_type_from_fbs(number: int) -> ProducerType:
    name = named(TYPE_NAMES, number, "producer type")
    if name == "pipe":
        raise ValueError("a producer can't have the type pipe")
    return name


def producer_dump(dump: fbs_producer.DumpResponse) -> reports.ProducerDump:
    return reports.ProducerDump(
        id=ProducerId(dump.id),
        kind=named(KIND_NAMES, dump.kind, "media kind"),
        type=producer_type_from_fbs(dump.type),
        rtp_parameters=rtp_parameters_from_fbs(dump.rtp_parameters),
        rtp_mapping=rtp_mapping_from_fbs(dump.rtp_mapping),
        rtp_streams=[_stream_dump(stream) for stream in dump.rtp_streams],
        trace_event_types=trace_types_from_fbs(PRODUCER_TRACE_NAMES, dump.trace_event_types),
        paused=dump.paused,
    )


def consumer_dump(dump: fbs_consumer.ConsumerDump) -> reports.ConsumerDump:
    base = dump.base
    return reports.ConsumerDump(
        id=ConsumerId(base.id),
        producer_id=ProducerId(base.producer_id),
        kind=named(KIND_NAMES, base.kind, "media kind"),
        type=named(TYPE_NAMES, base.type, "consumer type"),
        rtp_parameters=rtp_parameters_from_fbs(base.rtp_parameters),
        consumable_rtp_encodings=encodings_from_fbs(base.consumable_rtp_encodings),
        supported_codec_payload_types=base.supported_codec_payload_types,
        rtp_streams=[_stream_dump(stream) for stream in dump.rtp_streams],
        trace_event_types=trace_types_from_fbs(CONSUMER_TRACE_NAMES, base.trace_event_types),
        paused=base.paused,
        producer_paused=base.producer_paused,
        priority=base.priority,
        preferred_spatial_layer=dump.preferred_spatial_layer,
        target_spatial_layer=dump.target_spatial_layer,
        current_spatial_layer=dump.current_spatial_layer,
        preferred_temporal_layer=dump.preferred_temporal_layer,
        target_temporal_layer=dump.target_temporal_layer,
        current_temporal_layer=dump.current_temporal_layer,
    )


def _stream_dump(dump: rtp_stream.Dump) -> reports.RtpStreamDump:
    params = dump.params
    return reports.RtpStreamDump(
        params=reports.RtpStreamParametersDump(
            encoding_idx=params.encoding_idx,
            ssrc=params.ssrc,
            payload_type=params.payload_type,
            mime_type=params.mime_type,
            clock_rate=params.clock_rate,
            rid=params.rid or None,
            cname=params.cname,
            rtx_ssrc=params.rtx_ssrc,
            rtx_payload_type=params.rtx_payload_type,
            use_nack=params.use_nack,
            use_pli=params.use_pli,
            use_fir=params.use_fir,
            use_in_band_fec=params.use_in_band_fec,
            use_dtx=params.use_dtx,
            spatial_layers=params.spatial_layers,
            temporal_layers=params.temporal_layers,
        ),
        score=dump.score,
        rtx_stream=None if dump.rtx_stream is None else _rtx_stream_dump(dump.rtx_stream),
    )


def _rtx_stream_dump(dump: rtx_stream.RtxDump) -> reports.RtxStreamDump:
    params = dump.params
    return reports.RtxStreamDump(
        params=reports.RtxStreamParameters(
            ssrc=params.ssrc,
            payload_type=params.payload_type,
            mime_type=params.mime_type,
            clock_rate=params.clock_rate,
            rrid=params.rrid or None,
            cname=params.cname,
        )
    )


def stream_stats(stats: rtp_stream.Stats) -> reports.RtpStreamStats:
    data = stats.data
    if not isinstance(data, rtp_stream.RecvStats | rtp_stream.SendStats):
        unexpected("a stream statistic", data)
    base = data.base.data
    if not isinstance(base, rtp_stream.BaseStats):
        unexpected("the base of a stream statistic", base)
    received = isinstance(data, rtp_stream.RecvStats)
    return reports.RtpStreamStats(
        type="inbound-rtp" if received else "outbound-rtp",
        timestamp=base.timestamp,
        ssrc=base.ssrc,
        rtx_ssrc=base.rtx_ssrc,
        rid=base.rid or None,
        kind=named(KIND_NAMES, base.kind, "media kind"),
        mime_type=base.mime_type,
        packets_lost=base.packets_lost,
        fraction_lost=base.fraction_lost,
        jitter=base.jitter,
        packets_discarded=base.packets_discarded,
        packets_retransmitted=base.packets_retransmitted,
        packets_repaired=base.packets_repaired,
        nack_count=base.nack_count,
        nack_packet_count=base.nack_packet_count,
        pli_count=base.pli_count,
        fir_count=base.fir_count,
        round_trip_time=base.round_trip_time,
        rtx_packets_discarded=base.rtx_packets_discarded or None,
        score=base.score,
        packet_count=data.packet_count,
        byte_count=data.byte_count,
        bitrate=data.bitrate,
        bitrate_by_layer={entry.layer: entry.bitrate for entry in data.bitrate_by_layer}
        if isinstance(data, rtp_stream.RecvStats)
        else {},
    )


def layers_to_fbs(layers: ConsumerLayers) -> fbs_consumer.ConsumerLayers:
    return fbs_consumer.ConsumerLayers(
        spatial_layer=layers.spatial_layer, temporal_layer=layers.temporal_layer
    )


def layers_from_fbs(layers: fbs_consumer.ConsumerLayers | None) -> ConsumerLayers | None:
    if layers is None:
        return None
    return ConsumerLayers(spatial_layer=layers.spatial_layer, temporal_layer=layers.temporal_layer)


def consumer_score(score: fbs_consumer.ConsumerScore) -> ConsumerScore:
    return ConsumerScore(
        score=score.score, producer_score=score.producer_score, producer_scores=score.producer_scores
    )


def producer_scores(scores: list[fbs_producer.Score]) -> list[ProducerScore]:
    return [
        ProducerScore(
            encoding_idx=score.encoding_idx, ssrc=score.ssrc, rid=score.rid or None, score=score.score
        )
        for score in scores
    ]
