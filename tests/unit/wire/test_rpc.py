from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog
from aiohttp import web

from mediaserver.control.contract import Challenge
from mediaserver.control.contract.greeting import Greeter
from mediaserver.wire import frames, outbox, rpc
from mediaserver.wire.errors import ConnectionLost, DeadlineExceeded, ProtocolError, RemoteError
from mediaserver.wire.rpc import Methods, RpcFailure, accept, connect, running


class Number(msgspec.Struct, frozen=True):
    value: int


class Text(msgspec.Struct, frozen=True):
    value: str


def doubling() -> Methods:
    methods = Methods()

    async def double(number: Number) -> Number:
        return Number(number.value * 2)

    methods.on("double", Number, double)
    return methods


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def raw(make_raw: Any) -> AsyncIterator[Any]:
    async with make_raw(doubling()) as pair:
        yield pair


@pytest.fixture
def make_raw() -> Any:
    """A bare client WebSocket and the task of the connection that it talks to."""

    @asynccontextmanager
    async def make(methods: Methods, **options: Any) -> AsyncIterator[Any]:
        ended: asyncio.Future[asyncio.Task[None]] = asyncio.Future()

        async def handler(request: web.Request) -> web.StreamResponse:
            connection = await accept(request, methods, name="client", **options)
            task = asyncio.create_task(connection.run())
            ended.set_result(task)
            await asyncio.gather(task, return_exceptions=True)
            return connection.socket

        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(url, timeout=aiohttp.ClientWSTimeout(ws_close=0.3)) as socket,
            ):
                yield socket, await asyncio.wait_for(ended, 5)
        finally:
            await runner.cleanup()

    return make


async def next_reply(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    while True:
        frame: dict[str, Any] = await socket.receive_json(timeout=5)
        if frame.get("method") != rpc.HEARTBEAT:
            return frame


async def close_of(socket: aiohttp.ClientWebSocketResponse) -> tuple[int, str]:
    while True:
        message = await socket.receive(timeout=5)
        if message.type is aiohttp.WSMsgType.CLOSE:
            return message.data, str(message.extra)
        assert message.type is aiohttp.WSMsgType.TEXT


async def test_both_sides_call(make_pair: Any) -> None:
    pair = await make_pair(doubling(), doubling())
    assert await pair.dialler.call("double", Number(2), Number) == Number(4)
    assert await pair.acceptor.call("double", Number(3), Number) == Number(6)


async def test_a_handler_may_call_back(make_pair: Any) -> None:
    methods = Methods()
    pair = None

    async def outer(number: Number) -> Number:
        assert pair is not None
        inner: Number = await pair.acceptor.call("double", number, Number)
        return Number(inner.value + 1)

    methods.on("outer", Number, outer)
    pair = await make_pair(doubling(), methods)
    assert await pair.dialler.call("outer", Number(5), Number) == Number(11)


async def test_a_handler_without_result_answers_an_empty_object(make_pair: Any) -> None:
    class Nothing(msgspec.Struct):
        pass

    methods = Methods()

    async def nothing(number: Number) -> None:
        return None

    methods.on("nothing", Number, nothing)
    pair = await make_pair(acceptor_methods=methods)
    assert await pair.dialler.call("nothing", Number(1), Nothing) == Nothing()


async def test_notifications_come_in_order(make_pair: Any) -> None:
    got: list[int] = []
    done = asyncio.Event()
    methods = Methods()

    def note(number: Number) -> None:
        got.append(number.value)
        if number.value == 999:
            done.set()

    methods.on_notification("note", Number, note)
    pair = await make_pair(acceptor_methods=methods)
    for value in range(1000):
        pair.dialler.notify("note", Number(value))
    await asyncio.wait_for(done.wait(), 5)
    assert got == list(range(1000))


async def test_call_beyond_its_deadline(make_pair: Any) -> None:
    methods = Methods()
    started = asyncio.Event()

    async def hang(number: Number) -> Number:
        started.set()
        await asyncio.Event().wait()
        return number

    methods.on("hang", Number, hang)
    pair = await make_pair(acceptor_methods=methods)
    with pytest.raises(DeadlineExceeded, match=r"no answer to hang within 0\.2 s"):
        await pair.dialler.call("hang", Number(1), Number, timeout=0.2)
    assert started.is_set()
    await pair.dialler.close()
    assert await pair.outcome("dialler") is None


async def test_errors_are_answered(make_pair: Any) -> None:
    methods = Methods()

    async def refuse(number: Number) -> Number:
        raise RpcFailure(4405, "observers may not", {"role": "observer"})

    async def broken(number: Number) -> Number:
        raise KeyError("a secret detail")

    methods.on("refuse", Number, refuse)
    methods.on("broken", Number, broken)
    pair = await make_pair(acceptor_methods=methods)
    with pytest.raises(RemoteError) as refused:
        await pair.dialler.call("refuse", Number(1), Number)
    assert (refused.value.code, refused.value.message) == (4405, "observers may not")
    assert refused.value.data == {"role": "observer"}
    with structlog.testing.capture_logs() as logs, pytest.raises(RemoteError) as failed:
        await pair.dialler.call("broken", Number(1), Number)
    assert failed.value.code == frames.INTERNAL_ERROR
    assert "secret" not in failed.value.message
    assert [entry["method"] for entry in logs] == ["broken"]
    assert not pair.dialler.closed


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [("nowhere", Number(1), frames.METHOD_NOT_FOUND), ("double", Text("x"), frames.INVALID_PARAMS)],
)
async def test_wrong_requests_are_answered(
    make_pair: Any, method: str, params: msgspec.Struct, code: int
) -> None:
    pair = await make_pair(acceptor_methods=doubling())
    with pytest.raises(RemoteError) as error:
        await pair.dialler.call(method, params, Number)
    assert error.value.code == code
    assert await pair.dialler.call("double", Number(2), Number) == Number(4)


