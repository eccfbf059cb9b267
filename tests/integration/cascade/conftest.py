"""Several media servers' cascades in one process: real workers, peer connections on loopback, real RTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from mediaserver.cascade import CascadeHost, HostedRouter, Identity
from mediaserver.control.contract import (
    PEER_PATH,
    PIPE_PROTOCOL,
    Address,
    LinkEntry,
    RouterEntry,
    SessionEntry,
    SettingsEntry,
    link_key,
)
from mediaserver.mediasoup import (
    Consumer,
    Producer,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpParameters,
    TransportListenInfo,
    WebRtcServer,
    Worker,
    create_worker,
)
from mediaserver.pool import PoolConfig, WorkerPool
from mediaserver.wire.listen import ListenAddress, Listener, listen
from mediaserver.wire.membership import ClusterKey, Credential

HOST = "127.0.0.1"
CODECS: list[dict[str, Any]] = [
    {"mimeType": "audio/opus", "clockRate": 48000, "channels": 2},
    {"mimeType": "video/VP8", "clockRate": 90000},
]
OPUS = {"mime_type": "audio/opus", "clock_rate": 48000, "channels": 2, "payload_type": 100}
VP8 = {"mime_type": "video/VP8", "clock_rate": 90000, "payload_type": 101}
UID = "2f9d0e6e-session"


async def until(condition: Callable[[], Any], what: str, timeout: float = 8.0) -> Any:
    """The condition's value once it is true."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        await asyncio.sleep(0.01)
    return value


