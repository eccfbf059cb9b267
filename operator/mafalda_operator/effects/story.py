"""What the log tells of sessions, routers, servers and clusters: each change once, on one line.

Told are the actions that were carried out, and how stored statuses change from one version of an object to
the next, whoever wrote them and however often they are looked at. A standby tells nothing.

Of a session whose n routers open one after the other that is at most 3 + 2n + n(n-1)/2 lines until it is
ready (accepted, available, ready; each router scheduled and ready; each link) and n + 2 when it is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from mafalda_operator.effects.podactor import subject
from mafalda_operator.model import (
    Condition,
    Inventory,
    MediaCluster,
    MediaRouter,
    MediaServer,
    MediaSession,
    ObjectKey,
    stored_conditions,
)
from mafalda_operator.planning.actions import (
    Action,
    ApplyObject,
    BindRouter,
    CreateRouter,
    CreateTokenKeys,
    DeletePod,
    DeleteRouter,
    PodAction,
    SetFinalizer,
)

AnyResource = MediaCluster | MediaServer | MediaSession | MediaRouter

UNDER_WAY = frozenset(
    {
        "Scheduling",
        "Opening",
        "WaitingForServers",
        "Connecting",
        "NoLoadYet",
        "Progressing",
        "TokenKeysPending",
    }
)
"""Reasons that say nothing but that it goes on: they are not told."""

Level = Literal["info", "warning"]

_ACTED: Mapping[str, tuple[str, Level]] = {
    "Scheduled": ("router scheduled: ", "info"),
    "RouterMoved": ("router moved: ", "warning"),
    "TokenKeysMade": ("token keys made: ", "info"),
}
"""How a line about an action begins, by the action's reason, and its level."""

log = structlog.get_logger(__name__)


def named(kind: str, key: ObjectKey) -> dict[str, str]:
    """An object of that kind as every line names it: `session=shop/standup`."""
    word = {
        "MediaSession": "session",
        "MediaRouter": "router",
        "MediaServer": "server",
        "MediaCluster": "cluster",
    }
    return {word.get(kind, kind.lower()): str(key)}


@dataclass(frozen=True, slots=True)
class Line:
    reason: str
    message: str
    names: Mapping[str, str | int] = field(default_factory=dict)
    level: Level = "info"


