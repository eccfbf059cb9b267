"""The desired entries of all servers, kept by session, so that a plan of few sessions touches few entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mafalda_operator.model import ObjectKey
from mafalda_operator.planning.actions import Plan
from mediaserver.control.contract import SETTINGS_KEY, DesiredEntry


@dataclass(slots=True)
class ServerChange:
    """What differs from before on one server: the arguments of ``replica.Sender.change``."""

    changed: dict[str, DesiredEntry] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)


class DesiredBook:
    """One writer. `take` folds a plan in; `of` is all a server should have, for a new connection."""

    def __init__(self) -> None:
        self._by_server: dict[ObjectKey, dict[str, DesiredEntry]] = {}
        self._by_session: dict[ObjectKey, dict[ObjectKey, frozenset[str]]] = {}

    def of(self, server: ObjectKey) -> Mapping[str, DesiredEntry]:
        return self._by_server.get(server, {})

    def servers_of(self, session: ObjectKey) -> frozenset[ObjectKey]:
        return frozenset(self._by_session.get(session, ()))

    def take(self, plan: Plan) -> dict[ObjectKey, ServerChange]:
        """Make the book say what the plan says; the change of each server that has one, ordered by name."""
        sessions = set(plan.desired)
        if plan.whole:
            sessions.update(self._by_session)
        before: dict[ObjectKey, dict[str, DesiredEntry | None]] = {}
        for session in sessions:
            self._erase(session, before)
        for session, by_server in plan.desired.items():
            self._write(session, by_server, before)
        for server, settings in plan.settings.items():
            held = self._by_server.setdefault(server, {})
            before.setdefault(server, {}).setdefault(SETTINGS_KEY, held.get(SETTINGS_KEY))
            held[SETTINGS_KEY] = settings
        return self._changes(before)

    def forget(self, server: ObjectKey) -> None:
        """Drop a server whose MediaServer is gone; its sessions' plans say what becomes of them."""
        self._by_server.pop(server, None)
        for by_server in self._by_session.values():
            by_server.pop(server, None)

    def _erase(self, session: ObjectKey, before: dict[ObjectKey, dict[str, DesiredEntry | None]]) -> None:
        for server, keys in self._by_session.pop(session, {}).items():
            held = self._by_server[server]
            was = before.setdefault(server, {})
            for key in keys:
                was.setdefault(key, held.pop(key, None))

    def _write(
        self,
        session: ObjectKey,
        by_server: Mapping[ObjectKey, Mapping[str, DesiredEntry]],
        before: dict[ObjectKey, dict[str, DesiredEntry | None]],
    ) -> None:
        for server, entries in by_server.items():
            held = self._by_server.setdefault(server, {})
            was = before.setdefault(server, {})
            for key, entry in entries.items():
                was.setdefault(key, held.get(key))
                held[key] = entry
        if by_server:
            self._by_session[session] = {server: frozenset(keys) for server, keys in by_server.items()}

    def _changes(
        self, before: dict[ObjectKey, dict[str, DesiredEntry | None]]
    ) -> dict[ObjectKey, ServerChange]:
        changes: dict[ObjectKey, ServerChange] = {}
        for server in sorted(before):
            held = self._by_server.get(server, {})
            change = ServerChange()
            for key in sorted(before[server]):
                entry = held.get(key)
                if entry is None:
                    if before[server][key] is not None:
                        change.gone.append(key)
                elif entry != before[server][key]:
                    change.changed[key] = entry
            if change.changed or change.gone:
                changes[server] = change
        return changes
