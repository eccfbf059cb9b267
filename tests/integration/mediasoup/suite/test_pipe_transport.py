"""Cases of test-PipeTransport.js: producers and data producers in two routers, of two workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from support.mediasoup_suite import (
    FIR,
    GCM_KEY,
    LISTEN,
    LISTEN_TCP,
    NACK,
    PLI,
    REMB,
    SHA1_KEY,
    URI_ABS_SEND_TIME,
    URI_AUDIO_LEVEL,
    URI_CAPTURE_TIME,
    URI_DEPENDENCY,
    URI_MID,
    URI_OFFSET,
    URI_ORIENTATION,
    URI_PACKET_ID,
    URI_PLAYOUT_DELAY,
    URI_TRANSPORT_CC,
    case,
    extension,
    free_port,
    refused,
    rejected,
    seen,
    soon,
    until,
)

from mediaserver.mediasoup import (
    CloseReason,
    Consumer,
    ConsumerScore,
    DataConsumer,
    DataProducer,
    DataProducerId,
    InvalidArgumentError,
    NotFoundError,
    PipeTransport,
    Producer,
    ProducerId,
    RequestRejectedError,
    Router,
    RtcpFeedback,
    RtcpParameters,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtensionParameters,
    RtpParameters,
    SctpStreamParameters,
    SrtpParameters,
    TransportListenInfo,
    TransportPortRange,
    WebRtcTransport,
    Worker,
)
from mediaserver.mediasoup.errors import MediasoupError

MEDIA_CODECS = [
    RtpCodecCapability(mime_type="audio/opus", clock_rate=48_000, channels=2),
    RtpCodecCapability(mime_type="video/VP8", clock_rate=90_000),
]
AUDIO = RtpParameters(
    mid="AUDIO",
    codecs=[
        RtpCodecParameters(
            mime_type="audio/opus",
            payload_type=111,
            clock_rate=48_000,
            channels=2,
            parameters={"useinbandfec": 1, "room": "blue"},
        )
    ],
    header_extensions=[RtpHeaderExtensionParameters(uri=URI_MID, id=10)],
    encodings=[RtpEncodingParameters(ssrc=1_000)],
    rtcp=RtcpParameters(cname="ann"),
)
VP8_SENT = RtpCodecParameters(
    mime_type="video/VP8",
    payload_type=112,
    clock_rate=90_000,
    rtcp_feedback=[NACK, PLI, REMB, RtcpFeedback("made-up")],
)
VIDEO = RtpParameters(
    mid="VIDEO",
    codecs=[VP8_SENT],
    header_extensions=[
        RtpHeaderExtensionParameters(uri=URI_MID, id=10),
        RtpHeaderExtensionParameters(uri=URI_ABS_SEND_TIME, id=11),
        RtpHeaderExtensionParameters(uri=URI_ORIENTATION, id=13),
    ],
    encodings=[RtpEncodingParameters(ssrc=ssrc) for ssrc in (2_000, 2_001, 2_002)],
    rtcp=RtcpParameters(cname="ann"),
    msid="stream-1",
)
DEVICE = RtpCapabilities(
    codecs=[
        replace(MEDIA_CODECS[0], preferred_payload_type=100),
        replace(
            MEDIA_CODECS[1],
            preferred_payload_type=101,
            rtcp_feedback=[NACK, FIR, RtcpFeedback("transport-cc")],
        ),
        RtpCodecCapability(
            mime_type="video/rtx", preferred_payload_type=102, clock_rate=90_000, parameters={"apt": 101}
        ),
    ],
    header_extensions=[
        extension("video", URI_ABS_SEND_TIME, 4),
        extension("video", URI_TRANSPORT_CC, 5),
        extension("audio", URI_AUDIO_LEVEL, 6),
    ],
)
OPUS_PIPED = replace(AUDIO.codecs[0], payload_type=100)
VP8_PIPED = replace(VP8_SENT, payload_type=101, rtcp_feedback=[PLI, FIR])
RTX_PIPED = RtpCodecParameters(
    mime_type="video/rtx", payload_type=102, clock_rate=90_000, parameters={"apt": 101}
)
AUDIO_PIPED = [(URI_AUDIO_LEVEL, 6), (URI_DEPENDENCY, 7), (URI_PLAYOUT_DELAY, 11), (URI_PACKET_ID, 12)]
VIDEO_PIPED = [
    (URI_DEPENDENCY, 7),
    (URI_ORIENTATION, 8),
    (URI_OFFSET, 9),
    (URI_PLAYOUT_DELAY, 11),
    (URI_PACKET_ID, 12),
]
PIPE_SCORE = ConsumerScore(score=10, producer_score=10, producer_scores=[])


class Rooms(msgspec.Struct):
    """Two routers of two workers; who sends is at the first."""

    workers: list[Worker]
    near: Router
    far: Router
    sending: WebRtcTransport
    receiving: WebRtcTransport
    audio: Producer
    video: Producer
    data: DataProducer

    async def another(self, worker: int) -> Router:
        return await self.workers[worker].create_router(media_codecs=MEDIA_CODECS)

    async def consume(self, producer: Producer) -> Consumer:
        return await self.receiving.consume(producer_id=producer.id, rtp_capabilities=DEVICE)


@pytest.fixture
async def rooms(start_worker: Callable[[], Awaitable[Worker]]) -> Rooms:
    workers = [await start_worker(), await start_worker()]
    near, far = [await worker.create_router(media_codecs=MEDIA_CODECS) for worker in workers]
    sending = await near.create_webrtc_transport(listen_infos=[LISTEN], enable_sctp=True)
    receiving = await far.create_webrtc_transport(listen_infos=[LISTEN], enable_sctp=True)
    stream = SctpStreamParameters(stream_id=666, ordered=False, max_packet_life_time=5_000)
    return Rooms(
        workers,
        near,
        far,
        sending,
        receiving,
        await sending.produce(kind="audio", rtp_parameters=AUDIO, app_data={"n": 1}),
        await sending.produce(kind="video", rtp_parameters=VIDEO, app_data={"n": 2}),
        await sending.produce_data(sctp_stream_parameters=stream, label="news", protocol="text"),
    )


def extensions(params: RtpParameters) -> list[tuple[str, int]]:
    assert not any(found.encrypt or found.parameters for found in params.header_extensions)
    return [(found.uri, found.id) for found in params.header_extensions]


async def one_pipe_each(rooms: Rooms) -> None:
    """Beside the WebRtcTransport of each router there is one PipeTransport."""
    for router in (rooms.near, rooms.far):
        assert len((await router.dump()).transport_ids) == 2


def check_pipe_consumer(consumer: Consumer, *, producer_paused: bool) -> None:
    assert consumer.id
    assert (consumer.closed, consumer.type, consumer.rtp_parameters.mid) == (False, "pipe", None)
    assert (consumer.paused, consumer.producer_paused) == (False, producer_paused)
    assert (consumer.score, consumer.app_data) == (PIPE_SCORE, {})


def check_stream(stream: SctpStreamParameters | None) -> None:
    assert stream is not None
    assert (stream.ordered, stream.max_packet_life_time, stream.max_retransmits) == (False, 5_000, None)


@case("test-PipeTransport", "router.pipeToRouter() succeeds with audio")
async def test_pipe_audio(rooms: Rooms) -> None:
    piped = await rooms.near.pipe_to_router(producer_id=rooms.audio.id, router=rooms.far)
    await one_pipe_each(rooms)
    check_pipe_consumer(piped.pipe_consumer, producer_paused=False)
    assert piped.pipe_producer.id == rooms.audio.id
    assert (piped.pipe_producer.closed, piped.pipe_producer.paused) == (False, False)
    for end in (piped.pipe_consumer, piped.pipe_producer):
        assert (end.kind, end.rtp_parameters.mid, end.rtp_parameters.codecs) == ("audio", None, [OPUS_PIPED])
        assert extensions(end.rtp_parameters) == AUDIO_PIPED


@case("test-PipeTransport", "router.pipeToRouter() succeeds with video")
async def test_pipe_video(rooms: Rooms) -> None:
    await rooms.near.pipe_to_router(producer_id=rooms.audio.id, router=rooms.far)
    await rooms.video.pause()
    piped = await rooms.near.pipe_to_router(producer_id=rooms.video.id, router=rooms.far)
    await one_pipe_each(rooms)  # it shares the audio's
    check_pipe_consumer(piped.pipe_consumer, producer_paused=True)
    assert piped.pipe_producer.id == rooms.video.id
    assert (piped.pipe_producer.closed, piped.pipe_producer.paused) == (False, True)
    for end in (piped.pipe_consumer, piped.pipe_producer):
        assert (end.kind, end.rtp_parameters.mid, end.rtp_parameters.codecs) == ("video", None, [VP8_PIPED])
        assert extensions(end.rtp_parameters) == VIDEO_PIPED


@case(
    "test-PipeTransport",
    "router.pipeToRouter() gives abs-capture-time to the pipe Consumer if the Producer has it",
)
async def test_pipe_capture_time(rooms: Rooms) -> None:
    params = RtpParameters(
        mid="VIDEO2",
        codecs=[VP8_SENT],
        header_extensions=[RtpHeaderExtensionParameters(uri=URI_CAPTURE_TIME, id=12)],
        encodings=[RtpEncodingParameters(ssrc=4_000)],
        rtcp=RtcpParameters(cname="ann"),
    )
    producer = await rooms.sending.produce(kind="video", rtp_parameters=params)
    piped = await rooms.near.pipe_to_router(producer_id=producer.id, router=rooms.far)
    assert (URI_CAPTURE_TIME, 10) in extensions(piped.pipe_consumer.rtp_parameters)


@case(
    "test-PipeTransport",
    "router.pipeToRouter() with unknown router, producerId or dataProducerId fails",
)
async def test_pipe_unknown(rooms: Rooms) -> None:
    closed = await rooms.another(0)
    closed.close()
    await refused(CloseReason.CLOSED, rooms.near.pipe_to_router(router=closed, producer_id=rooms.video.id))
    await rejected(
        NotFoundError,
        rooms.near.pipe_to_router(router=rooms.far, producer_id=ProducerId("nobody")),
        rooms.near.pipe_to_router(router=rooms.far, data_producer_id=DataProducerId("nobody")),
    )


@case("test-PipeTransport", "router.createPipeTransport() with wrong arguments rejects with TypeError")
async def test_create_wrong(rooms: Rooms) -> None:
    create: Any = rooms.near.create_pipe_transport
    with pytest.raises(TypeError):
        await create()
    for info in (
        replace(LISTEN, port_range=TransportPortRange(min=4_000, max=3_000)),
        TransportListenInfo(ip="123"),
        LISTEN_TCP,
    ):
        await rejected(RequestRejectedError, rooms.near.create_pipe_transport(listen_info=info))


@case("test-PipeTransport", "router.createPipeTransport() with enableRtx succeeds")
async def test_create_rtx(rooms: Rooms) -> None:
    pipe = await rooms.near.create_pipe_transport(listen_info=LISTEN, enable_rtx=True)
    assert pipe.type == "pipe"
    consumer = await pipe.consume(producer_id=rooms.video.id)
    check_pipe_consumer(consumer, producer_paused=False)
    assert consumer.kind == "video"
    assert consumer.rtp_parameters.codecs == [
        replace(VP8_PIPED, rtcp_feedback=[NACK, PLI, FIR]),
        RTX_PIPED,
    ]
    assert extensions(consumer.rtp_parameters) == VIDEO_PIPED


@case("test-PipeTransport", "pipeTransport.connect() with valid SRTP parameters succeeds")
async def test_connect_srtp(rooms: Rooms) -> None:
    pipe = await rooms.near.create_pipe_transport(listen_info=LISTEN, enable_srtp=True)
    assert pipe.srtp_parameters is not None
    assert (pipe.srtp_parameters.crypto_suite, len(pipe.srtp_parameters.key_base64)) == (
        "AEAD_AES_256_GCM",
        60,
    )
    await pipe.connect(ip="127.0.0.2", port=9_999, srtp_parameters=GCM_KEY)
    assert (pipe.tuple.remote_ip, pipe.tuple.remote_port) == ("127.0.0.2", 9_999)


@case("test-PipeTransport", "pipeTransport.connect() with srtpParameters fails if enableSrtp is unset")
async def test_connect_srtp_unset(rooms: Rooms) -> None:
    pipe = await rooms.near.create_pipe_transport(listen_info=LISTEN, enable_rtx=True)
    assert pipe.srtp_parameters is None
    for key in (GCM_KEY, SHA1_KEY):
        await rejected(RequestRejectedError, pipe.connect(ip="127.0.0.2", port=9_999, srtp_parameters=key))


@case("test-PipeTransport", "pipeTransport.connect() with invalid srtpParameters fails")
async def test_connect_srtp_invalid(rooms: Rooms) -> None:
    pipe = await rooms.near.create_pipe_transport(listen_info=LISTEN, enable_srtp=True)
    await rejected(RequestRejectedError, pipe.connect(ip="127.0.0.2", port=9_999))
    wrong: Any = "chicken"
    unknown_suite = SrtpParameters(crypto_suite=wrong, key_base64=GCM_KEY.key_base64)
    await rejected(
        InvalidArgumentError, pipe.connect(ip="127.0.0.2", port=9_999, srtp_parameters=unknown_suite)
    )
    for key in ("", "c2hvcnQ=", SHA1_KEY.key_base64):
        short = SrtpParameters(crypto_suite="AEAD_AES_256_GCM", key_base64=key)
        await rejected(RequestRejectedError, pipe.connect(ip="127.0.0.2", port=9_999, srtp_parameters=short))


@case("test-PipeTransport", "router.createPipeTransport() with fixed port succeeds")
async def test_create_fixed_port(rooms: Rooms) -> None:
    port = free_port()
    pipe = await rooms.near.create_pipe_transport(listen_info=replace(LISTEN, port=port))
    assert pipe.tuple.local_port == port


@case("test-PipeTransport", "transport.consume() for a pipe Producer succeeds")
async def test_consume_piped(rooms: Rooms) -> None:
    piped = await rooms.near.pipe_to_router(producer_id=rooms.video.id, router=rooms.far)
    consumer = await rooms.consume(piped.pipe_producer)
    params = consumer.rtp_parameters
    assert (consumer.closed, consumer.kind, consumer.type, params.mid) == (False, "video", "simulcast", "0")
    feedback = [NACK, FIR, RtcpFeedback("transport-cc")]
    assert params.codecs == [replace(VP8_PIPED, rtcp_feedback=feedback), RTX_PIPED]
    assert extensions(params) == [(URI_ABS_SEND_TIME, 4), (URI_TRANSPORT_CC, 5)]
    (encoding,) = params.encodings
    assert encoding.ssrc is not None
    assert encoding.rtx is not None
    assert params.msid == "stream-1"
    assert (consumer.paused, consumer.producer_paused, consumer.app_data) == (False, False, {})
    assert consumer.score == ConsumerScore(score=10, producer_score=0, producer_scores=[0, 0, 0])


@case("test-PipeTransport", "producer.pause() and producer.resume() are transmitted to pipe Consumer")
async def test_pause_is_transmitted(rooms: Rooms) -> None:
    await rooms.video.pause()
    piped = await rooms.near.pipe_to_router(producer_id=rooms.video.id, router=rooms.far)
    consumer = await rooms.consume(piped.pipe_producer)
    assert (rooms.video.paused, consumer.producer_paused, consumer.paused) == (True, True, False)
    told = soon(consumer.on_producer_resume), soon(piped.pipe_producer.observer.on_resume)
    await rooms.video.resume()
    await asyncio.gather(*told)
    assert (consumer.producer_paused, consumer.paused, piped.pipe_producer.paused) == (False, False, False)
    told = soon(consumer.on_producer_pause), soon(piped.pipe_producer.observer.on_pause)
    await rooms.video.pause()
    await asyncio.gather(*told)
    assert (consumer.producer_paused, consumer.paused, piped.pipe_producer.paused) == (True, False, True)


@case("test-PipeTransport", "producer.close() is transmitted to pipe Consumer")
async def test_close_is_transmitted(rooms: Rooms) -> None:
    piped = await rooms.near.pipe_to_router(producer_id=rooms.video.id, router=rooms.far)
    consumer = await rooms.consume(piped.pipe_producer)
    rooms.video.close()
    await until(lambda: consumer.closed, "the far consumer closes")
    assert piped.pipe_producer.closed
    await refused(CloseReason.PRODUCER_CLOSED, consumer.dump())


@case(
    "test-PipeTransport",
    "router.pipeToRouter() with keepId: true fails if both Routers belong to the same Worker",
)
async def test_keep_id_in_one_worker(rooms: Rooms) -> None:
    beside = await rooms.another(0)
    await rejected(
        MediasoupError,
        rooms.near.pipe_to_router(producer_id=rooms.video.id, router=beside, keep_id=True),
    )
    assert beside.producers == {}


@case(
    "test-PipeTransport",
    "router.pipeToRouter() with keepId: false does not fail if both Routers belong to the same Worker",
)
async def test_new_id_in_one_worker(rooms: Rooms) -> None:
    beside = await rooms.another(0)
    piped = await rooms.near.pipe_to_router(producer_id=rooms.video.id, router=beside, keep_id=False)
    assert piped.pipe_producer.id != rooms.video.id
    assert list(beside.producers) == [piped.pipe_producer.id]


@case("test-PipeTransport", "router.pipeToRouter() succeeds with data")
async def test_pipe_data(rooms: Rooms) -> None:
    piped = await rooms.near.pipe_to_router(data_producer_id=rooms.data.id, router=rooms.far)
    await one_pipe_each(rooms)
    assert piped.pipe_data_consumer.id
    assert piped.pipe_data_producer.id == rooms.data.id
    for end in (piped.pipe_data_consumer, piped.pipe_data_producer):
        assert (end.closed, end.type, end.label, end.protocol) == (False, "sctp", "news", "text")
        check_stream(end.sctp_stream_parameters)


@case("test-PipeTransport", "transport.consumeData() for a pipe DataProducer succeeds")
async def test_consume_piped_data(rooms: Rooms) -> None:
    piped = await rooms.near.pipe_to_router(data_producer_id=rooms.data.id, router=rooms.far)
    consumer = await rooms.receiving.consume_data(data_producer_id=piped.pipe_data_producer.id)
    assert (consumer.closed, consumer.type, consumer.label, consumer.protocol) == (
        False,
        "sctp",
        "news",
        "text",
    )
    check_stream(consumer.sctp_stream_parameters)


async def direct_pipe(rooms: Rooms) -> tuple[DataProducer, DataConsumer]:
    """A data producer of this process, and the consumer that pipes it to the far router."""
    producer = await (await rooms.near.create_direct_transport()).produce_data(label="news")
    piped = await rooms.near.pipe_to_router(data_producer_id=producer.id, router=rooms.far)
    return producer, piped.pipe_data_consumer


def texts(consumer: DataConsumer) -> list[str]:
    got: list[str] = []
    consumer.on_message.subscribe(lambda message: got.append(message.data.decode()))
    return got


@case("test-PipeTransport", "transport.consumeData() for a pipe DataProducer succeeds with subchannels")
async def test_piped_subchannels(rooms: Rooms) -> None:
    producer, pipe = await direct_pipe(rooms)
    there = await rooms.far.create_direct_transport()
    consumer = await there.consume_data(data_producer_id=producer.id, subchannels=[123, 666, 777])
    got = texts(consumer)
    # A pipe without subchannels lets everything pass.
    producer.send("1", subchannels=[123, 124], required_subchannel=666)
    await pipe.set_subchannels([123, 124, 666])
    producer.send("2", subchannels=[123], required_subchannel=666)
    producer.send("stopped at the end", subchannels=[124], required_subchannel=666)
    producer.send("stopped at the pipe", subchannels=[125], required_subchannel=666)
    producer.send("ignored", subchannels=[123], ignored_subchannel=666)
    producer.send("ignored though required", required_subchannel=123, ignored_subchannel=777)
    producer.send("bye")
    await until(lambda: "bye" in got, "the last message")
    assert got == ["1", "2", "bye"]


@case(
    "test-PipeTransport",
    "transport.consumeData() for a pipe DataProducer succeeds with ignoredSubchannel",
)
async def test_piped_ignored_subchannel(rooms: Rooms) -> None:
    producer, pipe = await direct_pipe(rooms)
    there = await rooms.far.create_direct_transport()
    first = texts(await there.consume_data(data_producer_id=producer.id, subchannels=[111]))
    second = texts(await there.consume_data(data_producer_id=producer.id, subchannels=[222]))
    await pipe.set_subchannels([111, 222])
    # It is the ends that ignore, not the pipe, which has both subchannels.
    producer.send("hello", ignored_subchannel=111)
    producer.send("bye")
    await until(lambda: "bye" in first and "bye" in second, "the last message")
    assert (first, second) == (["bye"], ["hello", "bye"])


@case("test-PipeTransport", "dataProducer.close() is transmitted to pipe DataConsumer")
async def test_data_close_is_transmitted(rooms: Rooms) -> None:
    piped = await rooms.near.pipe_to_router(data_producer_id=rooms.data.id, router=rooms.far)
    consumer = await rooms.receiving.consume_data(data_producer_id=piped.pipe_data_producer.id)
    rooms.data.close()
    await until(lambda: consumer.closed, "the far data consumer closes")
    await refused(CloseReason.PRODUCER_CLOSED, consumer.dump())


@case("test-PipeTransport", "router.pipeToRouter() called twice generates a single PipeTransport pair")
async def test_piped_twice(rooms: Rooms) -> None:
    here, there = await rooms.another(0), await rooms.another(1)
    transports = [await here.create_webrtc_transport(listen_infos=[LISTEN]) for _ in range(2)]
    producers = [await made.produce(kind="audio", rtp_parameters=AUDIO) for made in transports]
    await asyncio.gather(
        *(here.pipe_to_router(producer_id=producer.id, router=there) for producer in producers)
    )
    assert len((await here.dump()).transport_ids) == 3
    assert len((await there.dump()).transport_ids) == 1


@case(
    "test-PipeTransport",
    "router.pipeToRouter() called in two Routers passing one to each other as argument generates a single "
    "PipeTransport pair",
)
async def test_piped_both_ways(rooms: Rooms) -> None:
    routers = [await rooms.another(0), await rooms.another(1)]
    producers = [
        await (await router.create_webrtc_transport(listen_infos=[LISTEN])).produce(
            kind="audio", rtp_parameters=AUDIO
        )
        for router in routers
    ]
    made = [seen(router.observer.on_new_transport) for router in routers]
    await asyncio.gather(
        routers[0].pipe_to_router(producer_id=producers[0].id, router=routers[1]),
        routers[1].pipe_to_router(producer_id=producers[1].id, router=routers[0]),
    )
    (one,), (other,) = made
    assert isinstance(one, PipeTransport)
    assert isinstance(other, PipeTransport)
    assert one.tuple.local_port == other.tuple.remote_port
    assert other.tuple.local_port == one.tuple.remote_port
    routers[0].close()
    assert (one.closed, other.closed) == (True, True)


@case("test-PipeTransport", "router.pipeToRouter() with neither producerId nor dataProducerId fails")
async def test_pipe_nothing(rooms: Rooms) -> None:
    pipe: Any = rooms.near.pipe_to_router
    await rejected(InvalidArgumentError, pipe(router=await rooms.another(0)))


@case("test-PipeTransport", "router.pipeToRouter() with both producerId and dataProducerId fails")
async def test_pipe_both(rooms: Rooms) -> None:
    pipe: Any = rooms.near.pipe_to_router
    beside = await rooms.another(0)
    await rejected(
        InvalidArgumentError,
        pipe(router=beside, producer_id=rooms.video.id, data_producer_id=rooms.data.id),
    )
