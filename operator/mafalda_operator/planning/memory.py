"""What one plan hands to the next. All of it may be lost: a new leader starts with an empty one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mafalda_operator.model import ObjectKey


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What sessions depend on of a server; when it changes, the sessions with a router there are planned."""

    state: str = ""
    awaited: bool = False
    frozen: bool = False
    problem: str = ""
    instance_id: str = ""
    peer: tuple[str, int] | None = None
    pipe_protocol: int = 0
    slots: tuple[tuple[int, str], ...] = ()
    free_ports: int = 0
    """At most `PLENTY`, beyond which more makes no difference to a session that waits for ports."""
    report_received: bool = False
    zone: str = ""

    leaving: str = ""
    """Why it is being drained; `Cordoned`; empty: neither."""
    urgent: bool = False
    """The deadline of its drain is near."""
    expired: bool = False
    """It has passed."""
    drained: bool = False


PLENTY = 8


@dataclass(frozen=True, slots=True)
class Reservation:
    """Pipe ports planned on a server that its load does not show yet; forgotten at ``until`` (monotonic)."""

    server: ObjectKey
    ports: int
    until: float


@dataclass(frozen=True, slots=True)
class DrainStart:
    """When a server's drain began: on the wall (RFC 3339), and in monotonic seconds."""

    time: str
    started: float


Wish = Literal["ScaleDown", "Update", "ClusterDeleting"]
"""Why the planning of pods wants a server's pod gone."""

Link = tuple[str, str]
"""Names of a link's two routers, ordered."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Times are monotonic seconds."""

    facts: Mapping[ObjectKey, ServerFacts] = field(default_factory=dict)
    first_seen: Mapping[ObjectKey, float] = field(default_factory=dict)
    """When each MediaServer was first planned with."""
    silent_since: Mapping[ObjectKey, float] = field(default_factory=dict)
    """When servers that were connected were last heard, while they are silent."""
    unheard_since: Mapping[ObjectKey, float] = field(default_factory=dict)
    """When servers that the present link has never heard were first missed."""
    settled: frozenset[ObjectKey] = frozenset()
    """Clusters all of whose servers have answered, or were waited for long enough."""
    frozen_until: Mapping[ObjectKey, float] = field(default_factory=dict)
    """By cluster."""
    frozen: frozenset[ObjectKey] = frozenset()
    """Clusters whose freeze has been told."""
    pending: Mapping[ObjectKey, ObjectKey] = field(default_factory=dict)
    """Sessions that lack a place, and their clusters: planned again whenever one of its servers changes."""
    links_down: Mapping[ObjectKey, frozenset[Link]] = field(default_factory=dict)
    """By session, links whose loss has been told."""
    drains: Mapping[ObjectKey, DrainStart] = field(default_factory=dict)
    """Of the servers that are being drained."""
    reservations: tuple[Reservation, ...] = ()
    retries: Mapping[ObjectKey, float] = field(default_factory=dict)
    """Sessions to be planned at a time, with or without a change."""
    wishes: Mapping[ObjectKey, Wish] = field(default_factory=dict)
    """Servers that the last plan wanted gone: they stay chosen while anything has to go."""
    pod_names: Mapping[ObjectKey, str] = field(default_factory=dict)
    """Pods that were asked for and have not been seen, with the UID of their MediaCluster."""
    cluster_retries: Mapping[ObjectKey, float] = field(default_factory=dict)
    """Clusters to be planned at a time, with or without a change."""
