"""The channel's reader with whatever a worker could send: good, bad and out of order, in pieces of any size.

Until the first bad message everything takes effect, once and in order; from it on nothing does. The bad one
is named, and afterwards nothing waits, listens or is open any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.mediasoup.fake_peer import FakePeer, OpenChannel

from mediaserver.mediasoup import ChannelClosedError, ClosedError, MalformedMessageError, RequestRejectedError
from mediaserver.mediasoup._fbs import consumer, log, notification, response, worker
from mediaserver.mediasoup.channel import Channel
from mediaserver.mediasoup.flatbuffer import READ_ERRORS, Table
from mediaserver.mediasoup.messages import (
    MAX_MESSAGE,
    Body,
    Event,
    Log,
    Method,
    Notification,
    Response,
    decode,
)

REQUESTS = 6
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Sent:
    """A stream, and what a correct reader makes of it."""

    stream: bytes = b""
    messages: int = 0
    answered: dict[int, int | str | None] = field(default_factory=dict)
    """By request number: the pid in the answer, None without a body, the reason if refused."""
    notified: list[int] = field(default_factory=list)
    bad: int = 0
    """Which message is the first bad one."""

    def add(self, data: bytes, *, bad: bool = False) -> None:
        self.stream += data
        self.messages += 1
        if bad and not self.bad:
            self.bad = self.messages

    def answer(self, number: int, body: Table | None, outcome: int | str | None) -> None:
        refused = isinstance(outcome, str)
        error, reason = ("Error", str(outcome)) if refused else (None, None)
        answer = response.Response(id=number, accepted=not refused, body=body, error=error, reason=reason)
        self.add(FakePeer.frame(answer))
        if not self.bad:
            self.answered.setdefault(number, outcome)  # the second answer to a request is nobody's


def play(sent: Sent, kind: str, n: int) -> None:
    """Adds one message; `n` varies it."""
    number = 1 + n % REQUESTS
    wants_body = number % 2 == 1
    if kind == "answer":
        sent.answer(number, _dump(number * 10) if wants_body else None, number * 10 if wants_body else None)
    elif kind == "refusal":
        sent.answer(number, None, f"reason {n}")
    elif kind == "notification":
        value = consumer.ConsumerScore(score=n % 11, producer_score=0, producer_scores=[])
        sent.add(_notification("c1", Event.CONSUMER_SCORE, consumer.ScoreNotification(score=value)))
        if not sent.bad:
            sent.notified.append(n % 11)
    elif kind == "log":
        sent.add(FakePeer.frame(log.Log(data="D" + "x" * n)))
    elif kind == "for nobody":
        sent.add(_notification("nobody", Event.CONSUMER_SCORE, None))
    elif kind == "unknown event":
        sent.add(_notification("c1", 255, None))
    else:
        sent.add(_bad(kind, n), bad=True)


def _bad(kind: str, n: int) -> bytes:
    if kind == "answer to nothing":
        return FakePeer.frame(response.Response(id=REQUESTS + 1 + n, accepted=True))
    if kind == "answer 0":
        return FakePeer.frame(response.Response(id=0, accepted=True))
    if kind == "oversized":
        return struct.pack("<I", MAX_MESSAGE - 3 + n)
    if kind == "undersized":
        return struct.pack("<I", n % 8)
    if kind == "zeros":
        return struct.pack("<I", 16 + n) + bytes(16 + n)
    if kind == "ones":
        return struct.pack("<I", 16 + n) + b"\xff" * (16 + n)
    good = bytearray(FakePeer.frame(response.Response(id=1, accepted=True)))
    root = 4 + struct.unpack_from("<I", good, 4)[0]
    vtable = root - struct.unpack_from("<i", good, root)[0]
    good[root + struct.unpack_from("<H", good, vtable + 4)[0]] = 5 + n % 250  # the message's type
    return bytes(good)


GOOD = ["answer", "answer", "refusal", "notification", "log", "for nobody", "unknown event"]
BAD = ["answer to nothing", "answer 0", "oversized", "undersized", "zeros", "ones", "unknown type"]

steps = st.lists(st.tuples(st.sampled_from(GOOD), st.integers(0, 40)), max_size=12)
bad_step = st.tuples(st.sampled_from(BAD), st.integers(0, 40))


@FUZZ
@given(before=steps, bad=st.none() | bad_step, after=steps, chunk=st.integers(1, 400), cut=st.integers(0, 30))
async def test_all_takes_effect_until_the_first_bad_message_and_nothing_after_it(
    open_channel: OpenChannel,
    before: list[tuple[str, int]],
    bad: tuple[str, int] | None,
    after: list[tuple[str, int]],
    chunk: int,
    cut: int,
) -> None:
    sent = Sent()
    for kind, n in [*before, *([bad, *after] if bad else [])]:
        play(sent, kind, n)
    truncated = not sent.bad and cut > 0
    if truncated:  # the stream ends within a message
        whole = FakePeer.frame(response.Response(id=1, accepted=True))
        sent.add(whole[: min(cut, len(whole) - 1)], bad=True)
    channel, peer = await open_channel()
    tasks = asyncio.all_tasks()
    notified: list[int] = []
    channel.subscribe("c1", lambda event, body: _note(notified, event, body))
    futures: dict[int, asyncio.Future[int | None]] = {
        number: channel.request(Method.WORKER_DUMP, parse=_pid if number % 2 else None)
        for number in range(1, REQUESTS + 1)
    }
    for start in range(0, len(sent.stream), chunk):
        await peer.send_raw(sent.stream[start : start + chunk])
    peer.close()

    error = await asyncio.wait_for(asyncio.shield(channel.broken), 5)
    assert isinstance(error, ChannelClosedError)
    if sent.bad:
        assert isinstance(error, MalformedMessageError)
        assert error.index == sent.bad
        assert f"message {sent.bad} " in str(error)
    else:
        assert not isinstance(error, MalformedMessageError)
    await _check_outcomes(channel, futures, sent, error)
    assert notified == sent.notified
    assert channel.pending_requests == 0
    assert not channel._handlers
    await _settled(channel)
    assert asyncio.all_tasks() <= tasks


async def _check_outcomes(
    channel: Channel, futures: dict[int, asyncio.Future[int | None]], sent: Sent, error: ChannelClosedError
) -> None:
    """Answered requests have their own answer; the others fail with what broke the channel, as its owner."""
    assert {number for number, future in futures.items() if future.done()} == set(sent.answered)
    channel.close(error)
    for number, future in futures.items():
        outcome = sent.answered.get(number, error)
        if isinstance(outcome, str):
            with pytest.raises(RequestRejectedError, match=outcome):
                future.result()
        elif isinstance(outcome, ChannelClosedError):
            assert future.exception() is error
        else:
            assert future.result() == outcome
    with pytest.raises((ChannelClosedError, ClosedError)):
        channel.request(Method.WORKER_DUMP)


async def _settled(channel: Channel) -> None:
    """Both of our sockets close within a few turns of the loop."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert [stream.fileno() for stream in channel._sockets] == [-1, -1]


