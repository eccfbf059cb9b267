import pytest
from mafalda_operator.cli.participant import AddressError
from mafalda_operator.cli.participant.address import claims_of, dial_url

from mediaserver.wire.tokens import ParticipantClaims, mint


def token(session: str = "shop/standup") -> str:
    claims = ParticipantClaims(
        iss="main", sub="al ice&", session=session, exp=2e9, nbf=0, jti="x", publish=True
    )
    return mint(claims, "1", b"k" * 32)


def test_the_token_says_who_and_where() -> None:
    claims = claims_of(token())
    assert (claims.sub, claims.session, claims.publish, claims.subscribe) == (
        "al ice&",
        "shop/standup",
        True,
        False,
    )


def test_the_url_gets_participant_and_token() -> None:
    url = dial_url("wss://media.example.com/?roomId=shop/standup", token())
    assert url.scheme == "wss"
    assert url.path == "/"
    assert dict(url.query) == {"roomId": "shop/standup", "peerId": "al ice&", "token": token()}


def test_a_url_without_room_gets_the_tokens() -> None:
    assert dial_url("ws://localhost:8080", token()).query["roomId"] == "shop/standup"


@pytest.mark.parametrize("text", ["", "x", "a.b", "a.b.c", "a.e30.c", "a.!!!.c", "a.W10.c"])
def test_no_token(text: str) -> None:
    with pytest.raises(AddressError, match="mafalda token"):
        claims_of(text)


@pytest.mark.parametrize("url", ["", "media.example.com", "ftp://x/", "ws:///", "ws://[::1", "ws://x:port/"])
def test_no_url(url: str) -> None:
    with pytest.raises(AddressError):
        dial_url(url, token())


def test_a_token_of_another_session() -> None:
    with pytest.raises(AddressError, match="shop/party"):
        dial_url("ws://x/?roomId=shop/standup", token("shop/party"))
