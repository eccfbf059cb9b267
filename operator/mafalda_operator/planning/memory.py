"""What one plan hands to the next. All of it may be lost: a new leader starts with an empty one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mafalda_operator.model import ObjectKey


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What sessions depend on of a server; when it changes, the sessions with a router there are planned."""

    standing: str = ""
    instance_id: str = ""
    peer: tuple[str, int] | None = None
    pipe_protocol: int = 0
    slots: tuple[tuple[int, str], ...] = ()
    free_ports: bool = True
    report_received: bool = False
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Pipe ports planned on a server that its load does not show yet; forgotten at ``until`` (monotonic)."""

    server: ObjectKey
    ports: int
    until: float


@dataclass(frozen=True, slots=True)
class Memory:
    facts: Mapping[ObjectKey, ServerFacts] = field(default_factory=dict)
    silent_since: Mapping[ObjectKey, float] = field(default_factory=dict)
    """When servers that were connected were last heard, while they are silent."""
    frozen_until: Mapping[ObjectKey, float] = field(default_factory=dict)
    """By cluster."""
    lost: frozenset[ObjectKey] = frozenset()
    """Servers whose loss has been told."""
    pending: Mapping[ObjectKey, frozenset[ObjectKey]] = field(default_factory=dict)
    """Sessions that lack a place, by cluster: planned again whenever one of its servers changes."""
    links_down: frozenset[tuple[ObjectKey, ObjectKey]] = frozenset()
    """Links (their two routers) whose loss has been told."""
    reservations: tuple[Reservation, ...] = ()
    retries: Mapping[ObjectKey, float] = field(default_factory=dict)
    """Sessions to be planned at a time (monotonic), with or without a change."""
