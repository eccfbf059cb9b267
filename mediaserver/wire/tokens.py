"""Participants' tokens: JSON Web Tokens (RFC 7519) signed with HS256 by a key of the session's key set.

The header's `kid` names the key. Claims: `aud` (`mafalda/session`), `iss` (UID or name of the
MediaCluster), `sub` (the participant), `session` (`namespace/name`), `publish`, `subscribe`, `exp`,
`nbf`, `jti`, and `resume` in tokens that a media server made (docs: signalling).
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

import msgspec

from mediaserver.wire import signed
from mediaserver.wire.errors import TokenError
from mediaserver.wire.signed import ALGORITHM, LEEWAY, MIN_KEY_BYTES, key_id

AUDIENCE = "mafalda/session"
RESUME_LIFETIME = 12 * 3600
"""Seconds for which a resume token is accepted at most, counted from the first join."""


class ParticipantClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token says. Times are seconds since 1970."""

    aud: str = AUDIENCE
    iss: str
    sub: str
    session: str
    exp: float
    nbf: float
    jti: str
    publish: bool = False
    subscribe: bool = False
    resume: bool = False


def mint(claims: ParticipantClaims, kid: str, key: bytes) -> str:
    """The signed token. Raises TokenError (malformed) for a key of less than 32 bytes."""
    return signed.sign(claims, AUDIENCE, kid, key)


def mint_resume(claims: ParticipantClaims, keys: Mapping[str, bytes], *, now: float) -> str:
    """A token that lets the participant of ``claims`` come back after a fault, valid for at most 12 h.

    Signed with the key of the greatest kid. One made from a resume token ends when that one ends, so that
    coming back again and again does not prolong it. Raises TokenError (unknownKey) when there is no key.
    """
    if not keys:
        raise TokenError("unknownKey", f"session {claims.session} has no token key")
    kid = max(keys)
    end = now + RESUME_LIFETIME
    resume = msgspec.structs.replace(
        claims,
        exp=min(end, claims.exp) if claims.resume else end,
        nbf=now,
        jti=secrets.token_hex(16),
        resume=True,
    )
    return mint(resume, kid, keys[kid])


def verify(
    token: str,
    keys: Mapping[str, bytes],
    issuers: Collection[str],
    *,
    session: str,
    peer_id: str,
    now: float,
    leeway: float = LEEWAY,
) -> ParticipantClaims:
    """The claims of ``token``, once all of them hold for participant ``peer_id`` of ``session``.

    ``now`` is wall-clock time. Raises TokenError, whose ``reason`` is the first thing that is wrong, in
    this order: malformed, unknownKey, forged, wrongAudience, malformed (claims), wrongIssuer,
    notYetValid, expired, wrongSession, wrongPeer.
    """
    claims = signed.read(token, keys, ParticipantClaims, audience=AUDIENCE, what=f"session {session}")
    if claims.iss not in issuers:
        raise TokenError("wrongIssuer", f"the token's iss is {claims.iss!r}, not the session's MediaCluster")
    signed.check_times(claims.nbf, claims.exp, now, leeway)
    if claims.session != session:
        raise TokenError("wrongSession", f"the token is for session {claims.session!r}, not {session!r}")
    if claims.sub != peer_id:
        raise TokenError("wrongPeer", f"the token is for participant {claims.sub!r}, not {peer_id!r}")
    return claims


__all__ = [
    "ALGORITHM",
    "AUDIENCE",
    "LEEWAY",
    "MIN_KEY_BYTES",
    "ParticipantClaims",
    "key_id",
    "mint",
    "mint_resume",
    "verify",
]
