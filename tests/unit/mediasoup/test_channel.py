"""Channel: requests, answers, notifications, deadlines and what happens to garbage."""

from __future__ import annotations

import asyncio
import logging
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.mediasoup.fake_peer import OpenChannel

from mediaserver.mediasoup import (
    ChannelClosedError,
    ChannelOverflowError,
    InvalidArgumentError,
    MalformedMessageError,
    RequestRejectedError,
    RequestTimeoutError,
)
from mediaserver.mediasoup._fbs import consumer, notification, response, router, transport, worker
from mediaserver.mediasoup.channel import Channel
from mediaserver.mediasoup.framing import WRITE_LIMIT
from mediaserver.mediasoup.messages import MAX_MESSAGE, Body, Event, Method


async def broken(channel: Channel) -> Exception:
    return await asyncio.wait_for(asyncio.shield(channel.broken), 5)


async def test_a_request_carries_id_method_handler_and_body(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()
    body = worker.CreateRouterRequest(router_id="é" * 5)
    future: asyncio.Future[None] = channel.request(Method.WORKER_CREATE_ROUTER, "", body)
    request = await peer.receive_request()
    assert (request.id, request.method, request.handler_id) == (1, Method.WORKER_CREATE_ROUTER, "")
    assert request.body == body
    await peer.accept(request.id)
    await future
    assert channel.pending_requests == 0


async def test_answers_may_come_in_any_order(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()
    futures = [channel.request(Method.WORKER_DUMP, parse=_pid) for _ in range(3)]
    for request in reversed([await peer.receive_request() for _ in range(3)]):
        await peer.accept(request.id, _dump(pid=request.id * 10))
    assert await asyncio.gather(*futures) == [10, 20, 30]


async def test_a_refusal_has_the_workers_words(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()
    future: asyncio.Future[None] = channel.request(Method.ROUTER_DUMP, "r1")
    request = await peer.receive_request()
    await peer.reject(request.id, "NotFoundError", "no such router")
    with pytest.raises(RequestRejectedError) as caught:
        await future
    assert (caught.value.error, caught.value.reason) == ("NotFoundError", "no such router")
    assert (caught.value.method, caught.value.handler_id) == ("ROUTER_DUMP", "r1")


async def test_a_request_without_an_answer_ends_at_its_deadline(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel(timeout=60)
    slow: asyncio.Future[None] = channel.request(Method.WORKER_DUMP)
    started = asyncio.get_running_loop().time()
    with pytest.raises(RequestTimeoutError) as caught:
        await channel.request(Method.ROUTER_DUMP, "r1", timeout=0.05)
    assert 0.04 < asyncio.get_running_loop().time() - started < 2
    assert (caught.value.method, caught.value.seconds) == ("ROUTER_DUMP", 0.05)
    assert not slow.done()
    # A late answer is dropped, the channel goes on.
    await peer.accept(2)
    await peer.accept(1)
    await slow


async def test_when_the_channel_closes_what_is_pending_fails_at_once(open_channel: OpenChannel) -> None:
    channel, _ = await open_channel()
    futures: list[asyncio.Future[None]] = [channel.request(Method.WORKER_DUMP) for _ in range(1000)]
    channel.close()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(result) for result in results} == {ChannelClosedError}
    with pytest.raises(ChannelClosedError):
        channel.request(Method.WORKER_DUMP)
    channel.close()


async def test_close_sends_what_was_written_before(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()
    channel.notify(Event.WORKER_CLOSE)
    channel.close()
    message = await peer.receive()
    assert isinstance(message, notification.Notification)
    assert message.event == Event.WORKER_CLOSE
    with pytest.raises(EOFError):
        await peer.receive()


async def test_an_argument_out_of_range_is_the_callers_fault(open_channel: OpenChannel) -> None:
    channel, _ = await open_channel()
    body = consumer.SetPriorityRequest(priority=256)
    with pytest.raises(InvalidArgumentError, match="CONSUMER_SET_PRIORITY"):
        channel.request(Method.CONSUMER_SET_PRIORITY, "c1", body)
    assert channel.pending_requests == 0


async def test_a_worker_that_stops_reading_is_not_buried_in_requests(open_channel: OpenChannel) -> None:
    channel, _ = await open_channel()
    body = worker.CreateRouterRequest(router_id="x" * 1_000_000)
    sent = 0
    while not channel._writer.congested:
        channel.request(Method.WORKER_CREATE_ROUTER, "", body)
        sent += 1
        await asyncio.sleep(0)
    with pytest.raises(ChannelOverflowError):
        channel.request(Method.WORKER_CREATE_ROUTER, "", body)
    assert sent < WRITE_LIMIT / 1_000_000 + 4


async def test_notifications_come_in_order_and_after_the_awaiting_task(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()
    seen: list[object] = []
    channel.subscribe("c1", lambda event, _: seen.append(Event(event).name))

    async def ask() -> None:
        seen.append(await channel.request(Method.WORKER_DUMP, parse=_pid))

    task = asyncio.create_task(ask())
    request = await peer.receive_request()
    await peer.send(
        notification.Notification(handler_id="c1", event=Event.CONSUMER_PRODUCER_PAUSE),
        response.Response(id=request.id, accepted=True, body=_dump(pid=7)),
        notification.Notification(handler_id="c1", event=Event.CONSUMER_PRODUCER_RESUME),
        notification.Notification(handler_id="nobody", event=Event.CONSUMER_PRODUCER_RESUME),
    )
    await task
    await asyncio.sleep(0)
    assert seen == ["CONSUMER_PRODUCER_PAUSE", 7, "CONSUMER_PRODUCER_RESUME"]


async def test_log_lines_go_to_the_workers_logger(
    open_channel: OpenChannel, caplog: pytest.LogCaptureFixture
) -> None:
    channel, peer = await open_channel()
    with caplog.at_level(logging.DEBUG, logger="mediaserver.mediasoup.worker"):
        await peer.log("Dsome detail")
        await peer.log("Ebad thing")
        future: asyncio.Future[None] = channel.request(Method.WORKER_DUMP)
        await peer.accept((await peer.receive_request()).id)
        await future
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("DEBUG", "[worker 1] some detail"),
        ("ERROR", "[worker 1] bad thing"),
    ]


async def test_the_end_of_the_stream_is_told(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()
    peer.close()
    assert isinstance(await broken(channel), ChannelClosedError)


async def test_large_messages_pass_whole(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()
    ids = [f"{i:036}" for i in range(50_000)]
    future = channel.request(Method.ROUTER_DUMP, "r1", parse=lambda body: body.read(router.DumpResponse))
    request = await peer.receive_request()
    dump = router.DumpResponse(
        id="r1",
        transport_ids=ids,
        rtp_observer_ids=[],
        map_producer_id_consumer_ids=[],
        map_consumer_id_producer_id=[],
        map_producer_id_observer_ids=[],
        map_data_producer_id_data_consumer_ids=[],
        map_data_consumer_id_data_producer_id=[],
    )
    sending = asyncio.create_task(peer.accept(request.id, dump))
    assert (await future).transport_ids == ids
    await sending
    # and the buffer serves small ones again
    answer = channel.request(Method.WORKER_DUMP, parse=_pid)
    await peer.accept((await peer.receive_request()).id, _dump(pid=3))
    assert await answer == 3


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (struct.pack("<I", MAX_MESSAGE) + b"x", "its size prefix says 8388608 bytes"),
        (struct.pack("<I", 0xFFFFFFFF), "its size prefix says 4294967295 bytes"),
        (struct.pack("<I", 0), "its size prefix says 0 bytes"),
        (struct.pack("<I", 12) + bytes(12), "points to itself"),
        (struct.pack("<I", 64) + b"\xff" * 64, ""),
    ],
)
async def test_garbage_breaks_the_channel_and_names_the_message(
    open_channel: OpenChannel, data: bytes, problem: str
) -> None:
    channel, peer = await open_channel()
    future: asyncio.Future[None] = channel.request(Method.WORKER_DUMP)
    await peer.accept((await peer.receive_request()).id)
    await future
    await peer.send_raw(data)
    error = await broken(channel)
    assert isinstance(error, MalformedMessageError)
    assert error.index == 2
    assert problem in error.problem


async def test_a_truncated_message_names_itself(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()
    await peer.send_raw(peer.frame(response.Response(id=1))[:-5])
    peer.close()
    error = await broken(channel)
    assert isinstance(error, MalformedMessageError)
    assert error.index == 1
    assert "ended" in error.problem


async def test_an_answer_with_the_wrong_body_fails_the_request_and_the_channel(
    open_channel: OpenChannel,
) -> None:
    channel, peer = await open_channel()
    future = channel.request(Method.WORKER_DUMP, parse=_pid)
    await peer.accept((await peer.receive_request()).id, transport.ProduceResponse())
    with pytest.raises(MalformedMessageError, match="WORKER_DUMP"):
        await future
    assert isinstance(await broken(channel), MalformedMessageError)


async def test_an_answer_to_nothing_breaks_the_channel(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()
    await peer.accept(17)
    assert "request 17" in str(await broken(channel))


async def test_a_notification_with_a_missing_body_breaks_the_channel(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()

    def read_score(_: int, body: Body) -> None:
        body.read(consumer.ScoreNotification)

    channel.subscribe("c1", read_score)
    await peer.notify("c1", Event.CONSUMER_SCORE)
    assert "CONSUMER_SCORE" in str(await broken(channel))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 10_000),
    chunk=st.integers(1, 300),
)
async def test_damaged_streams_end_in_an_answer_or_an_error(
    open_channel: OpenChannel, changes: list[tuple[int, int]], cut: int, chunk: int
) -> None:
    """Whatever is changed in valid messages: the request ends, and nothing but our errors comes out."""
    channel, peer = await open_channel()
    scores: list[object] = []
    channel.subscribe("c1", lambda event, body: scores.append(_score(event, body)))
    future = channel.request(Method.WORKER_DUMP, parse=_pid)
    request = await peer.receive_request()
    score = consumer.ConsumerScore(score=1, producer_score=2, producer_scores=[3, 4])
    stream = bytearray(
        peer.frame(
            notification.Notification(
                handler_id="c1", event=Event.CONSUMER_SCORE, body=consumer.ScoreNotification(score=score)
            )
        )
        + peer.frame(response.Response(id=request.id, accepted=True, body=_dump(pid=9)))
    )
    for position, value in changes:
        stream[position % len(stream)] = value
    data = bytes(stream[: len(stream) - cut % 20 if cut > 5_000 else len(stream)])
    for start in range(0, len(data), chunk):
        await peer.send_raw(data[start : start + chunk])
    peer.close()
    error = await broken(channel)
    assert isinstance(error, ChannelClosedError)
    channel.close(error if not future.done() else None)
    (result,) = await asyncio.gather(future, return_exceptions=True)
    assert isinstance(result, int | ChannelClosedError | RequestRejectedError)


def _pid(body: Body) -> int:
    return body.read(worker.DumpResponse).pid


def _score(event: int, body: Body) -> int | None:
    return body.read(consumer.ScoreNotification).score.score if event == Event.CONSUMER_SCORE else None


def _dump(pid: int) -> worker.DumpResponse:
    handlers = worker.ChannelMessageHandlers(channel_request_handlers=["a"], channel_notification_handlers=[])
    return worker.DumpResponse(
        pid=pid, web_rtc_server_ids=[], router_ids=["r"], channel_message_handlers=handlers
    )
