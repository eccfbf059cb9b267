"""A gateway with certificates: its observer links, participants' hop and applications' relays go by TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
from structlog.testing import capture_logs
from support.certificates import GATEWAY, OTHER_SERVER, SERVER, Authority
from unit.gateway.conftest import World
from unit.gateway.worker_world import WorkerWorld, quick_loads

from mediaserver.gateway.frontdoor import Limits
from mediaserver.gateway.worker_finding import WorkerLimits
from mediaserver.wire.close_codes import DIAL_LATER
from mediaserver.wire.tls import Certificates

MEBIBYTE = bytes(range(256)) * 4096


class Members:
    """One certificate for each name; ``wrong`` replaces some by those of others."""

    def __init__(self) -> None:
        self.authority = Authority()
        self.wrong: dict[str, Certificates] = {}
        self._made: dict[str, Certificates] = {}

    def __call__(self, name: str) -> Certificates:
        return self.wrong.get(name) or self._made.setdefault(name, self.authority.certificates(name))

    def renew(self) -> None:
        """All get new certificates, by a new CA with the old one beside it."""
        self.authority.add_next()
        self.authority.promote()
        for name, certificates in self._made.items():
            certificates.put(self.authority.material(name))


@pytest.fixture
def members() -> Members:
    return Members()


@pytest.fixture
async def world(members: Members) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        made = World(stack, Limits(session_wait=0.2, router_wait=0.5), members)
        await made.start()
        yield made


@pytest.fixture
async def workers(members: Members, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WorkerWorld]:
    quick_loads(monkeypatch)
    async with AsyncExitStack() as stack:
        made = WorkerWorld(stack, WorkerLimits(links_wait=0.5, loads_wait=0.3, answer_wait=2.0), members)
        await made.start()
        yield made


async def test_a_participant_comes_through(world: World) -> None:
    await world.add_servers(1)
    socket, _ = await world.admitted()
    upstream = world.participants[0].arrivals[0].socket
    names = upstream.get_extra_info("ssl_object").getpeercert()["subjectAltName"]
    assert names == (("DNS", GATEWAY),)
    await socket.send_str("x" * 60_000)
    assert await socket.receive_str(timeout=5) == "x" * 60_000
    await socket.close()


async def test_renewal_cuts_no_participant_and_the_next_one_has_the_new_certificate(
    world: World, members: Members
) -> None:
    await world.add_servers(1)
    first, _ = await world.admitted()
    links = [link.hello for link in world.gateway.links.all()]
    members.renew()
    await world.admitted(peerId="ann", token=world.token())
    presented = world.participants[0].arrivals[1].socket.get_extra_info("ssl_object").getpeercert()
    material = members(GATEWAY).material
    assert material is not None
    assert int(presented["serialNumber"], 16) == material.serial
    await first.send_str("still here")
    assert await first.receive_str(timeout=5) == "still here"
    assert [link.hello for link in world.gateway.links.all()] == links


async def test_a_lost_server_is_noticed_as_ever(world: World) -> None:
    await world.add_servers(2)
    socket, index = await world.admitted()
    await world.participants[index].stop()
    message = await socket.receive(timeout=5)
    assert message.type is aiohttp.WSMsgType.CLOSE


async def test_a_gateway_that_is_another_clusters_server_gets_no_link(world: World, members: Members) -> None:
    await world.add_servers(1)
    link = world.gateway.links.all()[0]
    members.renew()
    link._credential = members.authority.certificates(OTHER_SERVER)
    await world.servers[0].close()
    await world.servers[0].start()
    await world.until(lambda: "the certificate is for" in link.problem)


async def test_a_server_that_is_not_the_one_expected_takes_no_participant(
    world: World, members: Members
) -> None:
    """Whoever listens where the server said it would."""
    await world.add_servers(1)
    stranger = Authority()
    members(SERVER).put(stranger.material(SERVER))
    with capture_logs() as logs:
        code, _ = await world.closed(await world.dial())
    assert code == DIAL_LATER
    told = [entry["reason"] for entry in logs if entry["event"] == "router does not answer"]
    assert any("of a CA that is not in this side's ca.crt" in reason for reason in told), logs
    assert "token" not in str(told)
    assert world.participants[0].arrivals == []


async def test_an_application_comes_through(workers: WorkerWorld) -> None:
    await workers.add_servers(1)
    tunnel, index = await workers.carried()
    assert index == 0
    names = workers.workers[0].dials[0].writer.get_extra_info("ssl_object").getpeercert()["subjectAltName"]
    assert names == (("DNS", GATEWAY),)
    for _ in range(4):
        assert await tunnel.echoed(MEBIBYTE) == MEBIBYTE
    tunnel.close()
    await (await workers.workers[0].dial()).ended.wait()


async def test_an_applications_server_dies(workers: WorkerWorld) -> None:
    await workers.add_servers(1)
    tunnel, _ = await workers.carried()
    await workers.workers[0].stop()
    await tunnel.ended()


async def test_an_application_whose_server_is_not_the_one_expected(
    workers: WorkerWorld, members: Members
) -> None:
    await workers.add_servers(1)
    members(SERVER).put(Authority().material(SERVER))
    with capture_logs() as logs:
        refused = await workers.refused()
    assert refused.status == 503
    told = [entry["reason"] for entry in logs if entry["event"] == "media server does not take a worker"]
    assert any("of a CA that is not in this side's ca.crt" in reason for reason in told), logs
