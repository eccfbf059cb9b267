"""Media servers in this process, as far as participants see them: workers, cascade and signalling."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from mediaserver.cascade import CascadeHost, HostedRouter, Identity
from mediaserver.control.contract import (
    PEER_PATH,
    Address,
    LinkEntry,
    RouterEntry,
    SessionEntry,
    link_key,
    router_key,
)
from mediaserver.mediasoup import TransportListenInfo, WebRtcServer, Worker, create_worker
from mediaserver.pool import PoolConfig, WorkerPool
from mediaserver.signalling import SignallingEndpoint, SignallingSettings
from mediaserver.wire.listen import ListenAddress, Listener, listen
from mediaserver.wire.membership import ClusterKey
from mediaserver.wire.tokens import ParticipantClaims, mint

HOST = "127.0.0.1"
CODECS: list[dict[str, Any]] = [
    {"mimeType": "audio/opus", "clockRate": 48000, "channels": 2},
    {"mimeType": "video/VP8", "clockRate": 90000},
]
KEY = b"k" * 32
ISSUER = "cluster-uid"
SESSION = SessionEntry(
    namespace="shop",
    name="standup",
    uid="session-uid",
    issuers=[ISSUER],
    token_keys={"1": base64.b64encode(KEY).decode()},
)


def token(sub: str, **changes: Any) -> str:
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "sub": sub,
        "session": "shop/standup",
        "publish": True,
        "subscribe": True,
        "nbf": now,
        "exp": now + 60,
        "jti": secrets.token_hex(8),
    }
    return mint(ParticipantClaims(**{**claims, **changes}), "1", KEY)


async def until(condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """The condition's value once it is true."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        await asyncio.sleep(0.01)
    return value


class MediaServer:
    """One media server. `open` makes a router of the session on it."""

    def __init__(
        self,
        name: str,
        key: ClusterKey,
        pipes: range,
        settings: SignallingSettings,
        *,
        listening: PoolConfig | None = None,
    ) -> None:
        """`listening` says where the worker listens; absent: on any free port of HOST."""
        self.name = f"media/{name}"
        config = listening or PoolConfig(
            workers=1,
            client_host=HOST,
            client_port=1,  # not used: see _spawn
            pipe_host=HOST,
            pipe_port=pipes.start,
            pipe_end_port=pipes.stop - 1,
        )
        self.pool = WorkerPool(config, spawn=None if listening else self._spawn)
        self.host = CascadeHost(
            pool=self.pool,
            instance_id=f"{name}-1",
            credential=key,
            identity=Identity(cluster_uid=ISSUER, server_name=self.name),
        )
        self.endpoint = SignallingEndpoint(self.host, config=settings)
        self._listener: Listener | None = None

    @staticmethod
    async def _spawn(_: int) -> tuple[Worker, WebRtcServer]:
        worker = await create_worker()
        infos = [TransportListenInfo(ip=HOST, protocol="udp"), TransportListenInfo(ip=HOST, protocol="tcp")]
        return worker, await worker.create_webrtc_server(listen_infos=infos)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/ws", self.endpoint.handle)
        app.router.add_get(PEER_PATH, self.host.accept_peer)
        self._listener = await listen(app, ListenAddress(HOST, 0))
        await self.pool.start()

    async def close(self) -> None:
        await self.endpoint.close()
        await self.host.close()
        await self.pool.close()
        if self._listener is not None:
            await self._listener.close()

    @property
    def address(self) -> Address:
        assert self._listener is not None
        return Address(host=HOST, port=self._listener.address.port)

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self.address.port}/ws?roomId=shop/standup"

    async def open(self, name: str) -> HostedRouter:
        entry = RouterEntry(
            namespace="shop",
            name=name,
            uid=f"{name}-uid",
            session="standup",
            session_uid="session-uid",
            worker_slot=0,
            media_codecs=CODECS,
        )
        return await self.host.open_router(entry, SESSION)

    async def close_router(self, name: str, reason: str) -> None:
        await self.host.close_router(router_key("shop", name), reason)

    async def link(self, local: str, remote: str, other: MediaServer) -> None:
        await self.host.open_link(
            LinkEntry(
                namespace="shop",
                session_uid="session-uid",
                local_router=local,
                remote_router=remote,
                remote_server=other.name,
                remote_peer=other.address,
                srtp=True,
                rtx=True,
            )
        )

    def linked(self, one: str, two: str) -> bool:
        key = link_key("shop", one, two)
        return any(
            state.ready
            for state in self.host.link_states()
            if link_key("shop", state.local_router, state.remote_router) == key
        )
