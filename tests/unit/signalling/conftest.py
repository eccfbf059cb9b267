"""An endpoint with one router whose mediasoup is a stand-in, and participants by hand."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, web
from doubles.cascade import ISSUER, KEY, LoneHost, LoneRouter, router_entry, session_entry
from doubles.mediasoup import FakeRouter
from doubles.protoo import JOIN, RECEIVER, RawParticipant

from mediaserver.signalling import SignallingEndpoint, SignallingSettings
from mediaserver.wire.tokens import ParticipantClaims, mint

NOW = 1_800_000_000.0


class World:
    """What a test plays with. `now` is the server's wall clock."""

    def __init__(self, settings: SignallingSettings, http: ClientSession) -> None:
        self.now = NOW
        self.host = LoneHost()
        self.hosted = self.open_router("standup-a")
        self.endpoint = SignallingEndpoint(self.host, clock=lambda: self.now, config=settings)  # type: ignore[arg-type]
        self.base = ""
        self._http = http
        self._participants: list[RawParticipant] = []

    def open_router(self, name: str, session: str = "standup") -> LoneRouter:
        router = LoneRouter(
            FakeRouter(), SimpleNamespace(), router_entry(name, session), session_entry(session)
        )
        return self.host.open(router)

    @property
    def router(self) -> FakeRouter:
        router: FakeRouter = self.hosted.router
        return router

    def token(self, sub: str = "alice", *, kid: str = "1", key: bytes = KEY, **changes: Any) -> str:
        claims = {
            "iss": ISSUER,
            "sub": sub,
            "session": "shop/standup",
            "publish": True,
            "subscribe": True,
            "nbf": self.now,
            "exp": self.now + 60,
            "jti": secrets.token_hex(4),
        }
        return mint(ParticipantClaims(**{**claims, **changes}), kid, key)

    async def dial(
        self,
        peer_id: str = "alice",
        *,
        token: str | None = None,
        room: str = "shop/standup",
        protocols: tuple[str, ...] = ("protoo",),
        headers: dict[str, str] | None = None,
        **claims: Any,
    ) -> RawParticipant:
        chosen = self.token(peer_id, **claims) if token is None else token
        params = {"roomId": room, "peerId": peer_id, "token": chosen}
        socket = await self._http.ws_connect(
            self.base, params=params, protocols=protocols, headers=headers or {}
        )
        participant = RawParticipant(socket)
        self._participants.append(participant)
        return participant

    async def publisher(self, peer_id: str = "alice", **claims: Any) -> tuple[RawParticipant, str]:
        """Joined, with a transport to send; returns that transport's id."""
        participant = await self.dial(peer_id, **claims)
        made = await participant.ask("createWebRtcTransport", {"producing": True})
        await participant.ask("join", JOIN)
        return participant, made["id"]

    async def receiver(self, peer_id: str = "bob", **claims: Any) -> RawParticipant:
        participant = await self.dial(peer_id, **claims)
        await participant.ask("createWebRtcTransport", {"consuming": True})
        await participant.ask("join", RECEIVER)
        return participant

    async def stop(self) -> None:
        for participant in self._participants:
            await participant.stop()


@pytest.fixture
def settings() -> SignallingSettings:
    return SignallingSettings(
        linger=0.5, retry_pause=0.02, max_retry_pause=0.1, answer_timeout=1.0, close_timeout=0.5
    )


@pytest.fixture
async def world(settings: SignallingSettings) -> AsyncIterator[World]:
    async with ClientSession() as http:
        world = World(settings, http)
        app = web.Application()
        app.router.add_get("/ws", world.endpoint.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        world.base = f"http://{host}:{port}/ws"
        yield world
        await world.stop()
        await world.endpoint.close()
        await runner.cleanup()
