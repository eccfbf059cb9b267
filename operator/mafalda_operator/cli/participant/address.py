"""The URL that a participant dials, made from the session's URL and a token."""

from __future__ import annotations

import base64
import binascii

import msgspec
from yarl import URL

from mafalda_operator.cli.participant.errors import AddressError


class Claims(msgspec.Struct, frozen=True):
    """What a participant has to know of its own token."""

    sub: str
    session: str
    publish: bool = False
    subscribe: bool = False


def claims_of(token: str) -> Claims:
    """What `token` says. It is not verified: that is the server's part.

    Raises AddressError.
    """
    parts = token.split(".")
    if len(parts) != 3:
        raise AddressError("the token is no JSON Web Token; make one with `mafalda token`")
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(payload, type=Claims)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise AddressError(f"the token can't be read ({error}); make one with `mafalda token`") from error


def dial_url(url: str, token: str) -> URL:
    """`url` (as in a MediaSession's status.url) with this participant's `peerId` and `token`.

    A URL without roomId gets the token's session. Raises AddressError for another scheme than ws, wss,
    http or https, and for a token of another session.
    """
    try:
        address = URL(url)
    except ValueError as error:
        raise AddressError(f"{url!r} is no URL: {error}") from error
    if address.scheme not in ("ws", "wss", "http", "https") or not address.host:
        raise AddressError(f"{url!r} is no WebSocket URL; a MediaSession shows its own in status.url")
    claims = claims_of(token)
    room = address.query.get("roomId", claims.session)
    if room != claims.session:
        raise AddressError(f"the URL is of session {room!r}, the token of session {claims.session!r}")
    return address.update_query({"roomId": room, "peerId": claims.sub, "token": token})