class Story:
    """``telling`` is set while this process leads; the store and the actor call the rest."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._why: dict[str, tuple[str, str]] = {}
        """Reason and message of our own deletions, by the router's UID."""
        self._accepted: set[str] = set()
        """UIDs of sessions told to be accepted before their status says so: they get routers first."""
        self._clusters: dict[ObjectKey, ObjectKey] = {}
        """Of sessions that are gone and have routers left."""
        self.telling = False

    def changed(self, before: AnyResource | None, after: AnyResource) -> None:
        """The inventory has another version of an object; None: it had none."""
        if not self.telling or before is None or before.status == after.status:
            return
        for line in _lines(before, after):
            if line.reason != "Accepted" or after.uid not in self._accepted:
                self._tell(line)
        self._accepted.discard(after.uid)

    def removed(self, gone: AnyResource) -> None:
        """The inventory has lost an object."""
        why = self._why.pop(gone.uid, None)
        self._accepted.discard(gone.uid)
        if not self.telling:
            return
        match gone:
            case MediaRouter():
                reason, message = why or self._others_reason(gone)
                names = _of_router(gone, self._cluster_of(gone.session))
                self._tell(Line(reason, f"router deleted: {message}", names))
                self._tell_end(gone.session)
            case MediaSession():
                self._clusters[gone.key] = gone.cluster
                self._tell(Line("SessionDeleted", "session deleted; its routers end", _of_session(gone)))
                self._tell_end(gone.key)
            case MediaServer():
                self._tell(Line("ServerDeleted", "server deleted", _of_server(gone)))
            case MediaCluster():
                self._tell(Line("ClusterDeleted", "cluster deleted", named("MediaCluster", gone.key)))

    def deleting(self, action: DeleteRouter) -> None:
        """The operator is about to delete a router."""
        self._why[action.uid] = (action.reason, action.message)

    def acted(self, action: Action) -> None:
        """An action was carried out. Deletions are told once the object is gone."""
        names: dict[str, str | int]
        match action:
            case CreateRouter():
                session = ObjectKey(action.key.namespace, action.owner.name)
                self._tell_accepted(session)
                names = {"session": str(session), "router": str(action.key)}
                if cluster := self._cluster_of(session):
                    names["server"] = str(ObjectKey(cluster.namespace, str(action.spec.get("serverName"))))
                names["worker"] = action.spec.get("workerSlot", "")
            case BindRouter():
                router = self._inventory.routers.get(action.key)
                names = {"session": str(router.session)} if router is not None else {}
                names |= {"router": str(action.key), "server": str(action.server), "worker": action.slot}
            case CreateTokenKeys():
                names = {"cluster": str(action.cluster), "secret": str(action.secret)}
            case DeleteRouter():
                return
            case _:
                self._acted_on_pods(action)
                return
        words, level = _ACTED.get(action.reason, ("", "info"))
        self._tell(Line(action.reason, words + action.message, names, level))

    def _acted_on_pods(self, action: PodAction) -> None:
        ref = subject(action)
        names: dict[str, str | int] = {"cluster": str(action.cluster), **named(ref.kind, ref.key)}
        match action:
            case DeletePod():
                done = "pod deleted"
            case ApplyObject() if action.uid:
                done = f"{ref.kind} put right"
            case SetFinalizer():
                done = "finalizer set" if action.present else "finalizer removed"
            case _:
                done = f"{ref.kind} made"
        self._tell(Line(action.reason, f"{done}: {action.message}", names))

    def _cluster_of(self, session: ObjectKey) -> ObjectKey | None:
        held = self._inventory.sessions.get(session)
        return held.cluster if held is not None else self._clusters.get(session)

    def _others_reason(self, router: MediaRouter) -> tuple[str, str]:
        if router.session in self._inventory.sessions:
            return "Deleted", "somebody else deleted it"
        return "SessionGone", f"MediaSession {router.session} doesn't exist any more"

    def _tell_accepted(self, key: ObjectKey) -> None:
        session = self._inventory.sessions.get(key)
        if session is None or session.uid in self._accepted:
            return
        condition = session.condition("Accepted")
        if condition is None or condition.status != "True":
            self._accepted.add(session.uid)
            message = f"session accepted: MediaCluster {session.cluster} admits it"
            self._tell(Line("Accepted", message, _of_session(session)))

    def _tell_end(self, session: ObjectKey) -> None:
        """Once the session is gone and no router of it is left."""
        if session in self._inventory.sessions or self._inventory.routers_of(session):
            return
        self._clusters.pop(session, None)
        self._tell(Line("SessionEnded", "session ended; nothing of it is left", {"session": str(session)}))

    def _tell(self, line: Line) -> None:
        emit = log.warning if line.level == "warning" else log.info
        emit(line.message, reason=line.reason, **line.names)


def _lines(before: AnyResource, after: AnyResource) -> Iterable[Line]:
    if isinstance(before, MediaSession) and isinstance(after, MediaSession):
        return _session(before, after)
    if isinstance(before, MediaRouter) and isinstance(after, MediaRouter):
        return _router(before, after)
    if isinstance(before, MediaServer) and isinstance(after, MediaServer):
        return _server(before, after)
    if isinstance(before, MediaCluster) and isinstance(after, MediaCluster):
        return _cluster(before, after)
    return ()


