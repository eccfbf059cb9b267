"""One worker of an application: connections that come and go, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from support.media_server import until
from support.tenants import Application, TapError, World

from mediaserver import shim
from mediaserver.mediasoup.process import ExitStatus
from mediaserver.remote.errors import CannotStart


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.tenant.start()
    yield world
    await world.close()


async def carried(read: Callable[[], object], wanted: object) -> None:
    await until(lambda: read() == wanted, f"{wanted!r} came")


async def test_what_each_says_the_other_hears(world: World) -> None:
    app = world.attach()
    app.send(shim.REQUESTS, b"request")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        assert await loop.sock_recv(world.process.reads, 100) == b"request"
    world.process.says.send(b"answer")
    os.write(world.process.stdout, b"out")
    os.write(world.process.stderr, b"err")
    for kind, text in ((shim.ANSWERS, b"answer"), (shim.OUTPUT, b"out"), (shim.ERRORS, b"err")):
        await until(lambda kind=kind, text=text: app.said(kind) == text, f"{text!r} came")  # type: ignore[misc]
    world.tenant.ask_for_figures()
    async with asyncio.timeout(5):
        assert await loop.sock_recv(world.process.reads, 100) == b"stats?"


@pytest.mark.parametrize(
    ("payload", "sent"),
    [
        (bytes((signal.SIGTERM,)), [signal.SIGTERM]),
        (bytes((signal.SIGINT,)), [signal.SIGINT]),
        *((bytes((number,)), []) for number in (0, signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR1, 255)),
    ],
)
async def test_only_some_signals_are_passed_on(world: World, payload: bytes, sent: list[int]) -> None:
    app = world.attach()
    app.send(shim.SIGNAL, payload)
    assert world.process.signals == sent


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        *((kind, b"x") for kind in (shim.OUTPUT, shim.ERRORS, shim.ANSWERS)),
        (shim.EXIT, b"\0\0"),
        (shim.SIGNAL, b""),
        (shim.SIGNAL, b"\x0f\x0f"),
    ],
)
async def test_what_only_a_server_says_ends_the_connection(world: World, kind: int, payload: bytes) -> None:
    app = world.attach()
    app.send(kind, payload)
    await turn()
    app.read()
    assert app.goodbye is not None
    assert not world.tenant.attached
    assert world.tenant.alive


async def test_heartbeats(world: World) -> None:
    app = world.attach()
    app.read()
    world.tick(world.settings.heartbeat - 0.01)
    assert not app.transport.taken
    world.tick(0.01)
    assert app.transport.taken
    app.transport.taken.clear()
    world.tick(0.0)
    assert not app.transport.taken


async def test_silence_cuts_a_connection_and_the_worker_goes_on(world: World) -> None:
    app = world.attach()
    app.heartbeat()
    world.tick(world.settings.silence)
    await turn()
    assert app.transport.aborted
    assert not world.tenant.attached
    again = world.attach(app.stream)
    world.tick(world.settings.silence - 0.01)
    assert not again.transport.aborted


@pytest.mark.parametrize("confirmed", [False, True])
async def test_an_application_that_stays_away(world: World, confirmed: bool) -> None:
    """One that may not have its ticket cannot come back; another one has the resume timeout."""
    app = world.attach()
    if confirmed:
        app.heartbeat()
    app.tunnel.abort("cut")
    await turn()
    assert world.tenant.alive is confirmed
    world.tick(world.settings.resume_timeout - 0.01)
    assert world.tenant.alive is confirmed
    world.tick(0.01)
    async with asyncio.timeout(5):
        await world.tenant.ended.wait()
    assert not world.tenant.alive
    assert world.finished == 1


async def test_a_ticket_confirms_also_without_a_record(world: World) -> None:
    app = world.attach()
    again = world.attach(app.stream)
    again.tunnel.abort("cut")
    await turn()
    assert world.tenant.alive


async def test_attaching_twice_cuts_the_older(world: World) -> None:
    one = world.attach()
    one.read()
    other = world.attach(one.stream)
    one.send(shim.SIGNAL, bytes((signal.SIGTERM,)))
    await turn()
    assert one.transport.aborted
    assert world.tenant.attached
    assert not world.process.signals
    os.write(world.process.stdout, b"x")
    await until(lambda: other.said(shim.OUTPUT) == b"x", "the new one hears")


async def test_nothing_is_lost_or_said_twice_over_two_connections(world: World) -> None:
    app = world.attach()
    os.write(world.process.stdout, b"one ")
    await until(lambda: b"one" in app.transport.taken, "it was said")
    app.heartbeat()
    app.tunnel.abort("cut before it was read")
    await turn()
    os.write(world.process.stdout, b"two")
    await until(lambda: world.tenant._stream.sent == 2, "the worker went on")
    assert world.attach(app.stream).said(shim.OUTPUT) == b"one two"


@pytest.mark.parametrize("received", [1, 10**30])
async def test_a_false_account_of_what_was_received_keeps_the_older(world: World, received: int) -> None:
    world.attach()
    with pytest.raises(shim.TunnelError):
        world.tenant.attach(Application(world.clock).tunnel, received)
    assert world.tenant.attached


async def test_a_connection_that_is_gone_already_is_not_attached(world: World) -> None:
    """It would never be lost again, so its worker would stay for ever."""
    app = Application(world.clock)
    app.tunnel.connection_lost(None)
    with pytest.raises(shim.TunnelError, match="gone"):
        world.tenant.attach(app.tunnel, 0)
    assert not world.tenant.attached


async def test_an_ended_worker_is_not_attached(world: World) -> None:
    await world.tenant.close("over", 0.0)
    with pytest.raises(CannotStart, match="the worker is gone"):
        world.tenant.attach(Application(world.clock).tunnel, 0)


# -- bounds -------------------------------------------------------------------------------------------------


async def test_more_than_the_buffer_for_an_application_that_is_away_ends_it(world: World) -> None:
    app = world.attach()
    app.heartbeat()
    app.tunnel.abort("cut")
    await turn()
    for _ in range(20):
        world.tenant._say(shim.OUTPUT, b"x" * 10_000)
    assert not world.tenant.alive


async def test_an_application_that_does_not_read_is_bounded(world: World) -> None:
    """Neither refusals nor requests that wait pass the bounds, and the worker is not asked any more."""
    app = world.attach()
    world.tap.refusal = b"no" * 5000
    for _ in range(1000):
        app.send(shim.REQUESTS, b"x" * 1000)
    assert world.tenant._stream.waiting < world.settings.buffer
    assert not world.tenant._held
    assert not world.tenant.alive
    await until(lambda: b"did not read" in app.said(shim.ERRORS), "it is told")


async def test_requests_wait_until_the_application_has_read(world: World) -> None:
    app = world.attach()
    world.tenant._say(shim.ANSWERS, b"x" * 60_000)
    app.send(shim.REQUESTS, b"one ")
    app.send(shim.REQUESTS, b"two")
    await turn()
    with pytest.raises(BlockingIOError):
        world.process.reads.recv(10)
    app.read()
    app.heartbeat()
    async with asyncio.timeout(5):
        assert await asyncio.get_running_loop().sock_recv(world.process.reads, 100) == b"one two"


async def test_requests_that_wait_are_not_acknowledged_and_come_again(world: World) -> None:
    app = world.attach()
    world.tenant._say(shim.ANSWERS, b"x" * 60_000)
    again = [app.stream.send(shim.REQUESTS, text) for text in (b"one ", b"two")]
    app.give(shim.BINARY, again[0])
    assert world.tenant._held
    app.tunnel.abort("cut")
    await turn()
    assert not world.tenant._held
    other = world.attach(app.stream)
    assert other.said(shim.ANSWERS) == b"x" * 60_000
    assert other.welcome is not None
    assert other.welcome["received"] == 0
    other.heartbeat()
    for record in again:
        other.give(shim.BINARY, record)
    async with asyncio.timeout(5):
        assert await asyncio.get_running_loop().sock_recv(world.process.reads, 100) == b"one two"


async def test_a_congested_worker_holds_its_application_until_it_ends(world: World) -> None:
    app = world.attach()
    for _ in range(20):
        app.send(shim.REQUESTS, b"x" * 250_000)
        if not app.transport.reading:
            break
    assert not app.transport.reading
    world.process.end(ExitStatus(signal=signal.SIGSEGV))
    await until(lambda: app.transport.reading, "it is read again")


# -- the end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (ExitStatus(code=0), b"\0\0"),
        (ExitStatus(code=42), b"\0\x2a"),
        (ExitStatus(signal=signal.SIGSEGV), bytes((1, signal.SIGSEGV))),
        (ExitStatus(), b"\0\1"),
    ],
)
async def test_the_end_is_told_after_the_last_words(world: World, status: ExitStatus, told: bytes) -> None:
    app = world.attach()
    world.process.says.send(b"last")
    os.write(world.process.stderr, b"words")
    world.process.end(status)
    await until(lambda: app.said(shim.EXIT) == told, "the end is told")
    assert (app.said(shim.ANSWERS), app.said(shim.ERRORS)) == (b"last", b"words")
    assert app.records[-1].kind == shim.EXIT
    assert not world.tenant.ended.is_set()
    app.heartbeat()
    assert world.tenant.ended.is_set()


async def test_the_end_waits_for_an_application_that_comes_back(world: World) -> None:
    app = world.attach()
    app.heartbeat()
    app.tunnel.abort("cut")
    await turn()
    world.process.end(ExitStatus(code=7))
    await until(lambda: world.tenant._exit is not None, "it has ended")
    assert not world.tenant.ended.is_set()
    again = world.attach(app.stream)
    assert again.said(shim.EXIT) == b"\0\7"
    again.heartbeat()
    assert world.tenant.ended.is_set()


@pytest.mark.parametrize("attached", [False, True])
async def test_the_end_does_not_wait_for_ever(world: World, attached: bool) -> None:
    """Neither for one that stays away nor for one that is there and never says that it was told."""
    app = world.attach()
    app.heartbeat()
    if not attached:
        app.tunnel.abort("cut")
    await turn()
    world.process.end(ExitStatus(code=7))
    await until(lambda: world.tenant._exit is not None, "it has ended")
    world.tick(world.settings.resume_timeout - 0.01)
    assert not world.tenant.ended.is_set()
    app.tunnel.heard = world.clock.now
    world.tick(0.01)
    assert world.tenant.ended.is_set()


@pytest.mark.parametrize("fault", [TapError("size 7"), ZeroDivisionError("a bug")])
@pytest.mark.parametrize("side", ["application", "worker"])
async def test_a_fault_in_the_tap_ends_it(world: World, fault: Exception, side: str) -> None:
    app = world.attach()
    world.tap.fault = fault
    if side == "application":
        app.send(shim.REQUESTS, b"x")
    else:
        world.process.says.send(b"x")
    await until(lambda: app.said(shim.EXIT) == b"\0\1", "the end is told")
    told = app.said(shim.ERRORS).decode()
    assert f"the {side}'s channel cannot be read" in told
    assert ("size 7" in told) is isinstance(fault, TapError)


async def test_a_closed_channel_kills_what_does_not_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediaserver.remote.tenant.EXIT_GRACE", 0.01)
    app = world.attach()
    app.send(shim.END)
    app.send(shim.END)
    await until(lambda: world.process.signals == [signal.SIGKILL], "it was killed")


async def test_dtls_files_are_gone_once_it_runs(world: World) -> None:
    (argument,) = world.files.arguments
    path = argument.partition("=")[2]
    assert os.access(path, os.R_OK)
    world.process.says.send(b"running")
    await until(lambda: not os.access(path, os.R_OK), "the file is gone")


def open_descriptors() -> set[str]:
    gc.collect()
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("failing", range(4))
async def test_a_start_that_fails_half_way_leaves_no_descriptor(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    world = World()
    await world.tenant.start()
    await world.close()  # a loop opens some of its own at the first use, uvloop at least
    before = open_descriptors()
    world = World()
    names = ["create_connection", "connect_read_pipe"]
    made = 0
    for name in names:
        real = getattr(loop, name)

        async def connect(*args: object, real: Callable[..., object] = real, **kw: object) -> object:
            nonlocal made
            made += 1
            if made > failing:
                raise OSError(24, "Too many open files")
            return await real(*args, **kw)  # type: ignore[misc]

        monkeypatch.setattr(loop, name, connect)
    with pytest.raises(OSError, match="Too many"):
        await world.tenant.start()
    await world.close()
    await until(lambda: open_descriptors() == before, "all descriptors are closed")
