"""Real WebRTC by each of several announced addresses: listened on, behind NAT, of both IP families."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from aioice import stun
from mafalda_operator.cli.local.ports import PortPicker
from mafalda_operator.cli.participant import Participant, synthetic
from mafalda_operator.cli.participant.attachment import Attachment
from support.media_server import HOST, MediaServer, token, until

from mediaserver.addresses import is_local
from mediaserver.control.facts import ServerFacts
from mediaserver.mediasoup import WebRtcTransport
from mediaserver.pool import PoolConfig
from mediaserver.signalling import SignallingSettings
from mediaserver.wire.listen import ListenAddress
from mediaserver.wire.membership import ClusterKey

SECOND = "127.0.0.2"
OUTSIDE = "127.0.0.3"
"""Nothing of the server's listens there."""

MakeAnnouncing = Callable[..., Awaitable[MediaServer]]


@pytest.fixture
async def announcing() -> AsyncIterator[MakeAnnouncing]:
    """Makes media servers whose worker listens on `hosts` and that announce `announced`; one router each."""
    async with contextlib.AsyncExitStack() as stack:
        ports = PortPicker(host=HOST)

        async def make(hosts: tuple[str, ...], announced: tuple[str, ...]) -> MediaServer:
            pipes = ports.range(2)
            pool = PoolConfig(
                workers=1,
                client_host=hosts[0],
                more_client_hosts=hosts[1:],
                announced=announced,
                client_port=ports.port(),
                pipe_host=HOST,
                pipe_port=pipes.start,
                pipe_end_port=pipes.stop - 1,
            )
            settings = SignallingSettings(linger=0.5, announced=announced)
            key = ClusterKey(secrets.token_bytes(32))
            server = MediaServer("one", key, pipes, settings, listening=pool)
            stack.push_async_callback(server.close)
            await server.start()
            assert server.pool.slots[0].state == "Running", server.pool.slots[0].reason
            await server.open("standup-a")
            return server

        yield make


class Reaching:
    """Has participants know only the candidates of one address, as if no other led to the server."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._addresses: dict[str, str] = {}
        ask = Attachment._ask

        async def filtered(attachment: Attachment, method: str, data: dict[str, Any]) -> dict[str, Any]:
            answer = await ask(attachment, method, data)
            if method == "createWebRtcTransport" and self._address is not None:
                found = [one for one in answer["iceCandidates"] if one["address"] == self._address]
                assert found, answer["iceCandidates"]
                answer["iceCandidates"] = found
            return answer

        self._address: str | None = None
        patch.setattr(Attachment, "_ask", filtered)

    @contextlib.asynccontextmanager
    async def call(self, server: MediaServer, name: str, address: str | None) -> AsyncIterator[Participant]:
        self._address = address
        publish = (synthetic("audio"),)
        async with Participant(server.url, token(name), publish=publish) as participant:
            self._address = None
            yield participant


@pytest.fixture
def reaching(monkeypatch: pytest.MonkeyPatch) -> Reaching:
    return Reaching(monkeypatch)


async def hears(participant: Participant, peer: str) -> None:
    def frames() -> bool:
        received = participant.received.get((peer, "audio"))
        return received is not None and received.frames >= 10

    await until(frames, f"{participant.peer_id} hears {peer}", timeout=20)


def selected(server: MediaServer) -> set[str]:
    """Local addresses of the transports' ICE tuples."""
    (hosted,) = server.host.routers.values()
    transports = [one for one in hosted.router.transports if isinstance(one, WebRtcTransport)]
    tuples = [transport.ice_selected_tuple for transport in transports]
    return {each.local_address for each in tuples if each is not None}


async def both_hear_each_other(server: MediaServer, reaching: Reaching, one: str, two: str) -> set[str]:
    """Participants that reach the server by an address each; returns what the worker saw them come to."""
    async with reaching.call(server, "alice", one) as alice, reaching.call(server, "bob", two) as bob:
        await hears(alice, "bob")
        await hears(bob, "alice")
        return selected(server)


async def test_each_of_two_addresses_that_are_listened_on(
    announcing: MakeAnnouncing, reaching: Reaching
) -> None:
    server = await announcing((HOST, SECOND), (SECOND, HOST))
    assert await both_hear_each_other(server, reaching, HOST, SECOND) == {HOST, SECOND}


async def test_an_address_outside_nat_beside_the_one_inside(
    announcing: MakeAnnouncing, reaching: Reaching
) -> None:
    server = await announcing((HOST,), (OUTSIDE, HOST))
    port = server.pool.config.client_port
    async with nat((OUTSIDE, port), (HOST, port)) as translated:
        await both_hear_each_other(server, reaching, OUTSIDE, HOST)
        assert translated.clients


async def test_an_address_that_leads_nowhere_hurts_nobody(
    announcing: MakeAnnouncing, reaching: Reaching
) -> None:
    server = await announcing((HOST, SECOND), (OUTSIDE, SECOND, HOST))
    async with reaching.call(server, "alice", None) as alice, reaching.call(server, "bob", None) as bob:
        await hears(alice, "bob")
        await hears(bob, "alice")


