"""What is said of routers: to planning whether they are open, to users in status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mafalda_operator.model import MediaRouter, MediaSession, ObjectKey
from mafalda_operator.planning.actions import StatusUpdate
from mafalda_operator.planning.conditions import Conditions, status_update
from mafalda_operator.planning.recovery import Standing
from mafalda_operator.planning.topology import Member
from mediaserver.control.contract import router_key

SETTLED = 0.5
OPENING = 2.0
"""Seconds that a router's status may wait: nobody waits for it, and an opening router changes at once."""


@dataclass(frozen=True, slots=True)
class RouterCondition:
    """Whether a router takes participants; ``ready`` None: can't be told now, so nothing is said."""

    ready: bool | None
    reason: str
    message: str
    id: str = ""


def router_condition(
    session: MediaSession, member: Member, standings: Mapping[ObjectKey, Standing]
) -> RouterCondition:
    """By what its server reports last; a silent server's routers are believed to run until it is lost."""
    if member.verdict not in ("Healthy", "Draining") or member.place is None:
        return RouterCondition(False, member.reason, member.message)
    standing = standings[member.place.server]
    if standing.unknown:
        return RouterCondition(None, "Unknown", f"{member.place.server} has not reported yet")
    state = standing.view.routers.get(router_key(session.key.namespace, member.router.key.name))
    if (
        state is None
        or state.session_uid != session.uid
        or state.worker_slot != member.place.slot
        or (not state.ready and not state.reason)
    ):
        return RouterCondition(False, "Opening", f"MediaServer {member.place.server} is opening it")
    if not state.ready:
        return RouterCondition(False, state.reason, f"{member.place.server}: {state.message}")
    return RouterCondition(True, "Ready", "it takes participants", state.id)


def member_status(
    member: Member, condition: RouterCondition, unplaced: tuple[str, str] | None, wall_time: str
) -> StatusUpdate | None:
    """The status of one router of an accepted session. ``unplaced``: why an unbound one got no place."""
    if condition.ready is None or member.verdict == "Leaving":
        return None
    conditions = Conditions(member.router, wall_time)
    if member.verdict in ("Healthy", "Draining", "Unhealthy") and member.place is not None:
        place = f"on MediaServer {member.place.server}, worker {member.place.slot}"
        conditions.add("Scheduled", True, "Scheduled", place)
        conditions.add("Ready", condition.ready, condition.reason, condition.message)
    else:
        reason, message = unplaced or (member.reason, member.message)
        conditions.add("Scheduled", False, reason, message)
        conditions.add("Ready", False, reason, message)
    patience = OPENING if condition.reason in ("Opening", "Scheduling") and unplaced is None else SETTLED
    fields = {"id": condition.id or None}
    return status_update("MediaRouter", member.router, fields, conditions, patience)


def stranded_status(router: MediaRouter, reason: str, message: str, wall_time: str) -> StatusUpdate | None:
    """The status of a router whose session doesn't exist or isn't accepted."""
    conditions = Conditions(router, wall_time)
    conditions.add("Scheduled", False, reason, message)
    conditions.add("Ready", False, reason, message)
    return status_update("MediaRouter", router, {}, conditions, SETTLED)
