"""What is to be planned: gathered while the loop is busy, oldest first."""

from __future__ import annotations

import itertools

from mafalda_operator.model import ObjectKey, Scope


class Dirt:
    """Scopes, merged; sessions are taken so many at a time, so that the first need not wait for the last."""

    def __init__(self) -> None:
        self._sessions: dict[ObjectKey, None] = {}
        self._servers: dict[ObjectKey, None] = {}
        self._clusters: dict[ObjectKey, None] = {}
        self._all = Scope()
        self.since: float | None = None
        """When the oldest change came."""

    def add(self, scope: Scope, now: float) -> None:
        for held, part in (
            (self._sessions, scope.sessions),
            (self._servers, scope.servers),
            (self._clusters, scope.clusters),
        ):
            held.update(dict.fromkeys(part or ()))
        if None in (scope.sessions, scope.servers, scope.clusters):
            self._all |= scope
        if scope and self.since is None:
            self.since = now

    def take(self, limit: int, now: float) -> Scope:
        """The next scope; what is left keeps its place."""
        sessions = frozenset(itertools.islice(self._sessions, limit))
        scope = Scope(sessions, frozenset(self._servers), frozenset(self._clusters)) | self._all
        if scope.sessions is None:
            self._sessions.clear()
        for key in sessions:
            self._sessions.pop(key, None)
        self._servers.clear()
        self._clusters.clear()
        self._all = Scope()
        self.since = now if self._sessions else None
        return scope

    def __bool__(self) -> bool:
        return bool(self._sessions or self._servers or self._clusters or self._all)
