from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from doubles.api import FakeApi
from structlog.testing import capture_logs

from mediaserver.gateway import keys as module
from mediaserver.gateway.errors import KeysUnavailable
from mediaserver.gateway.keys import (
    FRESH_SECONDS,
    REREAD_SECONDS,
    RETRY_SECONDS,
    WORKER_FRESH_SECONDS,
    TokenKeys,
    selects,
)
from mediaserver.gateway.resources import Cluster, LabelSelector
from mediaserver.wire.worker_tokens import REVOKED

K1, K2 = b"1" * 32, b"2" * 40


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def cluster(*key_sets: dict[str, object]) -> Cluster:
    spec = {"tokens": {"keySets": list(key_sets)}} if key_sets else {}
    return msgspec.convert({"metadata": {"namespace": "media", "name": "main"}, "spec": spec}, Cluster)


def key_set(name: str, **namespaces: object) -> dict[str, object]:
    return {"name": name, "secretRef": {"name": f"secret-{name}"}, "namespaces": namespaces}


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(api: FakeApi, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TokenKeys]:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)
    made = TokenKeys(api, clock=clock)
    yield made
    await made.close()


async def test_without_key_sets(api: FakeApi, keys: TokenKeys) -> None:
    api.secrets["media/main-token-keys"] = {"k1": K1}
    assert await keys.of(cluster(), "media", "k1") == {"k1": K1}
    assert await keys.of(cluster(), "shop", "k1") == {}


