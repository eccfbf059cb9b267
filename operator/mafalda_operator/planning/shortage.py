"""Why a session lacks a router, said so that it can be helped."""

from __future__ import annotations

from collections.abc import Mapping

from mafalda_operator.model import MediaSession, ObjectKey
from mafalda_operator.planning.capacity import Capacity, Occupied, accepting_reason
from mafalda_operator.planning.conditions import counted
from mafalda_operator.planning.recovery import Standing

_NAMED = 3
"""Servers that a message names before it only counts."""


def no_capacity(
    session: MediaSession,
    wanted: int,
    occupied: Occupied,
    capacity: Capacity,
    standings: Mapping[ObjectKey, Standing],
    wall_time: str,
) -> str:
    """For `Scheduled=False NoCapacity`: what is needed, what there is, what is away, the remedy."""
    cluster = f"MediaCluster {session.cluster}"
    needs = f"needs {counted(wanted, 'router')} on separate workers"
    free, total = capacity.free_workers(occupied)
    ready = len(capacity.servers)
    away = _away(standings, wall_time)
    if not ready:
        there = f"no server of {cluster} is ready{away}"
    else:
        servers = (
            f"the only ready server of {cluster}" if ready == 1 else f"the {ready} ready servers of {cluster}"
        )
        verb = "is" if free == 1 else "are"
        there = f"{free} of {total} workers {verb} free on {servers}{away}"
    if free:
        remedy = "their servers lack free pipe ports or speak another pipe protocol: widen --pipe-ports"
    else:
        remedy = "add MediaServers or workers, or lower spec.routers.min"
    return f"{needs}; {there}; {remedy}"


def _away(standings: Mapping[ObjectKey, Standing], wall_time: str) -> str:
    """Servers that take no routers, as a clause in brackets, or nothing."""
    away = [(key, reason) for key in sorted(standings) if (reason := accepting_reason(standings[key]))]
    named = [_one_away(standings[key], reason, wall_time) for key, reason in away[:_NAMED]]
    if len(away) > _NAMED:
        named.append(f"and {len(away) - _NAMED} more")
    return f" ({', '.join(named)})" if named else ""


def _one_away(standing: Standing, reason: str, wall_time: str) -> str:
    name = standing.server.key.name
    if reason != "NotConnected":
        return f"{name}: {reason}"
    connected = standing.server.condition("Connected")
    known = connected is not None and connected.status == "False" and connected.last_transition_time
    since = connected.last_transition_time if connected is not None and known else wall_time
    return f"{name} unreachable since {since[11:16]}"
