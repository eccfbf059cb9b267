"""Whose tokens admit applications' workers, as servers are told it."""

import base64
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mafalda_operator.model import KeySecret, ObjectKey, Scope

from mediaserver.control.contract import SessionEntry, SettingsEntry, WorkerTokens

CLUSTER = ObjectKey("media", "main")
SERVER = ObjectKey("media", "main-1")
OWN, APPS, MORE = (
    {"name": "own", "secretRef": {"name": "own-keys"}, "namespaces": {"from": "All"}},
    {"name": "apps", "secretRef": {"name": "apps-keys"}, "workers": True},
    {"name": "more", "secretRef": {"name": "more-keys"}, "workers": True},
)


def key(letter: str) -> bytes:
    return letter.encode() * 32


def text(letter: str) -> str:
    return base64.b64encode(key(letter)).decode()


def build(make_world: Any, *key_sets: dict[str, Any], **secrets: KeySecret) -> Any:
    """A cluster with these sets, whose Secrets (by the set's name) hold this; one server."""
    world = make_world()
    world.cluster(tokens={"keySets": list(key_sets)})
    read(world, **secrets)
    world.server("main-1")
    world.settle()
    return world


def read(world: Any, **secrets: KeySecret) -> None:
    world.scope |= world.inventory.put_token_keys(CLUSTER, secrets)


def told(world: Any) -> WorkerTokens | None:
    entry = world.book.of(SERVER)["settings"]
    assert isinstance(entry, SettingsEntry)
    return entry.worker_tokens


def test_without_a_set_for_workers_nobody_is_admitted(make_world: Any) -> None:
    world = build(make_world, OWN, own=KeySecret({"k1": key("o")}, revoked=frozenset({"one"})))
    assert told(world) is None


def test_keys_of_the_sets_for_workers_count_whatever_their_namespaces(make_world: Any) -> None:
    world = build(
        make_world,
        OWN,
        APPS,
        MORE,
        own=KeySecret({"o": key("o")}, revoked=frozenset({"participant"})),
        apps=KeySecret({"a": key("a"), "both": key("x"), "short": b"s" * 31}, revoked=frozenset({"z", "m"})),
        more=KeySecret({"b": key("b"), "both": key("y"), "short": key("l")}, revoked=frozenset({"a"})),
    )
    uid = world.inventory.clusters[CLUSTER].uid
    assert told(world) == WorkerTokens(
        issuers=[uid, "media/main", "main"],
        keys={"a": text("a"), "both": text("x"), "b": text("b"), "short": text("l")},
        revoked=["a", "m", "z"],
    )


def test_a_change_of_the_secret_alone_reaches_every_server(make_world: Any) -> None:
    """Whether keys change or only what is revoked, in one plan of the cluster."""
    world = build(make_world, APPS, apps=KeySecret({"a": key("a")}))
    world.server("main-2")
    world.settle()
    for secret in (
        KeySecret({"a": key("a")}, revoked=frozenset({"one"})),
        KeySecret({"b": key("b")}, revoked=frozenset({"one"})),
        KeySecret({}, exists=False),
    ):
        read(world, apps=secret)
        changes = world.book.take(world.plan(Scope(clusters=frozenset({CLUSTER}))))
        assert set(changes) == {SERVER, ObjectKey("media", "main-2")}
        assert {name for change in changes.values() for name in change.changed} == {"settings"}
        tokens = told(world)
        assert tokens is not None
        assert (set(tokens.keys), set(tokens.revoked)) == (set(secret.keys), secret.revoked)


def test_a_set_that_is_for_workers_no_more_admits_none(make_world: Any) -> None:
    world = build(make_world, APPS, apps=KeySecret({"a": key("a")}))
    world.put("MediaCluster", *CLUSTER, {"tokens": {"keySets": [{**APPS, "workers": False}]}})
    world.settle()
    assert told(world) is None


def test_a_new_leader_says_nothing_before_it_has_read_the_keys_that_counted(make_world: Any) -> None:
    """Else servers would end every worker whose key they aren't told."""
    world = build(make_world, APPS, MORE, apps=KeySecret({"a": key("a")}), more=KeySecret({"b": key("b")}))
    world.inventory.token_keys.clear()
    assert world.plan(Scope(clusters=frozenset({CLUSTER}))).settings == {}
    read(world, apps=KeySecret({"a": key("a")}))
    assert world.plan().settings == {}
    read(world, apps=KeySecret({"a": key("a")}), more=KeySecret({}, exists=False))
    (settings,) = world.plan().settings.values()
    assert settings.worker_tokens is not None
    assert set(settings.worker_tokens.keys) == {"a"}


