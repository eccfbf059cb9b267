"""Pipes between routers of two workers: SRTP, RTX under loss, pause, close and key frames across."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import msgspec
import pytest
from integration.mediasoup.rtp import (
    LOOPBACK,
    MEDIA_CODECS,
    RtpEndpoint,
    audio_parameters,
    next_value,
    numbers,
    plain_sink,
    plain_source,
    send_audio,
    send_video,
    until,
    video_parameters,
)

from mediaserver.mediasoup import (
    CloseReason,
    Consumer,
    PipeTransport,
    Producer,
    RequestRejectedError,
    Router,
    SrtpParameters,
    Worker,
)

OpenEndpoint = Callable[[], Awaitable[RtpEndpoint]]


class Pipe(msgspec.Struct):
    """Two routers, each in a worker of its own, and the pipe between them."""

    near: Router
    far: Router
    near_end: PipeTransport
    far_end: PipeTransport

    async def carry(
        self, producer: Producer, *, key_frame_request_delay: int = 0
    ) -> tuple[Consumer, Producer]:
        consumer = await self.near_end.consume(producer_id=producer.id)
        piped = await self.far_end.produce(
            id=producer.id,
            kind=consumer.kind,
            rtp_parameters=consumer.rtp_parameters,
            paused=consumer.producer_paused,
            key_frame_request_delay=key_frame_request_delay,
        )
        return consumer, piped


MakePipe = Callable[..., Awaitable[Pipe]]


class LossyRelay(asyncio.DatagramProtocol):
    """Stands between two ends: passes everything, except what `drop` picks by its place in the stream."""

    def __init__(self, drop: Callable[[int], bool]) -> None:
        self._drop = drop
        self._count = 0
        self.dropped = 0
        self.transport: asyncio.DatagramTransport
        self.peer: LossyRelay
        self.target: tuple[str, int]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    @property
    def port(self) -> int:
        return int(self.transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not 192 <= data[1] <= 223:  # RTCP always passes
            self._count += 1
            if self._drop(self._count):
                self.dropped += 1
                return
        self.peer.transport.sendto(data, self.peer.target)


@pytest.fixture
async def make_pipe(start_worker: Callable[[], Awaitable[Worker]]) -> AsyncIterator[MakePipe]:
    relays: list[LossyRelay] = []

    async def make(
        *,
        enable_srtp: bool = False,
        enable_rtx: bool = False,
        drop: Callable[[int], bool] | None = None,
    ) -> Pipe:
        routers = [await (await start_worker()).create_router(media_codecs=MEDIA_CODECS) for _ in range(2)]
        near, far = [
            await router.create_pipe_transport(
                listen_info=LOOPBACK, enable_srtp=enable_srtp, enable_rtx=enable_rtx
            )
            for router in routers
        ]
        ports = near.tuple.local_port, far.tuple.local_port
        if drop is not None:
            loop = asyncio.get_running_loop()
            for picks in (drop, lambda _: False):
                _, relay = await loop.create_datagram_endpoint(
                    lambda picks=picks: LossyRelay(picks),  # type: ignore[misc]
                    local_addr=("127.0.0.1", 0),
                )
                relays.append(relay)
            near_side, far_side = relays
            near_side.peer, far_side.peer = far_side, near_side
            near_side.target, far_side.target = ("127.0.0.1", ports[0]), ("127.0.0.1", ports[1])
            ports = far_side.port, near_side.port
        await near.connect(ip="127.0.0.1", port=ports[1], srtp_parameters=far.srtp_parameters)
        await far.connect(ip="127.0.0.1", port=ports[0], srtp_parameters=near.srtp_parameters)
        return Pipe(routers[0], routers[1], near, far)

    yield make
    for relay in relays:
        relay.transport.close()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "srtp and rtx"])
async def test_media_crosses_two_workers(
    make_pipe: MakePipe, open_endpoint: OpenEndpoint, secure: bool
) -> None:
    pipe = await make_pipe(enable_srtp=secure, enable_rtx=secure)
    sender, receiver = await open_endpoint(), await open_endpoint()
    source, sink = await plain_source(pipe.near), await plain_sink(pipe.far, receiver)
    audio = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111, cname="me"))
    video = await source.produce(kind="video", rtp_parameters=video_parameters(2222, rtx=True))
    piped = [await pipe.carry(producer) for producer in (audio, video)]
    assert [producer.id for _, producer in piped] == [audio.id, video.id]
    assert [consumer.type for consumer, _ in piped] == ["pipe", "pipe"]
    assert [producer.rtp_parameters.rtcp.cname for _, producer in piped] == ["me", "me"]
    assert piped[1][0].score.score == 10
    consumers = [
        await sink.consume(producer_id=producer.id, rtp_capabilities=pipe.far.rtp_capabilities)
        for _, producer in piped
    ]
    await asyncio.gather(send_audio(sender, source, 1111, 200), send_video(sender, source, 2222, 200))
    for consumer in consumers:
        ssrc = consumer.rtp_parameters.encodings[0].ssrc or 0
        await until(lambda ssrc=ssrc: 200 in numbers(receiver.rtp, ssrc), "the last packet arrives")  # type: ignore[misc]
        assert numbers(receiver.rtp, ssrc) == list(range(1, 201))
    stats = await pipe.near_end.get_stats(), await pipe.far_end.get_stats()
    assert stats[0].rtp_bytes_sent >= stats[1].rtp_bytes_received > 0
    assert stats[0].type == "pipe-transport"
    dump = await pipe.near_end.dump()
    assert (dump.rtx, dump.srtp_parameters is not None) == (secure, secure)


async def test_srtp_parameters_of_a_pipe(make_pipe: MakePipe) -> None:
    pipe = await make_pipe(enable_srtp=True)
    ours, theirs = pipe.near_end.srtp_parameters, pipe.far_end.srtp_parameters
    assert ours is not None
    assert theirs is not None
    assert (ours.crypto_suite, len(base64.b64decode(ours.key_base64))) == ("AEAD_AES_256_GCM", 44)
    assert ours.key_base64 != theirs.key_base64
    assert ours.key_base64 not in f"{ours} {ours!r} {await pipe.near_end.dump()}"
    assert pipe.near_end.tuple.remote_port == pipe.far_end.tuple.local_port

    fresh = await pipe.near.create_pipe_transport(listen_info=LOOPBACK, enable_srtp=True)
    for wrong in (
        None,
        SrtpParameters(crypto_suite="AEAD_AES_256_GCM", key_base64="c2hvcnQ="),
        SrtpParameters(crypto_suite="AES_CM_128_HMAC_SHA1_80", key_base64=ours.key_base64),
    ):
        with pytest.raises(RequestRejectedError, match="PIPETRANSPORT_CONNECT"):
            await fresh.connect(ip="127.0.0.1", port=9, srtp_parameters=wrong)
    bare = await pipe.near.create_pipe_transport(listen_info=LOOPBACK)
    assert bare.srtp_parameters is None
    with pytest.raises(RequestRejectedError):
        await bare.connect(ip="127.0.0.1", port=9, srtp_parameters=theirs)
    with pytest.raises(RequestRejectedError):  # a second time
        await pipe.near_end.connect(ip="127.0.0.1", port=9, srtp_parameters=theirs)


async def test_rtx_carries_again_what_a_pipe_loses(make_pipe: MakePipe, open_endpoint: OpenEndpoint) -> None:
    """Every tenth packet between the workers is lost; with RTX, over SRTP, the far side gets them all."""
    pipe = await make_pipe(enable_srtp=True, enable_rtx=True, drop=lambda number: number % 10 == 5)
    sender, receiver = await open_endpoint(), await open_endpoint()
    source, sink = await plain_source(pipe.near), await plain_sink(pipe.far, receiver)
    video = await source.produce(kind="video", rtp_parameters=video_parameters(2222, rtx=True))
    consumer, piped = await pipe.carry(video)
    assert [codec.mime_type for codec in consumer.rtp_parameters.codecs] == ["video/VP8", "video/rtx"]
    assert consumer.rtp_parameters.encodings[0].rtx is not None
    last = await sink.consume(producer_id=piped.id, rtp_capabilities=pipe.far.rtp_capabilities)
    ssrc = last.rtp_parameters.encodings[0].ssrc or 0
    await send_video(sender, source, 2222, 200, gap=0.005)
    await until(lambda: set(numbers(receiver.rtp, ssrc)) >= set(range(1, 196)), "lost packets are sent again")
    (received,) = await piped.get_stats()
    assert received.packets_repaired >= 15
    assert received.nack_count >= 1
    sent = next(stats for stats in await consumer.get_stats() if stats.type == "outbound-rtp")
    assert sent.packets_retransmitted >= 15
    assert (await pipe.far_end.get_stats()).rtx_bytes_received > 0


async def test_without_rtx_what_a_pipe_loses_is_lost(
    make_pipe: MakePipe, open_endpoint: OpenEndpoint
) -> None:
    pipe = await make_pipe(drop=lambda number: number % 10 == 5)
    sender, receiver = await open_endpoint(), await open_endpoint()
    source, sink = await plain_source(pipe.near), await plain_sink(pipe.far, receiver)
    video = await source.produce(kind="video", rtp_parameters=video_parameters(2222, rtx=True))
    consumer, piped = await pipe.carry(video)
    assert [codec.mime_type for codec in consumer.rtp_parameters.codecs] == ["video/VP8"]
    last = await sink.consume(producer_id=piped.id, rtp_capabilities=pipe.far.rtp_capabilities)
    ssrc = last.rtp_parameters.encodings[0].ssrc or 0
    await send_video(sender, source, 2222, 100)
    await until(lambda: 100 in numbers(receiver.rtp, ssrc), "the last packet arrives")
    assert len(set(numbers(receiver.rtp, ssrc))) == 90


async def test_simulcast_crosses_with_all_its_encodings(
    make_pipe: MakePipe, open_endpoint: OpenEndpoint
) -> None:
    pipe = await make_pipe(enable_rtx=True)
    source = await plain_source(pipe.near)
    video = await source.produce(kind="video", rtp_parameters=video_parameters(1000, 2000, 3000, rtx=True))
    consumer, piped = await pipe.carry(video)
    ssrcs = [encoding.ssrc for encoding in consumer.rtp_parameters.encodings]
    assert len(set(ssrcs)) == 3
    assert not set(ssrcs) & {1000, 2000, 3000}
    assert piped.type == "simulcast"
    sink = await plain_sink(pipe.far, await open_endpoint())
    last = await sink.consume(producer_id=piped.id, rtp_capabilities=pipe.far.rtp_capabilities)
    assert last.rtp_parameters.encodings[0].scalability_mode == "L3T3"


async def test_pause_of_the_origin_is_seen_and_can_be_mirrored(
    make_pipe: MakePipe, open_endpoint: OpenEndpoint
) -> None:
    pipe = await make_pipe()
    source = await plain_source(pipe.near)
    audio = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111), paused=True)
    consumer, piped = await pipe.carry(audio)
    assert (consumer.producer_paused, piped.paused) == (True, True)
    resumed = asyncio.ensure_future(next_value(consumer.on_producer_resume))
    await audio.resume()
    await resumed
    await piped.resume()
    assert not piped.paused
    sink = await plain_sink(pipe.far, await open_endpoint())
    last = await sink.consume(producer_id=piped.id, rtp_capabilities=pipe.far.rtp_capabilities)
    paused = asyncio.ensure_future(next_value(last.on_producer_pause))
    await piped.pause()
    await paused


async def test_close_of_the_origin_is_seen_at_the_pipe(make_pipe: MakePipe) -> None:
    pipe = await make_pipe()
    source = await plain_source(pipe.near)
    audio = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    consumer, piped = await pipe.carry(audio)
    closed = asyncio.ensure_future(next_value(consumer.on_close))
    source.close()
    assert await closed is CloseReason.PRODUCER_CLOSED
    assert not piped.closed  # whoever made the pair closes it
    pipe.far_end.close()
    assert piped.close_reason is CloseReason.TRANSPORT_CLOSED


async def test_a_key_frame_request_crosses_the_pipe(make_pipe: MakePipe, open_endpoint: OpenEndpoint) -> None:
    pipe = await make_pipe(enable_srtp=True, enable_rtx=True)
    sender, receiver = await open_endpoint(), await open_endpoint()
    source, sink = await plain_source(pipe.near), await plain_sink(pipe.far, receiver)
    video = await source.produce(kind="video", rtp_parameters=video_parameters(2222, rtx=True))
    _, piped = await pipe.carry(video, key_frame_request_delay=10)
    last = await sink.consume(producer_id=piped.id, rtp_capabilities=pipe.far.rtp_capabilities)
    ssrc = last.rtp_parameters.encodings[0].ssrc or 0
    await send_video(sender, source, 2222, 10)
    await until(lambda: 10 in numbers(receiver.rtp, ssrc), "media arrives")
    before = sender.key_frame_requests()
    await last.request_key_frame()
    await until(lambda: sender.key_frame_requests() > before, "the sender is asked")


async def test_a_producer_keeps_no_foreign_clock(make_pipe: MakePipe) -> None:
    """Producers on a pipe that come without CNAME get one each; on other transports they share one."""
    pipe = await make_pipe()
    producers = [
        await pipe.far_end.produce(kind="audio", rtp_parameters=audio_parameters(ssrc)) for ssrc in (1, 2)
    ]
    names = {producer.rtp_parameters.rtcp.cname for producer in producers}
    assert len(names) == 2
    assert None not in names
