"""How two processes show each other that they belong together: a shared key, or certificates.

``Credential`` is what every dialler and every listener is given, so that there is one path for both kinds:
``ClusterKey`` here, certificates in ``wire.tls``.

With a key the proof is an HMAC over nonces: both sides send a fresh one; each proves the key by HMAC-SHA256
over its role in the connection (dialler or acceptor), the path, both nonces and its identity (who it says it
is). So a proof can be neither replayed (the other's nonce is fresh), reflected (the role differs), moved to
another path, nor used under another name. The key itself never travels.

With certificates proofs are empty: TLS has proved who the other side is, and what is left to check is whether
its names let it do what it wants to.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import ssl
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from mediaserver.wire.errors import MembershipError

Side = Literal["dialler", "acceptor"]

MIN_KEY_BYTES = 32
_NONCE_BYTES = 32
_LABEL = "mafalda-membership-1"


@dataclass(frozen=True)
class Statement:
    """What one side's proof is made over: ``nonce`` is its own, ``other_nonce`` its partner's."""

    side: Side
    path: str
    nonce: str
    other_nonce: str
    identity: str
    """Who it says it is."""


@dataclass(frozen=True)
class Dial:
    """How to dial: in the clear, or by TLS to whoever proves to be ``server_name``."""

    context: ssl.SSLContext | None = None
    server_name: str | None = None

    def url(self, where: str, path: str) -> str:
        """Of ``path`` at ``where``, which is HOST:PORT with an IPv6 host in brackets."""
        return f"{'http' if self.context is None else 'https'}://{where}{path}"


IN_THE_CLEAR = Dial()


class Credential(Protocol):
    """What a process shows that it belongs by, and checks others with. Never shows a secret."""

    @property
    def peer_name(self) -> str:
        """The name in the certificates of this media server's MediaCluster; empty when there are none."""
        ...

    def listening(self) -> ssl.SSLContext | None:
        """For listeners; None: in the clear. The same one stays good when certificates are renewed."""
        ...

    def dial(self, server_name: str) -> Dial:
        """For one dial to whoever has ``server_name`` in its certificate. Raises MembershipError."""
        ...

    def prove(self, statement: Statement) -> str:
        """This side's proof of ``statement``."""
        ...

    def check(
        self,
        claimed: str,
        statement: Statement,
        presented: Collection[str] | None,
        allowed: Collection[str] | None,
    ) -> None:
        """Check the other side's proof ``claimed`` of its ``statement``, or the names it has ``presented``.

        ``presented`` are those of its certificate (None: the connection has none), ``allowed`` those of which
        it needs one (None: who it is was checked by dialling it). Raises MembershipError.
        """
        ...

    def admit(self, presented: Collection[str] | None, allowed: Collection[str]) -> None:
        """Check the names of a side that makes no statement. Raises MembershipError."""
        ...

    def follow(self) -> Coroutine[Any, Any, None]:
        """Keep up with what changes on disk, until cancelled."""
        ...


class ClusterKey:
    """The secret that the members of a MediaCluster share. Its value shows in no repr and no error."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_KEY_BYTES:
            raise MembershipError(
                f"a cluster key needs at least {MIN_KEY_BYTES} bytes, this one has {len(secret)}: "
                "make one with `openssl rand -base64 32`"
            )
        self._secret = secret

    @classmethod
    def load(cls, path: str | Path) -> ClusterKey:
        """Read a key file: base64 of 32 bytes or more, or as many raw bytes; surrounding blanks do not count.

        Raises MembershipError naming the file and the remedy.
        """
        try:
            content = Path(path).read_bytes().strip()
        except OSError as error:
            raise MembershipError(f"cluster key file {path} cannot be read: {error.strerror}") from error
        try:
            return cls(_decode(content))
        except MembershipError as error:
            raise MembershipError(f"cluster key file {path}: {error}") from error

    def sign(self, message: bytes) -> str:
        """HMAC-SHA256 of ``message`` in hexadecimal."""
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()

    # -- as a Credential --------------------------------------------------------------------------------

    @property
    def peer_name(self) -> str:
        return ""

    def listening(self) -> None:
        return None

    def dial(self, server_name: str) -> Dial:
        return IN_THE_CLEAR

    def prove(self, statement: Statement) -> str:
        said = statement
        return proof(self, said.side, said.path, said.nonce, said.other_nonce, said.identity)

    def check(
        self,
        claimed: str,
        statement: Statement,
        presented: Collection[str] | None,
        allowed: Collection[str] | None,
    ) -> None:
        said = statement
        verify(self, claimed, said.side, said.path, said.nonce, said.other_nonce, said.identity)

    def admit(self, presented: Collection[str] | None, allowed: Collection[str]) -> None:
        """Everybody: what a statement is not asked of is guarded otherwise."""

    async def follow(self) -> None:
        """A key is read once."""
        await asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return "ClusterKey(…)"


def _decode(content: bytes) -> bytes:
    try:
        decoded = base64.b64decode(content, validate=True)
    except binascii.Error:
        return content
    return decoded if len(decoded) >= MIN_KEY_BYTES else content


def new_nonce() -> str:
    """32 random bytes as hexadecimal."""
    return secrets.token_hex(_NONCE_BYTES)


def identity(*parts: str) -> str:
    """Several words as one identity, so that no two lists of words give the same."""
    return "".join(f"{len(part)}:{part}" for part in parts)


def proof(key: ClusterKey, side: Side, path: str, own_nonce: str, other_nonce: str, identity: str) -> str:
    """The proof of the side that is ``side``; ``own_nonce`` is that side's, ``other_nonce`` its partner's."""
    parts = (_LABEL, side, path, own_nonce, other_nonce, identity)
    return key.sign(b"".join(_framed(part) for part in parts))


def _framed(part: str) -> bytes:
    encoded = part.encode()
    return len(encoded).to_bytes(4, "big") + encoded


def verify(
    key: ClusterKey, claimed: str, side: Side, path: str, own_nonce: str, other_nonce: str, identity: str
) -> None:
    """Check the proof ``claimed`` of the other side, whose arguments to ``proof`` the rest are.

    So ``side`` and ``own_nonce`` are the prover's, ``other_nonce`` is the one that this side sent. Takes
    constant time. Raises MembershipError; also when the prover's nonce is this side's own, or too short.
    """
    if own_nonce == other_nonce or len(own_nonce) < _NONCE_BYTES:
        raise MembershipError("the nonce is not fresh")
    expected = proof(key, side, path, own_nonce, other_nonce, identity)
    if not hmac.compare_digest(expected.encode(), claimed.encode()):
        raise MembershipError(
            "the proof of membership is wrong: give both sides the same --cluster-key-file "
            "(a media server, the operator and the gateways of one MediaCluster share it)"
        )
