"""Which addresses for media answered, and what is said of those that did not."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from mafalda_operator.cli.participant.reachability import MediaAddress, Reachability, describe


def candidates(host: str, port: int) -> list[dict[str, Any]]:
    """As a server tells them."""
    return [{"ip": host, "port": port, "protocol": protocol} for protocol in ("udp", "tcp")]


def test_addresses_of_transports_that_never_connect_are_silent() -> None:
    found = Reachability()
    assert found.silent == ()
    found.tried(candidates("10.0.0.1", 10000))
    found.tried(candidates("10.0.0.2", 10001))
    found.reached(candidates("10.0.0.2", 10001))
    found.tried(candidates("10.0.0.2", 10001))  # by the next attachment
    assert found.silent == (MediaAddress("10.0.0.1", 10000, "tcp"), MediaAddress("10.0.0.1", 10000, "udp"))


def test_an_announced_name_counts_and_ipv6_is_bracketed() -> None:
    found = Reachability()
    found.tried([{"ip": "::", "address": "media.example.com", "port": 10000, "protocol": "UDP"}])
    found.tried([{"ip": "2001:db8::1", "port": 10000, "protocol": "udp"}])
    assert [str(one) for one in found.silent] == ["[2001:db8::1]:10000", "media.example.com:10000"]


async def test_ports_are_told_with_what_answers() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        refusing, open_port = bound.getsockname()[1], server.sockets[0].getsockname()[1]
        found = Reachability()
        found.tried(candidates("127.0.0.1", open_port))
        found.tried(candidates("127.0.0.1", refusing))
        told = await describe(found.silent)
    server.close()
    await server.wait_closed()
    assert f"127.0.0.1:{open_port}: UDP does not answer, TCP answers" in told.split("; ")
    assert f"127.0.0.1:{refusing}: UDP does not answer, TCP cannot be dialled" in told


async def test_nothing_is_told_of_nothing() -> None:
    assert await describe(()) == ""
