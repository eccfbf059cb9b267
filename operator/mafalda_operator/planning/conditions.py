"""Conditions as status holds them, and the comparison that keeps writes away when nothing changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mafalda_operator.model import ConditionStatus
from mafalda_operator.model.resources import Resource
from mafalda_operator.planning.actions import StatusUpdate

PROGRESS = 0.5
"""Seconds that a status may wait which only says that things are under way."""

MESSAGE_LIMIT = 4096
"""Characters that the CRDs allow in a message."""


class Conditions:
    """Collects an object's conditions in order; lastTransitionTime is kept while a status stays the same."""

    def __init__(self, resource: Resource, wall_time: str) -> None:
        self._since = _since(resource.status)
        self._generation = resource.generation
        self._wall_time = wall_time
        self.items: list[dict[str, Any]] = []

    def add(self, kind: str, holds: bool | None, reason: str, message: str) -> None:
        """``holds`` None stands for Unknown."""
        status: ConditionStatus = "Unknown" if holds is None else "True" if holds else "False"
        if len(message) > MESSAGE_LIMIT:
            message = message[: MESSAGE_LIMIT - 1] + "…"
        self.items.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": self._since.get((kind, status)) or self._wall_time,
                "observedGeneration": self._generation,
            }
        )

    def holds(self, kind: str) -> bool:
        return any(item["type"] == kind and item["status"] == "True" for item in self.items)

    def failing(self, kind: str) -> tuple[str, str] | None:
        """Reason and message of a condition that is False; None: it isn't, or there is none."""
        for item in self.items:
            if item["type"] == kind and item["status"] == "False":
                return item["reason"], item["message"]
        return None

    def summarise(self, kind: str, parts: tuple[str, ...], message: str) -> None:
        """Add a condition that holds when all of ``parts`` do, with the reason of the first that doesn't."""
        for item in self.items:
            if item["type"] in parts and item["status"] != "True":
                self.add(
                    kind, None if item["status"] == "Unknown" else False, item["reason"], item["message"]
                )
                return
        self.add(kind, True, kind, message)


def _since(status: Mapping[str, Any]) -> dict[tuple[Any, Any], str]:
    """lastTransitionTime by type and status; no Condition is built, since every plan does this for each."""
    stored = status.get("conditions")
    return {
        (item.get("type"), item.get("status")): str(item.get("lastTransitionTime", ""))
        for item in (stored if isinstance(stored, list | tuple) else ())
        if isinstance(item, Mapping)
    }


def counted(number: int, noun: str) -> str:
    """`1 router`, `3 routers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def status_update(
    kind: Any, resource: Resource, fields: dict[str, Any], conditions: Conditions, patience: float = 0.0
) -> StatusUpdate | None:
    """The status to write, or None when it is what is stored. Fields that are None are left out."""
    status: dict[str, Any] = {"observedGeneration": resource.generation}
    status.update((name, value) for name, value in fields.items() if value is not None)
    status["conditions"] = conditions.items
    if status == resource.status:
        return None
    return StatusUpdate(kind, resource.key, resource.uid, status, patience)
