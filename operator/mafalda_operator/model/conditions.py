"""Conditions as stored in an object's status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

ConditionStatus = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """``last_transition_time`` is RFC 3339 in UTC, as the API server holds it."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    last_transition_time: str = ""
    observed_generation: int = 0


def stored_conditions(status: Mapping[str, Any]) -> dict[str, Condition]:
    """The conditions of a status by type; entries that are none are left out."""
    found: dict[str, Condition] = {}
    items = status.get("conditions")
    for item in items if isinstance(items, list | tuple) else ():
        if not isinstance(item, Mapping) or item.get("status") not in ("True", "False", "Unknown"):
            continue
        kind = str(item.get("type", ""))
        generation = item.get("observedGeneration")
        found[kind] = Condition(
            type=kind,
            status=cast(ConditionStatus, item["status"]),
            reason=str(item.get("reason", "")),
            message=str(item.get("message", "")),
            last_transition_time=str(item.get("lastTransitionTime", "")),
            observed_generation=generation if isinstance(generation, int) else 0,
        )
    return found
