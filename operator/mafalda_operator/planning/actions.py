"""What a plan consists of: data that the effects carry out, in the order given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mafalda_operator.model import Kind, ObjectKey, ObjectRef
from mafalda_operator.planning.memory import Memory
from mediaserver.control.contract import DesiredEntry, SettingsEntry


@dataclass(frozen=True, slots=True)
class Owner:
    """The controlling ownerReference of a router that the operator makes: its MediaSession."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class CreateRouter:
    """Make a MediaRouter, bound from the start.

    The same key means the same act: AlreadyExists is success when it has this owner. A refusal (quota,
    admission) goes into the inventory with `put_refusal`.
    """

    key: ObjectKey
    spec: Mapping[str, Any]
    """sessionName, serverName, workerSlot."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner: Owner
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DeleteRouter:
    """Delete with a precondition on the UID.

    With reason ``SessionGone``, confirm first by a fresh read that the session is gone or has another UID.
    """

    key: ObjectKey
    uid: str
    session: ObjectKey
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class BindRouter:
    """Set spec.serverName and spec.workerSlot of a hand-written router, with a precondition on the UID."""

    key: ObjectKey
    uid: str
    server: ObjectKey
    slot: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CreateTokenKeys:
    """Make the Secret of a key set: one random HS256 key of 32 bytes or more under the data key ``kid``.

    AlreadyExists is success; what exists is never changed.
    """

    cluster: ObjectKey
    cluster_uid: str
    key_set: str
    secret: ObjectKey
    kid: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Make a media server pod.

    The same key means the same act: AlreadyExists is success when it has this owner. Whatever
    keeps it from being made goes into the inventory with `put_object_refusal`.
    """

    key: ObjectKey
    cluster: ObjectKey
    cluster_uid: str
    body: Mapping[str, Any]
    """metadata and spec."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete with a precondition on the UID; the pod ends within its own grace period."""

    key: ObjectKey
    uid: str
    cluster: ObjectKey
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CreateServer:
    """Make the MediaServer of a pod, controlled by it. AlreadyExists is success when it has this owner."""

    key: ObjectKey
    cluster: ObjectKey
    pod_uid: str
    body: Mapping[str, Any]
    """metadata and spec."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ApplyObject:
    """Make an object that a cluster owns, or change it to what it should be.

    One that exists without this owner is never touched: that is a refusal, as for CreatePod.
    """

    ref: ObjectRef
    cluster: ObjectKey
    owner_uid: str
    uid: str
    """Of the object as it was seen; empty: it was not, so it is made."""
    body: Mapping[str, Any]
    """The whole object for making it, a JSON merge patch for changing it."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SetFinalizer:
    """Put ``DRAIN_FINALIZER`` on a MediaCluster (``present``), or take it away."""

    cluster: ObjectKey
    uid: str
    present: bool
    reason: str
    message: str


PodAction = CreatePod | DeletePod | CreateServer | ApplyObject | SetFinalizer
"""What has to do with the pods of a cluster."""

Action = CreateRouter | DeleteRouter | BindRouter | CreateTokenKeys | PodAction


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """The whole new status of an object, different from the stored one.

    ``patience``: seconds the write may wait for a newer status of the same object, so that what changes again
    at once (a router that is being opened) costs one write; 0 is what somebody waits for. The latest update
    replaces one that is still waiting, also when the latest has less patience. Sessions come first.
    """

    kind: Kind
    key: ObjectKey
    uid: str
    status: Mapping[str, Any]
    patience: float = 0.0


@dataclass(frozen=True, slots=True)
class EventNote:
    """A Kubernetes event to write, after everything else; told once for each change."""

    kind: Kind
    key: ObjectKey
    uid: str
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


ServerEntries = Mapping[str, DesiredEntry]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order: actions, desired entries, statuses, notes.

    ``desired`` has, for every session that was planned, all its entries by server (none: it is to be closed
    everywhere); DesiredBook turns that into changes for each server. ``whole`` says that sessions which are
    not in ``desired`` don't exist.
    """

    actions: tuple[Action, ...]
    desired: Mapping[ObjectKey, Mapping[ObjectKey, ServerEntries]]
    settings: Mapping[ObjectKey, SettingsEntry]
    """For every server whose MediaCluster exists; none to keep what it was told."""
    statuses: tuple[StatusUpdate, ...]
    notes: tuple[EventNote, ...]
    memory: Memory
    whole: bool = False
    wake_at: float | None = None
    """Monotonic time at which to plan again though nothing was reported; None: never."""
    blocked: Mapping[ObjectKey, str] = field(default_factory=dict)
    """Sessions that wait for capacity, with the reason (for metrics and logs)."""
