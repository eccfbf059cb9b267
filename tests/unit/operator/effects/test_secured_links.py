"""Control links by TLS against fake media servers: what is told of those that fail, and renewal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mafalda_operator.effects.link import Epochs, Target
from mafalda_operator.effects.servers import ServerLinks
from mafalda_operator.model import ObjectKey, ServerView
from support.certificates import GATEWAY, OPERATOR, OTHER_SERVER, SERVER, Authority

from mediaserver.control.fake import FakeMediaServer
from mediaserver.wire.membership import ClusterKey, Credential
from mediaserver.wire.tls import Certificates

NAME = ObjectKey("media", "m0")
KEY = ClusterKey(b"k" * 32)


class Rig:
    def __init__(self, server: FakeMediaServer, credential: Credential, server_name: str) -> None:
        self.server = server
        self.links = ServerLinks(credential, Epochs(lambda: 1, lambda _: None), lambda _: None)
        cluster = ObjectKey("media", "main")
        self.target = Target(NAME, server.endpoint, cluster, "uid", silence=3.0, server_name=server_name)

    @property
    def view(self) -> ServerView:
        view = self.links.view(NAME)
        assert view is not None
        return view

    @property
    def connection(self) -> Any:
        return self.links._links[NAME]._connection

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  conditions on both sides of the wire
                await asyncio.sleep(0.005)


@asynccontextmanager
async def linked(server: Credential, operator: Credential, name: str = SERVER) -> AsyncIterator[Rig]:
    async with FakeMediaServer(server) as fake:
        rig = Rig(fake, operator, name)
        await rig.links.open()
        rig.links.set_targets([rig.target])
        try:
            yield rig
        finally:
            await rig.links.close()


async def test_a_link_by_tls() -> None:
    authority = Authority()
    async with linked(authority.certificates(SERVER), authority.certificates(OPERATOR)) as rig:
        await rig.until(lambda: rig.view.connected and rig.view.report_received)
        assert rig.connection.presented == {SERVER}


async def test_a_host_with_a_name_of_its_own() -> None:
    """spec.endpoint.serverName."""
    authority = Authority()
    host = authority.certificates("media1.example.com", SERVER)
    async with linked(host, authority.certificates(OPERATOR), "media1.example.com") as rig:
        await rig.until(lambda: rig.view.connected)


@pytest.mark.parametrize(
    ("server", "operator", "reason", "remedy"),
    [
        ("key", OPERATOR, "TLSFailed", "does not speak TLS"),
        (SERVER, "key", "Garbage", "do both sides have a --tls-dir"),
        (SERVER, GATEWAY, "BadProof", f"only {OPERATOR} may do this"),
        (OTHER_SERVER, OPERATOR, "TLSFailed", "spec.endpoint.serverName"),
        (SERVER, "none", "NoCertificate", "there is no CA yet"),
        (SERVER, "stranger", "TLSFailed", "ca.crt"),
    ],
)
async def test_why_a_server_is_not_connected(server: str, operator: str, reason: str, remedy: str) -> None:
    authority = Authority()

    def credential(name: str) -> Credential:
        if name == "key":
            return KEY
        if name == "none":
            return Certificates(lacking="there is no CA yet")
        return (Authority() if name == "stranger" else authority).certificates(
            OPERATOR if name == "stranger" else name
        )

    async with linked(credential(server), credential(operator)) as rig:
        await rig.until(lambda: rig.view.problem)
        assert rig.view.problem is not None
        assert rig.view.problem.reason == reason
        assert remedy in rig.view.problem.message


async def test_the_first_certificate_is_used_once_it_is_there() -> None:
    authority, operator = Authority(), Certificates(lacking="there is no CA yet")
    async with linked(authority.certificates(SERVER), operator) as rig:
        await rig.until(lambda: rig.view.problem)
        operator.put(authority.material(OPERATOR))
        await rig.until(lambda: rig.view.connected)


async def test_renewal_cuts_no_link_and_the_next_one_has_the_new_certificates() -> None:
    authority = Authority()
    server, operator = authority.certificates(SERVER), authority.certificates(OPERATOR)
    async with linked(server, operator) as rig:
        await rig.until(lambda: rig.view.report_received)
        first = rig.connection
        for step in (lambda: None, authority.add_next, authority.promote, authority.drop_others):
            step()
            server.put(authority.material(SERVER))
            operator.put(authority.material(OPERATOR))
            load_at = rig.view.load_at
            await rig.until(lambda load_at=load_at: rig.view.load_at != load_at)
        assert rig.connection is first
        assert rig.view.connected
        await rig.server.close()
        await rig.server.start()
        await rig.until(lambda: rig.view.connected and rig.connection is not first)
        presented = rig.connection.socket.get_extra_info("ssl_object").getpeercert()
        assert server.material is not None
        assert int(presented["serialNumber"], 16) == server.material.serial
