"""JSON Web Tokens (RFC 7519) signed with HS256 by a key of a set, whatever their claims are.

The header's `kid` names the key. What a kind of token claims, and for whom, is its own module's matter:
`tokens` (participants) and `worker_tokens` (applications' workers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import jwt
import msgspec
from jwt.types import Options

from mediaserver.wire.errors import TokenError

ALGORITHM = "HS256"
MIN_KEY_BYTES = 32
MAX_TOKEN_BYTES = 8192
LEEWAY = 30.0
"""Seconds by which clocks may differ."""

_SIGNATURE_ONLY: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
# The claims are checked by the callers, against their clock and one reason at a time.

ClaimsT = TypeVar("ClaimsT", bound=msgspec.Struct)


def sign(claims: msgspec.Struct, audience: str, kid: str, key: bytes) -> str:
    """The signed token. Raises TokenError (malformed) for a key of less than 32 bytes."""
    if len(key) < MIN_KEY_BYTES:
        raise TokenError("malformed", f"key {kid} has {len(key)} bytes, HS256 needs {MIN_KEY_BYTES}")
    payload = {"aud": audience, **msgspec.to_builtins(claims)}
    return jwt.encode(payload, key, algorithm=ALGORITHM, headers={"kid": kid})


def key_id(token: str) -> str:
    """The `kid` that the token's header names, not verified. Raises TokenError (malformed)."""
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError("malformed", f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    if not token.isascii():  # a header's odd bytes are no text that could be encoded
        raise TokenError("malformed", "the token has characters that no token has")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError as error:
        raise TokenError("malformed", f"the token cannot be read: {error}") from error
    if not isinstance(kid, str) or not kid:
        raise TokenError("malformed", "the token's header has no kid")
    return kid


def issuer(token: str) -> str:
    """The `iss` that the token claims, not verified: whose keys may count for it.

    Raises TokenError (malformed).
    """
    key_id(token)
    try:
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except jwt.InvalidTokenError as error:
        raise TokenError("malformed", f"the token cannot be read: {error}") from error
    if not isinstance(claimed, str) or not claimed:
        raise TokenError("malformed", "the token has no iss, which names its MediaCluster")
    return claimed


def read(
    token: str, keys: Mapping[str, bytes], claims: type[ClaimsT], *, audience: str, what: str
) -> ClaimsT:
    """The claims of a token that is signed by one of ``keys`` and made for ``audience``.

    ``what`` the keys count for is told in errors. Raises TokenError: malformed, unknownKey, forged,
    wrongAudience (before anything else of the claims is read, so that a token of another kind is told as
    such).
    """
    kid = key_id(token)
    key = keys.get(kid)
    if key is None or len(key) < MIN_KEY_BYTES:
        raise TokenError("unknownKey", f"no token key {kid!r} counts for {what}")
    try:
        payload = jwt.decode(token, key, algorithms=[ALGORITHM], options=_SIGNATURE_ONLY)
    except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError) as error:
        raise TokenError("forged", f"the token's signature does not hold: {error}") from error
    except jwt.InvalidTokenError as error:
        raise TokenError("malformed", f"the token cannot be read: {error}") from error
    aud = payload.get("aud")
    if not isinstance(aud, str):
        raise TokenError("malformed", f"the token's aud is {aud!r}, not {audience!r}")
    if aud != audience:
        raise TokenError("wrongAudience", f"the token's aud is {aud!r}, not {audience!r}")
    try:
        return msgspec.convert(payload, claims)
    except msgspec.ValidationError as error:
        raise TokenError("malformed", f"the token's claims cannot be read: {error}") from error


def check_times(nbf: float, exp: float, now: float, leeway: float = LEEWAY) -> None:
    """Raises TokenError: notYetValid, expired."""
    if now + leeway < nbf:
        raise TokenError("notYetValid", f"the token is valid in {nbf - now:.0f} s only")
    if now - leeway >= exp:
        raise TokenError("expired", f"the token expired {now - exp:.0f} s ago")