class _Conditions:
    """The conditions of two versions of an object."""

    def __init__(self, before: AnyResource, after: AnyResource) -> None:
        self._before, self._after = stored_conditions(before.status), stored_conditions(after.status)
        self.kinds = list(self._after)

    def now(self, kind: str) -> Condition | None:
        return self._after.get(kind)

    def became(self, kind: str, status: str) -> Condition | None:
        """The condition if it has this status and had another one, or none."""
        now, then = self._after.get(kind), self._before.get(kind)
        return now if now and now.status == status and (then is None or then.status != status) else None

    def ceased(self, kind: str) -> Condition | None:
        """The condition if it held and does not any more."""
        then, now = self._before.get(kind), self._after.get(kind)
        return now if then and now and then.status == "True" != now.status else None

    def refuses(self, kind: str) -> Condition | None:
        """The condition if it is False for a reason that is news and worth telling."""
        now = self._after.get(kind)
        if now is None or now.status != "False" or now.reason in UNDER_WAY:
            return None
        return now if self.differs(kind) else None

    def first(self, kind: str) -> bool:
        """Whether there was no such condition before."""
        return kind not in self._before

    def differs(self, kind: str) -> bool:
        """Whether its status or reason is another one."""
        now, then = self._after[kind], self._before.get(kind)
        return then is None or (then.status, then.reason) != (now.status, now.reason)


# -- sessions -----------------------------------------------------------------------------------------------


def _session(before: MediaSession, after: MediaSession) -> Iterator[Line]:
    conditions, names = _Conditions(before, after), _of_session(after)
    if condition := conditions.became("Accepted", "True"):
        yield Line(condition.reason, f"session accepted: {condition.message}", names)
    if refused := conditions.refuses("Accepted"):
        yield Line(refused.reason, f"session not accepted: {refused.message}", names, "warning")
    accepted = conditions.now("Accepted")
    if accepted is None or accepted.status != "True":
        return
    if short := conditions.refuses("Scheduled"):
        yield Line(short.reason, f"session lacks routers: {short.message}", names, "warning")
    yield from _routers(before, after, conditions)
    if condition := conditions.became("Spread", "False"):
        yield Line(condition.reason, condition.message, names)
    if condition := conditions.became("Available", "True"):
        yield Line(condition.reason, f"session available: {condition.message}", names)
    if condition := conditions.became("Ready", "True"):
        yield Line(condition.reason, f"session ready: {condition.message}", names)
    if condition := conditions.ceased("Available"):
        yield Line(condition.reason, f"session not available: {condition.message}", names, "warning")
    elif condition := conditions.ceased("Ready"):
        yield Line(condition.reason, f"session not ready: {condition.message}", names, "warning")


def _routers(before: MediaSession, after: MediaSession, conditions: _Conditions) -> Iterator[Line]:
    """Routers that open or fail, and links between routers that do not."""
    were, are = _items(before, "routers", "name"), _items(after, "routers", "name")
    why = _first_fault(conditions)
    failed = set()
    for (name,), item in are.items():
        ready, was_ready = item.get("ready") is True, were.get((name,), {}).get("ready") is True
        if ready == was_ready:
            continue
        names = _of_placed(after, item)
        if ready:
            yield Line("RouterReady", "router ready: it takes participants", names)
        else:
            failed.add(name)
            reason, message = why
            yield Line(reason, f"router not ready: {message}", names, "warning")
    linked = _items(before, "links", "from", "to")
    for (one, other), item in _items(after, "links", "from", "to").items():
        ready, was_ready = item.get("ready") is True, linked.get((one, other), {}).get("ready") is True
        names = {**_of_session(after), "router": _full(after, one), "other_router": _full(after, other)}
        if ready and not was_ready:
            yield Line("LinkUp", "link up", names)
        elif was_ready and not ready and not failed & {one, other}:
            reason, message = why
            yield Line("LinkDown", f"link down ({reason}): {message}", names, "warning")


def _first_fault(conditions: _Conditions) -> tuple[str, str]:
    """What a session's status gives as the cause of what does not work."""
    faults = [conditions.now(kind) for kind in ("Available", "Linked", "Ready")]
    found = [one for one in faults if one is not None and one.status != "True"]
    best = next((one for one in found if one.reason not in UNDER_WAY), found[0] if found else None)
    return (best.reason, best.message) if best is not None else ("NotReady", "its server has not said why")


