"""Desired entries that decode but can't be meant: refused as a whole, since acting on half would mislead."""

from __future__ import annotations

from collections.abc import Mapping

from mediaserver.control.contract import (
    SETTINGS_KEY,
    DesiredEntry,
    LinkEntry,
    RouterEntry,
    SessionEntry,
    SettingsEntry,
    link_key,
    router_key,
    session_key,
)


class InvalidEntryError(ValueError):
    """An entry contradicts itself; the message names it and the field."""


def check_entries(entries: Mapping[str, DesiredEntry]) -> None:
    """Raises InvalidEntryError for the first entry whose key or values can't be right."""
    for key, entry in entries.items():
        right = key_of(entry)
        if key != right:
            raise InvalidEntryError(f"entry {key} holds what belongs under {right}")
        if isinstance(entry, LinkEntry) and entry.local_router == entry.remote_router:
            raise InvalidEntryError(f"{key}: localRouter and remoteRouter are the same")
        if isinstance(entry, RouterEntry) and entry.worker_slot < 0:
            raise InvalidEntryError(f"{key}: workerSlot is {entry.worker_slot}, must be 0 or more")
        if isinstance(entry, SettingsEntry) and min(entry.prune_delay, entry.silence_timeout) < 0:
            raise InvalidEntryError(f"{key}: pruneDelay and silenceTimeout must be 0 or more")


def key_of(entry: DesiredEntry) -> str:
    """The key that an entry belongs under."""
    match entry:
        case SettingsEntry():
            return SETTINGS_KEY
        case SessionEntry():
            return session_key(entry.namespace, entry.name)
        case RouterEntry():
            return router_key(entry.namespace, entry.name)
        case LinkEntry():
            return link_key(entry.namespace, entry.local_router, entry.remote_router)
