"""The store: whatever the order in which events, LISTs and answers arrive, the newest version wins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mafalda_operator.model import Inventory, ObjectKey, Scope
from mafalda_operator.store import TOMBSTONE_SECONDS, Store, merged


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def session(name: str, uid: str, version: int, minimum: int = 1) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "shop",
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "generation": version,
        },
        "spec": {"clusterRef": {"name": "main", "namespace": "media"}, "routers": {"min": minimum}},
    }


class Rig:
    def __init__(self) -> None:
        self.clock = Clock()
        self.inventory = Inventory()
        self.scopes: list[Scope] = []
        self.store = Store(self.inventory, clock=self.clock, on_change=self.scopes.append)

    def put(self, obj: dict[str, Any]) -> None:
        self.store.put("MediaSession", obj)

    def list(self, objects: list[dict[str, Any]], version: int, namespace: str | None = None) -> None:
        self.store.replace("MediaSession", objects, version, namespace=namespace)

    @property
    def held(self) -> dict[str, tuple[str, int]]:
        return {key.name: (one.uid, one.min_routers) for key, one in self.inventory.sessions.items()}


KEY = ObjectKey("shop", "a")


def test_an_older_event_does_not_undo_our_own_write() -> None:
    rig = Rig()
    rig.put(session("a", "u", 5, minimum=3))
    rig.store.note_event("MediaSession", "MODIFIED", session("a", "u", 4, minimum=1))
    assert rig.held == {"a": ("u", 3)}


def test_the_event_of_our_own_write_is_no_change() -> None:
    rig = Rig()
    rig.put(session("a", "u", 5))
    rig.scopes.clear()
    rig.store.note_event("MediaSession", "ADDED", session("a", "u", 5))
    assert rig.scopes == []


def test_a_late_event_does_not_bring_a_deleted_object_back() -> None:
    rig = Rig()
    rig.put(session("a", "u", 5))
    rig.store.delete("MediaSession", KEY, "u")
    rig.store.note_event("MediaSession", "MODIFIED", session("a", "u", 9))
    assert rig.held == {}


def test_a_deletion_that_comes_first_counts() -> None:
    rig = Rig()
    rig.store.note_event("MediaSession", "DELETED", session("a", "u", 6))
    rig.store.note_event("MediaSession", "ADDED", session("a", "u", 5))
    assert rig.held == {}


def test_the_deletion_of_an_earlier_object_of_the_name_is_not_that_of_the_new_one() -> None:
    rig = Rig()
    rig.put(session("a", "new", 8))
    rig.store.note_event("MediaSession", "DELETED", session("a", "old", 7))
    assert rig.held == {"a": ("new", 1)}


def test_a_list_removes_what_it_lacks_but_not_what_is_newer() -> None:
    rig = Rig()
    rig.put(session("a", "ua", 5))
    rig.put(session("b", "ub", 12))
    rig.list([], version=10)
    assert rig.held == {"b": ("ub", 1)}


def test_a_list_does_not_bring_back_what_was_deleted_after_it_began() -> None:
    rig = Rig()
    rig.put(session("a", "u", 5))
    rig.store.delete("MediaSession", KEY, "u")
    rig.list([session("a", "u", 5)], version=5)
    assert rig.held == {}


def test_a_list_of_one_namespace_leaves_the_others_alone() -> None:
    rig = Rig()
    rig.put(session("a", "u", 5))
    rig.list([], version=10, namespace="elsewhere")
    assert rig.held == {"a": ("u", 1)}


def test_a_late_event_of_an_object_that_a_list_lacked_is_ignored() -> None:
    rig = Rig()
    rig.list([], version=10)
    rig.store.note_event("MediaSession", "ADDED", session("a", "u", 5))
    assert rig.held == {}


def test_tombstones_are_forgotten_in_time() -> None:
    rig = Rig()
    rig.store.delete("MediaSession", KEY, "u")
    rig.clock.now = TOMBSTONE_SECONDS + 1
    rig.list([], version=10)
    assert rig.store.kinds["MediaSession"]._tombstones == {}


def test_status_changes_ask_for_no_plan() -> None:
    rig = Rig()
    rig.put(session("a", "u", 5))
    rig.scopes.clear()
    obj = session("a", "u", 6)
    obj["metadata"]["generation"] = 5
    rig.put({**obj, "status": {"readyRouters": 1}})
    assert rig.scopes == []
    assert rig.store.status("MediaSession", KEY, "u") == {"readyRouters": 1}
    assert rig.store.status("MediaSession", KEY, "other") is None


def test_namespaces_are_followed() -> None:
    rig = Rig()
    namespace = {"metadata": {"name": "shop", "uid": "n", "resourceVersion": "3", "labels": {"team": "a"}}}
    rig.store.note_event("Namespace", None, namespace)
    assert rig.inventory.namespaces["shop"].labels == {"team": "a"}
    ending = {"metadata": {**namespace["metadata"], "resourceVersion": "4", "deletionTimestamp": "now"}}
    rig.store.note_event("Namespace", "MODIFIED", ending)
    assert rig.inventory.namespaces["shop"].terminating
    rig.store.note_event("Namespace", "DELETED", ending)
    assert "shop" not in rig.inventory.namespaces


def test_merged_scopes_name_everything_that_each_names() -> None:
    one, two = ObjectKey("a", "1"), ObjectKey("a", "2")
    scopes = [Scope(sessions=frozenset({one})), Scope(), Scope(sessions=frozenset({two}), servers=None)]
    assert merged(scopes) == Scope(sessions=frozenset({one, two}), servers=None)


# -- any order --------------------------------------------------------------------------------------------


@dataclass
class Truth:
    """An API server's history of a few names: who was what at which version."""

    version: int = 0
    uids: int = 0
    alive: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lists: list[tuple[list[dict[str, Any]], int]] = field(default_factory=list)

    def act(self, name: str, action: str) -> None:
        self.version += 1
        if action == "list":
            self.version -= 1
            self.lists.append((list(self.alive.values()), self.version))
        elif action == "delete" and name in self.alive:
            gone = self.alive.pop(name)
            metadata = {**gone["metadata"], "resourceVersion": str(self.version)}
            self.events.append(("DELETED", {**gone, "metadata": metadata}))
        elif action == "write":
            known = self.alive.get(name)
            self.uids += known is None
            uid = known["metadata"]["uid"] if known else f"uid-{self.uids}"
            obj = session(name, uid, self.version, minimum=self.version % 3 + 1)
            self.alive[name] = obj
            self.events.append(("MODIFIED" if known else "ADDED", obj))


