"""Router.pipe_to_router: between routers of one worker and of two, media and data, over real SCTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from integration.mediasoup.rtp import (
    MEDIA_CODECS,
    Packet,
    audio_parameters,
    next_value,
    until,
    video_parameters,
    vp8,
)

from mediaserver.mediasoup import (
    ClosedError,
    CloseReason,
    DataMessage,
    InvalidArgumentError,
    MediasoupError,
    NotFoundError,
    PipeTransport,
    ProducerId,
    RequestRejectedError,
    Router,
    SctpOptions,
    SctpStreamParameters,
    TransportListenInfo,
    Worker,
)

StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def far(start_worker: StartWorker) -> Router:
    """A router of another worker."""
    return await (await start_worker()).create_router(media_codecs=MEDIA_CODECS)


def pipes(router: Router) -> list[PipeTransport]:
    return [transport for transport in router.transports if isinstance(transport, PipeTransport)]


async def test_media_arrives_with_the_same_id_and_app_data(router: Router, far: Router) -> None:
    here, there = await router.create_direct_transport(), await far.create_direct_transport()
    producer = await here.produce(kind="video", rtp_parameters=video_parameters(1111), app_data={"who": "me"})
    piped = await router.pipe_to_router(router=far, producer_id=producer.id)
    assert piped.pipe_producer.id == producer.id
    assert piped.pipe_producer.app_data == {"who": "me"}
    assert piped.pipe_consumer.type == "pipe"
    assert dict(far.producers) == {producer.id: piped.pipe_producer}
    consumer = await there.consume(producer_id=producer.id, rtp_capabilities=far.rtp_capabilities)
    got: list[Packet] = []
    consumer.on_rtp.subscribe(lambda data: got.append(Packet.decode(data)))
    for number in range(1, 500):
        producer.send(Packet(96, number, number * 3000, 1111, vp8(number)).encode())
        if got:
            break
        await asyncio.sleep(0.01)
    assert got


async def test_two_routers_of_one_worker_need_another_id(worker: Worker, router: Router) -> None:
    other = await worker.create_router(media_codecs=MEDIA_CODECS)
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    piped = await router.pipe_to_router(router=other, producer_id=producer.id, keep_id=False)
    assert piped.pipe_producer.id != producer.id
    data = await direct.produce_data()
    piped_data = await router.pipe_to_router(router=other, data_producer_id=data.id, keep_id=False)
    assert piped_data.pipe_data_producer.id != data.id


async def test_one_pair_serves_every_call_from_both_sides_at_once(router: Router, far: Router) -> None:
    here, there = await router.create_direct_transport(), await far.create_direct_transport()
    ours = [await here.produce(kind="audio", rtp_parameters=audio_parameters(ssrc)) for ssrc in (1, 2, 3)]
    theirs = await there.produce(kind="audio", rtp_parameters=audio_parameters(4))
    data = await here.produce_data()
    calls = [router.pipe_to_router(router=far, producer_id=producer.id) for producer in ours]
    await asyncio.gather(
        *calls,
        far.pipe_to_router(router=router, producer_id=theirs.id),
        router.pipe_to_router(router=far, data_producer_id=data.id),
    )
    assert len(pipes(router)) == len(pipes(far)) == 1
    ((one,), (other,)) = pipes(router), pipes(far)
    assert (one.tuple.remote_port, other.tuple.remote_port) == (other.tuple.local_port, one.tuple.local_port)
    assert len(one.consumers) == len(other.producers) == 3
    assert len(one.producers) == len(other.consumers) == 1


async def test_options_reach_the_pair(router: Router, far: Router) -> None:
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="video", rtp_parameters=video_parameters(1, rtx=True))
    piped = await router.pipe_to_router(
        router=far,
        producer_id=producer.id,
        listen_info=TransportListenInfo(ip="127.0.0.1", announced_address="127.0.0.1"),
        enable_rtx=True,
        enable_srtp=True,
        enable_sctp=True,
        sctp_options=SctpOptions(max_send_message_size=1000),
    )
    (pipe,) = pipes(router)
    assert pipe.rtx
    assert pipe.srtp_parameters is not None
    assert (await pipe.dump()).max_send_message_size == 1000
    assert any(codec.mime_type == "video/rtx" for codec in piped.pipe_consumer.rtp_parameters.codecs)


async def test_without_sctp_no_data_is_piped(router: Router, far: Router) -> None:
    direct = await router.create_direct_transport()
    data = await direct.produce_data()
    with pytest.raises(RequestRejectedError):
        await router.pipe_to_router(router=far, data_producer_id=data.id, enable_sctp=False)
    (pipe,) = pipes(router)
    assert pipe.sctp_parameters is None
    assert pipe.data_consumers == []
    assert dict(far.data_producers) == {}


async def test_pausing_follows_the_original(router: Router, far: Router) -> None:
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="audio", rtp_parameters=audio_parameters(1111), paused=True)
    copy = (await router.pipe_to_router(router=far, producer_id=producer.id)).pipe_producer
    assert copy.paused
    await producer.resume()
    await until(lambda: not copy.paused, "the copy's resuming")
    assert not (await copy.dump()).paused
    await producer.pause()
    await until(lambda: copy.paused, "the copy's pausing")
    assert (await copy.dump()).paused


async def test_closing_the_original_closes_both(router: Router, far: Router) -> None:
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    data = await direct.produce_data()
    piped = await router.pipe_to_router(router=far, producer_id=producer.id)
    piped_data = await router.pipe_to_router(router=far, data_producer_id=data.id)
    producer.close()
    data.close()
    await until(lambda: piped.pipe_producer.closed, "the copy's end")
    await until(lambda: piped_data.pipe_data_producer.closed, "the data copy's end")
    assert piped.pipe_consumer.close_reason is CloseReason.PRODUCER_CLOSED
    assert len(pipes(router)) == 1


async def test_closing_the_copy_closes_the_pipe_consumer_only(router: Router, far: Router) -> None:
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    data = await direct.produce_data()
    piped = await router.pipe_to_router(router=far, producer_id=producer.id)
    piped_data = await router.pipe_to_router(router=far, data_producer_id=data.id)
    piped.pipe_producer.close()
    piped_data.pipe_data_producer.close()
    assert piped.pipe_consumer.closed
    assert piped_data.pipe_data_consumer.closed
    assert not producer.closed
    assert not data.closed
    await router.pipe_to_router(router=far, producer_id=producer.id)


@pytest.mark.parametrize("end", ["here", "there", "far router"])
async def test_the_pair_closes_together_and_is_made_anew(router: Router, far: Router, end: str) -> None:
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    await router.pipe_to_router(router=far, producer_id=producer.id)
    ((one,), (other,)) = pipes(router), pipes(far)
    {"here": one.close, "there": other.close, "far router": far.close}[end]()
    assert one.closed
    assert other.closed
    if end == "far router":
        with pytest.raises(MediasoupError):
            await router.pipe_to_router(router=far, producer_id=producer.id)
    else:
        await router.pipe_to_router(router=far, producer_id=producer.id)
        assert len(pipes(router)) == len(pipes(far)) == 1


async def test_a_failed_pair_leaves_nothing_and_is_tried_again(router: Router, far: Router) -> None:
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    wrong = TransportListenInfo(ip="203.0.113.7")
    calls = [router.pipe_to_router(router=far, producer_id=producer.id, listen_info=wrong) for _ in range(3)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [RequestRejectedError] * 3
    assert pipes(router) == pipes(far) == []
    await router.pipe_to_router(router=far, producer_id=producer.id)


async def test_giving_up_waiting_leaves_no_half_pipe(router: Router, far: Router) -> None:
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    task = asyncio.create_task(router.pipe_to_router(router=far, producer_id=producer.id))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await router.pipe_to_router(router=far, producer_id=producer.id)
    assert len(pipes(router)) == len(pipes(far)) == 1


async def test_wrong_arguments(router: Router, far: Router) -> None:
    with pytest.raises(InvalidArgumentError, match="exactly one"):
        await router.pipe_to_router(router=far)  # type: ignore[call-overload]
    with pytest.raises(InvalidArgumentError, match="this one"):
        await router.pipe_to_router(router=router, producer_id=ProducerId("x"))
    with pytest.raises(NotFoundError, match="nobody"):
        await router.pipe_to_router(router=far, producer_id=ProducerId("nobody"))
    assert pipes(router) == []
    router.close()
    with pytest.raises(ClosedError):
        await router.pipe_to_router(router=far, producer_id=ProducerId("x"))


async def test_data_arrives_over_sctp(router: Router, far: Router) -> None:
    here, there = await router.create_direct_transport(), await far.create_direct_transport()
    producer = await here.produce_data(label="chat", protocol="v1", app_data={"who": "me"})
    piped = await router.pipe_to_router(router=far, data_producer_id=producer.id)
    copy, out = piped.pipe_data_producer, piped.pipe_data_consumer
    assert (copy.id, copy.label, copy.protocol, copy.app_data) == (producer.id, "chat", "v1", {"who": "me"})
    assert (copy.type, out.type) == ("sctp", "sctp")
    assert (
        copy.sctp_stream_parameters
        == out.sctp_stream_parameters
        == SctpStreamParameters(stream_id=0, ordered=True)
    )
    consumer = await there.consume_data(data_producer_id=copy.id)
    got: list[DataMessage] = []
    consumer.on_message.subscribe(got.append)
    (pipe,) = pipes(router)
    await until(lambda: pipe.sctp_state == "connected", "SCTP")
    assert pipe.sctp_negotiated_capabilities is not None
    assert pipe.sctp_parameters is not None
    assert (await pipe.get_stats()).sctp_state == "connected"
    for number in range(50):
        producer.send(f"message {number}")
    producer.send(bytes(200_000))
    await until(lambda: len(got) == 51, "all messages")
    assert [message.data.decode() for message in got[:50]] == [f"message {number}" for number in range(50)]
    assert got[50] == DataMessage(bytes(200_000), 53)
    dump = await pipes(far)[0].dump()
    assert dump.sctp_listener is not None
    assert dump.sctp_listener.stream_id_table == {0: copy.id}
    assert dump.sctp_negotiated_capabilities == pipes(far)[0].sctp_negotiated_capabilities


async def test_a_data_consumer_sends_by_itself_and_tells_what_waits(router: Router, far: Router) -> None:
    here, there = await router.create_direct_transport(), await far.create_direct_transport()
    producer = await here.produce_data()
    piped = await router.pipe_to_router(router=far, data_producer_id=producer.id)
    out = piped.pipe_data_consumer
    got: list[DataMessage] = []
    (await there.consume_data(data_producer_id=producer.id)).on_message.subscribe(got.append)
    (pipe,) = pipes(router)
    await until(lambda: pipe.sctp_state == "connected", "SCTP")
    await out.set_buffered_amount_low_threshold(10_000)
    assert (await out.dump()).buffered_amount_low_threshold == 10_000
    low = asyncio.ensure_future(next_value(out.on_buffered_amount_low))
    await asyncio.sleep(0)
    assert isinstance(await out.send("hello"), int)
    waiting = [await out.send(bytes(100_000)) for _ in range(10)]
    assert max(waiting) > 10_000
    assert await low <= 10_000
    await until(lambda: len(got) == 11, "all messages")
    assert (got[0], got[10]) == (DataMessage(b"hello", 51), DataMessage(bytes(100_000), 53))
    assert await out.get_buffered_amount() == 0
    assert (await out.get_stats()).messages_sent == 11


async def test_a_full_send_buffer_is_told(router: Router, far: Router) -> None:
    direct = await router.create_direct_transport()
    producer = await direct.produce_data()
    piped = await router.pipe_to_router(
        router=far,
        data_producer_id=producer.id,
        sctp_options=SctpOptions(send_buffer_size=50_000, per_stream_send_queue_limit=50_000),
    )
    (pipe,) = pipes(router)
    await until(lambda: pipe.sctp_state == "connected", "SCTP")
    full = asyncio.ensure_future(next_value(piped.pipe_data_consumer.on_sctp_send_buffer_full))
    await asyncio.sleep(0)
    for _ in range(100):
        producer.send(bytes(40_000))
    await full


async def test_reliability_of_data_consumers(router: Router) -> None:
    direct = await router.create_direct_transport()
    pipe = await router.create_pipe_transport(
        listen_info=TransportListenInfo(ip="127.0.0.1"), enable_sctp=True
    )
    producer = await direct.produce_data()

    async def consume(**options: object) -> SctpStreamParameters | None:
        consumer = await pipe.consume_data(data_producer_id=producer.id, **options)  # type: ignore[arg-type]
        return consumer.sctp_stream_parameters

    assert await consume() == SctpStreamParameters(stream_id=0, ordered=True)
    assert await consume(ordered=False) == SctpStreamParameters(stream_id=1, ordered=False)
    assert await consume(max_packet_life_time=5) == SctpStreamParameters(
        stream_id=2, ordered=False, max_packet_life_time=5
    )
    assert await consume(max_retransmits=3) == SctpStreamParameters(
        stream_id=3, ordered=False, max_retransmits=3
    )
    with pytest.raises(InvalidArgumentError, match="one of them"):
        await consume(max_retransmits=3, max_packet_life_time=5)
    pipe.data_consumers[1].close()
    assert (await consume()) == SctpStreamParameters(stream_id=4, ordered=True)


async def test_data_producers_need_streams_and_sctp(router: Router) -> None:
    listen = TransportListenInfo(ip="127.0.0.1")
    pipe = await router.create_pipe_transport(listen_info=listen, enable_sctp=True)
    stream = SctpStreamParameters(stream_id=12, max_retransmits=3)
    producer = await pipe.produce_data(sctp_stream_parameters=stream)
    assert producer.sctp_stream_parameters == SctpStreamParameters(
        stream_id=12, ordered=False, max_retransmits=3
    )
    with pytest.raises(RequestRejectedError):
        await pipe.produce_data(sctp_stream_parameters=stream)  # taken
    with pytest.raises(InvalidArgumentError, match="needed"):
        await pipe.produce_data()
    with pytest.raises(InvalidArgumentError, match="ordered"):
        await pipe.produce_data(
            sctp_stream_parameters=SctpStreamParameters(stream_id=1, ordered=True, max_retransmits=1)
        )
    without = await router.create_pipe_transport(listen_info=listen)
    with pytest.raises(RequestRejectedError):
        await without.produce_data(sctp_stream_parameters=stream)
