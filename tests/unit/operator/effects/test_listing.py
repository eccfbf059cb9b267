"""Our own LISTs: the store is complete only after one that began when it was last suspect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest
from mafalda_operator.effects import listing as listing_module
from mafalda_operator.effects.api import KubeApi, Listing, Object, Resource
from mafalda_operator.effects.errors import ApiUnavailable
from mafalda_operator.effects.listing import Lister


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.stalled: set[str] = set()
        self.failing: set[str] = set()
        self.replaced: list[tuple[str, str | None]] = []

    async def list(self, resource: Resource, namespace: str | None = None) -> Listing:
        self.now += 1
        if resource.kind in self.failing:
            raise ApiUnavailable(f"no {resource.kind}")
        while resource.kind in self.stalled:  # noqa: ASYNC110  a test empties the set
            await asyncio.sleep(0.005)
        return Listing(1, [])

    def replace(
        self, kind: str, objects: Iterable[Object], version: int, *, namespace: str | None = None
    ) -> None:
        self.replaced.append((kind, namespace))

    def lister(self, **options: Any) -> Lister:
        return Lister(cast(KubeApi, self), self, clock=lambda: self.now, **options)


async def test_it_is_complete_after_the_first_list_of_all_kinds() -> None:
    world = World()
    lister = world.lister()
    assert not lister.complete
    await lister.list_once()
    assert lister.complete
    assert {kind for kind, _ in world.replaced} == {
        "MediaCluster",
        "MediaServer",
        "MediaSession",
        "MediaRouter",
        "Namespace",
    }


async def test_one_kind_that_fails_leaves_the_whole_store_as_it_was() -> None:
    world = World()
    world.failing = {"MediaRouter"}
    lister = world.lister()
    with pytest.raises(ApiUnavailable):
        await lister.list_once()
    assert world.replaced == []
    assert not lister.complete


async def test_one_kind_that_stalls_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "DEADLINE", 0.1)
    world = World()
    world.stalled = {"MediaRouter"}
    with pytest.raises(ApiUnavailable, match="more than"):
        await world.lister().list_once()
    assert world.replaced == []


async def test_a_suspect_store_is_incomplete_until_a_list_that_began_later() -> None:
    world = World()
    lister = world.lister()
    await lister.list_once()
    world.stalled = {"MediaRouter"}
    slow = asyncio.create_task(lister.list_once())
    await asyncio.sleep(0.02)
    asked = lister.request("the watch began anew")
    world.stalled = set()
    await slow
    assert not lister.complete
    assert not lister.fresh_since(asked)
    await lister.list_once()
    assert lister.complete
    assert lister.fresh_since(asked)


async def test_a_list_to_confirm_something_does_not_stop_planning() -> None:
    world = World()
    lister = world.lister()
    await lister.list_once()
    world.now += 1
    asked = lister.request("to confirm", suspect=False)
    assert lister.complete
    assert not lister.fresh_since(asked)


async def test_it_lists_when_asked_and_again_after_a_failure() -> None:
    world, done = World(), asyncio.Event()
    lister = world.lister(on_done=done.set)
    task = asyncio.create_task(lister.run())
    await asyncio.wait_for(done.wait(), 5)
    done.clear()
    world.failing = {"MediaRouter"}
    lister.request("a reason")
    await asyncio.sleep(0.05)
    assert not lister.complete
    world.failing = set()
    await asyncio.wait_for(done.wait(), 5)
    assert lister.complete
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_served_namespaces_are_listed_one_by_one() -> None:
    world = World()
    await world.lister(namespaces=("a", "b")).list_once()
    assert ("MediaRouter", "a") in world.replaced
    assert ("MediaRouter", "b") in world.replaced
    assert ("Namespace", None) in world.replaced
