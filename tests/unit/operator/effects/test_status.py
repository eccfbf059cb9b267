"""Statuses: written when they differ, replaced while they wait, and looked at again when overtaken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mafalda_operator.effects.api import KubeApi, Object, Resource
from mafalda_operator.effects.errors import ApiUnavailable, Conflict, Throttled
from mafalda_operator.effects.status import StatusWriter, merge_patch
from mafalda_operator.effects.writers import Writers
from mafalda_operator.model import ObjectKey
from mafalda_operator.planning import StatusUpdate

KEY = ObjectKey("shop", "standup")


class Objects:
    """One object as API server and store have it."""

    def __init__(self) -> None:
        self.uid = "u"
        self.stored: dict[str, Any] = {}
        self.patches: list[dict[str, Any]] = []
        self.failures: list[Exception] = []
        self.gate: asyncio.Event | None = None

    async def patch(
        self, resource: Resource, namespace: str, name: str, body: Object, *, subresource: str | None = None
    ) -> Object:
        assert subresource == "status"
        assert body["metadata"] == {"uid": "u"}
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.patches.append(body["status"])
        return {"status": apply_patch(self.stored, body["status"])}

    def status(self, kind: str, key: ObjectKey, uid: str) -> Mapping[str, Any] | None:
        return self.stored if uid == self.uid else None

    def put(self, kind: str, obj: Object) -> None:
        self.stored = obj["status"]


class Rig:
    def __init__(self) -> None:
        self.objects = Objects()
        self.may_write = True
        self.writers = Writers(allowed=lambda: self.may_write)
        self.overtaken: list[tuple[str, ObjectKey]] = []
        self.writer = StatusWriter(
            cast(KubeApi, self.objects),
            self.writers,
            self.objects,
            lambda kind, key: self.overtaken.append((kind, key)),
        )

    def write(self, patience: float = 0.0, **status: Any) -> None:
        self.writer.write(StatusUpdate("MediaSession", KEY, "u", status, patience))

    async def settle(self) -> None:
        async with asyncio.timeout(10):
            while list(self.writer.pending):  # noqa: ASYNC110  timers and writers end it, not one event
                await asyncio.sleep(0.005)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    task = asyncio.create_task(rig.writers.run())
    yield rig
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_only_what_changed_is_written(rig: Rig) -> None:
    rig.objects.stored = {"readyRouters": 1, "servers": 2, "old": True}
    rig.write(readyRouters=2, servers=2)
    await rig.settle()
    assert rig.objects.patches == [{"readyRouters": 2, "old": None}]


async def test_what_is_stored_already_is_not_written(rig: Rig) -> None:
    rig.objects.stored = {"servers": 2, "conditions": [{"type": "Ready"}]}
    rig.write(servers=2, conditions=({"type": "Ready"},))
    await rig.settle()
    assert rig.objects.patches == []


async def test_a_status_that_waits_is_replaced(rig: Rig) -> None:
    rig.write(patience=5.0, ready=False)
    rig.write(patience=0.0, ready=True)
    await rig.settle()
    assert rig.objects.patches == [{"ready": True}]


async def test_a_later_patience_does_not_postpone_for_ever(rig: Rig) -> None:
    rig.write(patience=0.03, n=1)
    rig.write(patience=60.0, n=2)
    await rig.settle()
    assert rig.objects.patches == [{"n": 2}]


async def test_a_newer_status_is_written_after_the_one_under_way(rig: Rig) -> None:
    rig.objects.gate = asyncio.Event()
    rig.write(n=1)
    await asyncio.sleep(0.01)
    rig.write(n=2)
    rig.objects.gate.set()
    await rig.settle()
    assert rig.objects.stored == {"n": 2}
    assert rig.objects.patches == [{"n": 1}, {"n": 2}]


async def test_a_withdrawn_status_is_not_written(rig: Rig) -> None:
    rig.write(patience=0.05, n=1)
    rig.writer.withdraw("MediaSession", KEY)
    await asyncio.sleep(0.1)
    assert rig.objects.patches == []


async def test_a_status_withdrawn_under_way_is_looked_at_again(rig: Rig) -> None:
    rig.objects.gate = asyncio.Event()
    rig.write(n=1)
    await asyncio.sleep(0.01)
    rig.writer.withdraw("MediaSession", KEY)
    rig.objects.gate.set()
    await rig.settle()
    assert rig.overtaken == [("MediaSession", KEY)]


@pytest.mark.parametrize(
    "error", [ApiUnavailable("away"), Throttled(429, "TooManyRequests", "busy", retry_after=0.1)]
)
async def test_a_failed_write_is_tried_again(rig: Rig, error: Exception) -> None:
    rig.objects.failures = [error]
    rig.write(n=1)
    await rig.settle()
    assert rig.objects.patches == [{"n": 1}]


async def test_an_object_made_anew_is_left_alone(rig: Rig) -> None:
    rig.objects.uid = "another"
    rig.write(n=1)
    await rig.settle()
    assert rig.objects.patches == []
    rig.objects.uid = "u"
    rig.objects.failures = [Conflict(409, "Conflict", "uid")]
    rig.write(n=1)
    await rig.settle()
    assert rig.objects.patches == []


# -- merge patches ------------------------------------------------------------------------------------------

scalars = st.one_of(st.integers(0, 3), st.text(max_size=2), st.booleans())


async def test_what_nobody_might_write_for_a_while_is_written_afterwards(rig: Rig) -> None:
    rig.may_write = False
    rig.write(ready=1)
    async with asyncio.timeout(5):
        while rig.writers.queued:  # noqa: ASYNC110  until a writer has refused it
            await asyncio.sleep(0.005)
    rig.write(ready=2)
    assert list(rig.writer.pending)
    rig.may_write = True
    await rig.settle()
    assert rig.objects.stored == {"ready": 2}


statuses = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), st.one_of(scalars, st.lists(scalars, max_size=2)), max_size=4),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), st.one_of(inner, scalars), max_size=4),
    max_leaves=10,
)


def apply_patch(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396, section 2."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            inner = result.get(key)
            result[key] = apply_patch(inner if isinstance(inner, Mapping) else {}, value)
        else:
            result[key] = value
    return result


@given(old=statuses, new=statuses)
def test_a_merge_patch_turns_one_into_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert apply_patch(old, merge_patch(old, new)) == new


@given(old=statuses)
def test_equal_statuses_need_no_patch(old: dict[str, Any]) -> None:
    assert merge_patch(old, old) == {}
