"""What a media server has to do next so that what it has becomes what it should have. Pure.

``decide`` is asked again after every change, so a decision only ever names what can be done now:
links close before their routers, routers open before their links, and a router that moved to another
slot (or changed in any other way) is closed first and opened when the old one is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

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
    """The steps that can be taken now, and why the rest has to wait."""
    wanted = _Wanted(desired)
    links_to_close = dict(_links_to_close(wanted, actual))
    steps: list[Step] = [CloseLink(key, reason) for key, reason in sorted(links_to_close.items())]
    steps += _routers_to_close(wanted, actual)
    problems: dict[str, Problem] = {}
    for key, opened in _openings(wanted, actual, links_to_close):
        if isinstance(opened, Problem):
            problems[key] = opened
        else:
            steps.append(opened)
    return Decision(tuple(steps), problems)


def _openings(
    wanted: _Wanted, actual: Actual, links_to_close: Mapping[str, str]
) -> Iterator[tuple[str, OpenRouter | OpenLink | Problem]]:
    for key, router in sorted(wanted.routers.items()):
        if key not in actual.routers:
            yield key, _open_router(key, router, wanted, actual)
    for key, link in sorted(wanted.links.items()):
        if key not in actual.links or key in links_to_close:
            yield key, _open_link(key, link, wanted, actual)


class _Wanted:
    """The desired entries by kind."""

    def __init__(self, desired: Mapping[str, DesiredEntry]) -> None:
        self.routers = {key: entry for key, entry in desired.items() if isinstance(entry, RouterEntry)}
        self.links = {key: entry for key, entry in desired.items() if isinstance(entry, LinkEntry)}
        self.sessions = {key: entry for key, entry in desired.items() if isinstance(entry, SessionEntry)}


def local_routers(link: LinkEntry) -> tuple[str, ...]:
    """Keys of the routers at this server that a link ends at: one, or both when it is inside the server."""
    local = router_key(link.namespace, link.local_router)
    if link.remote_peer is not None:
        return (local,)
    return (local, router_key(link.namespace, link.remote_router))


def _carries(key: str, wanted: _Wanted, actual: Actual) -> bool:
    """Whether the router is there as desired, so that links may end at it."""
    router = actual.routers.get(key)
    return router is not None and key not in actual.opening and router == wanted.routers.get(key)


def _links_to_close(wanted: _Wanted, actual: Actual) -> Iterator[tuple[str, str]]:
    for key, link in actual.links.items():
        if key not in wanted.links:
            yield key, "no longer desired"
        elif wanted.links[key] != link:
            yield key, "changed"
        elif not all(_carries(router, wanted, actual) for router in local_routers(link)):
            yield key, "its router closes or has closed"


def _routers_to_close(wanted: _Wanted, actual: Actual) -> Iterator[CloseRouter]:
    linked = {router for link in actual.links.values() for router in local_routers(link)}
    for key, router in sorted(actual.routers.items()):
        if wanted.routers.get(key) == router or key in linked:
            continue
        # Whether its session goes on elsewhere is not known here: the gateway tells who dials again.
        yield CloseRouter(key, "changed" if key in wanted.routers else "no longer desired")


def _open_router(key: str, router: RouterEntry, wanted: _Wanted, actual: Actual) -> OpenRouter | Problem:
    session = wanted.sessions.get(session_key(router.namespace, router.session))
    if session is None:
        return Problem("SessionMissing", f"the operator sent no entry for session {router.session}")
    if actual.draining:
        return Problem("Draining", "the media server is stopping and takes no new routers")
    worker = actual.workers.get(router.worker_slot)
    if worker is None:
        slots = len(actual.workers)
        return Problem("NoSuchSlot", f"worker slot {router.worker_slot}: the server has 0 to {slots - 1}")
    if worker.state != "Running":
        return Problem(f"Worker{worker.state}", worker.reason or f"worker slot {worker.slot} is starting")
    other = _same_session_on_slot(key, router, wanted, actual)
    if other is not None:
        message = f"worker slot {router.worker_slot} carries {other} of this session; one is the most"
        return Problem("SlotTaken", message)
    if any(key in local_routers(link) for link in actual.links.values()):
        return Problem("Opening", "waits until the links of its predecessor are closed")
    return OpenRouter(key, router, session)


def _same_session_on_slot(key: str, router: RouterEntry, wanted: _Wanted, actual: Actual) -> str | None:
    """Producer ids are unique per worker only, so a session has one router on it: open, or first by name."""
    rivals = dict(actual.routers)
    rivals.update((other, entry) for other, entry in wanted.routers.items() if other < key)
    for other, entry in sorted(rivals.items()):
        same = (entry.session_uid, entry.worker_slot) == (router.session_uid, router.worker_slot)
        if same and other != key:
            return f"router {entry.namespace}/{entry.name}"
    return None


def _open_link(key: str, link: LinkEntry, wanted: _Wanted, actual: Actual) -> OpenLink | Problem:
    if key in actual.links:
        return Problem("Opening", "waits until the earlier pipes of this link are closed")
    for router in local_routers(link):
        if router not in wanted.routers:
            return Problem("Failed", f"{router} is not to be on this server, so it can't be linked")
        if not _carries(router, wanted, actual):
            return Problem("Opening", f"waits for {router}")
    return OpenLink(key, link)