BODIES = sorted(
    {*response.Body_TABLES.values(), *notification.Body_TABLES.values()}, key=lambda table: table.__qualname__
)


@settings(max_examples=400, deadline=None)
@given(data=st.binary(min_size=8, max_size=200), table=st.sampled_from(BODIES), at=st.integers(0, 200))
def test_tables_read_from_noise_give_one_of_the_errors_that_the_channel_expects(
    data: bytes, table: type[Table], at: int
) -> None:
    for read in (lambda: decode(data), lambda: table.read(data, at % len(data))):
        with contextlib.suppress(*READ_ERRORS):
            read()


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    table=st.sampled_from([response.Response, notification.Notification]),
)
def test_damaged_messages_decode_or_give_one_of_those_errors(
    changes: list[tuple[int, int]], table: type[Table]
) -> None:
    body: Table
    if table is response.Response:
        body = response.Response(id=7, accepted=True, body=_dump(1), error="e", reason="r")
    else:
        score = consumer.ConsumerScore(score=1, producer_score=2, producer_scores=[1, 2])
        body = notification.Notification(
            handler_id="c1", event=Event.CONSUMER_SCORE, body=consumer.ScoreNotification(score=score)
        )
    data = bytearray(FakePeer.frame(body)[4:])
    for position, value in changes:
        data[position % len(data)] = value
    with contextlib.suppress(*READ_ERRORS):
        assert isinstance(decode(bytes(data)), Response | Notification | Log)


def _notification(handler_id: str, event: int, body: Table | None) -> bytes:
    return FakePeer.frame(notification.Notification(handler_id=handler_id, event=event, body=body))


def _note(notified: list[int], event: int, body: Body) -> None:
    if event == Event.CONSUMER_SCORE:
        notified.append(body.read(consumer.ScoreNotification).score.score)


def _pid(body: Body) -> int:
    return body.read(worker.DumpResponse).pid


def _dump(pid: int) -> worker.DumpResponse:
    handlers = worker.ChannelMessageHandlers(channel_request_handlers=[], channel_notification_handlers=[])
    return worker.DumpResponse(
        pid=pid, web_rtc_server_ids=[], router_ids=[], channel_message_handlers=handlers
    )