class Proxy:
    """A TCP connection's middle, which can be cut."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._flows: set[asyncio.Task[None]] = set()
        self.port = 0
        self.passes = True

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._pass, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._flows.add(task)
        writers = [writer]
        try:
            if self.passes:
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                writers.append(far_writer)
                ways = [self._copy(reader, far_writer), self._copy(far_reader, writer)]
                await asyncio.wait(
                    [asyncio.ensure_future(way) for way in ways], return_when=asyncio.FIRST_COMPLETED
                )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in writers:
                each.transport.abort()
            self._flows.discard(task)

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    def cut(self) -> None:
        """End what passes, and let nothing through."""
        self.passes = False
        for task in list(self._flows):
            task.cancel()

    async def close(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()


class Site:
    """One media server, as far as its cascade goes."""

    def __init__(
        self, name: str, key: Credential, workers: int, ports: tuple[int, int], pipe_protocol: int
    ) -> None:
        self.pipe_protocol = pipe_protocol
        self.name = f"media/{name}"
        self.key = key
        config = PoolConfig(
            workers=workers,
            client_host=HOST,
            client_port=1,  # not used: see _spawn
            pipe_host=HOST,
            pipe_port=ports[0],
            pipe_end_port=ports[1],
        )
        self.pool = WorkerPool(config, spawn=self._spawn)
        self.host = self._new_host()
        self.listener: Listener | None = None
        self.proxies: dict[str, Proxy] = {}

    @staticmethod
    async def _spawn(_: int) -> tuple[Worker, WebRtcServer]:
        worker = await create_worker(worker_bin=os.environ.get("MAFALDA_WORKER_BIN"))
        infos = [TransportListenInfo(ip=HOST, protocol="udp", port=0)]
        return worker, await worker.create_webrtc_server(listen_infos=infos)

    def _new_host(self) -> CascadeHost:
        return CascadeHost(
            pool=self.pool,
            instance_id=secrets.token_hex(4),
            credential=self.key,
            identity=Identity(cluster_uid="uid-1", server_name=self.name),
            pipe_protocol=self.pipe_protocol,
        )

    async def start(self) -> None:
        await self.pool.start()
        app = web.Application()
        app.router.add_get(PEER_PATH, self._peer)
        self.listener = await listen(app, ListenAddress(HOST, 0), secured=self.key.listening())

    async def _peer(self, request: web.Request) -> web.StreamResponse:
        return await self.host.accept_peer(request)

    async def restart_host(self) -> None:
        """As if the process had been started anew (its workers, too, have nothing left)."""
        await self.host.close()
        self.host = self._new_host()

    async def close(self) -> None:
        await self.host.close()
        for proxy in self.proxies.values():
            await proxy.close()
        await self.pool.close()
        if self.listener is not None:
            await self.listener.close()

    @property
    def peer(self) -> Address:
        assert self.listener is not None
        return Address(host=HOST, port=self.listener.address.port)

    async def proxy(self, to: Site) -> Proxy:
        """What this site dials instead of ``to``."""
        if to.name not in self.proxies:
            proxy = Proxy((HOST, to.peer.port))
            await proxy.start()
            self.proxies[to.name] = proxy
        return self.proxies[to.name]


class Cascade:
    """Sites, and one session over them."""

    def __init__(self) -> None:
        key = ClusterKey(secrets.token_bytes(32))
        self.credential: Callable[[str], Credential] = lambda _: key
        """Of each site."""
        self.sites: dict[str, Site] = {}
        self.media = Media()
        self.srtp = True
        self.session = SessionEntry(namespace="shop", name="standup", uid=UID, issuers=[], token_keys={})
        self.settings = SettingsEntry(prune_delay=0.5, silence_timeout=2.0)

    async def site(
        self,
        name: str,
        *,
        workers: int = 1,
        ports: tuple[int, int] = (40000, 49999),
        pipe_protocol: int = PIPE_PROTOCOL,
    ) -> Site:
        site = self.sites[name] = Site(name, self.credential(name), workers, ports, pipe_protocol)
        await site.start()
        site.host.apply_settings(self.settings)
        return site

    async def router(self, site: Site, name: str, slot: int = 0) -> HostedRouter:
        entry = RouterEntry(
            namespace="shop",
            name=name,
            uid=f"uid-{name}",
            session="standup",
            session_uid=UID,
            worker_slot=slot,
            media_codecs=CODECS,
        )
        return await site.host.open_router(entry, self.session)

    async def link(self, one: Site, first: str, two: Site, second: str) -> None:
        """Both servers are told of the link, as the operator does."""
        if one is two:
            await one.host.open_link(self.entry(first, second, two, None))
            return
        for here, mine, there, other in ((one, first, two, second), (two, second, one, first)):
            proxy = await here.proxy(there)
            address = Address(host=HOST, port=proxy.port)
            await here.host.open_link(self.entry(mine, other, there, address))

    def entry(self, mine: str, other: str, there: Site, address: Address | None) -> LinkEntry:
        return LinkEntry(
            namespace="shop",
            session_uid=UID,
            local_router=mine,
            remote_router=other,
            remote_server=there.name,
            remote_peer=address,
            srtp=self.srtp,
            rtx=True,
        )

    async def mesh(self, *names: str) -> list[HostedRouter]:
        """A site and a router of it for each name (`a`: site a, router r-a), all linked."""
        sites = [await self.site(name) for name in names]
        routers = [await self.router(site, f"r-{name}") for site, name in zip(sites, names, strict=True)]
        for index, one in enumerate(names):
            for two in names[index + 1 :]:
                await self.link(self.sites[one], f"r-{one}", self.sites[two], f"r-{two}")
        await self.linked()
        return routers

    def unready(self) -> list[Any]:
        return [state for site in self.sites.values() for state in site.host.link_states() if not state.ready]

    async def linked(self) -> None:
        await until(lambda: not self.unready(), "all links stand")

    async def close(self) -> None:
        self.media.close()
        for site in self.sites.values():
            await site.close()

    @staticmethod
    async def until(condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
        return await until(condition, what, timeout)

    @staticmethod
    def link_key(first: str, second: str) -> str:
        return link_key("shop", first, second)


class Media:
    """Sends and receives RTP on plain transports."""

    def __init__(self) -> None:
        self._ends: list[Any] = []

    async def send(self, hosted: HostedRouter, kind: str = "audio", **publish: Any) -> Sender:
        """A published producer that gets packets."""
        transport = await hosted.router.create_plain_transport(
            listen_info=TransportListenInfo(ip=HOST), comedia=True
        )
        ssrc = secrets.randbits(31) | 1
        codec = OPUS if kind == "audio" else VP8
        producer = await transport.produce(
            kind="audio" if kind == "audio" else "video",
            rtp_parameters=RtpParameters(
                codecs=[RtpCodecParameters(**codec)], encodings=[RtpEncodingParameters(ssrc=ssrc)]
            ),
        )
        sender = Sender(producer, (HOST, transport.tuple.local_port), ssrc, codec)
        self._ends.append(sender)
        hosted.publish(producer, peer_id="pat", source="mic", app_data={"tag": 1}, **publish)
        return sender

    async def receive(self, hosted: HostedRouter, producer_id: str) -> Receiver:
        """A consumer on this router, whose packets are counted."""
        receiver = Receiver()
        self._ends.append(receiver)
        transport = await hosted.router.create_plain_transport(listen_info=TransportListenInfo(ip=HOST))
        await transport.connect(ip=HOST, port=receiver.port)
        receiver.consumer = await transport.consume(
            producer_id=producer_id,  # type: ignore[arg-type]
            rtp_capabilities=hosted.router.rtp_capabilities,
        )
        return receiver

    def close(self) -> None:
        for end in self._ends:
            end.close()


class Sender:
    """A packet every 20 ms."""

    def __init__(self, producer: Producer, to: tuple[str, int], ssrc: int, codec: dict[str, Any]) -> None:
        self.producer = producer
        self.id: str = producer.id
        self._to, self._ssrc = to, ssrc
        self._payload_type = codec["payload_type"]
        self._step = codec["clock_rate"] // 50
        self._video = codec is VP8
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        number = 0
        while True:
            number += 1
            marker = 0x80 if self._video else 0
            header = struct.pack(
                "!BBHII", 0x80, self._payload_type | marker, number % 65536, number * self._step, self._ssrc
            )
            # VP8: descriptor with S set, then a key frame's header, so that each packet is a key frame.
            payload = b"\x10\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00" if self._video else b"\xf8"
            self._socket.sendto(header + payload + bytes(100), self._to)
            await asyncio.sleep(0.02)

    def close(self) -> None:
        self._task.cancel()
        self._socket.close()


class Receiver:
    """Counts RTP packets (not RTCP) that arrive."""

    def __init__(self) -> None:
        self.consumer: Consumer | None = None
        self.packets = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self._socket.recv(2048)
                if not 192 <= packet[1] <= 223:
                    self.packets += 1

    async def hears(self, more: int = 5, timeout: float = 5.0) -> None:
        """That many packets more arrive."""
        goal = self.packets + more
        await until(lambda: self.packets >= goal, f"{more} more packets (there were {self.packets})", timeout)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


@pytest.fixture
async def cascade() -> AsyncIterator[Cascade]:
    made = Cascade()
    yield made
    await made.close()