def test_a_set_that_was_never_read_holds_nothing_up(make_world: Any) -> None:
    """Nobody has a worker by its keys, and the other sets' revocations must come through."""
    world = build(make_world, APPS, apps=KeySecret({"a": key("a")}))
    world.put("MediaCluster", *CLUSTER, {"tokens": {"keySets": [APPS, MORE]}})
    read(world, apps=KeySecret({"a": key("a")}, revoked=frozenset({"one"})))
    world.settle()
    tokens = told(world)
    assert tokens is not None
    assert tokens.revoked == ["one"]
    status, reason, message = world.condition("MediaCluster", CLUSTER, "Ready")
    assert (status, reason) == ("False", "TokenKeysPending")
    assert "Secret media/more-keys of key set more" in message
    assert "allow get, list and watch" in message


def test_revoked_is_a_key_to_nobody(make_world: Any) -> None:
    """Neither to participants nor in the status, and it's no key that is too short."""
    sets = {**APPS, "namespaces": {"from": "All"}}
    world = build(make_world, sets, apps=KeySecret.read({"a": key("a"), "revoked": b"x" * 40}))
    world.session()
    world.settle()
    entry = world.book.of(SERVER)["session/shop/standup"]
    assert isinstance(entry, SessionEntry)
    assert set(entry.token_keys) == {"a"}
    assert world.status("MediaCluster", CLUSTER)["keySets"][0]["keyIDs"] == ["a"]
    read(world, apps=KeySecret.read({"a": key("a"), "revoked": b"short"}))
    world.settle()
    assert world.condition("MediaCluster", CLUSTER, "Ready")[0] == "True"


@pytest.mark.parametrize("name", ["own", "apps"])
def test_revocations_that_are_no_text_are_told(make_world: Any, name: str) -> None:
    sets = {"own": OWN, "apps": APPS}[name]
    world = build(make_world, sets, **{name: KeySecret.read({"a": key("a"), "revoked": b"one \xff"})})
    status, reason, message = world.condition("MediaCluster", CLUSTER, "Ready")
    assert (status, reason) == ("False", "TokenRevocationsUnreadable")
    assert f"Secret media/{name}-keys of key set {name}" in message
    assert "data key revoked" in message
    assert "write token ids (jti) there, one a line" in message
    if name == "apps":
        tokens = told(world)
        assert tokens is not None
        assert tokens.revoked == ["one"], "what can be read is revoked all the same"
    read(world, **{name: KeySecret.read({"a": key("a"), "revoked": b"one"})})
    world.settle()
    assert world.condition("MediaCluster", CLUSTER, "Ready")[0] == "True"


def test_a_secret_that_only_revokes_holds_no_key(make_world: Any) -> None:
    world = build(make_world, APPS, apps=KeySecret.read({"revoked": b"one"}))
    assert world.condition("MediaCluster", CLUSTER, "Ready")[:2] == ("False", "TokenKeysMissing")


CONTENTS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "revoked"]),
    st.one_of(st.sampled_from([key("x"), key("y"), b"s" * 31]), st.binary(max_size=40)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(contents=st.lists(st.tuples(st.booleans(), CONTENTS), min_size=1, max_size=4))
def test_whatever_secrets_hold_only_long_keys_of_sets_for_workers_count(
    make_world: Any, contents: list[tuple[bool, dict[str, bytes]]]
) -> None:
    sets = [
        {"name": f"s{number}", "secretRef": {"name": f"s{number}"}, "workers": workers}
        for number, (workers, _) in enumerate(contents)
    ]
    secrets = {f"s{number}": KeySecret.read(data) for number, (_, data) in enumerate(contents)}
    tokens = told(build(make_world, *sets, **secrets))
    chosen = [data for workers, data in contents if workers]
    assert (tokens is None) == (not chosen)
    if tokens is None:
        return
    assert "revoked" not in tokens.keys
    assert tokens.revoked == sorted(set(tokens.revoked))
    for kid, encoded in tokens.keys.items():
        value = base64.b64decode(encoded)
        assert len(value) >= 32
        assert value == next(data[kid] for data in chosen if len(data.get(kid, b"")) >= 32)
