"""Tokens of applications' workers, from `mafalda worker-token` to what media servers are told of them."""

from __future__ import annotations

import asyncio
import base64
import json
import time

from click.testing import CliRunner, Result
from integration.operator.world import World
from mafalda_operator.cli.main import main
from mafalda_operator.effects.api import CLUSTERS, SECRETS
from structlog.testing import capture_logs

from mediaserver.control.contract import SettingsEntry, TenantWorker, WorkerTokens
from mediaserver.control.fake import FakeMediaServer
from mediaserver.wire.worker_tokens import WorkerClaims, verify

KEY_SET = {"name": "apps", "secretRef": {"name": "apps-keys"}, "workers": True}
REVOKED_WITHIN = 10.0
"""Seconds until the worker of a revoked token has ended, of which this is the way to its server."""


async def mafalda(world: World, *arguments: str) -> Result:
    """A command with the world's kubeconfig, in a thread, since it has a loop of its own."""
    full = [*arguments, "--kubeconfig", str(world.kubeconfig)]
    with capture_logs():
        return await asyncio.to_thread(CliRunner().invoke, main, full)


def told(server: FakeMediaServer) -> WorkerTokens | None:
    settings = server.desired.get("settings")
    return settings.worker_tokens if isinstance(settings, SettingsEntry) else None


def admitted(server: FakeMediaServer, token: str) -> WorkerClaims:
    """As a media server judges a token. Raises TokenError."""
    tokens = told(server)
    assert tokens is not None
    keys = {kid: base64.b64decode(key) for kid, key in tokens.keys.items()}
    return verify(token, keys, tokens.issuers, revoked=tokens.revoked, now=time.time())


async def test_a_token_is_made_counts_on_every_server_and_is_revoked(world: World) -> None:
    await world.cluster(tokens={"keySets": [KEY_SET]})
    servers = [await world.server(f"m{number}") for number in range(2)]
    await world.operator()

    async def keys_told() -> bool:
        return all((tokens := told(server)) is not None and tokens.keys for server in servers)

    await world.eventually(keys_told, "every server knows the key")
    made = await mafalda(world, "worker-token", "--cluster", f"{world.name}/main", "--sub", "shop")
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    claims = [admitted(server, token) for server in servers]
    assert {one.sub for one in claims} == {"shop"}
    jti = claims[0].jti
    assert f"add {jti} to the data key revoked of Secret {world.name}/apps-keys" in made.stderr

    revoked = base64.b64encode(f"{jti}\n".encode()).decode()
    began = time.monotonic()
    await world.api.patch(SECRETS, world.name, "apps-keys", {"data": {"revoked": revoked}})

    async def jti_told() -> bool:
        return all((tokens := told(server)) is not None and tokens.revoked == [jti] for server in servers)

    await world.eventually(jti_told, "every server knows that it is revoked")
    assert time.monotonic() - began < REVOKED_WITHIN / 2
    tokens = told(servers[0])
    assert tokens is not None

    async def keys_shown() -> bool:
        status = (await world.api.get(CLUSTERS, world.name, "main")).get("status") or {}
        return [one.get("keyIDs") for one in status.get("keySets") or ()] == [sorted(tokens.keys)]

    await world.eventually(keys_shown, "the key's id, and no other, in the status")
    again = await mafalda(world, "worker-token", "--cluster", f"{world.name}/main", "--sub", "shop")
    assert admitted(servers[0], again.stdout.strip()).jti != jti

    await world.api.patch(SECRETS, world.name, "apps-keys", {"data": {"revoked": "/w=="}})

    async def said() -> bool:
        ready = await world.condition(CLUSTERS, "main", "Ready")
        return ready.get("reason") == "TokenRevocationsUnreadable"

    await world.eventually(said, "Ready=False TokenRevocationsUnreadable")


async def test_workers_are_listed_as_the_servers_tell_them(world: World) -> None:
    await world.cluster()
    server = await world.server("m0")
    await world.server("m1")
    server.tenant_workers = [
        TenantWorker(
            id="w1",
            subject="shop",
            token="t1",
            version="3.27.1",
            pid=1,
            attached=True,
            age=5.0,
            cpu=0.5,
            memory=2**20,
            consumers=0,
            transports=1,
        )
    ]
    asked = ("workers", "--cluster", f"{world.name}/main", "--cluster-key-file", str(world.key_file))
    listed = await mafalda(world, *asked, "-o", "json")
    assert listed.exit_code == 0, listed.output
    (worker,) = json.loads(listed.stdout)["workers"]
    assert (worker["server"], worker["id"], worker["subject"]) == (f"{world.name}/m0", "w1", "shop")
    await world.servers["m1"].kill()
    listed = await mafalda(world, *asked)
    assert listed.exit_code == 1
    assert "Attached" in listed.stdout
    assert listed.stderr.startswith(f"{world.name}/m1 can't be asked: ")
