from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import msgspec
import pytest

from mediaserver.wire import tokens
from mediaserver.wire.errors import TokenError
from mediaserver.wire.tokens import ParticipantClaims, mint, mint_resume, verify

NOW = 1_800_000_000.0
KEYS = {"a": b"a" * 32, "b": b"b" * 40}
CLAIMS = ParticipantClaims(
    iss="uid-1",
    sub="ann",
    session="shop/standup",
    publish=True,
    subscribe=True,
    exp=NOW + 60,
    nbf=NOW,
    jti="1",
)


def check(token: str, **changed: Any) -> ParticipantClaims:
    arguments: dict[str, Any] = {
        "keys": KEYS,
        "issuers": {"uid-1", "main"},
        "session": "shop/standup",
        "peer_id": "ann",
        "now": NOW,
    }
    arguments.update(changed)
    keys, issuers = arguments.pop("keys"), arguments.pop("issuers")
    return verify(token, keys, issuers, **arguments)


def reason(token: str, **changed: Any) -> str:
    with pytest.raises(TokenError) as error:
        check(token, **changed)
    return error.value.reason


def changed(**fields: Any) -> str:
    return mint(msgspec.structs.replace(CLAIMS, **fields), "a", KEYS["a"])


def payload(**fields: Any) -> dict[str, Any]:
    claims: dict[str, Any] = {"aud": tokens.AUDIENCE, **msgspec.to_builtins(CLAIMS), **fields}
    return {name: value for name, value in claims.items() if value is not None}


def signed(claims: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
    return jwt.encode(claims, KEYS["a"], headers={"kid": "a"} if headers is None else headers)


def test_a_good_token() -> None:
    assert check(mint(CLAIMS, "a", KEYS["a"])) == CLAIMS
    assert check(mint(CLAIMS, "b", KEYS["b"])) == CLAIMS
    assert check(changed(iss="main")).iss == "main"


def test_claims_are_integers_or_floats() -> None:
    assert check(signed(payload(exp=int(NOW) + 5, nbf=int(NOW)))).exp == NOW + 5


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"exp": NOW - 30}, "expired"),
        ({"nbf": NOW + 31}, "notYetValid"),
        ({"session": "shop/other"}, "wrongSession"),
        ({"sub": "bob"}, "wrongPeer"),
        ({"iss": "elsewhere"}, "wrongIssuer"),
        ({"aud": "other"}, "wrongAudience"),
    ],
)
def test_claims_that_do_not_hold(fields: dict[str, Any], word: str) -> None:
    assert reason(changed(**fields)) == word


def test_leeway() -> None:
    assert check(changed(exp=NOW - 29))
    assert check(changed(nbf=NOW + 30))
    assert reason(changed(exp=NOW - 1), leeway=0) == "expired"


def test_forged() -> None:
    assert reason(mint(CLAIMS, "a", KEYS["b"])) == "forged"
    head, body, signature = mint(CLAIMS, "a", KEYS["a"]).split(".")
    other = mint(msgspec.structs.replace(CLAIMS, sub="bob"), "a", KEYS["a"]).split(".")[1]
    assert reason(f"{head}.{other}.{signature}") == "forged"
    assert reason(f"{head}.{body}.") == "forged"


@pytest.mark.parametrize("algorithm", ["none", "None", "HS512", "RS256", "", 1])
def test_other_algorithms(algorithm: object) -> None:
    """Also "none": what the header says never weakens what is asked for."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    token = f"{part({'alg': algorithm, 'typ': 'JWT', 'kid': 'a'})}.{part(payload())}."
    assert reason(token) in ("forged", "malformed")
    good = jwt.encode(payload(), b"a" * 64, algorithm="HS512", headers={"kid": "a"})
    assert reason(good, keys={"a": b"a" * 64}) == "forged"


def test_unknown_key() -> None:
    assert reason(mint(CLAIMS, "z", KEYS["a"])) == "unknownKey"
    assert reason(mint(CLAIMS, "a", KEYS["a"]), keys={}) == "unknownKey"
    weak = jwt.encode(payload(), b"a" * 32, headers={"kid": "a"})
    assert reason(weak, keys={"a": b"short"}) == "unknownKey"


@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b.c", "....", "\u2603", "x" * 10_000, signed(payload(), {}), signed(payload(), {"kid": ""})],
)
def test_malformed(token: str) -> None:
    assert reason(token) == "malformed"


@pytest.mark.parametrize("claim", ["aud", "iss", "sub", "session", "exp", "nbf", "jti"])
def test_every_claim_is_needed(claim: str) -> None:
    assert reason(signed(payload(**{claim: None}))) == "malformed"


@pytest.mark.parametrize("fields", [{"publish": "yes"}, {"exp": "soon"}, {"session": ["a"]}, {"aud": ["x"]}])
def test_claims_of_another_type(fields: dict[str, Any]) -> None:
    assert reason(signed(payload(**fields))) == "malformed"


def test_publish_and_subscribe_are_false_when_absent() -> None:
    claims = payload(publish=None, subscribe=None)
    assert not check(signed(claims)).publish
    assert not check(signed(claims)).subscribe


def test_resume_outlives_the_token() -> None:
    later = NOW + tokens.RESUME_LIFETIME - 1
    token = mint_resume(CLAIMS, KEYS, now=NOW)
    assert tokens.key_id(token) == "b"
    claims = check(token, now=later)
    assert claims.resume
    assert claims.jti != CLAIMS.jti
    assert (claims.sub, claims.session, claims.publish, claims.iss) == ("ann", "shop/standup", True, "uid-1")
    assert reason(token, now=later + 60) == "expired"
    assert reason(token, session="shop/other") == "wrongSession"


def test_resume_does_not_prolong_itself() -> None:
    first = check(mint_resume(CLAIMS, KEYS, now=NOW))
    second = check(mint_resume(first, KEYS, now=NOW + 3600), now=NOW + 3600)
    assert second.exp == first.exp


def test_keys_must_serve() -> None:
    with pytest.raises(TokenError, match="has 5 bytes"):
        mint(CLAIMS, "a", b"short")
    with pytest.raises(TokenError, match="no token key"):
        mint_resume(CLAIMS, {}, now=NOW)
