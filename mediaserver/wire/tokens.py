"""Participants' tokens: JSON Web Tokens (RFC 7519) signed with HS256 by a key of the session's key set.

The header's `kid` names the key. Claims: `aud` (`mafalda/session`), `iss` (UID or name of the
MediaCluster), `sub` (the participant), `session` (`namespace/name`), `publish`, `subscribe`, `exp`,
`nbf`, `jti`, and `resume` in tokens that a media server made (docs: signalling).
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

import jwt
import msgspec
from jwt.types import Options

from mediaserver.wire.errors import TokenError

AUDIENCE = "mafalda/session"
ALGORITHM = "HS256"
MIN_KEY_BYTES = 32
MAX_TOKEN_BYTES = 8192
LEEWAY = 30.0
"""Seconds by which clocks may differ."""
RESUME_LIFETIME = 12 * 3600
"""Seconds for which a resume token is accepted at most, counted from the first join."""


_SIGNATURE_ONLY: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
# The claims are checked here, against the caller's clock and one reason at a time.


class ParticipantClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token says. Times are seconds since 1970."""

    aud: str = msgspec.field(default=AUDIENCE)
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
    if len(key) < MIN_KEY_BYTES:
        raise TokenError("malformed", f"key {kid} has {len(key)} bytes, HS256 needs {MIN_KEY_BYTES}")
    payload = {"aud": claims.aud, **msgspec.to_builtins(claims)}
    return jwt.encode(payload, key, algorithm=ALGORITHM, headers={"kid": kid})


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
    this order: malformed, unknownKey, forged, malformed (claims), wrongAudience, wrongIssuer,
    notYetValid, expired, wrongSession, wrongPeer.
    """
    kid = key_id(token)
    key = keys.get(kid)
    if key is None or len(key) < MIN_KEY_BYTES:
        raise TokenError("unknownKey", f"no token key {kid!r} counts for session {session}")
    claims = _decode(token, key)
    if claims.aud != AUDIENCE:
        raise TokenError("wrongAudience", f"the token's aud is {claims.aud!r}, not {AUDIENCE!r}")
    if claims.iss not in issuers:
        raise TokenError("wrongIssuer", f"the token's iss is {claims.iss!r}, not the session's MediaCluster")
    _check_times(claims, now, leeway)
    if claims.session != session:
        raise TokenError("wrongSession", f"the token is for session {claims.session!r}, not {session!r}")
    if claims.sub != peer_id:
        raise TokenError("wrongPeer", f"the token is for participant {claims.sub!r}, not {peer_id!r}")
    return claims


def key_id(token: str) -> str:
    """The `kid` that the token's header names, not verified. Raises TokenError (malformed)."""
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError("malformed", f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError as error:
        raise TokenError("malformed", f"the token cannot be read: {error}") from error
    if not isinstance(kid, str) or not kid:
        raise TokenError("malformed", "the token's header has no kid")
    return kid


def _decode(token: str, key: bytes) -> ParticipantClaims:
    try:
        payload = jwt.decode(token, key, algorithms=[ALGORITHM], options=_SIGNATURE_ONLY)
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError) as error:
        raise TokenError("forged", f"the token's signature does not hold: {error}") from error
    except jwt.InvalidTokenError as error:
        raise TokenError("malformed", f"the token cannot be read: {error}") from error
    if "aud" not in payload:
        raise TokenError("malformed", "the token has no aud")
    try:
        return msgspec.convert(payload, ParticipantClaims)
    except msgspec.ValidationError as error:
        raise TokenError("malformed", f"the token's claims cannot be read: {error}") from error


def _check_times(claims: ParticipantClaims, now: float, leeway: float) -> None:
    if now + leeway < claims.nbf:
        raise TokenError("notYetValid", f"the token is valid in {claims.nbf - now:.0f} s only")
    if now - leeway >= claims.exp:
        raise TokenError("expired", f"the token expired {now - claims.exp:.0f} s ago")
