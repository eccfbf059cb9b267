"""Tokens of applications whose mediasoup workers run on the media servers (docs/remote.md).

Two kinds, both signed by a key of a MediaCluster's key set that has `workers: true`:

- `mafalda/worker`, made by an administrator: lets an application start workers, within its claims' bounds.
- `mafalda/worker-ticket`, made by a media server for one worker, with the same key as the application's
  token: lets the application's connection to that worker come back, through any gateway. It has no end of
  its own: the worker's end is its end, and a key or `jti` that counts no more ends both.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from mediaserver.wire import signed
from mediaserver.wire.errors import TokenError

AUDIENCE = "mafalda/worker"
TICKET_AUDIENCE = "mafalda/worker-ticket"
REVOKED = "revoked"
"""The data key of a key set's Secret that is no key id: it lists tokens that count no more."""


class WorkerClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What an application may have. Times are seconds since 1970; absent bounds don't bind."""

    iss: str
    sub: str
    """The application, as lists and logs name it."""
    exp: float
    """When no more workers can be started with it; running ones go on."""
    nbf: float
    jti: str
    workers: int | None = None
    """Workers that run with this token at the same time, on all servers."""
    consumers: int | None = None
    """Consumers of all its workers on one server."""
    bandwidth: int | None = None
    """Bits a second that all its workers on one server send and receive; above it no producer and no
    consumer is added."""
    server: str | None = None
    """The MediaServer (`name` or `namespace/name`) that its workers must run on."""
    zone: str | None = None
    """The zone whose servers come first."""
    pipe_srtp: Literal["Auto", "Never"] | None = None
    """Overrides the server's --tenant-pipe-srtp."""

    def check(self) -> None:
        """Raises TokenError (malformed) for a bound that admits nothing."""
        for name in ("workers", "consumers", "bandwidth"):
            bound = getattr(self, name)
            if bound is not None and bound < 1:
                raise TokenError("malformed", f"the token's {name} is {bound}, must be 1 or more")


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Which worker a connection may come back to."""

    iss: str
    sub: str
    server: str
    """`namespace/name` of the MediaServer."""
    instance: str
    """That server's process: another one has no such worker any more."""
    worker: str
    """The worker's id there."""
    token: str
    """`jti` of the application's token."""


def mint(claims: WorkerClaims, kid: str, key: bytes) -> str:
    """An application's token. Raises TokenError (malformed): a short key, a bound below 1."""
    claims.check()
    return signed.sign(claims, AUDIENCE, kid, key)


def verify(
    token: str, keys: Mapping[str, bytes], issuers: Collection[str], *, revoked: Collection[str], now: float
) -> WorkerClaims:
    """The claims of an application's token that may start a worker. ``now`` is wall-clock time.

    Raises TokenError, whose ``reason`` is the first thing that is wrong, in this order: malformed,
    unknownKey, forged, wrongAudience, malformed (claims), wrongIssuer, revoked, notYetValid, expired.
    """
    claims = signed.read(token, keys, WorkerClaims, audience=AUDIENCE, what="workers")
    claims.check()
    _check_standing(claims.iss, claims.jti, issuers, revoked)
    signed.check_times(claims.nbf, claims.exp, now)
    return claims


def mint_ticket(ticket: Ticket, kid: str, key: bytes) -> str:
    """The signed ticket."""
    return signed.sign(ticket, TICKET_AUDIENCE, kid, key)


def verify_ticket(
    token: str, keys: Mapping[str, bytes], issuers: Collection[str], *, revoked: Collection[str]
) -> Ticket:
    """What a ticket says. Raises TokenError: malformed, unknownKey, forged, wrongAudience, wrongIssuer,
    revoked."""
    ticket = signed.read(token, keys, Ticket, audience=TICKET_AUDIENCE, what="workers")
    _check_standing(ticket.iss, ticket.token, issuers, revoked)
    return ticket


def _check_standing(iss: str, jti: str, issuers: Collection[str], revoked: Collection[str]) -> None:
    if iss not in issuers:
        raise TokenError("wrongIssuer", f"the token's iss is {iss!r}, not this MediaCluster")
    if jti in revoked:
        raise TokenError("revoked", f"the token {jti!r} has been revoked")


class Revocations(NamedTuple):
    """What a Secret lists under `REVOKED`."""

    tokens: frozenset[str]
    """Ids (`jti`)."""
    readable: bool
    """False: some of it is no text, and revokes nothing."""


@lru_cache(maxsize=64)  # a gateway reads it at every dial, and it hardly ever changes
def read_revoked(data: bytes) -> Revocations:
    """The listed ids: one a line, or separated by blanks or commas.

    What is not UTF-8 takes nothing of the rest along: a token listed beside it is revoked all the same.
    """
    tokens, readable = set(), True
    for word in data.removeprefix(codecs.BOM_UTF8).replace(b",", b" ").split():
        try:
            tokens.add(word.decode())
        except UnicodeDecodeError:
            readable = False
    return Revocations(frozenset(tokens), readable)
