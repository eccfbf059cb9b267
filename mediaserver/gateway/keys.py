"""Token keys, read from the Secrets that a MediaCluster's key sets name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import structlog

from mediaserver.gateway.errors import ApiError, KeysUnavailable
from mediaserver.gateway.resources import Cluster, KeySet, LabelSelector, ObjectKey, Requirement
from mediaserver.wire.tokens import MIN_KEY_BYTES
from mediaserver.wire.worker_tokens import REVOKED, read_revoked

FRESH_SECONDS = 30.0
"""How long what was read counts without being read again."""
WORKER_FRESH_SECONDS = 10.0
"""The same for applications' tokens, which can be revoked one by one."""
REREAD_SECONDS = 2.0
"""An object is not read more often than that, whatever tokens say."""
RETRY_SECONDS = 5.0
"""After a failure."""
PATIENCE_SECONDS = 1.0
"""How long a participant waits for a reading, before what was read earlier counts, if anything was."""
_MAX_ENTRIES = 4096
_FORBIDDEN = 403

ValueT = TypeVar("ValueT")

log = structlog.get_logger()


class KeySource(Protocol):
    """Where Secrets and labels come from: KubeReader, or a test."""

    async def secret(self, namespace: str, name: str) -> dict[str, bytes]: ...
    async def namespace_labels(self, name: str) -> dict[str, str]: ...


@dataclass(frozen=True)
class WorkerKeys:
    """What admits applications' workers."""

    keys: Mapping[str, bytes] = field(repr=False)
    revoked: frozenset[str]
    """`jti` of tokens that count no more, whichever key signed them."""


class TokenKeys:
    """Keys by kid, cached; what cannot be read again stays valid until it can."""

    def __init__(self, source: KeySource, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._secrets = _Cache(lambda where: source.secret(where.namespace, where.name), clock)
        self._labels = _Cache(lambda where: source.namespace_labels(where.name), clock)

    async def of(self, cluster: Cluster, namespace: str, kid: str) -> dict[str, bytes]:
        """Keys that count for sessions of ``namespace``. Of sets that share a kid the first one's counts.

        Read anew when old, or when ``kid`` is not among them. Raises KeysUnavailable.
        """
        keys = await self._gather(cluster, namespace, FRESH_SECONDS)
        if kid not in keys:
            keys = await self._gather(cluster, namespace, REREAD_SECONDS)
        return keys

    async def of_workers(self, cluster: Cluster, kid: str) -> WorkerKeys:
        """Keys of the sets with `workers: true`, and what those sets' Secrets revoke; otherwise as ``of``."""
        found = await self._gather_workers(cluster, WORKER_FRESH_SECONDS)
        if kid not in found.keys:
            found = await self._gather_workers(cluster, REREAD_SECONDS)
        return found

    async def close(self) -> None:
        """End what is being read."""
        await self._secrets.close()
        await self._labels.close()

    async def _gather(self, cluster: Cluster, namespace: str, max_age: float) -> dict[str, bytes]:
        keys: dict[str, bytes] = {}
        for key_set in cluster.key_sets:
            if await self._allows(key_set, cluster, namespace, max_age):
                _add(keys, await self._secret(key_set, cluster, max_age))
        return keys

    async def _gather_workers(self, cluster: Cluster, max_age: float) -> WorkerKeys:
        keys: dict[str, bytes] = {}
        revoked: frozenset[str] = frozenset()
        for key_set in cluster.key_sets:
            if key_set.workers:
                secret = await self._secret(key_set, cluster, max_age)
                _add(keys, secret)
                revoked |= read_revoked(secret.get(REVOKED, b"")).tokens
        return WorkerKeys(keys, revoked)

    async def _secret(self, key_set: KeySet, cluster: Cluster, max_age: float) -> Mapping[str, bytes]:
        return await self._secrets.get(
            ObjectKey(cluster.metadata.namespace, key_set.secret_ref.name), max_age
        )

    async def _allows(self, key_set: KeySet, cluster: Cluster, namespace: str, max_age: float) -> bool:
        policy = key_set.namespaces
        if policy.source == "Selector":
            return selects(policy.selector, await self._labels.get(ObjectKey("", namespace), max_age))
        return policy.source == "All" or namespace == cluster.metadata.namespace


def _add(keys: dict[str, bytes], secret: Mapping[str, bytes]) -> None:
    for kid, key in secret.items():
        if kid != REVOKED and len(key) >= MIN_KEY_BYTES:
            keys.setdefault(kid, key)


@dataclass
class _Entry(Generic[ValueT]):
    """What one object of the API held when it was last read."""

    content: Mapping[str, ValueT] | None = None
    read_at: float = float("-inf")
    """Of the last good reading."""
    not_before: float = float("-inf")
    """When it may be read again."""
    reading: asyncio.Task[None] | None = None


class _Cache(Generic[ValueT]):
    """Small maps out of objects of the API; an object that does not exist is an empty map.

    Nobody waits long for an API server that does not answer: what was read before counts meanwhile.
    """

    def __init__(
        self, read: Callable[[ObjectKey], Awaitable[Mapping[str, ValueT]]], clock: Callable[[], float]
    ) -> None:
        self._read = read
        self._clock = clock
        self._entries: dict[ObjectKey, _Entry[ValueT]] = {}

    async def get(self, where: ObjectKey, max_age: float) -> Mapping[str, ValueT]:
        """The object's map, no older than ``max_age`` seconds if the API gives it. Raises KeysUnavailable."""
        entry = self._entries.get(where)
        if entry is None:
            entry = self._entries[where] = self._make_entry()
        now = self._clock()
        stale = now - entry.read_at >= max_age
        if stale and entry.reading is None and now >= entry.not_before:
            entry.not_before = now + REREAD_SECONDS
            entry.reading = asyncio.create_task(self._refresh(entry, where), name=f"read {where}")
        if stale and entry.reading is not None:
            await asyncio.wait([entry.reading], timeout=PATIENCE_SECONDS)
        if entry.content is None:
            raise KeysUnavailable(f"{where} cannot be read")
        return entry.content

    async def close(self) -> None:
        readings = [entry.reading for entry in self._entries.values() if entry.reading is not None]
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)

    def _make_entry(self) -> _Entry[ValueT]:
        if len(self._entries) >= _MAX_ENTRIES:
            idle = (where for where, entry in self._entries.items() if entry.reading is None)
            del self._entries[next(idle)]
        return _Entry()

    async def _refresh(self, entry: _Entry[ValueT], where: ObjectKey) -> None:
        try:
            entry.content = await self._read(where)
        except ApiError as error:
            if error.status != 404:
                log.warning(
                    "token keys cannot be read",
                    object=str(where) if where.namespace else where.name,
                    reason=str(error),
                    **_remedy(where, error),
                )
                entry.not_before = self._clock() + RETRY_SECONDS
                return
            entry.content = {}
        finally:
            entry.reading = None
        entry.read_at = self._clock()


def _remedy(where: ObjectKey, error: ApiError) -> dict[str, str]:
    """For a Secret that RBAC keeps from this gateway."""
    if error.status != _FORBIDDEN or not where.namespace:
        return {}
    return {
        "remedy": f"let the gateway read Secret {where}: in the chart's values, add {where.name} to"
        f" gateway.tokenSecrets, beside the others that it may read, and {where.namespace} to mediaNamespaces"
    }


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Kubernetes' rule: all of it must hold; an empty selector selects everything."""
    exact = all(labels.get(key) == value for key, value in selector.match_labels.items())
    return exact and all(_holds(requirement, labels) for requirement in selector.match_expressions)


def _holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
