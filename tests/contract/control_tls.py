"""Who may do what on `/control` when both sides have certificates; real and fake servers pass the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from contract.control_client import ControlClient, dialled
from contract.control_contract import desired, ready, refusal, router_entry
from support.certificates import GATEWAY, OPERATOR, OTHER_SERVER, SERVER, Authority

from mediaserver.control.contract import CONTROL_PATH, ERROR_BAD_PROOF, ERROR_NOT_ALLOWED, Role
from mediaserver.wire.errors import HandshakeFailed
from mediaserver.wire.membership import Credential


@dataclass(frozen=True)
class Subject:
    """The server under test, whose certificate is for SERVER."""

    address: str
    """HOST:PORT of its internal listener."""
    authority: Authority


@asynccontextmanager
async def secured(
    subject: Subject, credential: Credential, name: str = SERVER
) -> AsyncIterator[ControlClient]:
    dial = credential.dial(name)
    async with dialled(dial.url(subject.address, CONTROL_PATH), dial) as client:
        yield client


class TlsContract:
    async def test_an_operator_commands(self, subject: Subject) -> None:
        operator = subject.authority.certificates(OPERATOR)
        async with secured(subject, operator) as client:
            hello = await client.hello(operator, epoch=3)
            assert hello.proof == ""
            await client.apply(desired(router_entry("r1", 0)), epoch=3)
            await client.until(lambda: ready(client, "r1"), "the router is ready")

    @pytest.mark.parametrize("name", [OPERATOR, GATEWAY])
    async def test_operator_and_gateway_observe(self, subject: Subject, name: str) -> None:
        certificates = subject.authority.certificates(name)
        async with secured(subject, certificates) as client:
            await client.hello(certificates, role="observer")
            await client.until(lambda: bool(client.loads), "load comes")

    @pytest.mark.parametrize(
        ("name", "role"),
        [
            (SERVER, "operator"),
            (SERVER, "observer"),
            (GATEWAY, "operator"),
            (OTHER_SERVER, "operator"),
            ("somebody.else", "observer"),
        ],
    )
    async def test_a_certificate_for_something_else(self, subject: Subject, name: str, role: Role) -> None:
        certificates = subject.authority.certificates(name)
        async with secured(subject, certificates) as client:
            error = await refusal(client, certificates, role=role)
        assert error.code == ERROR_BAD_PROOF
        assert f"the certificate is for {name}, but only" in error.message
        assert OPERATOR in error.message

    async def test_one_who_is_refused_leaves_no_trace(self, subject: Subject) -> None:
        """Neither its cluster nor its epoch counts."""
        server, operator = (subject.authority.certificates(name) for name in (SERVER, OPERATOR))
        async with secured(subject, server) as client:
            await refusal(client, server, cluster_uid="uid-2", epoch=50)
        async with secured(subject, operator) as client:
            assert (await client.hello(operator, epoch=1)).highest_epoch == 1

    async def test_nobody_applies_before_hello(self, subject: Subject) -> None:
        operator = subject.authority.certificates(OPERATOR)
        async with secured(subject, operator) as client:
            with pytest.raises(Exception, match=str(ERROR_NOT_ALLOWED)):
                await client.apply({})

    @pytest.mark.parametrize("made", [lambda _: Authority(), lambda right: right])
    async def test_a_stranger_does_not_get_to_hello(self, subject: Subject, made: Any) -> None:
        """Whose CA is another one, or who expects another server."""
        authority: Authority = made(subject.authority)
        name = SERVER if authority is not subject.authority else OTHER_SERVER
        with pytest.raises(HandshakeFailed):
            async with secured(subject, authority.certificates(OPERATOR), name):
                pass