async def test_an_answer_of_another_shape(make_pair: Any) -> None:
    pair = await make_pair(acceptor_methods=doubling())
    with pytest.raises(ProtocolError, match="answer to double"):
        await pair.dialler.call("double", Number(2), Text)


async def test_a_refusal_may_close(make_pair: Any) -> None:
    methods = Methods()

    async def hello(number: Number) -> Number:
        raise RpcFailure(4401, "the proof is wrong", close=True)

    methods.on("hello", Number, hello)
    pair = await make_pair(acceptor_methods=methods)
    with pytest.raises(RemoteError, match="the proof is wrong"):
        await pair.dialler.call("hello", Number(1), Number)
    lost = await pair.outcome("dialler")
    assert isinstance(lost, ConnectionLost)
    assert lost.code == 1008
    assert "the proof is wrong" in lost.reason
    assert await pair.outcome("acceptor") is None


async def test_close_tells_the_reason(make_pair: Any) -> None:
    pair = await make_pair()
    await pair.dialler.close(4001, "moving " * 40)
    lost = await pair.outcome("acceptor")
    assert isinstance(lost, ConnectionLost)
    assert lost.code == 4001
    assert "moving moving" in lost.reason
    assert await pair.outcome("dialler") is None
    with pytest.raises(ConnectionLost, match="closed by this side"):
        await pair.dialler.call("double", Number(1), Number)
    pair.dialler.notify("note", Number(1))


async def test_what_waits_is_sent_before_the_close(make_pair: Any) -> None:
    got: list[int] = []
    methods = Methods()
    methods.on_notification("note", Number, lambda number: got.append(number.value))
    pair = await make_pair(acceptor_methods=methods)
    for value in range(500):
        pair.dialler.notify("note", Number(value))
    await pair.dialler.close()
    await pair.outcome("acceptor")
    assert got == list(range(500))


async def test_pending_calls_end_with_the_connection(make_pair: Any) -> None:
    methods = Methods()
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(number: Number) -> Number:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return number

    methods.on("hang", Number, hang)
    pair = await make_pair(acceptor_methods=methods)
    calls = [asyncio.create_task(pair.dialler.call("hang", Number(i), Number)) for i in range(3)]
    await asyncio.wait_for(started.wait(), 5)
    await pair.acceptor.close(1001, "stopping")
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    assert all(isinstance(outcome, ConnectionLost) for outcome in outcomes)
    await pair.outcome("acceptor")
    assert cancelled.is_set()


