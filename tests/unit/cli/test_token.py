import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mafalda_operator.cli.token import token

from mediaserver.wire.tokens import verify

KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(token, arguments)


def test_it_prints_the_token_and_nothing_else(key_file: Path) -> None:
    result = run(
        "--session", "shop/standup", "--sub", "alice", "--no-publish", "--ttl", "10m",
        "--key-file", str(key_file), "--kid", "k1", "--issuer", "main",
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    claims = verify(
        result.stdout.strip(), {"k1": KEY}, ["main"], session="shop/standup", peer_id="alice", now=time.time()
    )
    assert (claims.publish, claims.subscribe) == (False, True)
    assert 590 <= claims.exp - claims.nbf <= 610


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--session", "standup", "--sub", "a"], "NAMESPACE/NAME"),
        (["--session", "a/b/c", "--sub", "a"], "NAMESPACE/NAME"),
        (["--session", "a/b", "--sub", "a", "--key-file", "KEY"], "--kid"),
        (["--session", "a/b", "--sub", "a", "--kid", "1"], "--key-file"),
        (["--session", "a/b", "--sub", "a", "--ttl", "soon"], "duration"),
        (["--session", "a/b", "--sub", "a", "--ttl", "0s"], "duration"),
        (["--sub", "a"], "--session"),
    ],
)
def test_usage_is_told(key_file: Path, arguments: list[str], named: str) -> None:
    result = run(*(str(key_file) if argument == "KEY" else argument for argument in arguments))
    assert result.exit_code == 2
    assert named in result.stderr


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"short")
    result = run(
        "--session", "a/b", "--sub", "a", "--key-file", str(short), "--kid", "k1", "--issuer", "main"
    )
    assert result.exit_code == 1
    assert "5 bytes" in result.stderr
    assert result.stdout == ""
