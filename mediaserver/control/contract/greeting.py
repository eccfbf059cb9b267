"""The first exchange on `/control`: each side proves that it belongs to the MediaCluster (wire.membership).

The server opens with a ``challenge``; the dialler's ``hello`` answers its nonce; the server's answer
proves the server. Both sides of the identity strings live here, since they must agree to the letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import msgspec

from mediaserver.control.contract import (
    CONTROL_PATH,
    CONTROL_PROTOCOL,
    Challenge,
    ControlHello,
    Role,
    ServerHello,
)
from mediaserver.wire import membership
from mediaserver.wire.errors import ConnectionLost, DeadlineExceeded
from mediaserver.wire.membership import Credential, Statement
from mediaserver.wire.rpc import Connection, Methods
from mediaserver.wire.tls import GATEWAY_NAME, OPERATOR_NAME

GREETING_SECONDS = 3.0
"""How long each of the two steps may take."""

_NAMES: dict[Role, frozenset[str]] = {
    "operator": frozenset({OPERATOR_NAME}),
    "observer": frozenset({OPERATOR_NAME, GATEWAY_NAME}),
    "peer": frozenset(),
}
"""Which certificates may take a role here."""


def dialler_identity(hello: ControlHello) -> str:
    """What the dialler's proof is made over, besides the nonces."""
    return membership.identity(hello.role, hello.cluster_uid, hello.server_name, str(hello.epoch))


def acceptor_identity(hello: ServerHello) -> str:
    """What the server's proof is made over, besides the nonces."""
    return membership.identity(hello.cluster_uid, hello.instance_id)


def verify_dialler(
    credential: Credential, hello: ControlHello, server_nonce: str, presented: Collection[str] | None = None
) -> None:
    """Check a dialler's proof, or that its certificate, with the names ``presented``, is one for its role.

    Raises MembershipError.
    """
    statement = Statement("dialler", CONTROL_PATH, hello.nonce, server_nonce, dialler_identity(hello))
    credential.check(hello.proof, statement, presented, _NAMES[hello.role])


def prove_acceptor(credential: Credential, hello: ServerHello, dialler_nonce: str) -> ServerHello:
    """``hello`` with its proof put in; ``hello.nonce`` is the nonce of the challenge."""
    statement = Statement("acceptor", CONTROL_PATH, hello.nonce, dialler_nonce, acceptor_identity(hello))
    return msgspec.structs.replace(hello, proof=credential.prove(statement))


class Greeter:
    """The dialling side. Make it before the connection, since the challenge comes at once."""

    def __init__(self, methods: Methods) -> None:
        self._challenge: asyncio.Future[Challenge] = asyncio.get_running_loop().create_future()
        methods.on_notification("challenge", Challenge, self._challenged)

    def _challenged(self, challenge: Challenge) -> None:
        if not self._challenge.done():
            self._challenge.set_result(challenge)

    async def greet(
        self,
        connection: Connection,
        credential: Credential,
        *,
        role: Role,
        cluster_uid: str,
        cluster_name: str,
        server_name: str,
        epoch: int = 0,
    ) -> ServerHello:
        """Greet over a ``connection`` that runs; the server's verified hello.

        Raises DeadlineExceeded (no challenge, or no answer), ConnectionLost, RemoteError (refused: the
        codes of the contract), ProtocolError (no hello), MembershipError (the server's proof is wrong).
        """
        challenge = await self._await_challenge(connection)
        nonce = membership.new_nonce()
        hello = ControlHello(
            protocol_version=CONTROL_PROTOCOL,
            role=role,
            cluster_uid=cluster_uid,
            cluster_name=cluster_name,
            server_name=server_name,
            nonce=nonce,
            proof="",
            epoch=epoch,
        )
        own = Statement("dialler", CONTROL_PATH, nonce, challenge.nonce, dialler_identity(hello))
        hello = msgspec.structs.replace(hello, proof=credential.prove(own))
        answer = await connection.call("hello", hello, ServerHello, timeout=GREETING_SECONDS)
        other = Statement("acceptor", CONTROL_PATH, challenge.nonce, nonce, acceptor_identity(answer))
        credential.check(answer.proof, other, connection.presented, None)
        return answer

    async def _await_challenge(self, connection: Connection) -> Challenge:
        try:
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the challenge.
            async with asyncio.timeout(GREETING_SECONDS):
                return await asyncio.shield(self._challenge)
        except TimeoutError as error:
            if connection.closed:
                raise ConnectionLost(
                    f"{connection.name} closed the connection before its challenge"
                ) from error
            raise DeadlineExceeded("challenge", GREETING_SECONDS) from error
