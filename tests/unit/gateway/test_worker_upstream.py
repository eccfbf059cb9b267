"""What a media server may answer to a handshake, and what it must not be able to do with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from doubles.workers import FakeWorkers, refusal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediaserver.control.contract import Address
from mediaserver.gateway import worker_upstream as module
from mediaserver.gateway.errors import UpstreamError
from mediaserver.gateway.worker_upstream import (
    MAX_BODY,
    MAX_HEAD,
    Answer,
    Upstream,
    _Answering,
    dial,
    host_of,
)

REQUEST = b"GET /worker HTTP/1.1\r\nSec-WebSocket-Key: k\r\nAuthorization: Bearer secret\r\n\r\n"


@pytest.fixture
async def workers() -> AsyncIterator[FakeWorkers]:
    async with FakeWorkers() as made:
        yield made


async def test_an_acceptance(workers: FakeWorkers) -> None:
    workers.beside = b"and more"
    upstream = await dial(workers.address, REQUEST)
    assert isinstance(upstream, Upstream)
    assert upstream.head.startswith(b"HTTP/1.1 101 Switching\r\n")
    assert upstream.head.endswith(b"\r\n\r\n")
    assert upstream.rest == b"and more"
    assert not upstream.transport.is_reading()
    upstream.transport.abort()
    await asyncio.wait_for((await workers.dial()).ended.wait(), 5)


@pytest.mark.parametrize("final", [True, False])
async def test_a_refusal(workers: FakeWorkers, final: bool) -> None:
    workers.answer = refusal(409, "no such version: ü\n", final=final)
    assert await dial(workers.address, REQUEST) == Answer(409, "no such version: ü\n", final)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 503 X\r\nContent-Type: text/plain\r\n\r\nno length", "no length"),
        (b"HTTP/1.1 503 X\r\nContent-Type: text/plain\r\nContent-Length: 9999\r\n\r\nshort", "short"),
        (b"HTTP/1.1 503 X\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nlong", "lo"),
        (b"HTTP/1.1 503 X\r\nContent-Type: text/plain\r\nContent-Length: -1\r\n\r\nx", "x"),
        (b"HTTP/1.1 503 X\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 100_000, "x" * MAX_BODY),
        (b"HTTP/1.1 503 X\r\nContent-Type: text/html\r\n\r\n<html>", ""),
        (b"HTTP/1.1 503\r\n\r\n", ""),
        (b"HTTP/1.1 503 X\r\nContent-Type: text/plain\r\n\r\n\xff", "\ufffd"),
    ],
)
async def test_bodies(workers: FakeWorkers, answer: bytes, text: str) -> None:
    workers.answer = answer
    assert await dial(workers.address, REQUEST) == Answer(503, text, False)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 101 Switching\r\n", "without an answer"),
        (b"SSH-2.0-x\r\n\r\n", "not HTTP"),
        (b"\r\n\r\n", "not HTTP"),
        (b"HTTP/2 101 X\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 1x1 X\r\n\r\n", "not HTTP"),
        ("HTTP/1.1 ²²² X\r\n\r\n".encode("latin-1"), "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "answers HTTP 200"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n", "answers HTTP 302"),
        (b"HTTP/1.1 999 X\r\n\r\n", "answers HTTP 999"),
        (b"HTTP/1.1 101 X\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n", "more than"),
        (b"x" * 10 * MAX_HEAD, "more than"),
    ],
)
async def test_answers_that_are_none(workers: FakeWorkers, answer: bytes, reason: str) -> None:
    workers.answer = answer
    with pytest.raises(UpstreamError, match=reason) as caught:
        await dial(workers.address, REQUEST)
    assert "secret" not in str(caught.value)
    await asyncio.wait_for((await workers.dial()).ended.wait(), 5)


async def test_no_answer(workers: FakeWorkers) -> None:
    workers.hang = True
    begin = time.monotonic()
    with pytest.raises(UpstreamError, match=r"did not answer within 0\.2 s"):
        await dial(workers.address, REQUEST, 0.2)
    assert time.monotonic() - begin < 2
    await asyncio.wait_for((await workers.dial()).ended.wait(), 5)


async def test_an_endless_body(workers: FakeWorkers) -> None:
    """Only as much is read as a line of text may be."""
    workers.answer = b"HTTP/1.1 503 X\r\nContent-Type: text/plain\r\n\r\n" + b"y" * 10_000_000
    assert await dial(workers.address, REQUEST) == Answer(503, "y" * MAX_BODY, False)
    await asyncio.wait_for((await workers.dial()).ended.wait(), 5)


async def test_nobody_there(workers: FakeWorkers) -> None:
    address = workers.address
    await workers.stop()
    with pytest.raises(UpstreamError, match=f"127.0.0.1:{address.port}"):
        await dial(address, REQUEST)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("127.0.0.1", -1), ("a" * 300, 1)])
async def test_addresses_that_are_none(host: str, port: int) -> None:
    with pytest.raises(UpstreamError):
        await dial(Address(host=host, port=port), REQUEST)


async def test_who_stops_waiting_leaves_nothing_behind(workers: FakeWorkers) -> None:
    workers.hang = True
    dialling = asyncio.create_task(dial(workers.address, REQUEST))
    arrived = await workers.dial()
    dialling.cancel()
    await asyncio.wait([dialling])
    await asyncio.wait_for(arrived.ended.wait(), 5)


def test_hosts() -> None:
    assert host_of(Address(host="media.example", port=1)) == "media.example:1"
    assert host_of(Address(host="2001:db8::1", port=1)) == "[2001:db8::1]:1"


class NoTransport(asyncio.Transport):
    """Takes everything."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return None

    def pause_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


HEADS = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda status, headers, body: (
            b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body
        ),
        st.sampled_from([b"101 X", b"503 X", b"401", b"200 OK", b"", b"99999", b"\xb2\xb2\xb2"]),
        st.lists(
            st.one_of(
                st.binary(max_size=20),
                st.sampled_from(
                    [b"Content-Length: 3", b"content-length: \xb3", b"Mafalda-Worker-Final: true", b":"]
                ),
            ),
            max_size=4,
        ),
        st.binary(max_size=50),
    ),
)


@given(data=HEADS, cuts=st.lists(st.integers(0, 250), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_garbage_is_told_as_such(data: bytes, cuts: list[int]) -> None:
    """However it is cut into pieces, it means the same."""

    async def outcome(pieces: list[bytes]) -> object:
        answering = _Answering()
        answering.connection_made(NoTransport())
        for piece in pieces:
            if not answering.done.done():
                answering.data_received(piece)
        if not answering.done.done():
            answering.eof_received()
        answering.connection_lost(None)
        try:
            answer = await answering.done
        except UpstreamError as error:
            return str(error)
        finally:
            answering.release()
        return (answer.head,) if isinstance(answer, Upstream) else answer

    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    pieces = [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert len(data) < module.MAX_HEAD
    assert await outcome(pieces) == await outcome([data])
