"""A Secret of token keys changes: what every media server is told of it, and what no log is told."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mafalda_operator.effects.api import KubeApi, Listing, Object
from mafalda_operator.effects.delivery import Delivery
from mafalda_operator.effects.link import Epochs
from mafalda_operator.effects.secrets import KeySecrets
from mafalda_operator.effects.servers import ServerLinks
from mafalda_operator.loop import Effects, Loop
from mafalda_operator.metrics import Metrics
from mafalda_operator.model import Inventory, MediaCluster, MediaServer, ObjectKey
from structlog.testing import capture_logs

from mediaserver.control.contract import SettingsEntry, WorkerTokens
from mediaserver.control.fake import FakeMediaServer
from mediaserver.wire.membership import ClusterKey

PROMPTLY = 3.0
"""Seconds; servers have the rest of the ten that a revocation may take."""
KEY = ClusterKey(secrets.token_bytes(32))
FIRST, SECOND = b"the first key of applications !!", b"another key of applications !!!!"
SECRET = ObjectKey("media", "apps-keys")
KEY_SET = {"name": "apps", "secretRef": {"name": "apps-keys"}, "workers": True}


def encoded(**data: bytes) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in data.items()}


class OneSecret:
    """An API server that holds one Secret, which may change or end."""

    def __init__(self, data: dict[str, str]) -> None:
        self.watches = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self._object: Object | None = {"data": data}
        self._events: asyncio.Queue[Object] = asyncio.Queue()

    def change(self, data: dict[str, str] | None) -> None:
        """None: delete it."""
        before, self._object = self._object, None if data is None else {"data": data}
        kind = "DELETED" if data is None else "MODIFIED"
        self._events.put_nowait({"type": kind, "object": self._object or before})

    async def list(self, *_: Any, field_selector: str) -> Listing:
        assert field_selector == f"metadata.name={SECRET.name}"
        await self.answering.wait()
        return Listing(1, [] if self._object is None else [self._object])

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Object]:
        self.watches += 1
        while True:
            yield await self._events.get()


class Rig:
    """The loop as it is, with its links, its Secrets and its planner; nothing is written to an API."""

    def __init__(self, servers: list[FakeMediaServer], api: OneSecret) -> None:
        self.servers = servers
        inventory = Inventory()
        self.loop = Loop(inventory, Metrics(), may_act=lambda: True)
        self.links = ServerLinks(KEY, Epochs(lambda: 1, lambda _: None), self.loop.heard)
        self.secrets = KeySecrets(cast(KubeApi, api), self.loop.token_keys)
        lister = SimpleNamespace(complete=True, request=lambda *_, **__: 0.0, fresh_since=lambda _: True)
        self.effects = Effects(
            actor=cast(Any, SimpleNamespace(act=self._act)),
            statuses=cast(Any, SimpleNamespace(pending=[], write=lambda _: None, withdraw=lambda *_: None)),
            events=cast(Any, SimpleNamespace(write=lambda _: None)),
            links=self.links,
            delivery=Delivery(self.links, inventory, lister, lambda _: None),
            secrets=self.secrets,
            lister=cast(Any, lister),
            follower=cast(Any, SimpleNamespace(set_wanted=lambda _: None)),
        )
        metadata = {"namespace": "media", "name": "main", "uid": "u"}
        spec: dict[str, Any] = {"tokens": {"keySets": [KEY_SET]}}
        status = {"keySets": [{"name": "apps", "secretName": SECRET.name, "keyIDs": ["k1"]}]}
        inventory.put(MediaCluster.parse({"metadata": metadata, "spec": spec, "status": status}))
        for number, server in enumerate(servers):
            metadata = {"namespace": "media", "name": f"m{number}", "uid": f"u{number}"}
            spec = {"clusterRef": {"name": "main"}, "endpoint": {"address": server.endpoint}}
            inventory.put(MediaServer.parse({"metadata": metadata, "spec": spec}))

    async def _act(self, _: object) -> list[Any]:
        return []

    async def __aenter__(self) -> Rig:
        """It leads from now on."""
        await self.links.open()
        self._leading = asyncio.create_task(self.loop.run(self.effects))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leading.cancel()
        await asyncio.gather(self._leading, return_exceptions=True)
        await self.secrets.close()
        await self.links.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  the fake servers have no event for what they are told
                await asyncio.sleep(0.005)

    async def told(self, condition: Callable[[WorkerTokens], bool]) -> float:
        """Seconds until every server is told what fulfils the condition."""
        began = time.monotonic()
        await self.until(lambda: all(condition(self._tokens(server)) for server in self.servers))
        return time.monotonic() - began

    def _tokens(self, server: FakeMediaServer) -> WorkerTokens:
        settings = server.desired.get("settings")
        nobody = WorkerTokens(issuers=[], keys={})
        return (isinstance(settings, SettingsEntry) and settings.worker_tokens) or nobody


@pytest.fixture
def api() -> OneSecret:
    return OneSecret(encoded(k1=FIRST))


@pytest.fixture
async def servers() -> AsyncIterator[list[FakeMediaServer]]:
    async with FakeMediaServer(KEY) as one, FakeMediaServer(KEY) as two:
        yield [one, two]


@pytest.fixture
async def rig(servers: list[FakeMediaServer], api: OneSecret) -> AsyncIterator[Rig]:
    async with Rig(servers, api) as rig:
        await rig.told(lambda tokens: set(tokens.keys) == {"k1"})
        yield rig


async def test_a_revoked_token_reaches_every_server_at_once(rig: Rig, api: OneSecret) -> None:
    applies = [server.applies for server in rig.servers]
    api.change(encoded(k1=FIRST, revoked=b"stolen\nlost"))
    assert await rig.told(lambda tokens: tokens.revoked == ["lost", "stolen"]) < PROMPTLY
    assert [server.applies for server in rig.servers] == [count + 1 for count in applies]


async def test_a_removed_key_reaches_every_server_at_once(rig: Rig, api: OneSecret) -> None:
    api.change(encoded(k2=SECOND))
    assert await rig.told(lambda tokens: set(tokens.keys) == {"k2"}) < PROMPTLY
    api.change(None)
    assert await rig.told(lambda tokens: not tokens.keys) < PROMPTLY
    assert api.watches == 1


async def test_a_new_leader_that_has_not_read_the_keys_leaves_servers_what_they_were_told(
    servers: list[FakeMediaServer], api: OneSecret
) -> None:
    """Else every worker would end whenever the operator is started anew."""
    async with Rig(servers, api) as first:
        await first.told(lambda tokens: set(tokens.keys) == {"k1"})
    applies = [server.applies for server in servers]
    api.answering.clear()
    async with Rig(servers, api) as second:
        await second.until(lambda: all(map(int.__gt__, [server.applies for server in servers], applies)))
        assert all("settings" not in server.desired for server in servers)
        api.answering.set()
        assert await second.told(lambda tokens: set(tokens.keys) == {"k1"}) < PROMPTLY


async def test_what_admits_is_logged_nowhere(
    api: OneSecret, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither when it is told, nor when a server refuses it or is dialled anew."""
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        api.change(encoded(k1=FIRST, k2=SECOND, revoked=b"stolen"))
        await rig.told(lambda tokens: set(tokens.keys) == {"k1", "k2"})
        await rig.servers[0].restart()
        await rig.told(lambda tokens: set(tokens.keys) == {"k1", "k2"})
    said = f"{logs} {caplog.text}"
    assert "media server" in said
    for key in (FIRST, SECOND):
        assert base64.b64encode(key).decode() not in said
        assert key.decode() not in said