@pytest.mark.skipif(not is_local("::1"), reason="this host has no IPv6 loopback address")
@pytest.mark.parametrize("hosts", [(HOST, "::1"), ("0.0.0.0", "::")])
async def test_both_ip_families_at_one_port(
    announcing: MakeAnnouncing, reaching: Reaching, hosts: tuple[str, str]
) -> None:
    server = await announcing(hosts, ("::1", HOST))
    (slot,) = server.pool.slots
    assert slot.webrtc_server is not None
    dump = await slot.webrtc_server.dump()
    for sockets in (dump.udp_sockets, dump.tcp_servers):
        assert [(one.ip, one.port) for one in sockets] == [
            (host, server.pool.config.client_port) for host in hosts
        ]
    assert await both_hear_each_other(server, reaching, HOST, "::1") == set(hosts)


async def test_what_the_worker_tells_is_what_is_told(announcing: MakeAnnouncing) -> None:
    server = await announcing((HOST, SECOND), (HOST, SECOND))
    (slot,) = server.pool.slots
    (hosted,) = server.host.routers.values()
    assert slot.webrtc_server is not None
    transport = await hosted.router.create_webrtc_transport(
        webrtc_server=slot.webrtc_server, enable_udp=True, enable_tcp=True, prefer_udp=True
    )
    told: list[Any] = []
    async with Participant(server.url, token("alice"), publish=(synthetic("audio"),)) as alice:
        (path, *_) = alice._attachment._rtc._paths.values()  # type: ignore[union-attr]
        told = path._candidates
    own = [(one.address, one.protocol, one.port, one.priority) for one in transport.ice_candidates]
    assert [(one["address"], one["protocol"], one["port"], one["priority"]) for one in told] == own


async def test_each_address_answers_by_tcp(announcing: MakeAnnouncing) -> None:
    server = await announcing((HOST, SECOND), (HOST, SECOND))
    (slot,) = server.pool.slots
    (hosted,) = server.host.routers.values()
    assert slot.webrtc_server is not None
    transport = await hosted.router.create_webrtc_transport(webrtc_server=slot.webrtc_server, enable_tcp=True)
    own = transport.ice_parameters
    for address in server.pool.config.announced:
        question = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        question.attributes |= {
            "USERNAME": f"{own.username_fragment}:ours",
            "PRIORITY": 1,
            "ICE-CONTROLLING": 1,
        }
        question.add_message_integrity(own.password.encode())
        answer = await by_tcp(address, server.pool.config.client_port, bytes(question))
        assert answer.message_class == stun.Class.RESPONSE
        assert answer.transaction_id == question.transaction_id


async def by_tcp(host: str, port: int, question: bytes) -> stun.Message:
    """The answer to a STUN message, framed as RFC 4571 says."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(len(question).to_bytes(2, "big") + question)
        length = int.from_bytes(await reader.readexactly(2), "big")
        answer = stun.parse_message(await reader.readexactly(length))
        writer.close()
        await writer.wait_closed()
    return answer


async def test_operator_and_gateway_are_told_of_all_addresses(announcing: MakeAnnouncing) -> None:
    server = await announcing((HOST, SECOND), (SECOND, HOST))
    listens = ListenAddress(HOST, 4000)
    facts = ServerFacts(
        version="1", worker_version="3", internal=listens, participants=listens, pool=server.pool.config
    )
    hello = facts.hello(cluster_uid="u", highest_epoch=0, workers=[], nonce="n", reached_at=HOST)
    assert (hello.client.host, hello.client_addresses) == (SECOND, [SECOND, HOST])


# -- NAT ----------------------------------------------------------------------------------------------------


class _Nat(asyncio.DatagramProtocol):
    """The outside of a NAT that keeps ports: each client goes in by a socket of its own."""

    def __init__(self, inside: tuple[str, int]) -> None:
        self._inside = inside
        self.clients: dict[tuple[str, int], asyncio.DatagramTransport] = {}
        self._waiting: dict[tuple[str, int], list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.outside = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if (inside := self.clients.get(addr)) is not None:
            inside.sendto(data)
        elif addr in self._waiting:
            self._waiting[addr].append(data)
        else:
            self._waiting[addr] = [data]
            task = asyncio.create_task(self._open(addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self, client: tuple[str, int]) -> None:
        outside = self.outside

        class Back(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                outside.sendto(data, client)

        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Back, remote_addr=self._inside)
        self.clients[client] = transport
        for data in self._waiting.pop(client):
            transport.sendto(data)

    async def close(self) -> None:
        self.outside.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for transport in self.clients.values():
            transport.close()


@contextlib.asynccontextmanager
async def nat(outside: tuple[str, int], inside: tuple[str, int]) -> AsyncIterator[_Nat]:
    loop = asyncio.get_running_loop()
    _, made = await loop.create_datagram_endpoint(lambda: _Nat(inside), local_addr=outside)
    try:
        yield made
    finally:
        await made.close()
