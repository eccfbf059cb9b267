"""The first exchange on `/peer`: both servers prove their membership of the MediaCluster and their names."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from mediaserver.cascade.messages import (
    ERROR_NOT_READY,
    ERROR_WRONG_SERVER,
    PEER_PROTOCOL,
    PeerHello,
    PeerWelcome,
)
from mediaserver.control.contract import (
    ERROR_BAD_PROOF,
    ERROR_OTHER_CLUSTER,
    ERROR_VERSION_SKEW,
    PEER_PATH,
    Challenge,
)
from mediaserver.wire import membership
from mediaserver.wire.errors import DeadlineExceeded, MembershipError, ProtocolError
from mediaserver.wire.membership import Credential, Statement
from mediaserver.wire.rpc import Connection, Methods, RpcFailure

GREETING_SECONDS = 3.0
"""How long each step may take."""


@dataclass(frozen=True)
class Identity:
    """Who this media server is, as the operator's hello told it."""

    cluster_uid: str
    server_name: str
    """`namespace/name` of its MediaServer."""


@dataclass(frozen=True)
class Process:
    """What of this process the others need to know."""

    instance_id: str
    """New at each start."""
    pipe_protocol: int


@dataclass(frozen=True)
class Other:
    """Who is at the far end, proved."""

    server: str
    instance_id: str
    pipe_protocol: int


def _dialler_words(hello: PeerHello) -> str:
    return membership.identity(
        "peer",
        hello.cluster_uid,
        hello.from_server,
        hello.to_server,
        hello.instance_id,
        str(hello.pipe_protocol),
    )


def _acceptor_words(welcome: PeerWelcome, hello: PeerHello) -> str:
    return membership.identity(
        "peer", hello.cluster_uid, hello.to_server, welcome.instance_id, str(welcome.pipe_protocol)
    )


class Dialling:
    """The dialler's part. Make it before the connection, since the challenge comes at once."""

    def __init__(self, methods: Methods) -> None:
        self._challenge: asyncio.Future[Challenge] = asyncio.get_running_loop().create_future()
        methods.on_notification("challenge", Challenge, self._challenged)

    def _challenged(self, challenge: Challenge) -> None:
        if not self._challenge.done():
            self._challenge.set_result(challenge)

    async def greet(
        self, connection: Connection, credential: Credential, own: Identity, process: Process, server: str
    ) -> Other:
        """Greet ``server`` over a ``connection`` that runs. Raises WireError."""
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                challenge = await self._challenge
        except TimeoutError as error:
            raise DeadlineExceeded("challenge", GREETING_SECONDS) from error
        nonce = membership.new_nonce()
        hello = PeerHello(
            protocol_version=PEER_PROTOCOL,
            pipe_protocol=process.pipe_protocol,
            cluster_uid=own.cluster_uid,
            from_server=own.server_name,
            to_server=server,
            instance_id=process.instance_id,
            nonce=nonce,
            proof="",
        )
        said = Statement("dialler", PEER_PATH, nonce, challenge.nonce, _dialler_words(hello))
        hello = msgspec.structs.replace(hello, proof=credential.prove(said))
        welcome = await connection.call("hello", hello, PeerWelcome, timeout=GREETING_SECONDS)
        heard = Statement("acceptor", PEER_PATH, challenge.nonce, nonce, _acceptor_words(welcome, hello))
        credential.check(welcome.proof, heard, connection.presented, None)
        if welcome.protocol_version != PEER_PROTOCOL:
            raise ProtocolError(
                f"{server} speaks peer protocol {welcome.protocol_version}, this server {PEER_PROTOCOL}"
            )
        return Other(server, welcome.instance_id, welcome.pipe_protocol)


class Accepting:
    """The acceptor's part: its ``nonce`` goes out as the challenge."""

    def __init__(
        self,
        credential: Credential,
        own: Identity | None,
        process: Process,
        presented: Collection[str] | None = None,
    ) -> None:
        """``presented``: the names in the dialler's certificate, if it has one."""
        self.nonce = membership.new_nonce()
        self._credential = credential
        self._presented = presented
        self._own = own
        self._process = process

    def answer(self, hello: PeerHello) -> tuple[Other, PeerWelcome]:
        """Check a hello. Raises RpcFailure, which closes the connection."""
        try:
            said = Statement("dialler", PEER_PATH, hello.nonce, self.nonce, _dialler_words(hello))
            credential = self._credential
            credential.check(hello.proof, said, self._presented, (credential.peer_name,))
        except MembershipError as error:
            raise RpcFailure(ERROR_BAD_PROOF, str(error), close=True) from error
        self._check(hello)
        welcome = PeerWelcome(
            protocol_version=PEER_PROTOCOL,
            pipe_protocol=self._process.pipe_protocol,
            instance_id=self._process.instance_id,
            proof="",
        )
        own = Statement("acceptor", PEER_PATH, self.nonce, hello.nonce, _acceptor_words(welcome, hello))
        other = Other(hello.from_server, hello.instance_id, hello.pipe_protocol)
        return other, msgspec.structs.replace(welcome, proof=self._credential.prove(own))

    def _check(self, hello: PeerHello) -> None:
        own = self._own
        if hello.protocol_version != PEER_PROTOCOL:
            raise RpcFailure(
                ERROR_VERSION_SKEW,
                f"peer protocol {hello.protocol_version} is not {PEER_PROTOCOL}, which this server speaks",
                close=True,
            )
        if own is None:
            raise RpcFailure(
                ERROR_NOT_READY, "no operator has told this server yet who it is; try again", close=True
            )
        if hello.cluster_uid != own.cluster_uid:
            raise RpcFailure(
                ERROR_OTHER_CLUSTER,
                f"{own.server_name} belongs to the MediaCluster of uid {own.cluster_uid}, "
                f"not to that of uid {hello.cluster_uid}",
                close=True,
            )
        if hello.to_server != own.server_name or hello.from_server >= own.server_name:
            raise RpcFailure(
                ERROR_WRONG_SERVER,
                f"this is {own.server_name}, which {hello.from_server} does not dial as {hello.to_server}",
                close=True,
            )
