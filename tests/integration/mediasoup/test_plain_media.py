"""Real RTP through a router: PlainTransports, producers, consumers, pause, layers, key frames."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from integration.mediasoup.rtp import (
    LOOPBACK,
    Packet,
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
    vp8,
)

from mediaserver.mediasoup import (
    ClosedError,
    CloseReason,
    ConsumerLayers,
    InvalidArgumentError,
    NotFoundError,
    ProducerId,
    RequestRejectedError,
    Router,
    RtpCapabilities,
    SrtpParameters,
    TransportTuple,
    UnsupportedError,
)

OpenEndpoint = Callable[[], Awaitable[RtpEndpoint]]


async def test_audio_and_video_arrive_whole(router: Router, open_endpoint: OpenEndpoint) -> None:
    sender, receiver = await open_endpoint(), await open_endpoint()
    source, sink = await plain_source(router), await plain_sink(router, receiver)
    learnt: list[TransportTuple] = []
    source.on_tuple.subscribe(learnt.append)
    audio = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    video = await source.produce(kind="video", rtp_parameters=video_parameters(2222), app_data={"a": 1})
    assert (audio.type, video.type, video.app_data) == ("simple", "simple", {"a": 1})
    assert audio.rtp_parameters.rtcp.cname == video.rtp_parameters.rtcp.cname
    assert dict(router.producers) == {audio.id: audio, video.id: video}
    consumers = [
        await sink.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
        for producer in (audio, video)
    ]
    assert [consumer.rtp_parameters.mid for consumer in consumers] == ["0", "1"]
    assert [consumer.type for consumer in consumers] == ["simple", "simple"]
    await asyncio.gather(send_audio(sender, source, 1111, 50), send_video(sender, source, 2222, 50))
    ssrcs = [consumer.rtp_parameters.encodings[0].ssrc or 0 for consumer in consumers]
    await until(
        lambda: [len(numbers(receiver.rtp, ssrc)) for ssrc in ssrcs] == [50, 50], "all packets arrive"
    )
    for ssrc in ssrcs:
        assert numbers(receiver.rtp, ssrc) == list(range(1, 51))
    payload_types = {packet.ssrc: packet.payload_type for packet in receiver.rtp if packet.ssrc in ssrcs}
    assert payload_types == {
        ssrc: consumer.rtp_parameters.codecs[0].payload_type
        for ssrc, consumer in zip(ssrcs, consumers, strict=True)
    }
    assert [value.remote_port for value in learnt] == [sender.port]
    assert source.tuple.remote_port == sender.port

    (received,) = await video.get_stats()
    assert (received.type, received.ssrc, received.packet_count) == ("inbound-rtp", 2222, 50)
    sent = {stats.type: stats for stats in await consumers[1].get_stats()}
    assert sent["outbound-rtp"].packet_count == 50
    assert (await source.get_stats()).rtp_bytes_received > 0
    assert (await sink.get_stats()).rtp_bytes_sent > 0
    dump = await router.dump()
    assert dump.map_producer_id_consumer_ids == {audio.id: [consumers[0].id], video.id: [consumers[1].id]}
    video_dump = await video.dump()
    assert [encoding.ssrc for encoding in video_dump.rtp_parameters.encodings] == [2222]
    assert video_dump.rtp_mapping.codecs[0].payload_type == 96
    assert video_dump.rtp_streams[0].params.use_pli
    assert (await consumers[1].dump()).producer_id == video.id
    assert sorted((await source.dump()).producer_ids) == sorted([audio.id, video.id])
    assert set((await source.dump()).rtp_listener.ssrc_table) == {1111, 2222}


async def test_pause_and_resume_stop_and_start_the_media(router: Router, open_endpoint: OpenEndpoint) -> None:
    sender, receiver = await open_endpoint(), await open_endpoint()
    source, sink = await plain_source(router), await plain_sink(router, receiver)
    producer = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    consumer = await sink.consume(
        producer_id=producer.id, rtp_capabilities=router.rtp_capabilities, paused=True
    )
    ssrc = consumer.rtp_parameters.encodings[0].ssrc or 0
    seen: list[str] = []
    consumer.on_producer_pause.subscribe(lambda _: seen.append("producer pause"))
    consumer.on_producer_resume.subscribe(lambda _: seen.append("producer resume"))
    consumer.on_pause.subscribe(lambda _: seen.append("pause"))
    consumer.on_resume.subscribe(lambda _: seen.append("resume"))

    await send_audio(sender, source, 1111, 10, first=1)
    await until(lambda: source.tuple.remote_port, "packets reach the worker")
    assert (consumer.paused, consumer.producer_paused) == (True, False)
    await consumer.resume()
    await send_audio(sender, source, 1111, 10, first=101)
    await until(lambda: 110 in numbers(receiver.rtp, ssrc), "media after resume")

    producer_paused = asyncio.ensure_future(next_value(consumer.on_producer_pause))
    await producer.pause()
    await producer_paused
    assert (producer.paused, consumer.producer_paused, consumer.paused) == (True, True, False)
    await send_audio(sender, source, 1111, 10, first=201)
    producer_resumed = asyncio.ensure_future(next_value(consumer.on_producer_resume))
    await producer.resume()
    await producer_resumed
    await send_audio(sender, source, 1111, 10, first=301)
    await until(lambda: 310 in numbers(receiver.rtp, ssrc), "media after the producer's resume")
    await consumer.pause()
    await consumer.pause()

    arrived = numbers(receiver.rtp, ssrc)
    assert not [number for number in arrived if number < 101 or 200 < number <= 300]
    assert seen == ["resume", "producer pause", "pause", "producer resume", "resume", "pause"]


async def test_a_consumer_of_a_paused_producer_knows_it(router: Router, open_endpoint: OpenEndpoint) -> None:
    source, sink = await plain_source(router), await plain_sink(router, await open_endpoint())
    producer = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111), paused=True)
    assert producer.paused
    consumer = await sink.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    assert (consumer.paused, consumer.producer_paused) == (False, True)


async def test_key_frames_are_requested_from_the_sender(router: Router, open_endpoint: OpenEndpoint) -> None:
    sender, receiver = await open_endpoint(), await open_endpoint()
    source, sink = await plain_source(router), await plain_sink(router, receiver)
    producer = await source.produce(kind="video", rtp_parameters=video_parameters(2222))
    await send_video(sender, source, 2222, 3)
    await until(lambda: source.tuple.remote_port, "packets reach the worker")
    consumer = await sink.consume(
        producer_id=producer.id, rtp_capabilities=router.rtp_capabilities, paused=True
    )
    await consumer.resume()
    await until(lambda: sender.key_frame_requests() >= 1, "resume asks for a key frame")
    await send_video(sender, source, 2222, 1, first=4)
    ssrc = consumer.rtp_parameters.encodings[0].ssrc or 0
    await until(lambda: 4 in numbers(receiver.rtp, ssrc), "the key frame arrives")
    before = sender.key_frame_requests()
    await consumer.request_key_frame()
    await until(lambda: sender.key_frame_requests() > before, "an explicit request")


async def test_simulcast_layers(router: Router, open_endpoint: OpenEndpoint) -> None:
    sender, receiver = await open_endpoint(), await open_endpoint()
    source, sink = await plain_source(router), await plain_sink(router, receiver)
    producer = await source.produce(kind="video", rtp_parameters=video_parameters(1000, 2000, 3000))
    assert producer.type == "simulcast"
    consumer = await sink.consume(
        producer_id=producer.id,
        rtp_capabilities=router.rtp_capabilities,
        preferred_layers=ConsumerLayers(spatial_layer=2),
    )
    assert consumer.type == "simulcast"
    assert consumer.preferred_layers == ConsumerLayers(spatial_layer=2, temporal_layer=2)
    assert consumer.rtp_parameters.encodings[0].scalability_mode == "L3T3"
    changes: list[ConsumerLayers | None] = []
    consumer.on_layers_change.subscribe(changes.append)
    stop = asyncio.Event()

    async def send_all() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for ssrc in (1000, 2000, 3000):
                sender.send(source, Packet(96, number, number * 3000, ssrc, vp8(number)))
            await asyncio.sleep(0.005)

    sending = asyncio.create_task(send_all())
    try:
        await until(lambda: changes and changes[-1], "some layer is sent")
        await consumer.set_preferred_layers(ConsumerLayers(spatial_layer=0, temporal_layer=0))
        assert consumer.preferred_layers == ConsumerLayers(spatial_layer=0, temporal_layer=0)
        await until(
            lambda: consumer.current_layers is not None and consumer.current_layers.spatial_layer == 0,
            "the lowest layer is sent",
        )
        await until(lambda: len(producer.score) == 3, "the score of each stream")
        assert {score.ssrc for score in producer.score} == {1000, 2000, 3000}
        assert len(consumer.score.producer_scores) == 3
    finally:
        stop.set()
        await sending
    dump = await consumer.dump()
    assert (dump.type, dump.preferred_spatial_layer) == ("simulcast", 0)
    with pytest.raises(InvalidArgumentError, match="spatial_layer"):
        await consumer.set_preferred_layers(ConsumerLayers(spatial_layer=300))


async def test_priority(router: Router, open_endpoint: OpenEndpoint) -> None:
    source, sink = await plain_source(router), await plain_sink(router, await open_endpoint())
    producer = await source.produce(kind="video", rtp_parameters=video_parameters(2222))
    consumer = await sink.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    assert consumer.priority == 1
    await consumer.set_priority(7)
    assert (consumer.priority, (await consumer.dump()).priority) == (7, 7)
    await consumer.unset_priority()
    assert consumer.priority == 1
    for wrong in (0, 256):
        with pytest.raises(InvalidArgumentError, match="priority"):
            await consumer.set_priority(wrong)
    # Without layers there is nothing to prefer.
    await consumer.set_preferred_layers(ConsumerLayers(spatial_layer=1))
    assert consumer.preferred_layers is None


async def test_a_closing_producer_closes_its_consumers(router: Router, open_endpoint: OpenEndpoint) -> None:
    source, sink = await plain_source(router), await plain_sink(router, await open_endpoint())
    producer = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    consumer = await sink.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    seen: list[str] = []
    consumer.on_producer_close.subscribe(lambda _: seen.append("producer close"))
    consumer.on_transport_close.subscribe(lambda _: seen.append("transport close"))
    closed = asyncio.ensure_future(next_value(consumer.on_close))
    producer.close()
    assert await closed is CloseReason.PRODUCER_CLOSED
    assert seen == ["producer close"]
    assert (sink.consumers, source.producers, dict(router.producers)) == ([], [], {})
    with pytest.raises(ClosedError, match="producer closed"):
        await consumer.pause()
    dump = await router.dump()
    assert (dump.map_producer_id_consumer_ids, dump.map_consumer_id_producer_id) == ({}, {})


async def test_a_closing_transport_closes_what_is_on_it(router: Router, open_endpoint: OpenEndpoint) -> None:
    source, sink = await plain_source(router), await plain_sink(router, await open_endpoint())
    producer = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    consumers = [
        await sink.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
        for _ in range(2)
    ]
    consumers[0].close()
    assert consumers[0].close_reason is CloseReason.CLOSED
    reasons: list[CloseReason] = []
    consumers[1].on_transport_close.subscribe(reasons.append)
    producer.on_transport_close.subscribe(reasons.append)
    sink.close()
    source.close()
    assert reasons == [CloseReason.TRANSPORT_CLOSED] * 2
    assert (await router.dump()).transport_ids == []


async def test_consuming_what_is_not_there_or_not_understood(
    router: Router, open_endpoint: OpenEndpoint
) -> None:
    source, sink = await plain_source(router), await plain_sink(router, await open_endpoint())
    producer = await source.produce(kind="video", rtp_parameters=video_parameters(2222))
    audio_only = RtpCapabilities(codecs=[router.rtp_capabilities.codecs[0]])
    assert router.can_consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    assert not router.can_consume(producer_id=producer.id, rtp_capabilities=audio_only)
    nobody = ProducerId("nobody")
    assert not router.can_consume(producer_id=nobody, rtp_capabilities=router.rtp_capabilities)
    with pytest.raises(NotFoundError, match="nobody"):
        await sink.consume(producer_id=nobody, rtp_capabilities=router.rtp_capabilities)
    with pytest.raises(UnsupportedError, match="video/VP8"):
        await sink.consume(producer_id=producer.id, rtp_capabilities=audio_only)
    with pytest.raises(InvalidArgumentError, match="mid"):
        await sink.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities, mid="")


async def test_producing_the_same_twice_is_refused(router: Router) -> None:
    source = await plain_source(router)
    producer = await source.produce(
        kind="audio", rtp_parameters=audio_parameters(1111), id=ProducerId("mine")
    )
    assert producer.id == "mine"
    with pytest.raises(InvalidArgumentError, match="mine"):
        await source.produce(kind="audio", rtp_parameters=audio_parameters(1112), id=ProducerId("mine"))
    with pytest.raises(RequestRejectedError, match="TRANSPORT_PRODUCE"):
        await source.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    assert list(router.producers) == ["mine"]


async def test_plain_srtp_and_rtcp_on_its_own_port(router: Router) -> None:
    transport = await router.create_plain_transport(listen_info=LOOPBACK, rtcp_mux=False)
    assert transport.rtcp_tuple is not None
    assert transport.rtcp_tuple.local_port != transport.tuple.local_port
    await transport.connect(ip="127.0.0.1", port=9, rtcp_port=10)
    assert (transport.tuple.remote_port, transport.rtcp_tuple.remote_port) == (9, 10)
    with pytest.raises(InvalidArgumentError, match="rtcp_mux"):
        await router.create_plain_transport(listen_info=LOOPBACK, rtcp_listen_info=LOOPBACK)

    secured = await router.create_plain_transport(listen_info=LOOPBACK, enable_srtp=True)
    key = SrtpParameters(
        crypto_suite="AES_CM_128_HMAC_SHA1_80", key_base64="ZnQ3eWJraDg0d3ZoYzM5cXN1Y2pnaHU5NWxrZTVv"
    )
    with pytest.raises(RequestRejectedError):
        await secured.connect(ip="127.0.0.1", port=9)
    await secured.connect(ip="127.0.0.1", port=9, srtp_parameters=key)
    assert secured.srtp_parameters is not None
    assert secured.srtp_parameters.key_base64 not in repr(secured.srtp_parameters)