def _items(session: MediaSession, name: str, *keys: str) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """A list of the status by what identifies its items."""
    stored = session.status.get(name)
    items = stored if isinstance(stored, list | tuple) else ()
    return {tuple(str(item.get(key)) for key in keys): item for item in items if isinstance(item, Mapping)}


def _of_session(session: MediaSession) -> dict[str, str | int]:
    return {"session": str(session.key), "cluster": str(session.cluster)}


def _of_placed(session: MediaSession, item: Mapping[str, Any]) -> dict[str, str | int]:
    names: dict[str, str | int] = {
        "session": str(session.key),
        "router": _full(session, str(item.get("name"))),
        "server": str(ObjectKey(session.cluster.namespace, str(item.get("serverName")))),
    }
    slot = item.get("workerSlot")
    return {**names, "worker": slot} if isinstance(slot, int) else names


def _full(session: MediaSession, router: str) -> str:
    return str(ObjectKey(session.key.namespace, router))


# -- the other kinds ----------------------------------------------------------------------------------------


def _router(before: MediaRouter, after: MediaRouter) -> Iterator[Line]:
    """Whether it works is told with its session; here why a hand-written one has no place."""
    if condition := _Conditions(before, after).refuses("Scheduled"):
        names = _of_router(after, None)
        yield Line(condition.reason, f"router has no place: {condition.message}", names, "warning")


def _of_router(router: MediaRouter, cluster: ObjectKey | None) -> dict[str, str | int]:
    names: dict[str, str | int] = {"session": str(router.session), "router": str(router.key)}
    if router.server_name is not None and cluster is not None:
        names["server"] = str(ObjectKey(cluster.namespace, router.server_name))
    return names


def _server(before: MediaServer, after: MediaServer) -> Iterator[Line]:
    """That its link comes and goes is told by the link itself."""
    conditions, names = _Conditions(before, after), _of_server(after)
    was, now = before.drain_status, after.drain_status
    if now is not None and (was is None or was.reason != now.reason):
        until = f"; what is left ends at {now.deadline}" if now.deadline else ""
        yield Line(now.reason, f"server drains{until}", names)
    elif was is not None and now is None:
        yield Line("DrainCancelled", "server drains no more", names)
    if condition := conditions.became("Drained", "True"):
        yield Line(condition.reason, f"server drained: {condition.message}", names)
    if (was is None) != (now is None):
        return  # whether it takes routers follows from that
    if condition := conditions.became("Ready", "True"):
        yield Line(condition.reason, f"server ready: {condition.message}", names)
    link, condition = conditions.now("Connected"), conditions.refuses("Ready")
    if condition is not None and (link is None or link.reason != condition.reason):
        yield Line(condition.reason, f"server not ready: {condition.message}", names, "warning")


def _of_server(server: MediaServer) -> dict[str, str | int]:
    return {"server": str(server.key), "cluster": str(server.cluster)}


def _cluster(before: MediaCluster, after: MediaCluster) -> Iterator[Line]:
    """Every condition; Ready only where it has a reason of its own."""
    conditions, names = _Conditions(before, after), named("MediaCluster", after.key)
    told: set[str] = set()
    for kind in sorted(conditions.kinds, key=lambda kind: kind == "Ready"):
        good = "False" if kind == "Frozen" else "True"
        condition = conditions.now(kind)
        if condition is None or (kind == "Ready" and condition.reason in told):
            continue
        words = f"cluster {kind}={condition.status}: {condition.message}"
        if condition.status == good:
            if conditions.became(kind, good) and not (kind == "Frozen" and conditions.first(kind)):
                yield Line(condition.reason, words, names)
        elif condition.reason not in UNDER_WAY and conditions.differs(kind):
            told.add(condition.reason)
            yield Line(condition.reason, words, names, "warning")
