"""What an application's dial says, before anything of it is believed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiohttp import HttpVersion11, web

from mediaserver import shim
from mediaserver.gateway.errors import Refused
from mediaserver.wire.upgrade import bearer, handshake_problem

KEY_HEADER = "Sec-WebSocket-Key"
AUTHORIZATION = "Authorization"

MAX_VALUE = 8192
"""Bytes of a header's value; those of a token are counted by who reads it."""
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")
_MAX_ZONE = 63
_NOT_HERE = (
    "this is a gateway of Mafalda, where mafalda-worker dials for mediasoup: "
    "set MEDIASOUP_WORKER_BIN, MAFALDA_URL and MAFALDA_TOKEN"
)


@dataclass(frozen=True)
class Handshake:
    """The headers that count; secrets among them, so that its repr tells none."""

    token: str = field(repr=False)
    """Empty: there is none."""
    ticket: str = field(repr=False)
    """Empty: a new worker is wanted."""
    version: str
    """Of the application's mediasoup. Empty: not told, which only a resume may."""
    zone: str
    key: str = field(repr=False)
    authorization: str = field(repr=False)

    def forwarded(self, host: str) -> bytes:
        """The request that the media server gets: the same, to ``host``."""
        pairs = [
            ("Host", host),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            (KEY_HEADER, self.key),
            (shim.PROTOCOL_HEADER, str(shim.PROTOCOL)),
            (AUTHORIZATION, self.authorization),
            (shim.VERSION_HEADER, self.version),
            (shim.ZONE_HEADER, self.zone),
            (shim.TICKET_HEADER, self.ticket),
        ]
        lines = [f"GET {shim.PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in pairs if value)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def read(request: web.Request) -> Handshake:
    """Raises Refused: 426 for what is no handshake, 400 naming the header that is wrong."""
    problem = handshake_problem(request)
    if problem is not None or request.version < HttpVersion11:
        raise Refused(426, "noHandshake", f"{_NOT_HERE} ({problem or 'it is not HTTP/1.1'})", final=True)
    if request.body_exists:
        raise _malformed("the request has a body, which a WebSocket handshake has not")
    # First: of another protocol nothing else can be said.
    _check_protocol(_value(request, shim.PROTOCOL_HEADER))
    ticket = _value(request, shim.TICKET_HEADER)
    authorization = _value(request, AUTHORIZATION)
    version = _value(request, shim.VERSION_HEADER)
    zone = _value(request, shim.ZONE_HEADER)
    if (version or not ticket) and not _VERSION.fullmatch(version):
        wanted = "mediasoup's version, such as 3.27.1, which mediasoup gives in MEDIASOUP_VERSION"
        raise _malformed(f"{shim.VERSION_HEADER} must be {wanted}")
    if len(zone) > _MAX_ZONE:
        raise _malformed(f"{shim.ZONE_HEADER} has more than {_MAX_ZONE} characters: check MAFALDA_ZONE")
    return Handshake(
        token=bearer(authorization),
        ticket=ticket,
        version=version,
        zone=zone,
        key=_value(request, KEY_HEADER),
        authorization=authorization,
    )


def one_line(text: str) -> str:
    """As a refusal can carry it: printable, in one line, no longer than a terminal shows at a glance."""
    return "".join(_printable(text))[:600].strip()


def _printable(text: str) -> Iterator[str]:
    return (character if character.isprintable() else " " for character in text)


def _check_protocol(given: str) -> None:
    if given != str(shim.PROTOCOL):
        has = f"protocol {given[:20]!r}" if given else "no protocol"
        raise _malformed(
            f"{shim.PROTOCOL_HEADER}: the dial has {has}, this gateway speaks {shim.PROTOCOL}: "
            "take mafalda-worker and the gateway from the same release"
        )


def _value(request: web.Request, name: str) -> str:
    """The header's value; empty when there is none."""
    given = request.headers.getall(name, [])
    if len(given) > 1:
        raise _malformed(f"{name} is given {len(given)} times")
    value = given[0].strip() if given else ""
    if len(value) > MAX_VALUE or not value.isascii() or not value.isprintable():
        raise _malformed(f"{name} has characters other than printable ASCII, or more than {MAX_VALUE}")
    return value


def _malformed(text: str) -> Refused:
    return Refused(400, "malformed", text, final=True)