async def test_no_task_is_left(make_pair: Any) -> None:
    before = asyncio.all_tasks()
    pair = await make_pair(doubling(), doubling())
    await pair.dialler.call("double", Number(2), Number)
    await pair.dialler.close()
    await pair.outcome("dialler")
    await pair.outcome("acceptor")
    while names := {task.get_coro().__qualname__ for task in asyncio.all_tasks() - before}:  # type: ignore[union-attr]
        assert not any("Connection" in name or "Outbox" in name for name in names)
        if not any("handler" in name for name in names):
            break
        await asyncio.sleep(0.01)


async def test_cancelling_run_closes(make_pair: Any) -> None:
    pair = await make_pair(acceptor_methods=doubling())
    await pair.dialler.call("double", Number(1), Number)
    pair.ends["dialler"].cancel()
    assert isinstance(await pair.outcome("dialler"), asyncio.CancelledError)
    assert isinstance(await pair.outcome("acceptor"), ConnectionLost)
    assert pair.dialler.closed


@pytest.mark.parametrize(
    "garbage",
    [
        "not json",
        "[]",
        "{}",
        '{"jsonrpc": "1.0", "method": "x"}',
        '{"jsonrpc": "2.0", "id": 1}',
        '{"jsonrpc": "2.0", "id": null, "method": "double", "params": {}}',
        '{"jsonrpc": "2.0", "id": 1, "result": 1, "error": {"code": 1, "message": ""}}',
        '[{"jsonrpc": "2.0", "method": "x"}]',
        '{"jsonrpc": "2.0", "method": "note", "params": {"value": "no number"}}',
        "\x00",
    ],
)
async def test_garbage_closes_with_a_reason(make_raw: Any, garbage: str) -> None:
    methods = doubling()
    methods.on_notification("note", Number, lambda number: None)
    async with make_raw(methods) as (socket, ended):
        await socket.send_str(garbage)
        code, reason = await close_of(socket)
        assert code == 1002
        assert reason.startswith("client: ")
        with pytest.raises(ProtocolError):
            await asyncio.wait_for(ended, 5)


async def test_binary_closes(raw: Any) -> None:
    socket, ended = raw
    await socket.send_bytes(b"{}")
    assert (await close_of(socket))[0] == 1003
    with pytest.raises(ProtocolError, match="binary"):
        await asyncio.wait_for(ended, 5)


async def test_invalid_utf8_is_garbage(raw: Any) -> None:
    socket, ended = raw
    await socket.send_frame(b'{"jsonrpc": "2.0", "method": "\xff"}', aiohttp.WSMsgType.TEXT)
    assert (await close_of(socket))[0] in (1002, 1007)
    with pytest.raises(ProtocolError):
        await asyncio.wait_for(ended, 5)


