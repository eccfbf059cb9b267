"""Why a session lacks a router, said so that it can be helped."""

from __future__ import annotations

from collections.abc import Mapping

from mafalda_operator.model import MediaSession, ObjectKey
from mafalda_operator.planning.capacity import Capacity, Occupied, accepting_reason
from mafalda_operator.planning.recovery import Standing

_NAMED = 3
"""Servers that a message names before it only counts."""


def no_capacity(
    session: MediaSession,
    wanted: int,
    occupied: Occupied,
    capacity: Capacity,
    standings: Mapping[ObjectKey, Standing],
) -> str:
    """For `Scheduled=False NoCapacity`: what is needed, what there is, what is away, the remedy."""
    cluster = f"MediaCluster {session.cluster}"
    needs = f"needs {wanted} router{'s' if wanted != 1 else ''} on separate workers"
    free, total = capacity.free_workers(occupied)
    ready = len(capacity.servers)
    away = _away(standings)
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


def _away(standings: Mapping[ObjectKey, Standing]) -> str:
    """Servers that take no routers, as a clause in brackets, or nothing."""
    away = [(key, reason) for key in sorted(standings) if (reason := accepting_reason(standings[key]))]
    named = [_one_away(standings[key], reason) for key, reason in away[:_NAMED]]
    if len(away) > _NAMED:
        named.append(f"and {len(away) - _NAMED} more")
    return f" ({', '.join(named)})" if named else ""


def _one_away(standing: Standing, reason: str) -> str:
    name = standing.server.key.name
    if reason != "NotConnected":
        return f"{name}: {reason}"
    connected = standing.server.condition("Connected")
    if connected is None or connected.status != "False" or len(connected.last_transition_time) < 16:
        return f"{name} unreachable"
    return f"{name} unreachable since {connected.last_transition_time[11:16]}"
