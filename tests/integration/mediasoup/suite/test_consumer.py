"""Cases of test-Consumer.js: media that leaves a router."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from support.mediasoup_suite import (
    DEVICE,
    FIR,
    H264_PARAMETERS,
    LISTEN,
    MEDIA_CODECS,
    NACK,
    PLI,
    REMB,
    URI_ABS_SEND_TIME,
    URI_AUDIO_LEVEL,
    URI_MID,
    URI_OFFSET,
    URI_ORIENTATION,
    VP8,
    VP9,
    case,
    refused,
    rejected,
    seen,
    soon,
    until,
    worker_says,
)

from mediaserver.mediasoup import (
    CloseReason,
    Consumer,
    ConsumerLayers,
    ConsumerScore,
    InvalidArgumentError,
    NotFoundError,
    Producer,
    ProducerId,
    Router,
    RtcpParameters,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtensionParameters,
    RtpParameters,
    RtxParameters,
    UnsupportedError,
    WebRtcTransport,
    Worker,
)
from mediaserver.mediasoup._fbs import consumer as fbs
from mediaserver.mediasoup.channel import Event as WorkerEvent

MSID = "stream-1 track-1"
OPUS_PARAMETERS: dict[str, int | float | str] = {"useinbandfec": 1, "usedtx": 1, "gain": 0.5, "room": "blue"}
AUDIO = RtpParameters(
    mid="AUDIO",
    codecs=[
        RtpCodecParameters(
            mime_type="audio/opus",
            payload_type=111,
            clock_rate=48_000,
            channels=2,
            parameters=OPUS_PARAMETERS,
        )
    ],
    header_extensions=[
        RtpHeaderExtensionParameters(uri=URI_MID, id=10),
        RtpHeaderExtensionParameters(uri=URI_AUDIO_LEVEL, id=12),
    ],
    encodings=[RtpEncodingParameters(ssrc=1_000)],
    rtcp=RtcpParameters(cname="ann"),
    msid=MSID,
)
VIDEO = RtpParameters(
    mid="VIDEO",
    codecs=[
        RtpCodecParameters(
            mime_type="video/h264",
            payload_type=112,
            clock_rate=90_000,
            parameters=H264_PARAMETERS,
            rtcp_feedback=[NACK, PLI, REMB],
        ),
        RtpCodecParameters(
            mime_type="video/rtx", payload_type=113, clock_rate=90_000, parameters={"apt": 112}
        ),
    ],
    header_extensions=[
        RtpHeaderExtensionParameters(uri=URI_MID, id=10),
        RtpHeaderExtensionParameters(uri=URI_ORIENTATION, id=13),
    ],
    encodings=[
        RtpEncodingParameters(ssrc=ssrc, rtx=RtxParameters(ssrc + 1), scalability_mode="L1T5")
        for ssrc in (2_000, 2_002, 2_004, 2_006)
    ],
    rtcp=RtcpParameters(cname="ann"),
)
OPUS_GOT = RtpCodecParameters(
    mime_type="audio/opus", payload_type=100, clock_rate=48_000, channels=2, parameters=OPUS_PARAMETERS
)
VIDEO_GOT = [
    RtpCodecParameters(
        mime_type="video/H264",
        payload_type=103,
        clock_rate=90_000,
        parameters=H264_PARAMETERS,
        rtcp_feedback=[NACK, PLI, FIR, REMB],
    ),
    RtpCodecParameters(mime_type="video/rtx", payload_type=104, clock_rate=90_000, parameters={"apt": 103}),
]
VPX_FEEDBACK = [NACK, PLI, FIR, REMB]
VPX_DEVICE = RtpCapabilities(
    codecs=[
        replace(VP8, preferred_payload_type=101, rtcp_feedback=VPX_FEEDBACK),
        replace(VP9, preferred_payload_type=102, rtcp_feedback=VPX_FEEDBACK),
    ]
)


class Room(msgspec.Struct):
    """A router with one who sends audio and video, and the transport of one who receives."""

    router: Router
    sending: WebRtcTransport
    receiving: WebRtcTransport
    audio: Producer
    video: Producer

    async def consume(self, producer: Producer, **options: Any) -> Consumer:
        return await self.receiving.consume(producer_id=producer.id, rtp_capabilities=DEVICE, **options)


class VpxRoom(msgspec.Struct):
    """A router for VP8 and VP9."""

    router: Router
    sending: WebRtcTransport
    receiving: WebRtcTransport

    async def produce(self, codec: RtpCodecCapability, *modes: str | None) -> Producer:
        """A producer with one encoding for each scalability mode."""
        sent = RtpCodecParameters(
            mime_type=codec.mime_type, payload_type=96, clock_rate=90_000, rtcp_feedback=VPX_FEEDBACK
        )
        params = RtpParameters(
            codecs=[sent],
            encodings=[
                RtpEncodingParameters(ssrc=4_000 + number, scalability_mode=mode)
                for number, mode in enumerate(modes)
            ],
            rtcp=RtcpParameters(cname="ann"),
        )
        return await self.sending.produce(kind="video", rtp_parameters=params)

    async def consume(self, producer: Producer, layers: ConsumerLayers | None = None) -> Consumer:
        assert self.router.can_consume(producer_id=producer.id, rtp_capabilities=VPX_DEVICE)
        return await self.receiving.consume(
            producer_id=producer.id, rtp_capabilities=VPX_DEVICE, paused=True, preferred_layers=layers
        )


@pytest.fixture
async def room(worker: Worker) -> Room:
    router = await worker.create_router(media_codecs=MEDIA_CODECS)
    sending = await router.create_webrtc_transport(listen_infos=[LISTEN])
    receiving = await router.create_webrtc_transport(listen_infos=[LISTEN])
    audio = await sending.produce(kind="audio", rtp_parameters=AUDIO)
    video = await sending.produce(kind="video", rtp_parameters=VIDEO)
    return Room(router, sending, receiving, audio, video)


@pytest.fixture
async def vpx(worker: Worker) -> VpxRoom:
    router = await worker.create_router(media_codecs=[VP8, VP9])
    sending = await router.create_webrtc_transport(listen_infos=[LISTEN])
    return VpxRoom(router, sending, await router.create_webrtc_transport(listen_infos=[LISTEN]))


def layers(spatial: int, temporal: int | None = None) -> ConsumerLayers:
    return ConsumerLayers(spatial_layer=spatial, temporal_layer=temporal)


@case("test-Consumer", "transport.consume() succeeds")
async def test_consume(room: Room) -> None:
    made = seen(room.receiving.observer.on_new_consumer)
    assert room.router.can_consume(producer_id=room.audio.id, rtp_capabilities=DEVICE)
    audio = await room.consume(room.audio, app_data={"n": 1})
    assert made == [audio]
    assert (audio.producer_id, audio.kind, audio.type, audio.closed) == (
        room.audio.id,
        "audio",
        "simple",
        False,
    )
    assert (audio.rtp_parameters.mid, audio.rtp_parameters.codecs) == ("0", [OPUS_GOT])
    assert audio.rtp_parameters.msid == MSID
    assert (audio.paused, audio.producer_paused, audio.priority) == (False, False, 1)
    assert audio.score == ConsumerScore(score=10, producer_score=0, producer_scores=[0])
    assert (audio.preferred_layers, audio.current_layers, audio.app_data) == (None, None, {"n": 1})
    dump = await room.router.dump()
    assert dump.map_producer_id_consumer_ids == {room.audio.id: [audio.id], room.video.id: []}
    assert dump.map_consumer_id_producer_id == {audio.id: room.audio.id}
    inside = await room.receiving.dump()
    assert (inside.id, inside.producer_ids, inside.consumer_ids) == (room.receiving.id, [], [audio.id])

    assert room.router.can_consume(producer_id=room.video.id, rtp_capabilities=DEVICE)
    await room.video.pause()
    video = await room.consume(room.video, paused=True, preferred_layers=layers(12, 0), app_data={"n": 2})
    assert made == [audio, video]
    assert (video.kind, video.type, video.rtp_parameters.mid) == ("video", "simulcast", "1")
    assert (video.rtp_parameters.codecs, video.rtp_parameters.msid) == (VIDEO_GOT, None)
    assert (video.paused, video.producer_paused, video.priority) == (True, True, 1)
    assert video.score == ConsumerScore(score=10, producer_score=0, producer_scores=[0] * 4)
    assert (video.preferred_layers, video.current_layers) == (layers(3, 0), None)

    pipe = await room.consume(room.video, pipe=True)
    assert made == [audio, video, pipe]
    assert (pipe.kind, pipe.type, pipe.rtp_parameters.mid) == ("video", "pipe", None)
    assert pipe.rtp_parameters.codecs == VIDEO_GOT
    assert (pipe.paused, pipe.producer_paused, pipe.priority) == (False, True, 1)
    assert pipe.score == ConsumerScore(score=10, producer_score=10, producer_scores=[0] * 4)
    assert (pipe.preferred_layers, pipe.current_layers, pipe.app_data) == (None, None, {})
    dump = await room.router.dump()
    assert dump.map_producer_id_consumer_ids[room.audio.id] == [audio.id]
    assert set(dump.map_producer_id_consumer_ids[room.video.id]) == {video.id, pipe.id}
    assert dump.map_consumer_id_producer_id == {
        audio.id: room.audio.id,
        video.id: room.video.id,
        pipe.id: room.video.id,
    }
    assert set((await room.receiving.dump()).consumer_ids) == {audio.id, video.id, pipe.id}


@case("test-Consumer", "transport.consume() with unknown producerId fails")
async def test_consume_unknown(room: Room) -> None:
    nobody = ProducerId("nobody")
    await rejected(NotFoundError, room.receiving.consume(producer_id=nobody, rtp_capabilities=DEVICE))


@case("test-Consumer", "transport.consume() with enableRtx succeeds")
async def test_consume_rtx(room: Room) -> None:
    consumer = await room.consume(room.audio, enable_rtx=True)
    assert consumer.kind == "audio"
    assert consumer.rtp_parameters.codecs == [replace(OPUS_GOT, rtcp_feedback=[NACK])]


@case("test-Consumer", "transport.consume() can be created with user provided mid")
async def test_consume_mid(room: Room) -> None:
    first = await room.consume(room.audio)
    named = await room.consume(room.audio, mid="custom-mid")
    third = await room.consume(room.audio)
    assert named.rtp_parameters.mid == "custom-mid"
    assert int(third.rtp_parameters.mid or "") == int(first.rtp_parameters.mid or "") + 1


@case("test-Consumer", "transport.consume() with incompatible rtpCapabilities rejects with UnsupportedError")
async def test_consume_unsupported(room: Room) -> None:
    isac = RtpCodecCapability(
        mime_type="audio/ISAC", preferred_payload_type=100, clock_rate=32_000, channels=1
    )
    for caps in (RtpCapabilities(codecs=[isac]), RtpCapabilities()):
        assert not room.router.can_consume(producer_id=room.audio.id, rtp_capabilities=caps)
        await rejected(
            UnsupportedError, room.receiving.consume(producer_id=room.audio.id, rtp_capabilities=caps)
        )


@case("test-Consumer", "consumer.dump() succeeds")
async def test_dump(room: Room) -> None:
    audio = await room.consume(room.audio)
    dump = await audio.dump()
    assert (dump.id, dump.producer_id, dump.kind, dump.type) == (audio.id, room.audio.id, "audio", "simple")
    assert dump.rtp_parameters.codecs == [OPUS_GOT]
    assert [(found.uri, found.id) for found in dump.rtp_parameters.header_extensions] == [
        (URI_MID, 1),
        (URI_ABS_SEND_TIME, 4),
        (URI_AUDIO_LEVEL, 6),
    ]
    (encoding,) = dump.rtp_parameters.encodings
    assert (encoding.codec_payload_type, encoding.ssrc) == (100, audio.rtp_parameters.encodings[0].ssrc)
    assert dump.rtp_parameters.msid == MSID
    assert [found.ssrc for found in dump.consumable_rtp_encodings] == [
        room.audio.consumable_rtp_parameters.encodings[0].ssrc
    ]
    assert dump.supported_codec_payload_types == [100]
    assert (dump.paused, dump.producer_paused, dump.priority) == (False, False, 1)

    video = await room.consume(room.video, paused=True)
    dump = await video.dump()
    assert (dump.id, dump.producer_id, dump.kind) == (video.id, room.video.id, "video")
    assert dump.rtp_parameters.codecs == VIDEO_GOT
    assert [(found.uri, found.id) for found in dump.rtp_parameters.header_extensions] == [
        (URI_MID, 1),
        (URI_ABS_SEND_TIME, 4),
        (URI_ORIENTATION, 8),
        (URI_OFFSET, 9),
    ]
    (encoding,) = dump.rtp_parameters.encodings
    (ours,) = video.rtp_parameters.encodings
    assert (encoding.codec_payload_type, encoding.ssrc, encoding.rtx) == (103, ours.ssrc, ours.rtx)
    assert (encoding.scalability_mode, dump.rtp_parameters.msid) == ("L4T5", None)
    assert [(found.ssrc, found.scalability_mode) for found in dump.consumable_rtp_encodings] == [
        (found.ssrc, "L1T5") for found in room.video.consumable_rtp_parameters.encodings
    ]
    assert dump.supported_codec_payload_types == [103]
    assert (dump.paused, dump.producer_paused, dump.priority) == (True, False, 1)


@case("test-Consumer", "consumer.getStats() succeeds")
async def test_get_stats(room: Room) -> None:
    for producer, mime_type in ((room.audio, "audio/opus"), (room.video, "video/H264")):
        consumer = await room.consume(producer)
        (stats,) = await consumer.get_stats()
        assert (stats.type, stats.kind, stats.mime_type) == ("outbound-rtp", producer.kind, mime_type)
        assert stats.ssrc == consumer.rtp_parameters.encodings[0].ssrc


@case("test-Consumer", "consumer.pause() and resume() succeed")
async def test_pause_and_resume(room: Room) -> None:
    audio = await room.consume(room.audio)
    pauses, resumes = seen(audio.observer.on_pause), seen(audio.observer.on_resume)
    await audio.pause()
    assert (audio.paused, (await audio.dump()).paused) == (True, True)
    await audio.resume()
    assert (audio.paused, (await audio.dump()).paused) == (False, False)
    await asyncio.gather(
        audio.pause(), audio.resume(), audio.pause(), audio.pause(), audio.pause(), audio.resume()
    )
    assert (len(pauses), len(resumes)) == (3, 3)


@case("test-Consumer", "producer.pause() and resume() emit events")
async def test_producer_pause_events(room: Room) -> None:
    audio = await room.consume(room.audio)
    events: list[str] = []
    audio.observer.on_resume.subscribe(lambda _: events.append("resume"))
    audio.observer.on_pause.subscribe(lambda _: events.append("pause"))
    await asyncio.gather(room.audio.pause(), room.audio.resume())
    await until(lambda: len(events) == 2, "both events")
    assert events == ["pause", "resume"]
    assert not audio.paused


@case("test-Consumer", "consumer.setPreferredLayers() succeed")
async def test_preferred_layers(room: Room) -> None:
    audio, video = await room.consume(room.audio), await room.consume(room.video)
    await audio.set_preferred_layers(layers(1, 1))
    assert audio.preferred_layers is None
    for wanted, taken in (
        (layers(2, 3), layers(2, 3)),
        (layers(3), layers(3, 4)),
        (layers(3, 0), layers(3, 0)),
        (layers(66, 66), layers(3, 4)),
    ):
        await video.set_preferred_layers(wanted)
        assert video.preferred_layers == taken


@case("test-Consumer", "consumer.setPreferredLayers() with wrong arguments rejects with TypeError")
async def test_preferred_layers_wrong(room: Room) -> None:
    video = await room.consume(room.video)
    set_layers: Any = video.set_preferred_layers
    make_layers: Any = ConsumerLayers
    with pytest.raises(TypeError):
        await set_layers()
    for wrong in ({}, {"chicken": 1}, {"temporal_layer": 2}):
        with pytest.raises(TypeError):
            make_layers(**wrong)
    for out in (layers(-1, 0), layers(256, 0), layers(0, 256)):
        await rejected(InvalidArgumentError, video.set_preferred_layers(out))


@case("test-Consumer", "transport.consume() for an SVC producer honors preferredLayers")
async def test_svc_layers(vpx: VpxRoom) -> None:
    producer = await vpx.produce(VP9, "L3T3")
    consumer = await vpx.consume(producer, layers(1, 0))
    assert (consumer.type, consumer.preferred_layers) == ("svc", layers(1, 0))
    assert (await vpx.consume(producer, layers(9, 9))).preferred_layers == layers(2, 2)
    assert (await vpx.consume(producer, layers(1))).preferred_layers == layers(1, 2)


@case("test-Consumer", "transport.consume() for a simulcast producer honors preferredLayers")
async def test_simulcast_layers(vpx: VpxRoom) -> None:
    producer = await vpx.produce(VP8, "L1T5", "L1T5", "L1T5")
    consumer = await vpx.consume(producer, layers(1, 0))
    assert (consumer.type, consumer.preferred_layers) == ("simulcast", layers(1, 0))
    assert (await vpx.consume(producer, layers(9, 9))).preferred_layers == layers(2, 4)


@case(
    "test-Consumer",
    "transport.consume() from a single-encoding no temporal layer producer is of type simple",
)
async def test_type_simple(vpx: VpxRoom) -> None:
    producer = await vpx.produce(VP8, None)
    assert (producer.type, (await vpx.consume(producer)).type) == ("simple", "simple")


@case(
    "test-Consumer",
    "transport.consume() from a single-encoding multiple temporal layer producer is of type svc",
)
async def test_type_svc(vpx: VpxRoom) -> None:
    producer = await vpx.produce(VP8, "L1T3")
    assert (producer.type, (await vpx.consume(producer)).type) == ("svc", "svc")


@case("test-Consumer", "transport.consume() from a multiple-encoding producer is of type simulcast")
async def test_type_simulcast(vpx: VpxRoom) -> None:
    producer = await vpx.produce(VP8, "L1T3", "L1T3")
    assert (producer.type, (await vpx.consume(producer)).type) == ("simulcast", "simulcast")


@case("test-Consumer", "consumer.setPriority() succeed")
async def test_set_priority(room: Room) -> None:
    video = await room.consume(room.video)
    await video.set_priority(2)
    assert (video.priority, (await video.dump()).priority) == (2, 2)


@case("test-Consumer", "consumer.setPriority() with wrong arguments rejects with TypeError")
async def test_set_priority_wrong(room: Room) -> None:
    video = await room.consume(room.video)
    set_priority: Any = video.set_priority
    with pytest.raises(TypeError):
        await set_priority()
    await rejected(InvalidArgumentError, video.set_priority(0), video.set_priority(256))
    with pytest.raises(TypeError):
        await set_priority("chicken")
    assert video.priority == 1


@case("test-Consumer", "consumer.unsetPriority() succeed")
async def test_unset_priority(room: Room) -> None:
    video = await room.consume(room.video)
    await video.set_priority(7)
    await video.unset_priority()
    assert (video.priority, (await video.dump()).priority) == (1, 1)


@case("test-Consumer", "consumer.enableTraceEvent() succeed")
async def test_enable_trace_event(room: Room) -> None:
    audio = await room.consume(room.audio)
    await audio.enable_trace_event(["rtp", "pli"])
    assert set((await audio.dump()).trace_event_types) == {"rtp", "pli"}
    await audio.enable_trace_event()
    assert (await audio.dump()).trace_event_types == []
    await audio.enable_trace_event(["nack", "fir"])
    assert set((await audio.dump()).trace_event_types) == {"nack", "fir"}
    await audio.enable_trace_event([])
    assert (await audio.dump()).trace_event_types == []


@case("test-Consumer", "consumer.enableTraceEvent() with wrong arguments rejects with TypeError")
@pytest.mark.parametrize("wrong", ["rtp", ["fir", "chicken"], ["fir", 123.1]])
async def test_enable_trace_event_wrong(room: Room, wrong: Any) -> None:
    audio = await room.consume(room.audio)
    await rejected(InvalidArgumentError, audio.enable_trace_event(wrong))
    assert (await audio.dump()).trace_event_types == []


@case("test-Consumer", 'Consumer emits "producerpause" and "producerresume"')
async def test_producer_pause_and_resume(room: Room) -> None:
    audio = await room.consume(room.audio)
    told = soon(audio.on_producer_pause)
    await room.audio.pause()
    await told
    assert (audio.paused, audio.producer_paused) == (False, True)
    told = soon(audio.on_producer_resume)
    await room.audio.resume()
    await told
    assert (audio.paused, audio.producer_paused) == (False, False)


@case("test-Consumer", 'Consumer emits "score"')
async def test_score(room: Room) -> None:
    audio = await room.consume(room.audio)
    told = seen(audio.on_score)
    score = fbs.ConsumerScore(score=9, producer_score=10, producer_scores=[8])
    for _ in range(3):
        await worker_says(audio, WorkerEvent.CONSUMER_SCORE, fbs.ScoreNotification(score=score))
    expected = ConsumerScore(score=9, producer_score=10, producer_scores=[8])
    assert (told, audio.score) == ([expected] * 3, expected)


@case("test-Consumer", "consumer.close() succeeds")
async def test_close(room: Room) -> None:
    audio, video = await room.consume(room.audio), await room.consume(room.video)
    closes = seen(audio.observer.on_close)
    audio.close()
    assert closes == [CloseReason.CLOSED]
    assert audio.closed
    await refused(CloseReason.CLOSED, audio.dump())
    dump = await room.router.dump()
    assert dump.map_producer_id_consumer_ids == {room.audio.id: [], room.video.id: [video.id]}
    assert dump.map_consumer_id_producer_id == {video.id: room.video.id}
    inside = await room.receiving.dump()
    assert (inside.id, inside.producer_ids, inside.consumer_ids) == (room.receiving.id, [], [video.id])


@case("test-Consumer", "Consumer methods reject if closed")
async def test_closed(room: Room) -> None:
    audio = await room.consume(room.audio)
    audio.close()
    await refused(
        CloseReason.CLOSED,
        audio.dump(),
        audio.get_stats(),
        audio.pause(),
        audio.resume(),
        audio.set_preferred_layers(layers(0)),
        audio.set_priority(2),
        audio.request_key_frame(),
    )


@case("test-Consumer", 'Consumer emits "producerclose" if Producer is closed')
async def test_producer_close(room: Room) -> None:
    audio = await room.consume(room.audio)
    closes, told = seen(audio.observer.on_close), soon(audio.on_producer_close)
    room.audio.close()
    await told
    assert closes == [CloseReason.PRODUCER_CLOSED]
    assert audio.closed
    await refused(CloseReason.PRODUCER_CLOSED, audio.dump())


@case("test-Consumer", 'Consumer emits "transportclose" if Transport is closed')
async def test_transport_close(room: Room) -> None:
    video = await room.consume(room.video)
    closes, told = seen(video.observer.on_close), soon(video.on_transport_close)
    room.receiving.close()
    assert await told is CloseReason.TRANSPORT_CLOSED
    assert len(closes) == 1
    await refused(CloseReason.TRANSPORT_CLOSED, video.dump())
    dump = await room.router.dump()
    assert dump.map_producer_id_consumer_ids == {room.audio.id: [], room.video.id: []}
    assert dump.map_consumer_id_producer_id == {}
