from __future__ import annotations

import base64
import itertools
from pathlib import Path

import pytest

from mediaserver.wire.errors import MembershipError
from mediaserver.wire.membership import ClusterKey, identity, new_nonce, proof, verify

KEY = ClusterKey(b"k" * 32)
MINE, THEIRS = new_nonce(), new_nonce()


def test_a_proof_holds() -> None:
    claimed = proof(KEY, "dialler", "/control", MINE, THEIRS, "me")
    verify(KEY, claimed, "dialler", "/control", MINE, THEIRS, "me")


@pytest.mark.parametrize(
    "changed",
    [
        {"key": ClusterKey(b"K" * 32)},
        {"side": "acceptor"},
        {"path": "/peer"},
        {"own_nonce": new_nonce()},
        {"other_nonce": new_nonce()},
        {"identity": "somebody else"},
        {"claimed": ""},
        {"claimed": "ü"},
        {"own_nonce": THEIRS, "other_nonce": MINE},
    ],
    ids="+".join,
)
def test_a_proof_for_something_else_does_not(changed: dict[str, object]) -> None:
    arguments: dict[str, object] = {
        "key": KEY,
        "claimed": proof(KEY, "dialler", "/control", MINE, THEIRS, "me"),
        "side": "dialler",
        "path": "/control",
        "own_nonce": MINE,
        "other_nonce": THEIRS,
        "identity": "me",
    }
    with pytest.raises(MembershipError, match="--cluster-key-file"):
        verify(**{**arguments, **changed})  # type: ignore[arg-type]


def test_a_nonce_must_be_fresh() -> None:
    reflected = proof(KEY, "dialler", "/control", MINE, MINE, "me")
    with pytest.raises(MembershipError, match="fresh"):
        verify(KEY, reflected, "dialler", "/control", MINE, MINE, "me")
    with pytest.raises(MembershipError, match="fresh"):
        verify(
            KEY, proof(KEY, "dialler", "/control", "x", MINE, "me"), "dialler", "/control", "x", MINE, "me"
        )


def test_identities_do_not_collide() -> None:
    lists = [("a", "b"), ("ab",), ("a", "b", ""), ("", "a", "b"), ("1:a", "b"), ("a1:b",)]
    made = [identity(*words) for words in lists]
    assert all(a != b for a, b in itertools.combinations(made, 2))


def test_keys_from_files(tmp_path: Path) -> None:
    secret = bytes(range(1, 33))
    encoded = tmp_path / "encoded"
    encoded.write_bytes(b"\n" + base64.b64encode(secret) + b"\n")
    raw = tmp_path / "raw"
    raw.write_bytes(b"not base64: " + b"!" * 30)
    assert ClusterKey.load(encoded).sign(b"x") == ClusterKey(secret).sign(b"x")
    assert ClusterKey.load(raw).sign(b"x") == ClusterKey(b"not base64: " + b"!" * 30).sign(b"x")


@pytest.mark.parametrize("content", [b"", b"short", b" " * 64, base64.b64encode(b"0123456789")])
def test_keys_too_short(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(MembershipError, match=r"key: a cluster key needs at least 32 bytes.*openssl"):
        ClusterKey.load(path)


def test_missing_key_file(tmp_path: Path) -> None:
    with pytest.raises(MembershipError, match="absent cannot be read: No such file"):
        ClusterKey.load(tmp_path / "absent")


def test_a_key_does_not_show() -> None:
    assert "kkk" not in repr(KEY)
