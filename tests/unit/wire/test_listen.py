from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from mediaserver.wire.errors import ListenError
from mediaserver.wire.listen import ListenAddress, listen


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:4000", "127.0.0.1", 4000), ("[::1]:0", "::1", 0), ("localhost:65535", "localhost", 65535)],
)
def test_parse(text: str, host: str, port: int) -> None:
    address = ListenAddress.parse(text)
    assert address == ListenAddress(host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "4000", ":4000", "host:", "host:x", "host:65536", "host:-1", "::1:4000", "h:²"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ListenError):
        ListenAddress.parse(text)


async def test_listen() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application()
    app.router.add_get("/", handler)
    listener = await listen(app, ListenAddress("127.0.0.1", 0))
    assert listener.address.port > 0
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{listener.address}/") as answer:
            assert await answer.text() == "here"
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{listener.address.port}: "):
            await listen(web.Application(), listener.address)
        await listener.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"http://{listener.address}/")


async def test_an_address_of_another_machine() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:0"):
        await listen(web.Application(), ListenAddress("192.0.2.1", 0))


async def test_what_is_no_http_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    """It may hold a token. What a handler does wrong is told in full."""

    async def handler(request: web.Request) -> web.Response:
        raise ZeroDivisionError

    async def answer(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.address.port)
        writer.write(request)
        async with asyncio.timeout(5):
            answered = await reader.readline()
        writer.close()
        return answered

    app = web.Application()
    app.router.add_get("/", handler)
    listener = await listen(app, ListenAddress("127.0.0.1", 0))
    caplog.set_level("DEBUG")
    secret = b"secret" * 20
    for request in (
        b"GET /?token=" + secret + b"\x00 HTTP/1.1\r\n\r\n",
        b"GET /?token=" + secret * 1000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization: Bearer " + secret + b"\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization: Bearer " + secret * 1000 + b"\r\n\r\n",
        secret + b"\r\n\r\n",
    ):
        assert b" 400 " in await answer(request)
    assert "secret" not in caplog.text
    assert caplog.text.count("malformed request: ") == 5
    assert b" 500 " in await answer(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert "ZeroDivisionError" in caplog.text
    await listener.close()
