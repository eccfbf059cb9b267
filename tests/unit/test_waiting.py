"""A media server waits for its addresses, tells why, and goes on once they are there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from mafalda_operator.cli.local.ports import PortPicker
from structlog.testing import capture_logs
from unit.remote.channel_data import POLICY
from unit.test_config import config

from mediaserver.addresses import AddressQuery, Announce, AnnounceType
from mediaserver.config import ServerConfig
from mediaserver.remote.settings import TenantSettings
from mediaserver.waiting import with_addresses
from mediaserver.wire.errors import ListenError
from mediaserver.wire.listen import ListenAddress, listen

PAUSE = 0.02
TENANTS = TenantSettings(policy=POLICY, binaries={}, cores=2, most_workers=2, most_cores=1.0)


def asking(directory: Path, *types: AnnounceType) -> ServerConfig:
    """Settings of a server on node n1 that wants those addresses."""
    made = config({"health": f"127.0.0.1:{PortPicker(host='127.0.0.1').port()}"})
    query = AddressQuery(
        wanted=tuple(Announce(kind) for kind in types),
        hosts=made.pool.client_hosts,
        directory=directory,
        node="n1",
        server="main-abcde",
    )
    return replace(made, addresses=query)


def write(directory: Path, **addresses: str) -> None:
    entries = [{"type": kind, "address": address} for kind, address in addresses.items()]
    (directory / "node.n1").write_text(json.dumps(entries))


async def get(made: ServerConfig, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{made.health}{path}") as response:
        return response.status, await response.text()


async def eventually(told: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await told():  # noqa: ASYNC110  nothing of the server sets an Event
            await asyncio.sleep(0.01)


async def test_without_a_wish_nothing_is_waited_for() -> None:
    made = config()
    assert await with_addresses(made) is made


async def test_what_is_there_is_taken_at_once(tmp_path: Path) -> None:
    write(tmp_path, ExternalIP="203.0.113.7", InternalIP="127.0.0.1")
    made = await with_addresses(asking(tmp_path, "NodeExternalIP", "NodeInternalIP"))
    assert made.pool.announced == ("203.0.113.7", "127.0.0.1")
    assert made.pool.client_hosts == ("127.0.0.1",)
    assert made.addresses is None


async def test_a_nodes_address_of_this_host_is_listened_on(tmp_path: Path) -> None:
    write(tmp_path, ExternalIP="127.0.0.2")
    made = await with_addresses(asking(tmp_path, "NodeExternalIP"))
    assert made.pool.client_hosts == ("127.0.0.1", "127.0.0.2")


async def test_tenants_get_the_first_address_that_leads_to_them(tmp_path: Path) -> None:
    write(tmp_path, ExternalIP="203.0.113.7", InternalIP="10.0.0.5")
    asked = replace(asking(tmp_path, "NodeExternalIP", "NodeInternalIP"), tenants=TENANTS)
    made = await with_addresses(asked)
    assert made.tenants is not None
    assert made.tenants.policy.announced_address == "203.0.113.7"


async def test_what_is_missing_is_told_until_it_is_there(tmp_path: Path) -> None:
    made = asking(tmp_path, "NodeExternalIP")
    with capture_logs() as logs:
        waiting = asyncio.create_task(with_addresses(made, pause=PAUSE))

        async def says(*words: str) -> bool:
            try:
                status, body = await get(made, "/readyz")
            except aiohttp.ClientError:
                return False
            assert status == 503
            return all(word in body for word in words)

        await eventually(lambda: says("--announce-from NodeExternalIP", "no such file"))
        assert await get(made, "/healthz") == (200, "ok\n")
        assert "process_cpu_seconds" in (await get(made, "/metrics"))[1]
        write(tmp_path, InternalIP="10.0.0.5")
        await eventually(lambda: says("node n1 has no usable ExternalIP", "InternalIP 10.0.0.5"))
        write(tmp_path, ExternalIP="203.0.113.7")
        complete = await asyncio.wait_for(waiting, 5)
    assert complete.pool.announced == ("203.0.113.7",)
    assert [line["event"] for line in logs] == ["waiting for addresses"] * 2 + ["addresses are known"]
    free = await listen(aiohttp.web.Application(), made.health)
    await free.close()


async def test_it_can_be_ended_while_it_waits(tmp_path: Path) -> None:
    made = asking(tmp_path, "LoadBalancer")
    waiting = asyncio.create_task(with_addresses(made, pause=60))

    async def answers() -> bool:
        try:
            return "server.main-abcde" in (await get(made, "/readyz"))[1]
        except aiohttp.ClientError:
            return False

    await eventually(answers)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    free = await listen(aiohttp.web.Application(), made.health)
    await free.close()


async def test_a_family_without_an_announced_address_is_warned_of(tmp_path: Path) -> None:
    write(tmp_path, ExternalIP="203.0.113.7")
    asked = asking(tmp_path, "NodeExternalIP")
    assert asked.addresses is not None
    asked = replace(asked, addresses=replace(asked.addresses, hosts=("127.0.0.1", "::1")))
    with capture_logs() as logs:
        await with_addresses(asked)
    assert [line["family"] for line in logs if line["log_level"] == "warning"] == ["IPv6"]


async def test_a_health_port_in_use_is_told(tmp_path: Path) -> None:
    made = asking(tmp_path, "NodeExternalIP")
    taken = await listen(aiohttp.web.Application(), ListenAddress("127.0.0.1", made.health.port))
    with pytest.raises(ListenError, match=str(made.health.port)):
        await with_addresses(made)
    await taken.close()