async def test_key_sets_and_their_namespaces(api: FakeApi, keys: TokenKeys) -> None:
    api.secrets |= {
        "media/secret-own": {"own": K1},
        "media/secret-all": {"all": K1, "own": K2},
        "media/secret-labelled": {"labelled": K1},
    }
    api.labels["shop"] = {"team": "a"}
    made = cluster(
        key_set("own", **{"from": "Same"}),
        key_set("all", **{"from": "All"}),
        key_set("labelled", **{"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}),
    )
    assert await keys.of(made, "media", "all") == {"own": K1, "all": K1}
    assert await keys.of(made, "shop", "all") == {"own": K2, "all": K1, "labelled": K1}


async def test_short_keys_do_not_count(api: FakeApi, keys: TokenKeys) -> None:
    api.secrets["media/main-token-keys"] = {"k1": b"short", "k2": K2}
    assert await keys.of(cluster(), "media", "k2") == {"k2": K2}


async def test_keys_of_workers(api: FakeApi, keys: TokenKeys) -> None:
    """Those of the sets that say so, whatever namespaces they are for; and what those sets revoke."""
    api.secrets |= {
        "media/secret-people": {"p": K1, "revoked": b"t9"},
        "media/secret-apps": {"a": K1, "b": b"short", "revoked": b"\xef\xbb\xbft1\nt2, t3\r\n \xff t4,,"},
        "media/secret-more": {"a": K2, "c": K2, "revoked": b"t5"},
    }
    made = cluster(
        key_set("people", **{"from": "All"}),
        {**key_set("apps"), "workers": True},
        {**key_set("more"), "workers": True},
    )
    found = await keys.of_workers(made, "c")
    assert found.keys == {"a": K1, "c": K2}
    assert found.revoked - {"\ufffd"} == {"t1", "t2", "t3", "t4", "t5"}
    assert "keys" not in repr(found)


async def test_without_sets_for_workers(api: FakeApi, keys: TokenKeys) -> None:
    api.secrets["media/main-token-keys"] = {"k1": K1}
    assert (await keys.of_workers(cluster(), "k1")).keys == {}
    assert not api.reads


async def test_what_is_revoked_is_no_key(api: FakeApi, keys: TokenKeys) -> None:
    api.secrets["media/main-token-keys"] = {"k1": K1, REVOKED: b"t" * 32}
    assert await keys.of(cluster(), "media", "k1") == {"k1": K1}


async def test_revoking_is_seen_soon(api: FakeApi, keys: TokenKeys, clock: Clock) -> None:
    made = cluster({**key_set("apps"), "workers": True})
    api.secrets["media/secret-apps"] = {"a": K1}
    assert (await keys.of_workers(made, "a")).revoked == frozenset()
    api.secrets["media/secret-apps"] = {"a": K1, REVOKED: b"t1"}
    clock.now += WORKER_FRESH_SECONDS
    assert (await keys.of_workers(made, "a")).revoked == {"t1"}
    api.secrets["media/secret-apps"] = {"b": K1}
    assert (await keys.of_workers(made, "b")).keys == {"a": K1}
    clock.now += REREAD_SECONDS
    assert (await keys.of_workers(made, "b")).keys == {"b": K1}


async def test_reads_are_few(api: FakeApi, keys: TokenKeys, clock: Clock) -> None:
    api.secrets["media/main-token-keys"] = {"k1": K1}
    for _ in range(100):
        await keys.of(cluster(), "media", "k1")
        await keys.of(cluster(), "media", "unknown")
    assert len(api.reads) == 1
    clock.now += REREAD_SECONDS
    for _ in range(100):
        await keys.of(cluster(), "media", "k1")
        await keys.of(cluster(), "media", "unknown")
    assert len(api.reads) == 2
    clock.now += FRESH_SECONDS
    await keys.of(cluster(), "media", "k1")
    assert len(api.reads) == 3


async def test_an_unknown_kid_reads_anew(api: FakeApi, keys: TokenKeys, clock: Clock) -> None:
    api.secrets["media/main-token-keys"] = {"k1": K1}
    await keys.of(cluster(), "media", "k1")
    api.secrets["media/main-token-keys"] = {"k2": K2}
    assert await keys.of(cluster(), "media", "k2") == {"k1": K1}
    clock.now += REREAD_SECONDS
    assert await keys.of(cluster(), "media", "k2") == {"k2": K2}


async def test_a_removed_key_stops_counting(api: FakeApi, keys: TokenKeys, clock: Clock) -> None:
    api.secrets["media/main-token-keys"] = {"k1": K1}
    await keys.of(cluster(), "media", "k1")
    del api.secrets["media/main-token-keys"]
    clock.now += FRESH_SECONDS
    assert await keys.of(cluster(), "media", "k1") == {}


async def test_without_the_api(api: FakeApi, keys: TokenKeys, clock: Clock) -> None:
    api.secrets["media/main-token-keys"] = {"k1": K1}
    api.down = True
    with pytest.raises(KeysUnavailable):
        await keys.of(cluster(), "media", "k1")
    api.down = False
    with pytest.raises(KeysUnavailable):
        await keys.of(cluster(), "media", "k1")
    clock.now += RETRY_SECONDS
    assert await keys.of(cluster(), "media", "k1") == {"k1": K1}
    api.down = True
    clock.now += 10 * FRESH_SECONDS
    assert await keys.of(cluster(), "media", "k1") == {"k1": K1}
    assert await keys.of(cluster(), "media", "k9") == {"k1": K1}


async def test_a_secret_that_may_not_be_read(api: FakeApi, keys: TokenKeys) -> None:
    """The log names it, and the value of the chart that lets the gateway read it."""
    api.forbidden.add("media/secret-own")
    with capture_logs() as logs, pytest.raises(KeysUnavailable, match="media/secret-own cannot be read"):
        await keys.of(cluster(key_set("own", **{"from": "All"})), "shop", "k1")
    (said,) = logs
    assert (said["object"], said["reason"]) == (
        "media/secret-own",
        "read Secret media/secret-own: 403 Forbidden",
    )
    assert "add secret-own to gateway.tokenSecrets" in said["remedy"]
    assert "media to mediaNamespaces" in said["remedy"]


async def test_an_api_that_hangs(api: FakeApi, keys: TokenKeys, clock: Clock) -> None:
    """Everybody waits a little, together; what is known counts meanwhile, what is not is refused."""
    api.hanging.set()
    with pytest.raises(KeysUnavailable):
        await keys.of(cluster(), "media", "k1")
    await keys.close()
    api.hanging.clear()
    api.secrets["media/main-token-keys"] = {"k1": K1}
    clock.now += RETRY_SECONDS
    await keys.of(cluster(), "media", "k1")
    api.hanging.set()
    clock.now += FRESH_SECONDS
    reads = len(api.reads)
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(keys.of(cluster(), "media", "k1") for _ in range(200)))
    assert answers == [{"k1": K1}] * 200
    assert len(api.reads) == reads + 1


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchLabels": {"a": "1", "b": "1"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "In", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
        (
            {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]},
            False,
        ),
    ],
)
def test_selectors(selector: dict[str, object], chosen: bool) -> None:
    assert selects(msgspec.convert(selector, LabelSelector), {"a": "1"}) is chosen
