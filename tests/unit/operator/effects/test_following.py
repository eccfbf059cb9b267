"""Pods and what belongs to them are followed where clusters want pods, and forgotten where none does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import pytest
from mafalda_operator.effects import following
from mafalda_operator.effects.api import NODES, PODS, KubeApi, Listing, Object, Resource
from mafalda_operator.effects.errors import ApiUnavailable, Forbidden, KubeError
from mafalda_operator.effects.following import Follower

Place = tuple[str, str | None]


class Api:
    def __init__(self) -> None:
        self.lists: list[tuple[str, str | None, str | None]] = []
        self.faults: dict[Place, KubeError] = {}
        self.events: dict[Place, asyncio.Queue[Object | None]] = {}
        """None ends a watch."""
        self.watched = asyncio.Event()

    async def list(
        self, resource: Resource, namespace: str | None, *, label_selector: str | None = None
    ) -> Listing:
        place = (resource.plural, namespace)
        if place in self.faults:
            raise self.faults[place]
        self.lists.append((*place, label_selector))
        return Listing(7, [])

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str | None = None,
        since: int,
        seconds: int,
    ) -> AsyncIterator[Object]:
        assert since == 7
        queue = self.events.setdefault((resource.plural, namespace), asyncio.Queue())
        self.watched.set()
        while (event := await queue.get()) is not None:
            yield event


class Store:
    def __init__(self) -> None:
        self.followed: dict[str, str] = {}
        self.told: list[tuple[Any, ...]] = []
        self.changed = asyncio.Event()

    def replace(
        self, kind: str, objects: Iterable[Object], version: int, *, namespace: str | None = None
    ) -> None:
        self.told.append(("replace", kind, namespace))

    def note_event(self, kind: str, event_type: str | None, obj: Object) -> None:
        self.told.append((event_type, kind, obj["metadata"]["name"]))
        self.changed.set()

    def forget(self, kind: str, namespace: str | None) -> None:
        self.told.append(("forget", kind, namespace))

    def put_followed(self, namespace: str, problem: str | None) -> None:
        if problem is None:
            self.followed.pop(namespace, None)
        else:
            self.followed[namespace] = problem
        self.changed.set()


class Rig:
    def __init__(self) -> None:
        self.api, self.store = Api(), Store()
        self.follower = Follower(cast(KubeApi, self.api), self.store)

    async def until(self, namespace: str, problem: str) -> None:
        async with asyncio.timeout(5):
            while not self._is(self.store.followed.get(namespace), problem):
                self.store.changed.clear()
                await self.store.changed.wait()

    @staticmethod
    def _is(told: str | None, problem: str) -> bool:
        return told is not None and (problem in told if problem else told == "")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.follower.close()


async def test_a_namespace_is_known_once_all_is_listed(rig: Rig) -> None:
    rig.follower.set_wanted(["media"])
    assert rig.store.followed == {}
    await rig.until("media", "")
    assert rig.store.followed == {"media": ""}
    assert set(rig.api.lists) == {
        ("pods", "media", "mafalda.io/role=media-server"),
        ("configmaps", "media", "mafalda.io/cluster"),
        ("services", "media", "mafalda.io/cluster"),
        ("poddisruptionbudgets", "media", "mafalda.io/cluster"),
        ("nodes", None, None),
    }


async def test_events_go_to_the_store(rig: Rig) -> None:
    rig.follower.set_wanted(["media"])
    await rig.until("media", "")
    queue = rig.api.events.setdefault(("pods", "media"), asyncio.Queue())
    rig.store.changed.clear()
    queue.put_nowait({"type": "BOOKMARK", "object": {"metadata": {"name": "none"}}})
    queue.put_nowait({"type": "DELETED", "object": {"metadata": {"name": "one"}}})
    async with asyncio.timeout(5):
        await rig.store.changed.wait()
    assert [one for one in rig.store.told if one[0] not in ("replace", "forget")] == [
        ("DELETED", "Pod", "one")
    ]


async def test_nodes_are_followed_once_and_as_long_as_anybody_wants_pods(rig: Rig) -> None:
    rig.follower.set_wanted(["media", "other"])
    await rig.until("media", "")
    await rig.until("other", "")
    assert sum(1 for place in rig.api.lists if place[0] == "nodes") == 1
    rig.follower.set_wanted(["other"])
    assert rig.store.followed == {"other": ""}
    assert ("forget", "Pod", "media") in rig.store.told
    assert ("forget", "Node", None) not in rig.store.told
    rig.follower.set_wanted([])
    assert ("forget", "Node", None) in rig.store.told
    assert rig.store.followed == {}


@pytest.mark.parametrize(
    ("resource", "namespace", "remedy"), [(PODS, "media", "mediaNamespaces"), (NODES, None, "cluster-wide")]
)
async def test_what_may_not_be_listed_is_told_with_the_remedy(
    rig: Rig, resource: Resource, namespace: str | None, remedy: str
) -> None:
    rig.api.faults[resource.plural, namespace] = Forbidden(403, "Forbidden", "may not")
    rig.follower.set_wanted(["media"])
    await rig.until("media", remedy)


async def test_an_api_server_that_is_away_for_a_while_makes_nothing_unknown(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following.Backoff, "next", lambda *_: 0.0)
    rig.follower.set_wanted(["media"])
    await rig.until("media", "")
    rig.api.faults["pods", "media"] = ApiUnavailable("away")
    rig.api.events[("pods", "media")].put_nowait(None)
    for _ in range(20):
        await asyncio.sleep(0)
    assert rig.store.followed == {"media": ""}
    del rig.api.faults["pods", "media"]


async def test_an_api_server_that_was_never_there_is_told(rig: Rig) -> None:
    rig.api.faults["services", "media"] = ApiUnavailable("no answer")
    rig.follower.set_wanted(["media"])
    await rig.until("media", "media/services cannot be listed: no answer")