@given(
    history=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["write", "write", "delete", "list"])), max_size=25
    ),
    data=st.data(),
)
def test_any_order_of_arrival_ends_at_the_truth(history: list[tuple[str, str]], data: st.DataObject) -> None:
    truth = Truth()
    for name, action in history:
        truth.act(name, action)
    arrivals: list[tuple[str, Any]] = [("event", event) for event in truth.events]
    arrivals += [("list", listing) for listing in truth.lists]
    arrivals += (
        [("event", event) for event in data.draw(st.lists(st.sampled_from(truth.events), max_size=5))]
        if (truth.events)
        else []
    )
    rig = Rig()
    for kind, what in data.draw(st.permutations(arrivals)):
        if kind == "event":
            rig.store.note_event("MediaSession", *what)
        else:
            rig.list(what[0], version=what[1])
    expected = {
        name: (obj["metadata"]["uid"], obj["spec"]["routers"]["min"]) for name, obj in truth.alive.items()
    }
    assert rig.held == expected


@given(
    history=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["write", "write", "delete"])), max_size=25
    ),
    data=st.data(),
)
def test_a_list_repairs_what_a_watch_missed_wherever_it_comes_in(
    history: list[tuple[str, str]], data: st.DataObject
) -> None:
    truth = Truth()
    for name, action in history:
        truth.act(name, action)
    heard = [event for event in truth.events if data.draw(st.booleans())]
    arrivals: list[Any] = [*heard, None]
    rig = Rig()
    for event in data.draw(st.permutations(arrivals)):
        if event is None:
            rig.list(list(truth.alive.values()), version=truth.version)
        else:
            rig.store.note_event("MediaSession", *event)
    assert {name: uid for name, (uid, _) in rig.held.items()} == {
        name: obj["metadata"]["uid"] for name, obj in truth.alive.items()
    }
