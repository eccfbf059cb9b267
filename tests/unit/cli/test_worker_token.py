"""`mafalda worker-token`: what is signed, with which key, and what is said when there is none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from doubles.kube import FakeKube
from mafalda_operator.cli import token_keys
from mafalda_operator.cli.durations import DURATION
from mafalda_operator.cli.token import token
from mafalda_operator.cli.worker_token import worker_token
from mafalda_operator.effects.errors import ApiUnavailable

from mediaserver.wire import tokens, worker_tokens
from mediaserver.wire.errors import TokenError
from mediaserver.wire.worker_tokens import WorkerClaims

KEY = b"0123456789abcdef0123456789abcdef"
K1, K2, OTHER = b"1" * 32, b"2" * 32, b"3" * 32
OWN: dict[str, Any] = {"name": "own", "secretRef": {"name": "own-keys"}, "namespaces": {"from": "All"}}
APPS: dict[str, Any] = {"name": "apps", "secretRef": {"name": "apps-keys"}, "workers": True}
ASKED = ("--cluster", "media/main", "--sub", "shop")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    return path


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> FakeKube:
    fake = FakeKube()
    monkeypatch.setattr(token_keys, "KubeApi", fake)
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(worker_token, arguments)


def claims_of(result: Result, keys: dict[str, bytes], issuer: str) -> WorkerClaims:
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    return worker_tokens.verify(result.stdout.strip(), keys, [issuer], revoked=(), now=time.time())


def test_it_signs_with_the_key_of_a_file(key_file: Path) -> None:
    result = run(*ASKED, "--key-file", str(key_file), "--kid", "k1", "--issuer", "uid")
    claims = claims_of(result, {"k1": KEY}, "uid")
    assert claims.sub == "shop"
    assert claims.exp - claims.nbf == 30 * 24 * 3600
    bounds = (claims.workers, claims.consumers, claims.bandwidth, claims.server, claims.zone)
    assert (*bounds, claims.pipe_srtp) == (None,) * 6
    assert result.stderr == (
        f"To revoke it, add {claims.jti} to the data key revoked of the Secret that holds its key.\n"
    )


def test_every_bound_becomes_a_claim(key_file: Path) -> None:
    result = run(
        *ASKED, "--ttl", "2h", "--workers", "4", "--consumers", "100", "--bandwidth", "5000000",
        "--server", "main-1", "--zone", "a", "--pipe-srtp", "Auto",
        "--key-file", str(key_file), "--kid", "k1",
    )  # fmt: skip
    claims = claims_of(result, {"k1": KEY}, "media/main")
    assert claims == WorkerClaims(
        iss="media/main",
        sub="shop",
        nbf=claims.nbf,
        exp=claims.nbf + 7200,
        jti=claims.jti,
        workers=4,
        consumers=100,
        bandwidth=5_000_000,
        server="main-1",
        zone="a",
        pipe_srtp="Auto",
    )


def test_two_tokens_are_never_the_same(key_file: Path) -> None:
    made = [run(*ASKED, "--key-file", str(key_file), "--kid", "k1") for _ in range(2)]
    assert len({claims_of(result, {"k1": KEY}, "media/main").jti for result in made}) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--cluster", "main", "--sub", "a"], "NAMESPACE/NAME"),
        (["--cluster", "a/b/c", "--sub", "a"], "NAMESPACE/NAME"),
        (["--sub", "a"], "--cluster"),
        (["--cluster", "a/b"], "--sub"),
        ([*ASKED, "--key-file", "KEY"], "--kid"),
        ([*ASKED, "--kid", "1"], "--key-file"),
        ([*ASKED, "--issuer", "1"], "--key-file"),
        ([*ASKED, "--ttl", "soon"], "30d"),
        ([*ASKED, "--workers", "0"], "--workers"),
        ([*ASKED, "--consumers", "-1"], "--consumers"),
        ([*ASKED, "--bandwidth", "5M"], "--bandwidth"),
        ([*ASKED, "--pipe-srtp", "Always"], "--pipe-srtp"),
    ],
)
def test_usage_is_told(key_file: Path, arguments: list[str], named: str) -> None:
    result = run(*(str(key_file) if argument == "KEY" else argument for argument in arguments))
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stdout == ""


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"short")
    result = run(*ASKED, "--key-file", str(short), "--kid", "k1")
    assert result.exit_code == 1
    assert "5 bytes" in result.stderr
    assert result.stdout == ""


# -- with a key of the cluster ------------------------------------------------------------------------------


def test_the_greatest_key_of_the_first_set_for_workers_signs(kube: FakeKube) -> None:
    """`revoked` is the greatest of the Secret's data keys, and no key."""
    more = {**APPS, "name": "more", "secretRef": {"name": "more-keys"}}
    kube.cluster("main", OWN, APPS, more)
    kube.secret("own-keys", k9=OTHER)
    kube.secret("apps-keys", k1=K1, k2=K2, revoked=b"x" * 40)
    kube.secret("more-keys", k9=OTHER)
    result = run(*ASKED)
    claims = claims_of(result, {"k2": K2}, "uid-main")
    assert result.stderr == (
        f"To revoke it, add {claims.jti} to the data key revoked of Secret media/apps-keys.\n"
    )
    assert kube.closed == 1


def test_no_participant_uses_it(kube: FakeKube) -> None:
    kube.cluster("main", {**APPS, "namespaces": {"from": "All"}})
    kube.secret("apps-keys", k1=K1)
    made = run(*ASKED).stdout.strip()
    with pytest.raises(TokenError) as refused:
        tokens.verify(made, {"k1": K1}, ["uid-main"], session="shop/a", peer_id="shop", now=time.time())
    assert refused.value.reason == "wrongAudience"


def test_a_participants_token_is_signed_by_no_revocation(kube: FakeKube) -> None:
    kube.cluster("main", {**APPS, "namespaces": {"from": "All"}})
    kube.session()
    kube.secret("apps-keys", k1=K1, revoked=b"x" * 40)
    result = CliRunner().invoke(token, ["--session", "shop/standup", "--sub", "alice"])
    assert result.exit_code == 0, result.stderr
    assert tokens.key_id(result.stdout.strip()) == "k1"


def test_what_is_missing_is_named_with_the_remedy(kube: FakeKube) -> None:
    def refusal() -> str:
        result = run(*ASKED)
        assert (result.exit_code, result.stdout) == (1, "")
        return result.stderr

    assert "there is no MediaCluster media/main" in refusal()
    for key_sets in ((), (OWN,), ({**APPS, "workers": False},)):
        kube.cluster("main", *key_sets)
        said = refusal()
        assert "no key set of MediaCluster media/main admits applications' workers" in said
        assert "set workers: true in one of its spec.tokens.keySets" in said
    kube.cluster("main", APPS)
    assert "there is no Secret media/apps-keys; the operator makes it" in refusal()
    for data in ({}, {"revoked": b"one"}):
        kube.secret("apps-keys", **data)
        assert "Secret media/apps-keys holds no key; add one of 32 bytes or more" in refusal()
    kube.secret("apps-keys", k1=b"short")
    assert "Secret media/apps-keys: key k1 has 5 bytes" in refusal()
    kube.fault = ApiUnavailable("no answer from the API server")
    assert "no answer from the API server" in refusal()


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("1d12h", 129_600), ("1.5d", 129_600), ("90s", 90)]
)
def test_durations_have_days(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == pytest.approx(seconds)
