from __future__ import annotations

import base64
import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.wire import signed
from mediaserver.wire.errors import TokenError


def token(payload: bytes, header: bytes = b'{"alg":"HS256","kid":"k"}', signature: bytes = b"s") -> str:
    parts = (header, payload, signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def test_the_issuer_that_a_token_claims() -> None:
    payload = {"iss": "media/main", "exp": "not looked at", "nbf": -1, "aud": [1]}
    assert signed.issuer(token(msgspec.json.encode(payload))) == "media/main"


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"[]", b"3", b"\xff", b'{"iss": 3}', b'{"iss": ""}', b'{"iss": ["a"]}', b"[" * 5000],
)
def test_tokens_without_an_issuer(payload: bytes) -> None:
    with pytest.raises(TokenError) as caught:
        signed.issuer(token(payload))
    assert caught.value.reason == "malformed"


@given(st.one_of(st.text(max_size=200), st.binary(max_size=100).map(token)))
@settings(deadline=None)
def test_garbage(text: str) -> None:
    with contextlib.suppress(TokenError):
        assert signed.issuer(text)
