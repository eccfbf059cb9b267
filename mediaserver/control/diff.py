"""What a media server has to do next so that what it has becomes what it should have. Pure.

``decide`` is asked again after every change, so a decision only ever names what can be done now:
links close before their routers, routers open before their links, and a router that moved to another
slot (or changed in any other way) is closed first and opened when the old one is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from mediaserver.control.contract import (
    DesiredEntry,
    LinkEntry,
    RouterEntry,
    SessionEntry,
    WorkerState,
    router_key,
    session_key,
)


@dataclass(frozen=True)
class CloseLink:
    key: str
    reason: str


@dataclass(frozen=True)
class CloseRouter:
    key: str
    reason: str


@dataclass(frozen=True)
class OpenRouter:
    key: str
    entry: RouterEntry
    session: SessionEntry


@dataclass(frozen=True)
class OpenLink:
    key: str
    entry: LinkEntry


Step = CloseLink | CloseRouter | OpenRouter | OpenLink


@dataclass(frozen=True)
class Problem:
    """Why a desired router or link is not there: a reason of one word, and a message with the remedy."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Actual:
    """What there is. `routers` and `links` hold those being opened or closed too."""

    routers: Mapping[str, RouterEntry]
    links: Mapping[str, LinkEntry]
    workers: Mapping[int, WorkerState]
    opening: frozenset[str] = frozenset()
    """Keys of the routers that are not ready to carry a link yet."""
    draining: bool = False


@dataclass(frozen=True)
class Decision:
    """`steps` in a deterministic order; `problems` of desired routers and links by key."""

    steps: tuple[Step, ...] = ()
    problems: Mapping[str, Problem] = field(default_factory=dict)


def decide(desired: Mapping[str, DesiredEntry], actual: Actual) -> Decision:
    """The steps that can be taken now, and why the rest has to wait. Takes O(n log n) for n entries."""
    view = _View(desired, actual)
    links_to_close = dict(_links_to_close(view))
    steps: list[Step] = [CloseLink(key, reason) for key, reason in sorted(links_to_close.items())]
    steps += _routers_to_close(view)
    problems: dict[str, Problem] = {}
    for key, opened in _openings(view, links_to_close):
        if isinstance(opened, Problem):
            problems[key] = opened
        else:
            steps.append(opened)
    return Decision(tuple(steps), problems)


class _View:
    """Desired and actual, sorted and indexed."""

    def __init__(self, desired: Mapping[str, DesiredEntry], actual: Actual) -> None:
        self.actual = actual
        self.routers = {
            key: entry for key, entry in sorted(desired.items()) if isinstance(entry, RouterEntry)
        }
        self.links = {key: entry for key, entry in sorted(desired.items()) if isinstance(entry, LinkEntry)}
        self.sessions = {key: entry for key, entry in desired.items() if isinstance(entry, SessionEntry)}
        self.linked = {router for link in actual.links.values() for router in local_routers(link)}
        """Keys of the routers that links end at now."""
        self._holders: dict[tuple[str, int], str] = {}
        for key, router in (*sorted(actual.routers.items()), *self.routers.items()):
            self._holders.setdefault((router.session_uid, router.worker_slot), key)

    def holder(self, router: RouterEntry) -> str:
        """Who has the worker for the router's session: the one that is open there, else the first by name.

        Producer ids are unique per worker only, so a session has at most one router on a worker.
        """
        return self._holders[router.session_uid, router.worker_slot]

    def carries(self, key: str) -> bool:
        """Whether the router is there as desired, so that links may end at it."""
        router = self.actual.routers.get(key)
        return (
            router is not None
            and key not in self.actual.opening
            and same_router(router, self.routers.get(key))
        )


def same_router(one: RouterEntry, other: RouterEntry | None) -> bool:
    """Whether two entries ask for one router; that its participants are to leave changes an open one."""
    return other is not None and msgspec.structs.replace(one, leaving=other.leaving) == other


def _openings(
    view: _View, links_to_close: Mapping[str, str]
) -> Iterator[tuple[str, OpenRouter | OpenLink | Problem]]:
    for key, router in view.routers.items():
        if key not in view.actual.routers:
            yield key, _open_router(key, router, view)
    for key, link in view.links.items():
        if key not in view.actual.links or key in links_to_close:
            yield key, _open_link(key, link, view)


def local_routers(link: LinkEntry) -> tuple[str, ...]:
    """Keys of the routers at this server that a link ends at: one, or both when it is inside the server."""
    local = router_key(link.namespace, link.local_router)
    if link.remote_peer is not None:
        return (local,)
    return (local, router_key(link.namespace, link.remote_router))


def _links_to_close(view: _View) -> Iterator[tuple[str, str]]:
    for key, link in view.actual.links.items():
        if key not in view.links:
            yield key, "no longer desired"
        elif view.links[key] != link:
            yield key, "changed"
        elif not all(view.carries(router) for router in local_routers(link)):
            yield key, "its router closes or has closed"


def _routers_to_close(view: _View) -> Iterator[CloseRouter]:
    for key, router in sorted(view.actual.routers.items()):
        if same_router(router, view.routers.get(key)) or key in view.linked:
            continue
        # Whether its session goes on elsewhere is not known here: the gateway tells who dials again.
        yield CloseRouter(key, "changed" if key in view.routers else "no longer desired")


def _open_router(key: str, router: RouterEntry, view: _View) -> OpenRouter | Problem:
    session = view.sessions.get(session_key(router.namespace, router.session))
    if session is None:
        return Problem("SessionMissing", f"the operator sent no entry for session {router.session}")
    if view.actual.draining:
        return Problem("Draining", "the media server is stopping and takes no new routers")
    worker = view.actual.workers.get(router.worker_slot)
    if worker is None:
        slots = len(view.actual.workers)
        return Problem("NoSuchSlot", f"worker slot {router.worker_slot}: the server has 0 to {slots - 1}")
    if worker.state != "Running":
        return Problem(f"Worker{worker.state}", worker.reason or f"worker slot {worker.slot} is starting")
    holder = view.holder(router)
    if holder != key:
        message = f"worker slot {router.worker_slot} carries {holder} of this session; one is the most"
        return Problem("SlotTaken", message)
    if key in view.linked:
        return Problem("Opening", "waits until the links of its predecessor are closed")
    return OpenRouter(key, router, session)


def _open_link(key: str, link: LinkEntry, view: _View) -> OpenLink | Problem:
    if key in view.actual.links:
        return Problem("Opening", "waits until the earlier pipes of this link are closed")
    for router in local_routers(link):
        if router not in view.routers:
            return Problem("Failed", f"{router} is not to be on this server, so it can't be linked")
        if not view.carries(router):
            return Problem("Opening", f"waits for {router}")
    return OpenLink(key, link)
