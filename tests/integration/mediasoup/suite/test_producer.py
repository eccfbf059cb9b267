"""Cases of test-Producer.js: media that enters a router."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from support.mediasoup_suite import (
    H264_PARAMETERS,
    LISTEN,
    MEDIA_CODECS,
    NACK,
    PLI,
    REMB,
    URI_AUDIO_LEVEL,
    URI_MID,
    URI_ORIENTATION,
    case,
    refused,
    rejected,
    seen,
    soon,
    worker_says,
)

from mediaserver.mediasoup import (
    CloseReason,
    InvalidArgumentError,
    Producer,
    ProducerScore,
    RequestRejectedError,
    Router,
    RtcpParameters,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtensionParameters,
    RtpParameters,
    RtxParameters,
    UnsupportedError,
    WebRtcTransport,
    Worker,
)
from mediaserver.mediasoup._fbs import producer as fbs
from mediaserver.mediasoup.channel import Event as WorkerEvent

OPUS_SENT = RtpCodecParameters(
    mime_type="audio/opus",
    payload_type=0,
    clock_rate=48_000,
    channels=2,
    parameters={"useinbandfec": 1, "usedtx": 1, "gain": 0.5, "room": "blue"},
)
AUDIO = RtpParameters(
    mid="AUDIO",
    codecs=[OPUS_SENT],
    header_extensions=[
        RtpHeaderExtensionParameters(uri=URI_MID, id=10),
        RtpHeaderExtensionParameters(uri=URI_AUDIO_LEVEL, id=12),
    ],
    rtcp=RtcpParameters(cname="ann"),
)
H264_SENT = RtpCodecParameters(
    mime_type="video/h264",
    payload_type=112,
    clock_rate=90_000,
    parameters=H264_PARAMETERS,
    rtcp_feedback=[NACK, PLI, REMB],
)
H264_RTX_SENT = RtpCodecParameters(
    mime_type="video/rtx", payload_type=113, clock_rate=90_000, parameters={"apt": 112}
)
VIDEO_EXTENSIONS = [
    RtpHeaderExtensionParameters(uri=URI_MID, id=10),
    RtpHeaderExtensionParameters(uri=URI_ORIENTATION, id=13),
]
VIDEO = RtpParameters(
    mid="VIDEO",
    codecs=[H264_SENT, H264_RTX_SENT],
    header_extensions=VIDEO_EXTENSIONS,
    encodings=[
        RtpEncodingParameters(
            ssrc=ssrc, rtx=RtxParameters(ssrc + 1), scalability_mode="L1T3" if ssrc == 2_000 else None
        )
        for ssrc in (2_000, 2_002, 2_004, 2_006)
    ],
    rtcp=RtcpParameters(cname="ann"),
)
VP8_SENT = RtpCodecParameters(mime_type="video/VP8", payload_type=96, clock_rate=90_000)


@pytest.fixture
async def router(worker: Worker) -> Router:
    return await worker.create_router(media_codecs=MEDIA_CODECS)


@pytest.fixture
async def transport(router: Router) -> WebRtcTransport:
    return await router.create_webrtc_transport(listen_infos=[LISTEN])


@pytest.fixture
async def audio(transport: WebRtcTransport) -> Producer:
    return await transport.produce(kind="audio", rtp_parameters=AUDIO)


@pytest.fixture
async def video(transport: WebRtcTransport) -> Producer:
    return await transport.produce(kind="video", rtp_parameters=VIDEO)


def vp8(*encodings: RtpEncodingParameters) -> RtpParameters:
    return RtpParameters(codecs=[VP8_SENT], encodings=list(encodings), rtcp=RtcpParameters(cname="ann"))


@case("test-Producer", "webRtcTransport1.produce() succeeds")
async def test_produce_audio(router: Router, transport: WebRtcTransport) -> None:
    made = seen(transport.observer.on_new_producer)
    producer = await transport.produce(kind="audio", rtp_parameters=AUDIO, app_data={"n": 1})
    assert made == [producer]
    assert producer.id
    assert (producer.kind, producer.type, producer.closed, producer.paused) == (
        "audio",
        "simple",
        False,
        False,
    )
    assert producer.rtp_parameters.codecs == AUDIO.codecs
    assert producer.consumable_rtp_parameters.codecs[0].payload_type == 100
    assert (producer.score, producer.app_data) == ([], {"n": 1})
    dump = await router.dump()
    assert (dump.map_producer_id_consumer_ids, dump.map_consumer_id_producer_id) == ({producer.id: []}, {})
    inside = await transport.dump()
    assert (inside.id, inside.producer_ids, inside.consumer_ids) == (transport.id, [producer.id], [])


@case("test-Producer", "webRtcTransport2.produce() succeeds")
async def test_produce_video(router: Router, audio: Producer) -> None:
    transport = await router.create_webrtc_transport(listen_infos=[LISTEN])
    made = seen(transport.observer.on_new_producer)
    producer = await transport.produce(kind="video", rtp_parameters=VIDEO, app_data={"n": 2})
    assert made == [producer]
    assert (producer.kind, producer.type, producer.closed, producer.paused) == (
        "video",
        "simulcast",
        False,
        False,
    )
    assert len(producer.consumable_rtp_parameters.encodings) == 4
    assert (producer.score, producer.app_data) == ([], {"n": 2})
    dump = await router.dump()
    assert dump.map_producer_id_consumer_ids == {audio.id: [], producer.id: []}
    assert dump.map_consumer_id_producer_id == {}
    inside = await transport.dump()
    assert (inside.id, inside.producer_ids, inside.consumer_ids) == (transport.id, [producer.id], [])


@case("test-Producer", "webRtcTransport1.produce() without header extensions and rtcp succeeds")
async def test_produce_little(transport: WebRtcTransport) -> None:
    made = seen(transport.observer.on_new_producer)
    producer = await transport.produce(
        kind="audio", rtp_parameters=RtpParameters(mid="AUDIO2", codecs=[OPUS_SENT]), app_data={"n": 3}
    )
    assert made == [producer]
    assert (producer.kind, producer.type, producer.paused) == ("audio", "simple", False)
    assert producer.rtp_parameters.header_extensions == []
    assert producer.rtp_parameters.rtcp.cname  # made up
    assert (producer.score, producer.app_data) == ([], {"n": 3})


@case("test-Producer", "webRtcTransport1.produce() with wrong arguments rejects with TypeError")
async def test_produce_wrong(transport: WebRtcTransport) -> None:
    produce: Any = transport.produce
    with pytest.raises(TypeError):
        await produce(kind="audio")
    wrong: Any = "chicken"
    text_ssrc: Any = "1111"
    await rejected(
        InvalidArgumentError,
        transport.produce(kind=wrong, rtp_parameters=AUDIO),
        transport.produce(
            kind="audio", rtp_parameters=replace(AUDIO, encodings=[RtpEncodingParameters(ssrc=text_ssrc)])
        ),
        # The RTX codec is for one that is not there.
        transport.produce(
            kind="video",
            rtp_parameters=replace(
                VIDEO, codecs=[H264_SENT, replace(H264_RTX_SENT, parameters={"apt": 111})]
            ),
        ),
    )
    await rejected(
        RequestRejectedError,
        transport.produce(kind="audio", rtp_parameters=RtpParameters(codecs=[])),
        # With RTX and neither MID nor SSRC, nothing tells whose packets come.
        transport.produce(
            kind="video",
            rtp_parameters=RtpParameters(codecs=[H264_SENT, H264_RTX_SENT], rtcp=RtcpParameters(cname="x")),
        ),
    )
    assert (await transport.dump()).producer_ids == []


@case("test-Producer", "webRtcTransport1.produce() with unsupported codecs rejects with UnsupportedError")
async def test_produce_unsupported(transport: WebRtcTransport) -> None:
    isac = RtpCodecParameters(mime_type="audio/ISAC", payload_type=108, clock_rate=32_000)
    bad_profile = replace(H264_SENT, parameters={"packetization-mode": 1, "profile-level-id": "CHICKEN"})
    await rejected(
        UnsupportedError,
        transport.produce(kind="audio", rtp_parameters=replace(AUDIO, codecs=[isac])),
        transport.produce(kind="video", rtp_parameters=replace(VIDEO, codecs=[bad_profile, H264_RTX_SENT])),
    )


@case("test-Producer", "transport.produce() with already used MID or SSRC rejects with Error")
async def test_produce_twice(router: Router, transport: WebRtcTransport) -> None:
    opus = RtpParameters(mid="A", codecs=[OPUS_SENT], encodings=[RtpEncodingParameters(ssrc=3_000)])
    await transport.produce(kind="audio", rtp_parameters=opus)
    other_ssrc = replace(opus, encodings=[RtpEncodingParameters(ssrc=3_001)])
    for again in (opus, other_ssrc, replace(opus, mid="B")):
        await rejected(RequestRejectedError, transport.produce(kind="audio", rtp_parameters=again))
    other = await router.create_webrtc_transport(listen_infos=[LISTEN])
    h264 = replace(VIDEO, codecs=[H264_SENT], encodings=[RtpEncodingParameters(ssrc=3_000)])
    await other.produce(kind="video", rtp_parameters=h264)
    await rejected(RequestRejectedError, other.produce(kind="video", rtp_parameters=h264))


@case(
    "test-Producer",
    "transport.produce() with no MID and with single encoding without RID or SSRC rejects with Error",
)
async def test_produce_nameless(transport: WebRtcTransport) -> None:
    nameless = RtpParameters(codecs=[OPUS_SENT], encodings=[RtpEncodingParameters()])
    await rejected(RequestRejectedError, transport.produce(kind="audio", rtp_parameters=nameless))


@case("test-Producer", "transport.produce() with single encoding and no temporal layers is of type simple")
async def test_type_simple(transport: WebRtcTransport) -> None:
    params = vp8(RtpEncodingParameters(ssrc=1_111))
    assert (await transport.produce(kind="video", rtp_parameters=params)).type == "simple"


@case("test-Producer", "transport.produce() with single encoding and temporal layers is of type svc")
async def test_type_svc(transport: WebRtcTransport) -> None:
    params = vp8(RtpEncodingParameters(ssrc=1_111, scalability_mode="L1T3"))
    assert (await transport.produce(kind="video", rtp_parameters=params)).type == "svc"


@case("test-Producer", "transport.produce() with multiple encodings is of type simulcast")
async def test_type_simulcast(transport: WebRtcTransport) -> None:
    params = vp8(*(RtpEncodingParameters(ssrc=ssrc, scalability_mode="L1T3") for ssrc in (1_111, 2_222)))
    assert (await transport.produce(kind="video", rtp_parameters=params)).type == "simulcast"


@case("test-Producer", "producer.dump() succeeds")
async def test_dump(audio: Producer, video: Producer) -> None:
    dump = await audio.dump()
    assert (dump.id, dump.kind, dump.type) == (audio.id, "audio", "simple")
    assert dump.rtp_parameters.codecs == [OPUS_SENT]
    assert dump.rtp_parameters.header_extensions == AUDIO.header_extensions
    assert [encoding.codec_payload_type for encoding in dump.rtp_parameters.encodings] == [0]
    dump = await video.dump()
    assert (dump.id, dump.kind, dump.type) == (video.id, "video", "simulcast")
    assert dump.rtp_parameters.codecs == [replace(H264_SENT, mime_type="video/H264"), H264_RTX_SENT]
    assert dump.rtp_parameters.header_extensions == VIDEO_EXTENSIONS
    assert [(e.codec_payload_type, e.ssrc, e.rtx) for e in dump.rtp_parameters.encodings] == [
        (112, ssrc, RtxParameters(ssrc + 1)) for ssrc in (2_000, 2_002, 2_004, 2_006)
    ]
    assert dump.rtp_parameters.encodings[0].scalability_mode == "L1T3"


@case("test-Producer", "producer.getStats() succeeds")
async def test_get_stats(audio: Producer, video: Producer) -> None:
    assert await audio.get_stats() == []
    assert await video.get_stats() == []


@case("test-Producer", "producer.pause() and resume() succeed")
async def test_pause_and_resume(audio: Producer) -> None:
    pauses, resumes = seen(audio.observer.on_pause), seen(audio.observer.on_resume)
    await audio.pause()
    assert (audio.paused, (await audio.dump()).paused) == (True, True)
    await audio.resume()
    assert (audio.paused, (await audio.dump()).paused) == (False, False)
    # Events follow what happened, not who waited.
    await asyncio.gather(
        audio.pause(), audio.resume(), audio.pause(), audio.pause(), audio.pause(), audio.resume()
    )
    assert (len(pauses), len(resumes)) == (3, 3)


@case("test-Producer", "producer.pause() and resume() emit events")
async def test_pause_and_resume_events(audio: Producer) -> None:
    events: list[str] = []
    audio.observer.on_resume.subscribe(lambda _: events.append("resume"))
    audio.observer.on_pause.subscribe(lambda _: events.append("pause"))
    await asyncio.gather(audio.pause(), audio.resume())
    assert events == ["pause", "resume"]
    assert not audio.paused


@case("test-Producer", "producer.enableTraceEvent() succeed")
async def test_enable_trace_event(audio: Producer) -> None:
    await audio.enable_trace_event(["rtp", "pli"])
    assert set((await audio.dump()).trace_event_types) == {"rtp", "pli"}
    await audio.enable_trace_event()
    assert (await audio.dump()).trace_event_types == []
    await audio.enable_trace_event(["nack", "fir"])
    assert set((await audio.dump()).trace_event_types) == {"nack", "fir"}
    await audio.enable_trace_event([])
    assert (await audio.dump()).trace_event_types == []


@case("test-Producer", "producer.enableTraceEvent() with wrong arguments rejects with TypeError")
@pytest.mark.parametrize("wrong", ["rtp", ["fir", "chicken"], ["fir", 123.1]])
async def test_enable_trace_event_wrong(audio: Producer, wrong: Any) -> None:
    await rejected(InvalidArgumentError, audio.enable_trace_event(wrong))
    assert (await audio.dump()).trace_event_types == []


@case("test-Producer", 'Producer emits "score"')
async def test_score(video: Producer) -> None:
    told = seen(video.on_score)
    scores = fbs.ScoreNotification(
        scores=[
            fbs.Score(encoding_idx=0, ssrc=11, rid=None, score=10),
            fbs.Score(encoding_idx=1, ssrc=22, rid=None, score=9),
        ]
    )
    for _ in range(3):
        await worker_says(video, WorkerEvent.PRODUCER_SCORE, scores)
    expected = [
        ProducerScore(encoding_idx=0, ssrc=11, score=10),
        ProducerScore(encoding_idx=1, ssrc=22, score=9),
    ]
    assert (told, video.score) == ([expected] * 3, expected)


@case("test-Producer", "producer.close() succeeds")
async def test_close(router: Router, transport: WebRtcTransport, audio: Producer) -> None:
    closes = seen(audio.observer.on_close)
    audio.close()
    assert closes == [CloseReason.CLOSED]
    assert audio.closed
    await refused(CloseReason.CLOSED, audio.dump())
    dump = await router.dump()
    assert (dump.map_producer_id_consumer_ids, dump.map_consumer_id_producer_id) == ({}, {})
    inside = await transport.dump()
    assert (inside.id, inside.producer_ids, inside.consumer_ids) == (transport.id, [], [])


@case("test-Producer", "Producer methods reject if closed")
async def test_closed(audio: Producer) -> None:
    audio.close()
    await refused(CloseReason.CLOSED, audio.dump(), audio.get_stats(), audio.pause(), audio.resume())


@case("test-Producer", 'Producer emits "transportclose" if Transport is closed')
async def test_transport_close(transport: WebRtcTransport, video: Producer) -> None:
    closes, told = seen(video.observer.on_close), soon(video.on_transport_close)
    transport.close()
    assert await told is CloseReason.TRANSPORT_CLOSED
    assert len(closes) == 1
    await refused(CloseReason.TRANSPORT_CLOSED, video.dump())
