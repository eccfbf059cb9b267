"""Proof that the other side belongs to the same MediaCluster: HMAC over nonces with a shared key.

Both sides send a fresh nonce; each proves the key by an HMAC-SHA256 over its role in the connection
(dialler or acceptor), the path, both nonces and its identity (who it says it is). So a proof can be
neither replayed (the other's nonce is fresh), reflected (the role differs), moved to another path, nor
used under another name. The key itself never travels.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Literal

from mediaserver.wire.errors import MembershipError

Side = Literal["dialler", "acceptor"]

MIN_KEY_BYTES = 32
_NONCE_BYTES = 32
_LABEL = "mafalda-membership-1"


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