async def test_oversized_message_closes(raw: Any) -> None:
    socket, ended = raw
    with suppress(ConnectionError):  # refused while it is still being sent
        await socket.send_str("x" * (frames.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(ProtocolError, match="exceeds limit"):
        await asyncio.wait_for(ended, 5)


async def test_oversized_messages_are_not_sent(make_pair: Any) -> None:
    pair = await make_pair(acceptor_methods=doubling())
    large = Text("x" * frames.MAX_MESSAGE_BYTES)
    with pytest.raises(ProtocolError, match="the limit is"):
        await pair.dialler.call("double", large, Number)
    with pytest.raises(ProtocolError, match="the limit is"):
        pair.dialler.notify("double", large)
    assert await pair.dialler.call("double", Number(2), Number) == Number(4)


async def test_a_large_message_passes(make_pair: Any) -> None:
    methods = Methods()

    async def echo(text: Text) -> Text:
        return text

    methods.on("echo", Text, echo)
    pair = await make_pair(acceptor_methods=methods)
    large = Text("x" * (3 * 1024 * 1024))
    assert await pair.dialler.call("echo", large, Text) == large


async def test_unknown_fields_methods_and_late_answers_are_ignored(raw: Any) -> None:
    socket, ended = raw
    await socket.send_str('{"jsonrpc": "2.0", "method": "of the future", "params": {"a": 1}}')
    await socket.send_str('{"jsonrpc": "2.0", "id": 999, "result": {}}')
    await socket.send_str('{"jsonrpc": "2.0", "id": null, "error": {"code": 1, "message": "?"}}')
    await socket.send_json({"jsonrpc": "2.0", "id": "a", "method": "double", "params": {"value": 2, "b": 1}})
    reply = await next_reply(socket)
    assert reply == {"jsonrpc": "2.0", "id": "a", "result": {"value": 4}}
    assert not ended.done()


async def test_a_failing_notification_handler_is_logged(make_pair: Any) -> None:
    methods = doubling()

    def broken(number: Number) -> None:
        raise KeyError("x")

    methods.on_notification("broken", Number, broken)
    pair = await make_pair(acceptor_methods=methods)
    with structlog.testing.capture_logs() as logs:
        pair.dialler.notify("broken", Number(1))
        assert await pair.dialler.call("double", Number(2), Number) == Number(4)
    assert [entry["log_level"] for entry in logs] == ["error"]


async def test_a_notification_handler_may_refuse_the_connection(make_pair: Any) -> None:
    methods = Methods()

    def refuse(number: Number) -> None:
        raise ProtocolError("no report before hello")

    methods.on_notification("report", Number, refuse)
    pair = await make_pair(acceptor_methods=methods)
    pair.dialler.notify("report", Number(1))
    lost = await pair.outcome("dialler")
    assert isinstance(lost, ConnectionLost)
    assert "no report before hello" in lost.reason


async def test_requests_beyond_the_bound_wait(make_raw: Any) -> None:
    methods = Methods()
    gate, full = asyncio.Event(), asyncio.Event()
    running_now = peak = 0

    async def slow(number: Number) -> Number:
        nonlocal running_now, peak
        running_now += 1
        peak = max(peak, running_now)
        if running_now == rpc.MAX_RUNNING:
            full.set()
        await gate.wait()
        running_now -= 1
        return number

    methods.on("slow", Number, slow)
    count = rpc.MAX_RUNNING * 3
    async with make_raw(methods) as (socket, _ended):
        for i in range(count):
            await socket.send_json({"jsonrpc": "2.0", "id": i, "method": "slow", "params": {"value": i}})
        await asyncio.wait_for(full.wait(), 5)
        gate.set()
        answered = [(await next_reply(socket))["id"] for _ in range(count)]
    assert sorted(answered) == list(range(count))
    assert peak == rpc.MAX_RUNNING


async def test_a_flood_closes(make_raw: Any) -> None:
    methods = Methods()
    ended_handlers = 0

    async def hang(number: Number) -> Number:
        nonlocal ended_handlers
        try:
            await asyncio.Event().wait()
        finally:
            ended_handlers += 1
        return number

    methods.on("hang", Number, hang)
    async with make_raw(methods) as (socket, ended):
        for i in range(rpc.MAX_RUNNING + rpc.MAX_WAITING + 1):
            await socket.send_json({"jsonrpc": "2.0", "id": i, "method": "hang", "params": {"value": i}})
        code, reason = await close_of(socket)
        assert code == 1002
        assert "flooded" in reason
        with pytest.raises(ProtocolError, match="flooded"):
            await asyncio.wait_for(ended, 5)
    assert ended_handlers == rpc.MAX_RUNNING


async def test_a_reader_that_stops_is_given_up(make_raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The far side reads nothing: what waits for it is bounded."""
    monkeypatch.setattr(outbox, "MAX_BYTES", 8 * 1024 * 1024)
    methods = Methods()
    made: list[rpc.Connection] = []
    blob = Text("x" * 1024 * 1024)

    async def start(number: Number) -> None:
        for _ in range(64):
            made[0].notify("blob", blob)
            await asyncio.sleep(0)

    methods.on("start", Number, start)
    original = rpc.Connection.__init__

    def remember(self: rpc.Connection, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(rpc.Connection, "__init__", remember)
    async with make_raw(methods) as (socket, ended):
        await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "start", "params": {"value": 1}})
        socket._response.connection.transport.pause_reading()
        with pytest.raises(ConnectionLost, match="does not read"):
            await asyncio.wait_for(ended, 10)


async def test_silence_is_noticed(make_raw: Any) -> None:
    clock = Clock()
    async with make_raw(doubling(), heartbeat=0.02, silence=3.0, clock=clock) as (socket, ended):
        await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "double", "params": {"value": 1}})
        await next_reply(socket)
        clock.now += 2.9
        await socket.receive(timeout=5)
        await socket.receive(timeout=5)
        assert not ended.done()
        clock.now += 0.2
        with pytest.raises(ConnectionLost, match=r"nothing heard from client for 3\.1 s"):
            await asyncio.wait_for(ended, 5)
        assert "nothing heard" in (await close_of(socket))[1]


async def test_heartbeats_keep_the_connection(make_pair: Any) -> None:
    options = {"heartbeat": 0.02, "silence": 0.5}
    pair = await make_pair(dialler=options, acceptor=options)
    heard = pair.dialler.last_heard
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(pair.ends["dialler"]), 1.2)
    assert pair.dialler.last_heard > heard + 0.5


async def test_own_standstill_is_not_the_others_silence(make_pair: Any) -> None:
    clock = Clock()
    pair = await make_pair(
        doubling(), doubling(), dialler={"heartbeat": 0.05, "silence": 1.0, "clock": clock}
    )
    await pair.dialler.call("double", Number(1), Number)
    clock.now += 100
    time.sleep(0.3)  # noqa: ASYNC251  the whole process stands still
    await asyncio.sleep(0)
    assert await pair.dialler.call("double", Number(2), Number) == Number(4)
    assert not pair.dialler.closed


async def test_a_broken_connection(make_pair: Any) -> None:
    pair = await make_pair()
    pair.acceptor.socket._writer.transport.abort()
    assert isinstance(await pair.outcome("dialler"), ConnectionLost)
    assert isinstance(await pair.outcome("acceptor"), ConnectionLost)


async def test_connect_refused() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConnectionLost, match="server at"):
            await connect(session, "http://127.0.0.1:1/", Methods(), name="server")
        with pytest.raises(ConnectionLost):
            await connect(session, "not a url", Methods(), name="server")


async def test_connect_to_who_never_answers() -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as session:
        with pytest.raises(ConnectionLost, match=r"did not answer within 0\.2 s"):
            await connect(session, f"http://127.0.0.1:{port}/", Methods(), name="server", timeout=0.2)


async def test_connect_to_what_is_no_websocket() -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as session:
        with pytest.raises(ConnectionLost):
            await connect(session, f"http://127.0.0.1:{port}/", Methods(), name="server")


async def test_running_closes_at_the_end(make_pair: Any) -> None:
    pair = await make_pair(doubling(), doubling())
    await pair.dialler.close()
    with pytest.raises(RuntimeError, match="called before"):
        await pair.dialler.run()


async def test_running(make_raw: Any) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        connection = await accept(request, doubling(), name="client")
        await asyncio.gather(connection.run(), return_exceptions=True)
        return connection.socket

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with aiohttp.ClientSession() as session:
        async with running(await connect(session, url, Methods(), name="server")) as connection:
            assert await connection.call("double", Number(4), Number) == Number(8)
        assert connection.closed
    await runner.cleanup()


async def test_a_greeting_that_is_cancelled_as_the_challenge_comes() -> None:
    """The cancellation is not lost, or whoever ends the task would wait for ever."""
    methods = Methods()
    greeter = Greeter(methods)
    connection: Any = None  # not reached: the challenge is all that is waited for
    waiting = asyncio.create_task(greeter._await_challenge(connection))
    await asyncio.sleep(0)
    greeter._challenged(Challenge(nonce="n"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
