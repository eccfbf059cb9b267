"""A connection of an application's worker, over a transport that does as it is told."""

from __future__ import annotations

import asyncio

import pytest
from support.tenants import Application, FakeClock

from mediaserver import shim
from mediaserver.remote import tunnel as tunnel_module


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def turn() -> None:
    """Lets what has been scheduled happen."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_it_greets_and_carries_records(clock: FakeClock) -> None:
    app = Application(clock)
    records: list[bytes] = []
    app.tunnel.on_record = records.append
    clock.now += 3
    app.give(shim.TEXT, b'{"pid": 1}')
    assert await app.tunnel.hello(1) == {"pid": 1}
    assert app.tunnel.heard == clock.now
    app.tunnel.welcome({"worker": "w"})
    app.give(shim.BINARY, b"one")
    app.give(shim.PING, b"?")
    clock.now += 1
    app.tunnel.send(shim.Stream().send(shim.OUTPUT, b"out"))
    assert app.tunnel.said == clock.now
    assert records == [b"one"]
    assert app.said(shim.OUTPUT) == b"out"
    assert app.welcome == {"worker": "w"}


@pytest.mark.parametrize(
    ("opcode", "payload", "told"),
    [
        (shim.TEXT, b"\xff", "no JSON"),
        (shim.TEXT, b"[" * 60_000, "no JSON"),
        (shim.TEXT, b'{"pid":' + b"9" * 5000 + b"}", "no JSON"),
        (shim.TEXT, b"[]", "no JSON object"),
        (shim.TEXT, b" " * (shim.HELLO_LIMIT + 1), "a hello of more than"),
        (shim.BINARY, b"early", "opcode 2 has no place"),
        (shim.CLOSE, b"", "said goodbye"),
    ],
)
async def test_what_is_no_hello_ends_it(clock: FakeClock, opcode: int, payload: bytes, told: str) -> None:
    app = Application(clock)
    app.give(opcode, payload)
    with pytest.raises(shim.TunnelError, match=told):
        await app.tunnel.hello(1)
    app.read()
    assert app.goodbye is not None
    assert app.tunnel.closed.is_set()


async def test_a_second_hello_ends_it(clock: FakeClock) -> None:
    app = Application(clock)
    app.give(shim.TEXT, b"{}")
    app.give(shim.TEXT, b"{}")
    app.read()
    assert app.goodbye == (1002, "a message of opcode 1 has no place here")


async def test_no_hello_in_time(clock: FakeClock) -> None:
    app = Application(clock)
    with pytest.raises(shim.TunnelError, match="no hello within 0 s"):
        await app.tunnel.hello(0)


async def test_what_cannot_be_read_ends_it_and_the_reason_is_told_once(clock: FakeClock) -> None:
    app = Application(clock)
    lost: list[str] = []
    app.tunnel.on_lost = lost.append
    app.tunnel.data_received(b"\xff\xff\xff\xff")
    app.tunnel.close("again")
    await turn()
    app.tunnel.abort("again")
    await turn()
    assert len(lost) == 1
    assert "extension" in lost[0]
    app.tunnel.send(b"dropped")
    app.tunnel.read(False)


async def test_a_goodbye_that_nobody_reads_does_not_keep_it(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel_module, "_GOODBYE_SECONDS", 0.01)
    app = Application(clock)
    app.transport.unsent = 1
    app.tunnel.close("x" * 1000 + "\udcff")
    async with asyncio.timeout(5):
        await app.tunnel.closed.wait()
    assert app.transport.aborted


async def test_a_connection_that_is_gone_leaves_no_timer(clock: FakeClock) -> None:
    app = Application(clock)
    app.tunnel.close("bye")
    await turn()
    assert app.tunnel._goodbye is not None
    assert app.tunnel._goodbye.cancelled()


async def test_pings_are_not_answered_to_whoever_does_not_read(clock: FakeClock) -> None:
    app = Application(clock)
    app.transport.unsent = 1 << 20
    for _ in range(1000):
        app.give(shim.PING, b"x" * 125)
    assert not app.transport.taken


async def test_silence_does_not_count_while_nothing_is_taken(clock: FakeClock) -> None:
    app = Application(clock)
    app.tunnel.read(False)
    assert not app.transport.reading
    clock.now += 100
    app.tunnel.read(True)
    assert app.transport.reading
    assert app.tunnel.heard == clock.now
