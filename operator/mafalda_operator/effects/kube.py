"""Carries out a plan's actions. Each may be repeated without harm; what fails is planned again later."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from mafalda_operator.effects import podactor
from mafalda_operator.effects.api import (
    ACCESS_REVIEWS,
    PODS,
    ROUTERS,
    SECRETS,
    SESSIONS,
    KubeApi,
    Object,
    Resource,
)
from mafalda_operator.effects.backoff import Backoff
from mafalda_operator.effects.errors import (
    ApiRefused,
    ApiUnavailable,
    Conflict,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    Throttled,
)
from mafalda_operator.effects.podactor import PodActor
from mafalda_operator.effects.story import Story
from mafalda_operator.effects.writers import QueueFullError, Urgency, Writers
from mafalda_operator.model import API_VERSION, LABEL_CLUSTER, ObjectKey, ObjectRef, Refusal, Scope
from mafalda_operator.planning.actions import (
    Action,
    BindRouter,
    CreatePod,
    CreateRouter,
    CreateTokenKeys,
    DeleteRouter,
    PodAction,
)

TOKEN_KEY_BYTES = 32
LONGEST_REFUSED = 60.0
"""Seconds between attempts at what a quota or policy refuses."""

log = structlog.get_logger(__name__)


class Store(Protocol):
    """Where answers go."""

    def put(self, kind: str, obj: Object) -> None: ...
    def delete(self, kind: str, key: ObjectKey, uid: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Failed:
    """An action that did not succeed: what to plan again, and when (monotonic)."""

    scope: Scope
    at: float


class Actor:
    """Runs actions by way of the writers."""

    def __init__(
        self,
        api: KubeApi,
        writers: Writers,
        store: Store,
        *,
        on_refusal: Callable[[ObjectKey, Refusal], None],
        on_object_refusal: Callable[[ObjectRef, Refusal | None], None],
        on_token_keys: Callable[[ObjectKey, Object], None],
        clock: Callable[[], float],
        story: Story,
    ) -> None:
        self._api, self._writers, self._store, self._story = api, writers, store, story
        self._on_refusal, self._on_token_keys, self._clock = on_refusal, on_token_keys, clock
        self._on_object_refusal = on_object_refusal
        self._pods = PodActor(api, store)
        self._backoffs: dict[ObjectRef, Backoff] = {}

    async def act(self, actions: Iterable[Action]) -> list[Failed]:
        """Carry all out, side by side; returns when each has succeeded or failed."""
        results = await asyncio.gather(*(self._one(action) for action in actions))
        return [result for result in results if result is not None]

    async def _one(self, action: Action) -> Failed | None:
        subject = _subject(action)
        try:
            await self._writers.submit(Urgency.ACTION, lambda: self._carry_out(action))
        except (ApiRefused, ApiUnavailable, QueueFullError) as error:
            return self._failed(action, subject, error)
        self._backoffs.pop(subject, None)
        if isinstance(action, PodAction):
            self._on_object_refusal(subject, None)
        return None

    def _failed(self, action: Action, subject: ObjectRef, error: Exception) -> Failed:
        patient = isinstance(error, ApiRefused) and not error.transient
        backoff = self._backoffs.get(subject)
        if backoff is None:
            backoff = self._backoffs[subject] = Backoff()
        backoff.longest = LONGEST_REFUSED if patient else 5.0
        at = self._clock() + backoff.next(error)
        log.warning(
            "not done, tried again later",
            action=type(action).__name__,
            reason=_refusal_reason(error),
            error=str(error),
            **_names(action),
        )
        if isinstance(action, CreateRouter):
            self._on_refusal(action.key, Refusal(_refusal_reason(error), _refusal_message(error), at))
        elif isinstance(action, PodAction):
            refusal = Refusal(_refusal_reason(error), _refusal_message(error), at, passing=not patient)
            self._on_object_refusal(subject, refusal)
        return Failed(_scope(action), at)

    async def _carry_out(self, action: Action) -> None:
        match action:
            case CreateRouter():
                await self._create_router(action)
            case DeleteRouter():
                await self._delete_router(action)
            case BindRouter():
                await self._bind_router(action)
            case CreateTokenKeys():
                await self._create_token_keys(action)
            case _:
                await self._carry_out_of_pods(action)

    async def _carry_out_of_pods(self, action: PodAction) -> None:
        try:
            await self._pods.carry_out(action)
        except Forbidden as error:
            if isinstance(action, CreatePod):
                raise await self._explained(PODS, action.key.namespace, error, "NotAdmitted") from error
            raise
        self._story.acted(action)

    # -- routers ----------------------------------------------------------------------------------------

    async def _create_router(self, action: CreateRouter) -> None:
        owner = {
            "apiVersion": API_VERSION,
            "kind": "MediaSession",
            "name": action.owner.name,
            "uid": action.owner.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
        metadata = {
            "name": action.key.name,
            "namespace": action.key.namespace,
            "labels": dict(action.labels),
            "annotations": dict(action.annotations),
            "ownerReferences": [owner],
        }
        body = {"metadata": metadata, "spec": dict(action.spec)}
        try:
            router = await self._api.create(ROUTERS, action.key.namespace, body)
        except Conflict as error:
            if not error.already_exists:
                raise
            router = await self._existing(action, error)
        except Forbidden as error:
            raise await self._explained(ROUTERS, action.key.namespace, error, "QuotaExceeded") from error
        self._store.put("MediaRouter", router)
        self._story.acted(action)

    async def _existing(self, action: CreateRouter, error: Conflict) -> Object:
        """The router of that name, which must be ours: then it is what this action wanted to make."""
        router = await self._api.get(ROUTERS, action.key.namespace, action.key.name)
        owners = router["metadata"].get("ownerReferences") or []
        if any(owner.get("uid") == action.owner.uid for owner in owners):
            return router
        self._store.put("MediaRouter", router)
        raise error

    async def _explained(
        self, resource: Resource, namespace: str, error: Forbidden, reason: str
    ) -> ApiRefused:
        """Whether RBAC forbids, or (RBAC allowing; by ``reason``) a quota or another admission plugin."""
        if error.namespace_terminating or not error.about:
            return error
        attributes = {
            "namespace": namespace,
            "verb": "create",
            "group": resource.group,
            "resource": resource.plural,
        }
        review = await self._api.create(ACCESS_REVIEWS, None, {"spec": {"resourceAttributes": attributes}})
        if (review.get("status") or {}).get("allowed"):
            return Forbidden(error.status, reason, error.message, retry_after=error.retry_after)
        return error

    async def _delete_router(self, action: DeleteRouter) -> None:
        if action.reason == "SessionGone" and await self._still_there(action):
            return
        namespace, name = action.key
        self._story.deleting(action)
        try:
            answer = await self._api.delete(ROUTERS, namespace, name, uid=action.uid)
        except NotFound:
            answer = {}
        except Conflict:  # another router has the name now
            self._store.delete("MediaRouter", action.key, action.uid)
            self._store.put("MediaRouter", await self._api.get(ROUTERS, namespace, name))
            return
        if answer.get("kind") == ROUTERS.kind and answer["metadata"].get("finalizers"):
            self._store.put("MediaRouter", answer)  # somebody's finalizer holds it
        else:
            self._store.delete("MediaRouter", action.key, action.uid)

    async def _still_there(self, action: DeleteRouter) -> bool:
        """A fresh read: is the session that the router belongs to there after all?"""
        try:
            session = await self._api.get(SESSIONS, action.session.namespace, action.session.name)
            router = await self._api.get(ROUTERS, action.key.namespace, action.key.name)
        except NotFound:
            return False
        self._store.put("MediaSession", session)
        uid = session["metadata"]["uid"]
        owners = router["metadata"].get("ownerReferences") or []
        return any(owner.get("uid") == uid for owner in owners)

    async def _bind_router(self, action: BindRouter) -> None:
        body: dict[str, Any] = {
            "metadata": {"uid": action.uid},
            "spec": {"serverName": action.server.name, "workerSlot": action.slot},
        }
        try:
            router = await self._api.patch(ROUTERS, action.key.namespace, action.key.name, body)
        except NotFound:
            self._store.delete("MediaRouter", action.key, action.uid)
            return
        except (Conflict, Invalid):  # bound by somebody else, or made anew, meanwhile
            router = await self._api.get(ROUTERS, action.key.namespace, action.key.name)
        self._store.put("MediaRouter", router)
        self._story.acted(action)

    # -- token keys -------------------------------------------------------------------------------------

    async def _create_token_keys(self, action: CreateTokenKeys) -> None:
        owner = {
            "apiVersion": API_VERSION,
            "kind": "MediaCluster",
            "name": action.cluster.name,
            "uid": action.cluster_uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
        metadata = {
            "name": action.secret.name,
            "namespace": action.secret.namespace,
            "labels": {LABEL_CLUSTER: action.cluster.name},
            "ownerReferences": [owner],
        }
        key = base64.b64encode(secrets.token_bytes(TOKEN_KEY_BYTES)).decode()
        body = {"metadata": metadata, "type": "Opaque", "data": {action.kid: key}}
        try:
            secret = await self._api.create(SECRETS, action.secret.namespace, body)
        except Conflict as error:
            if not error.already_exists:
                raise
            secret = await self._api.get(SECRETS, action.secret.namespace, action.secret.name)
        self._on_token_keys(action.secret, secret)
        self._story.acted(action)


def _subject(action: Action) -> ObjectRef:
    match action:
        case CreateTokenKeys():
            return ObjectRef("Secret", action.secret)
        case CreateRouter() | DeleteRouter() | BindRouter():
            return ObjectRef("MediaRouter", action.key)
        case _:
            return podactor.subject(action)


def _names(action: Action) -> dict[str, str]:
    match action:
        case CreateRouter():
            session = ObjectKey(action.key.namespace, action.owner.name)
            return {"session": str(session), "router": str(action.key)}
        case DeleteRouter():
            return {"session": str(action.session), "router": str(action.key)}
        case BindRouter():
            return {"router": str(action.key), "server": str(action.server)}
        case CreateTokenKeys():
            return {"cluster": str(action.cluster), "secret": str(action.secret)}
        case _:
            ref = podactor.subject(action)
            return {"cluster": str(action.cluster), ref.kind.lower(): str(ref.key)}


def _scope(action: Action) -> Scope:
    match action:
        case CreateRouter():
            return Scope(sessions=frozenset({ObjectKey(action.key.namespace, action.owner.name)}))
        case DeleteRouter():
            return Scope(sessions=frozenset({action.session}))
        case BindRouter():
            return Scope(sessions=None)
        case _:
            return Scope(clusters=frozenset({action.cluster}))


def _refusal_reason(error: Exception) -> str:
    match error:
        case Forbidden(namespace_terminating=True):
            return "NamespaceTerminating"
        case Throttled():
            return "TooManyRequests"
        case ApiRefused():
            return error.reason
        case _:
            return "ApiUnavailable"


def _refusal_message(error: Exception) -> str:
    return error.message if isinstance(error, ApiRefused) else str(error)


__all__ = ["Actor", "Failed", "KubeError", "Store"]
