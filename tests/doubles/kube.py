"""A Kubernetes API in memory, for commands that only read: a stand-in for ``effects.api.KubeApi``."""

from __future__ import annotations

import base64
from typing import Any

from mafalda_operator.effects.api import CLUSTERS, SECRETS, SERVERS, SESSIONS, Listing, Resource
from mafalda_operator.effects.errors import KubeError, NotFound


class FakeKube:
    """Called with credentials it gives itself, so that it takes the place of the class, too."""

    def __init__(self) -> None:
        self.fault: KubeError | None = None
        """What every request raises."""
        self.closed = 0
        self._objects: dict[tuple[str, str, str], dict[str, Any]] = {}

    def __call__(self, _credentials: object) -> FakeKube:
        return self

    def put(self, resource: Resource, namespace: str, name: str, **content: Any) -> None:
        metadata = {"namespace": namespace, "name": name, "uid": f"uid-{name}"}
        self._objects[resource.plural, namespace, name] = {"metadata": metadata, **content}

    def cluster(self, name: str = "main", *key_sets: dict[str, Any]) -> None:
        """In namespace `media`."""
        self.put(CLUSTERS, "media", name, spec={"tokens": {"keySets": list(key_sets)}} if key_sets else {})

    def server(self, name: str, address: str, cluster: str = "main") -> None:
        spec = {"clusterRef": {"name": cluster}, "endpoint": {"address": address}}
        self.put(SERVERS, "media", name, spec=spec)

    def session(self, name: str = "standup", cluster: str = "main") -> None:
        """In namespace `shop`."""
        self.put(SESSIONS, "shop", name, spec={"clusterRef": {"name": cluster, "namespace": "media"}})

    def secret(self, name: str, **data: bytes) -> None:
        encoded = {kid: base64.b64encode(key).decode() for kid, key in data.items()}
        self.put(SECRETS, "media", name, data=encoded)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        try:
            return self._objects[resource.plural, namespace or "", name]
        except KeyError as error:
            raise NotFound(404, "NotFound", f"{resource.plural} {name!r} not found") from error

    async def list(self, resource: Resource, namespace: str | None = None) -> Listing:
        if self.fault is not None:
            raise self.fault
        found = [
            item
            for (plural, where, _), item in self._objects.items()
            if plural == resource.plural and namespace in (None, where)
        ]
        return Listing(1, found)

    async def close(self) -> None:
        self.closed += 1
