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

FRESH_SECONDS = 30.0
"""How long what was read counts without being read again."""
REREAD_SECONDS = 2.0
"""An object is not read more often than that, whatever tokens say."""
_MAX_ENTRIES = 4096

ValueT = TypeVar("ValueT")

log = structlog.get_logger()


class KeySource(Protocol):
    """Where Secrets and labels come from: KubeReader, or a test."""

    async def secret(self, namespace: str, name: str) -> dict[str, bytes]: ...
    async def namespace_labels(self, name: str) -> dict[str, str]: ...


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

    async def _gather(self, cluster: Cluster, namespace: str, max_age: float) -> dict[str, bytes]:
        keys: dict[str, bytes] = {}
        for key_set in cluster.key_sets:
            if await self._allows(key_set, cluster, namespace, max_age):
                where = ObjectKey(cluster.metadata.namespace, key_set.secret_ref.name)
                secret = await self._secrets.get(where, max_age)
                for kid, key in secret.items():
                    if len(key) >= MIN_KEY_BYTES:
                        keys.setdefault(kid, key)
        return keys

    async def _allows(self, key_set: KeySet, cluster: Cluster, namespace: str, max_age: float) -> bool:
        policy = key_set.namespaces
        if policy.source == "Selector":
            return selects(policy.selector, await self._labels.get(ObjectKey("", namespace), max_age))
        return policy.source == "All" or namespace == cluster.metadata.namespace


@dataclass
class _Entry(Generic[ValueT]):
    """What one object of the API held when it was last read."""

    content: Mapping[str, ValueT] | None = None
    read_at: float = float("-inf")
    """Of the last good reading."""
    tried_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Cache(Generic[ValueT]):
    """Small maps out of objects of the API; an object that does not exist is an empty map."""

    def __init__(
        self, read: Callable[[ObjectKey], Awaitable[Mapping[str, ValueT]]], clock: Callable[[], float]
    ) -> None:
        self._read = read
        self._clock = clock
        self._entries: dict[ObjectKey, _Entry[ValueT]] = {}

    async def get(self, where: ObjectKey, max_age: float) -> Mapping[str, ValueT]:
        """The object's map, no older than ``max_age`` seconds if the API gives it. Raises KeysUnavailable."""
        if len(self._entries) > _MAX_ENTRIES:
            self._entries.clear()
        entry = self._entries.setdefault(where, _Entry())
        async with entry.lock:
            now = self._clock()
            if now - entry.read_at >= max_age and now - entry.tried_at >= REREAD_SECONDS:
                entry.tried_at = now
                await self._refresh(entry, where)
        if entry.content is None:
            raise KeysUnavailable(f"{where} cannot be read")
        return entry.content

    async def _refresh(self, entry: _Entry[ValueT], where: ObjectKey) -> None:
        try:
            entry.content = await self._read(where)
        except ApiError as error:
            if error.status != 404:
                log.warning("token keys cannot be read", object=str(where), reason=str(error))
                return
            entry.content = {}
        entry.read_at = self._clock()


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
