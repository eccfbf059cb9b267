"""The operator as the issuer of certificates, on a real API server: made, used by all roles, handed over."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from integration.operator.world import ROOT, World
from mafalda_operator.effects import issuing
from mafalda_operator.effects.api import CLUSTERS, SECRETS
from mafalda_operator.effects.errors import NotFound
from support.certificates import write

from mediaserver.control.fake import FakeMediaServer
from mediaserver.wire.certificates import read
from mediaserver.wire.tls import Certificates, media_server_name

CA, GATEWAYS = "mafalda-ca", "mafalda-gateway-tls"


@pytest.fixture
def secured(world: World) -> World:
    """Operators of this world issue certificates."""
    world.credential = ("--tls-issue",)
    return world


async def secret(world: World, name: str) -> dict[str, bytes]:
    """Its data, once it is there."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        try:
            found.update(await world.api.get(SECRETS, world.name, name))
        except NotFound:
            return False
        return True

    await world.eventually(there, f"Secret {name}", 20)
    return {key: base64.b64decode(value) for key, value in found["data"].items()}


async def server(world: World, name: str) -> tuple[FakeMediaServer, Certificates]:
    """A fake media server, with a certificate of the CA that the operator made."""
    authority = issuing.read_authority(await secret(world, CA))
    names = frozenset({media_server_name(world.name, "main")})
    content = issuing.issue(authority, names, time.time(), time.time() + 3600)
    certificates = Certificates(read(content, where=str, now=time.time()))
    world.key = certificates
    return await world.server(name), certificates


async def test_operator_gateway_and_servers_meet_by_certificates_of_one_ca(
    secured: World, tmp_path: Path
) -> None:
    world = secured
    await world.cluster()
    operator = await world.operator()
    fake, _ = await server(world, "m0")
    await world.connected("m0")
    await world.session("standup", routers=1)
    await world.ready("standup")

    tls_dir = write(tmp_path / "gateway", await secret(world, GATEWAYS))
    log = tmp_path / "gateway.log"
    with log.open("w") as output:
        gateway = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediaserver.gateway", "--kubeconfig", str(world.kubeconfig)),
            *("--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--tls-dir", str(tls_dir)),
            stderr=output,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}"},
        )
    try:

        async def observed() -> bool:
            return fake.connections == {"operator": 1, "observer": 1}

        await world.eventually(observed, "the gateway observes the server", 20)
    finally:
        gateway.terminate()
        await asyncio.wait_for(gateway.wait(), 15)

    started = next(line for line in operator.output.splitlines() if "operator started" in line)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{json.loads(started)['metrics']}/metrics") as response,
    ):
        figures = await response.text()
    for name in ("operator", f"{world.name}/{CA}", f"{world.name}/{GATEWAYS}"):
        assert f'mafalda_operator_certificate_expiry_seconds{{secret="{name}"}}' in figures
    assert "PRIVATE KEY" not in operator.output + log.read_text()


async def test_a_cluster_with_pods_gets_its_secret_and_it_is_repaired(secured: World) -> None:
    world = secured
    made = await world.cluster(replicas=1, image="example.com/mafalda:none")
    await world.operator()
    first = read(await secret(world, "main-tls"), where=str, now=time.time())
    assert first.names == {media_server_name(world.name, "main")}
    stored = await world.api.get(SECRETS, world.name, "main-tls")
    assert stored["type"] == "kubernetes.io/tls"
    assert stored["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]

    spoiled = {"tls.key": base64.b64encode(b"spoiled").decode()}
    metadata = {"resourceVersion": stored["metadata"]["resourceVersion"]}
    await world.api.patch(SECRETS, world.name, "main-tls", {"metadata": metadata, "data": spoiled})

    async def repaired() -> bool:
        content = await secret(world, "main-tls")
        return content["tls.key"] != b"spoiled"

    await world.eventually(repaired, "the Secret is repaired", 20)
    again = read(await secret(world, "main-tls"), where=str, now=time.time())
    assert again.serial != first.serial


async def test_a_given_secret_that_is_missing_shows(secured: World) -> None:
    world = secured
    await world.cluster(
        replicas=1, image="example.com/mafalda:none", tls={"secretRef": {"name": "by-cert-manager"}}
    )
    await world.operator()

    async def told() -> bool:
        ready = await world.condition(CLUSTERS, "main", "Ready")
        return ready.get("reason") == "TLSSecretMissing" and "by-cert-manager" in ready["message"]

    await world.eventually(told, "TLSSecretMissing", 20)


async def test_a_standby_takes_over_with_a_certificate_of_the_same_ca(secured: World) -> None:
    world = secured
    await world.cluster()
    leader = await world.operator()
    fake, _ = await server(world, "m0")
    await world.connected("m0")
    before = await secret(world, CA)
    await world.operator(identity="second")
    epoch = fake.highest_epoch
    leader.kill()

    async def taken_over() -> bool:
        return fake.highest_epoch > epoch and fake.connections == {"operator": 1}

    await world.eventually(taken_over, "the standby commands the server", 25)
    assert await secret(world, CA) == before
