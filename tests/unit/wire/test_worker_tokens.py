"""Tokens of applications, and the tickets by which their connections come back."""

from __future__ import annotations

from typing import Any

import pytest

from mediaserver.wire import tokens, worker_tokens
from mediaserver.wire.errors import TokenError
from mediaserver.wire.worker_tokens import Ticket, WorkerClaims, read_revoked

NOW = 1_000_000.0
KEYS = {"a": b"a" * 32, "b": b"b" * 32}
ISSUERS = {"uid", "media/main", "main"}


def claims(**changes: Any) -> WorkerClaims:
    told = {"iss": "uid", "sub": "shop", "nbf": NOW - 10, "exp": NOW + 10, "jti": "t1"}
    return WorkerClaims(**{**told, **changes})


def verify(token: str, revoked: frozenset[str] = frozenset()) -> WorkerClaims:
    return worker_tokens.verify(token, KEYS, ISSUERS, revoked=revoked, now=NOW)


def reason(token: str, revoked: frozenset[str] = frozenset()) -> str:
    with pytest.raises(TokenError) as caught:
        verify(token, revoked)
    return caught.value.reason


def test_what_was_signed_comes_back() -> None:
    made = claims(workers=3, consumers=5, bandwidth=1000, server="media-1", zone="a", pipe_srtp="Auto")
    assert verify(worker_tokens.mint(made, "a", KEYS["a"])) == made


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"iss": "other"}, "wrongIssuer"),
        ({"exp": NOW - 31}, "expired"),
        ({"nbf": NOW + 31}, "notYetValid"),
    ],
)
def test_claims_that_do_not_hold(changes: dict[str, Any], told: str) -> None:
    assert reason(worker_tokens.mint(claims(**changes), "a", KEYS["a"])) == told


@pytest.mark.parametrize("bound", ["workers", "consumers", "bandwidth"])
def test_a_bound_that_admits_nothing_is_no_bound(bound: str) -> None:
    with pytest.raises(TokenError, match=f"the token's {bound} is 0"):
        worker_tokens.mint(claims(**{bound: 0}), "a", KEYS["a"])


def test_signatures_and_revocation() -> None:
    token = worker_tokens.mint(claims(), "a", KEYS["a"])
    assert reason(token, frozenset({"t1"})) == "revoked"
    assert reason(worker_tokens.mint(claims(), "a", KEYS["b"])) == "forged"
    assert reason(worker_tokens.mint(claims(), "c", KEYS["b"])) == "unknownKey"
    assert reason("a.b.c") == "malformed"


def test_one_kind_of_token_is_none_of_the_others() -> None:
    ticket = worker_tokens.mint_ticket(
        Ticket(iss="uid", sub="shop", server="media/one", instance="i", worker="w", token="t1"),
        "a",
        KEYS["a"],
    )
    participant = tokens.mint(
        tokens.ParticipantClaims(iss="uid", sub="shop", session="x/y", nbf=0, exp=NOW + 10, jti="t1"),
        "a",
        KEYS["a"],
    )
    application = worker_tokens.mint(claims(), "a", KEYS["a"])
    assert reason(ticket) == reason(participant) == "wrongAudience"
    for other in (application, participant):
        with pytest.raises(TokenError) as caught:
            worker_tokens.verify_ticket(other, KEYS, ISSUERS, revoked=())
        assert caught.value.reason == "wrongAudience"
    with pytest.raises(TokenError) as caught:
        tokens.verify(application, KEYS, ISSUERS, session="x/y", peer_id="shop", now=NOW)
    assert caught.value.reason == "wrongAudience"


def test_a_ticket_has_no_end_but_its_tokens() -> None:
    ticket = Ticket(iss="uid", sub="shop", server="media/one", instance="i", worker="w", token="t1")
    signed = worker_tokens.mint_ticket(ticket, "a", KEYS["a"])
    assert worker_tokens.verify_ticket(signed, KEYS, ISSUERS, revoked=()) == ticket
    with pytest.raises(TokenError, match="revoked"):
        worker_tokens.verify_ticket(signed, KEYS, ISSUERS, revoked={"t1"})


@pytest.mark.parametrize(
    ("data", "listed", "readable"),
    [
        (b"", set(), True),
        (b"a\nb\r\n c,d", {"a", "b", "c", "d"}, True),
        (b"\xef\xbb\xbfa", {"a"}, True),
        (b"a\n\xff\nb", {"a", "b"}, False),
    ],
)
def test_the_list_of_revoked_tokens(data: bytes, listed: set[str], readable: bool) -> None:
    assert read_revoked(data) == (frozenset(listed), readable)
