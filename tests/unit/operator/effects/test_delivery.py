"""What servers are told, and what is withheld until a fresh read has confirmed it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from mafalda_operator.effects.delivery import Delivery
from mafalda_operator.effects.servers import ServerLinks
from mafalda_operator.model import Inventory, MediaRouter, MediaSession, ObjectKey, Reported, ServerView
from mafalda_operator.planning import Memory, Plan, Withheld
from mafalda_operator.planning.book import ServerChange

from mediaserver.control.contract import RouterEntry, RouterState, router_key

SERVER = ObjectKey("media", "m0")


class Links:
    """Control links that note what they are told."""

    def __init__(self) -> None:
        self.reported = Reported()
        self.is_released = True
        self.whole: dict[str, Any] | None = None
        self.sent: list[ServerChange] = []

    def view(self, server: ObjectKey) -> ServerView | None:
        return ServerView(key=server, connected=True, reported=self.reported, report_received=True)

    def released(self, server: ObjectKey) -> bool:
        return self.is_released

    def release(self, server: ObjectKey, whole: dict[str, Any]) -> None:
        self.is_released, self.whole = True, dict(whole)

    def send(self, server: ObjectKey, change: ServerChange) -> None:
        self.sent.append(change)

    @property
    def gone(self) -> set[str]:
        return {key for change in self.sent for key in change.gone}


@dataclass
class Lists:
    now: float = 0.0
    fresh: float = -1.0
    asked: list[str] = field(default_factory=list)

    def request(self, reason: str, *, suspect: bool = True) -> float:
        assert not suspect
        self.now += 1
        self.asked.append(reason)
        return self.now

    def fresh_since(self, moment: float) -> bool:
        return self.fresh >= moment

    def answer(self) -> None:
        self.now += 1
        self.fresh = self.now


class Rig:
    """``count`` sessions of one router each, all on one server's workers."""

    def __init__(self, count: int) -> None:
        self.links, self.lists, self.inventory = Links(), Lists(), Inventory()
        self.withheld: list[Withheld] = []
        self.delivery = Delivery(
            cast(ServerLinks, self.links), self.inventory, self.lists, self.withheld.append
        )
        self.names = [f"s{number}" for number in range(count)]
        for name in self.names:
            self.inventory.put(MediaSession.parse(_session(name)))
            self.inventory.put(MediaRouter.parse(_router(name)))
            state = RouterState(namespace="shop", name=name, session_uid=name, worker_slot=0, ready=True)
            self.links.reported.put(router_key("shop", name), state)
        self.plan(self.names)

    def plan(self, names: list[str], whole: bool = True) -> None:
        desired = {
            ObjectKey("shop", name): {SERVER: {router_key("shop", name): _entry(name)}} for name in names
        }
        self.delivery.take(Plan((), desired, {}, (), (), Memory(), whole=whole))

    def delete(self, names: list[str]) -> None:
        for name in names:
            self.inventory.remove("MediaRouter", ObjectKey("shop", name))
            self.inventory.remove("MediaSession", ObjectKey("shop", name))


def _session(name: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"clusterRef": {"name": "main", "namespace": "media"}},
    }


def _router(name: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": name, "uid": f"r-{name}", "resourceVersion": "1"},
        "spec": {"sessionName": name, "serverName": "m0", "workerSlot": 0},
    }


def _entry(name: str) -> RouterEntry:
    return RouterEntry(
        namespace="shop",
        name=name,
        uid=f"r-{name}",
        session=name,
        session_uid=name,
        worker_slot=0,
        media_codecs=[],
    )


def keys(names: list[str]) -> set[str]:
    return {router_key("shop", name) for name in names}


def test_a_few_are_closed_at_once() -> None:
    rig = Rig(10)
    rig.plan(rig.names[3:])
    assert rig.links.gone == keys(rig.names[:3])
    assert rig.lists.asked == []


def test_a_fifth_of_many_is_closed_at_once() -> None:
    rig = Rig(50)
    rig.plan(rig.names[10:])
    assert rig.links.gone == keys(rig.names[:10])


def test_many_deleted_ones_are_closed_once_a_fresh_read_confirms_it() -> None:
    rig = Rig(10)
    rig.delete(rig.names[:6])
    rig.plan(rig.names[6:])
    assert rig.links.gone == set()
    assert len(rig.lists.asked) == 1
    rig.delivery.refresh([SERVER])
    assert rig.links.gone == set()
    rig.lists.answer()
    rig.delivery.refresh([SERVER])
    assert rig.links.gone == keys(rig.names[:6])
    assert rig.withheld == []


def test_what_a_fresh_read_still_has_is_withheld_and_told_once() -> None:
    rig = Rig(10)
    rig.plan([])
    rig.lists.answer()
    rig.delivery.refresh([SERVER])
    rig.delivery.refresh([SERVER])
    assert rig.links.gone == set()
    assert len(rig.withheld) == 1
    assert rig.withheld[0].server == SERVER
    assert set(rig.delivery.withheld) == {SERVER}


def test_other_changes_go_out_while_closings_are_withheld() -> None:
    rig = Rig(10)
    rig.plan(["new"])
    assert rig.links.gone == set()
    assert [set(change.changed) for change in rig.links.sent][-1] == keys(["new"])


def test_a_plan_that_wants_them_again_lifts_it() -> None:
    rig = Rig(10)
    rig.plan([])
    rig.plan(rig.names)
    rig.lists.answer()
    rig.delivery.refresh([SERVER])
    assert rig.links.gone == set()
    assert rig.withheld == []
    assert rig.delivery.withheld == {}


def test_routers_bound_elsewhere_count_as_confirmed() -> None:
    rig = Rig(6)
    for name in rig.names:
        moved = _router(name)
        moved["metadata"]["resourceVersion"] = "2"
        moved["metadata"]["generation"] = 2
        moved["spec"]["serverName"] = "m1"
        rig.inventory.put(MediaRouter.parse(moved))
    rig.plan([])
    rig.lists.answer()
    rig.delivery.refresh([SERVER])
    assert rig.links.gone == keys(rig.names)


@pytest.mark.parametrize(("wanted", "told"), [(10, True), (7, True), (3, False)])
def test_a_new_connection_is_told_nothing_that_would_close_many(wanted: int, told: bool) -> None:
    rig = Rig(10)
    rig.plan(rig.names[:wanted])
    rig.links.is_released, rig.links.whole, rig.links.sent = False, None, []
    rig.delivery.refresh([SERVER])
    assert (rig.links.whole is not None) == told
    if not told:
        rig.delete(rig.names[wanted:])
        rig.lists.answer()
        rig.delivery.refresh([SERVER])
        assert rig.links.whole is not None
        assert set(rig.links.whole) == keys(rig.names[:wanted])


def test_what_changes_before_the_release_is_part_of_it() -> None:
    rig = Rig(2)
    rig.links.is_released, rig.links.sent = False, []
    rig.plan(["s0", "s1", "s2"])
    assert rig.links.sent == []
    rig.delivery.refresh([SERVER])
    assert rig.links.whole is not None
    assert set(rig.links.whole) == keys(["s0", "s1", "s2"])
