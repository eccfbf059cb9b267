"""Actions may be repeated without harm, and what fails says why and when to try again."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from mafalda_operator.effects.api import KubeApi, Object, Resource
from mafalda_operator.effects.errors import (
    ApiUnavailable,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Throttled,
)
from mafalda_operator.effects.kube import Actor, Failed
from mafalda_operator.effects.story import Story
from mafalda_operator.effects.writers import Writers
from mafalda_operator.model import Inventory, ObjectKey, ObjectRef, Refusal, Scope
from mafalda_operator.planning import BindRouter, CreateRouter, CreateTokenKeys, DeleteRouter, Owner
from mafalda_operator.planning.actions import Action

ROUTER, SESSION = ObjectKey("shop", "s-abcde"), ObjectKey("shop", "s")
CREATE = CreateRouter(ROUTER, {"sessionName": "s"}, {}, {}, Owner("s", "su"), "Scheduled", "m")
DELETE = DeleteRouter(ROUTER, "ru", SESSION, "SessionGone", "m")
BIND = BindRouter(ROUTER, "ru", ObjectKey("media", "m0"), 1, "Scheduled", "m")
KEYS = CreateTokenKeys(
    ObjectKey("media", "main"), "cu", "default", ObjectKey("media", "keys"), "k1", "TokenKeysMade", "m"
)


def router(owner: str = "su", **metadata: Any) -> Object:
    owners = [{"kind": "MediaSession", "uid": owner, "controller": True}]
    names = {"namespace": "shop", "name": "s-abcde", "uid": "ru", "ownerReferences": owners}
    return {"kind": "MediaRouter", "metadata": {**names, **metadata}}


class Cluster:
    """Answers of an API server by verb and kind, and what a store was told."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []
        self.puts: list[str] = []
        self.deleted: list[tuple[ObjectKey, str]] = []

    def _answer(self, verb: str, resource: Resource, body: Any) -> Object:
        self.asked.append((f"{verb} {resource.plural}", body))
        answer = self.answers.get(f"{verb} {resource.plural}", router())
        if isinstance(answer, Exception):
            raise answer
        return cast(Object, answer)

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        return self._answer("get", resource, name)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        return self._answer("create", resource, body)

    async def patch(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        return self._answer("patch", resource, body)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> Object:
        return self._answer("delete", resource, uid)

    def put(self, kind: str, obj: Object) -> None:
        self.puts.append(kind)

    def store_delete(self, kind: str, key: ObjectKey, uid: str) -> None:
        self.deleted.append((key, uid))


class Store:
    def __init__(self, cluster: Cluster) -> None:
        self.put, self.delete = cluster.put, cluster.store_delete


class Rig:
    def __init__(self) -> None:
        self.cluster = Cluster()
        self.writers = Writers()
        self.refusals: list[Refusal] = []
        self.object_refusals: list[tuple[ObjectRef, Refusal]] = []
        self.keys: list[Object] = []
        self.story = Story(Inventory())
        self.story.telling = True
        self.actor = Actor(
            cast(KubeApi, self.cluster),
            self.writers,
            Store(self.cluster),
            on_refusal=lambda _, refusal: self.refusals.append(refusal),
            on_object_refusal=lambda ref, refusal: self.object_refusals.append((ref, refusal)),
            on_token_keys=lambda _, secret: self.keys.append(secret),
            clock=lambda: 100.0,
            story=self.story,
        )

    async def act(self, action: Action, **answers: Any) -> list[Failed]:
        self.cluster.answers = {key.replace("_", " "): value for key, value in answers.items()}
        return await self.actor.act([action])


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    task = asyncio.create_task(rig.writers.run())
    yield rig
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


EXISTS = Conflict(409, "AlreadyExists", "exists")
GONE = NotFound(404, "NotFound", "gone")


async def test_a_router_is_made_for_its_session(rig: Rig) -> None:
    assert await rig.act(CREATE) == []
    ((what, body),) = rig.cluster.asked
    assert what == "create mediarouters"
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("MediaSession", "su", True)
    assert "finalizers" not in body["metadata"]
    assert rig.cluster.puts == ["MediaRouter"]


async def test_one_that_exists_and_is_ours_is_success(rig: Rig) -> None:
    assert await rig.act(CREATE, create_mediarouters=EXISTS) == []
    assert rig.cluster.puts == ["MediaRouter"]


async def test_one_that_exists_and_is_anothers_is_refused(rig: Rig) -> None:
    (failed,) = await rig.act(CREATE, create_mediarouters=EXISTS, get_mediarouters=router(owner="other"))
    assert failed.scope == Scope(sessions=frozenset({SESSION}))
    assert rig.refusals[0].reason == "AlreadyExists"


@pytest.mark.parametrize(
    ("error", "allowed", "reason"),
    [
        (Forbidden(403, "Forbidden", "exceeded quota", about="mediarouters"), True, "QuotaExceeded"),
        (Forbidden(403, "Forbidden", "rbac", about="mediarouters"), False, "Forbidden"),
        (Forbidden(403, "Forbidden", "webhook"), True, "Forbidden"),
        (Forbidden(403, "Forbidden", "x", causes=("NamespaceTerminating",)), True, "NamespaceTerminating"),
        (Invalid(422, "Invalid", "schema"), True, "Invalid"),
        (Throttled(429, "TooManyRequests", "busy", retry_after=3.0), True, "TooManyRequests"),
        (ApiUnavailable("away"), True, "ApiUnavailable"),
    ],
)
async def test_refusals_are_told_with_a_time(rig: Rig, error: Exception, allowed: bool, reason: str) -> None:
    review = {"status": {"allowed": allowed}}
    (failed,) = await rig.act(CREATE, create_mediarouters=error, create_selfsubjectaccessreviews=review)
    (refusal,) = rig.refusals
    assert refusal.reason == reason
    assert refusal.retry_at == failed.at
    assert failed.at >= 100.5
    if isinstance(error, Throttled):
        assert failed.at >= 103


async def test_pauses_grow_and_end_with_success(rig: Rig) -> None:
    pauses = []
    for _ in range(8):
        (failed,) = await rig.act(CREATE, create_mediarouters=Invalid(422, "Invalid", "no"))
        pauses.append(failed.at - 100)
    assert pauses[-1] > 20
    assert max(pauses) <= 60
    assert await rig.act(CREATE) == []
    (failed,) = await rig.act(CREATE, create_mediarouters=Invalid(422, "Invalid", "no"))
    assert failed.at - 100 <= 0.75


async def test_a_router_whose_session_is_there_after_all_is_kept(rig: Rig) -> None:
    session = {"metadata": {"uid": "su"}}
    assert await rig.act(DELETE, get_mediasessions=session) == []
    assert [what for what, _ in rig.cluster.asked] == ["get mediasessions", "get mediarouters"]
    assert rig.cluster.puts == ["MediaSession"]


@pytest.mark.parametrize("session", [GONE, {"metadata": {"uid": "a later session of the name"}}])
async def test_a_router_whose_session_is_gone_is_deleted_by_uid(rig: Rig, session: Any) -> None:
    assert await rig.act(DELETE, get_mediasessions=session, delete_mediarouters={"kind": "Status"}) == []
    assert rig.cluster.asked[-1] == ("delete mediarouters", "ru")
    assert rig.cluster.deleted == [(ROUTER, "ru")]


async def test_deleting_twice_is_success_and_anothers_router_is_left(rig: Rig) -> None:
    replaced = DeleteRouter(ROUTER, "ru", SESSION, "Replaced", "m")
    assert await rig.act(replaced, delete_mediarouters=GONE) == []
    assert rig.cluster.deleted == [(ROUTER, "ru")]
    assert await rig.act(replaced, delete_mediarouters=Conflict(409, "Conflict", "uid")) == []
    assert rig.cluster.puts == ["MediaRouter"]


async def test_a_router_held_by_somebodys_finalizer_stays_known(rig: Rig) -> None:
    replaced = DeleteRouter(ROUTER, "ru", SESSION, "Replaced", "m")
    held = router(finalizers=["somebody.example/hold"], deletionTimestamp="now")
    assert await rig.act(replaced, delete_mediarouters=held) == []
    assert (rig.cluster.puts, rig.cluster.deleted) == (["MediaRouter"], [])


async def test_a_binding_is_set_once(rig: Rig) -> None:
    assert await rig.act(BIND) == []
    body = {"metadata": {"uid": "ru"}, "spec": {"serverName": "m0", "workerSlot": 1}}
    assert rig.cluster.asked == [("patch mediarouters", body)]
    assert await rig.act(BIND, patch_mediarouters=Invalid(422, "Invalid", "bound already")) == []
    assert rig.cluster.asked[-1] == ("get mediarouters", "s-abcde")
    assert await rig.act(BIND, patch_mediarouters=GONE) == []
    assert rig.cluster.deleted == [(ROUTER, "ru")]


async def test_token_keys_are_random_and_never_remade(rig: Rig) -> None:
    values = []
    for _ in range(2):
        rig.cluster.asked.clear()
        assert await rig.act(KEYS) == []
        body = rig.cluster.asked[0][1]
        values.append(base64.b64decode(body["data"]["k1"]))
        assert body["metadata"]["ownerReferences"][0]["uid"] == "cu"
    assert all(len(value) >= 32 for value in values)
    assert values[0] != values[1]
    existing = {"data": {"old": "AAAA"}}
    rig.cluster.asked.clear()
    assert await rig.act(KEYS, create_secrets=EXISTS, get_secrets=existing) == []
    assert rig.keys[-1] == existing
    assert [what for what, _ in rig.cluster.asked] == ["create secrets", "get secrets"]
