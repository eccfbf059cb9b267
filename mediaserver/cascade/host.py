"""The routers and links of this media server, and its connections to the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import structlog
from aiohttp import web

from mediaserver.cascade.errors import NotIdentifiedError, RouterClosedError, RouterUnavailableError
from mediaserver.cascade.far import FarEnd, LoopbackEnd
from mediaserver.cascade.greeting import Identity, Process
from mediaserver.cascade.hosted import HostedRouter
from mediaserver.cascade.links import LinkEnd
from mediaserver.cascade.messages import LinkName, RouterName
from mediaserver.cascade.peers import PeerLinks
from mediaserver.control.contract import (
    PIPE_PROTOCOL,
    LinkEntry,
    LinkState,
    PeerAge,
    RouterEntry,
    RouterState,
    SessionEntry,
    SettingsEntry,
    link_key,
    router_key,
)
from mediaserver.mediasoup import CloseReason, Event, InvalidArgumentError, RtpCodecCapability, Worker
from mediaserver.pool import WorkerPool
from mediaserver.wire.membership import Credential

log = structlog.get_logger(__name__)


class CascadeHost:
    """Owns every hosted router, link and peer connection of the process until `close`.

    Opens and closes what it is told. A router whose worker dies is closed here with its links' ends; to
    open it and its links again, on the worker that takes the place, is up to the owner.
    """

    def __init__(
        self,
        *,
        pool: WorkerPool,
        instance_id: str,
        credential: Credential,
        identity: Identity | None = None,
        pipe_protocol: int = PIPE_PROTOCOL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_state_change: Event[None] = Event("cascade state")
        """`router_states` or `link_states` give something else now."""
        self.on_router_opened: Event[HostedRouter] = Event("router opened")
        self.on_router_changed: Event[HostedRouter] = Event("router changed")
        """Its entry says something else of ``leaving``."""
        self.on_router_closed: Event[tuple[HostedRouter, str]] = Event("router closed")
        self._pool = pool
        self._pipe_protocol = pipe_protocol
        self._clock = clock
        self._settings = SettingsEntry()
        self._routers: dict[str, HostedRouter] = {}
        self._links: dict[str, tuple[LinkEnd, ...]] = {}
        self._peers = PeerLinks(
            process=Process(instance_id, pipe_protocol),
            credential=credential,
            silence=lambda: self._settings.silence_timeout,
            clock=clock,
        )
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        if identity is not None:
            self.identify(identity)

    # -- who this server is, and how it works --

    @property
    def identity(self) -> Identity | None:
        return self._peers.identity

    def identify(self, identity: Identity) -> None:
        """Who this server is; links to other servers come to stand from now on."""
        self._peers.identify(identity)

    def apply_settings(self, settings: SettingsEntry) -> None:
        """Takes effect at once, for routers that are open as well."""
        self._settings = settings
        for hosted in self._routers.values():
            hosted.set_prune_delay(settings.prune_delay)

    def update_session(self, entry: SessionEntry) -> None:
        """New issuers or token keys for the routers of that session."""
        for hosted in self._routers.values():
            if (hosted.session.namespace, hosted.session.name) == (entry.namespace, entry.name):
                hosted.session = entry

    # -- routers --

    @property
    def routers(self) -> Mapping[str, HostedRouter]:
        """Open ones, by contract.router_key."""
        return MappingProxyType(self._routers)

    async def open_router(self, entry: RouterEntry, session: SessionEntry) -> HostedRouter:
        """Make a router on its worker slot; one that is open with an equal entry is returned as it is.

        Raises RouterUnavailableError (no worker in the slot, or another router of this name is open) and
        MediasoupError (the worker refused: codecs, or it died).
        """
        key = router_key(entry.namespace, entry.name)
        existing = self._routers.get(key)
        if existing is not None:
            if existing.entry == entry:
                return existing
            raise RouterUnavailableError("Open", f"{key} is open with other settings; close it first")
        slot = self._slot_of(entry)
        codecs = _codecs(entry.media_codecs)
        router = await _worker(slot.worker, entry).create_router(
            media_codecs=codecs, app_data={"name": f"{entry.namespace}/{entry.name}"}
        )
        if self._closed or key in self._routers:
            router.close()
            raise RouterUnavailableError("Closed", "the media server stops, or the router was opened twice")
        hosted = HostedRouter(
            entry=entry,
            session=session,
            router=router,
            slot=slot,
            server_name=self._server_name,
            prune_delay=self._settings.prune_delay,
            clock=self._clock,
        )
        self._routers[key] = hosted
        router.on_close.subscribe(lambda reason: self._router_closed(hosted, reason))
        log.info(
            "router opened",
            session=f"{entry.namespace}/{entry.session}",
            router=f"{entry.namespace}/{entry.name}",
            worker=slot.index,
        )
        self.on_router_opened.emit(hosted)
        self.on_state_change.emit(None)
        if router.closed:
            self._router_closed(hosted, router.close_reason)
            raise RouterClosedError(f"{key} closed as soon as it was opened")
        return hosted

    def update_router(self, entry: RouterEntry) -> None:
        """Take over what of an open router's entry may change: whether its participants are to leave."""
        hosted = self._routers.get(router_key(entry.namespace, entry.name))
        if hosted is None or hosted.entry.leaving == entry.leaving:
            return
        hosted.entry = msgspec.structs.replace(hosted.entry, leaving=entry.leaving)
        log.info(
            "router leaving" if entry.leaving else "router stays", router=entry.name, session=entry.session
        )
        self.on_router_changed.emit(hosted)
        self.on_state_change.emit(None)

    async def close_router(self, key: str, reason: str) -> None:
        """End a router and its ends of links. Idempotent."""
        hosted = self._routers.pop(key, None)
        if hosted is None:
            return
        await self._end_router(hosted, reason)
        self.on_state_change.emit(None)

    # -- links --

    async def open_link(self, entry: LinkEntry) -> None:
        """Start the machine that opens, watches and repairs a link; its state is in `link_states`.

        The routers that it ends at here must be open: both, for a link inside this server. Idempotent for
        an equal entry's key. Raises RouterClosedError, and NotIdentifiedError for a link to another server.
        """
        key = link_key(entry.namespace, entry.local_router, entry.remote_router)
        if key in self._links:
            return
        first, second = sorted((entry.local_router, entry.remote_router))
        name = LinkName(namespace=entry.namespace, first=RouterName(first), second=RouterName(second))
        if entry.remote_peer is None:
            ends = self._open_inside(entry, name)
        else:
            ends = (self._open_outside(entry, name),)
        self._links[key] = ends
        for end in ends:
            end.start()
        self.on_state_change.emit(None)

    async def close_link(self, key: str) -> None:
        """End this server's end (or both) of a link. Idempotent."""
        ends = self._links.pop(key, ())
        await asyncio.gather(*(self._end_link(end, "no longer desired") for end in ends))
        if ends:
            self.on_state_change.emit(None)

    # -- what is reported --

    def router_states(self) -> list[RouterState]:
        """Of the open routers, by key."""
        return [
            RouterState(
                namespace=hosted.entry.namespace,
                name=hosted.entry.name,
                session_uid=hosted.entry.session_uid,
                worker_slot=hosted.entry.worker_slot,
                ready=True,
                id=hosted.router.id,
                leaving=hosted.entry.leaving,
            )
            for _, hosted in sorted(self._routers.items())
        ]

    def link_states(self) -> list[LinkState]:
        """Of the links here, by key; a link inside this server is one, ready when both ends are."""
        return [_state(ends) for _, ends in sorted(self._links.items())]

    def peer_ages(self) -> list[PeerAge]:
        """How long ago the servers that links lead to were heard; those never heard are left out."""
        return self._peers.ages()

    # -- life --

    async def accept_peer(self, request: web.Request) -> web.StreamResponse:
        """The handler of `/peer`: upgrades, and serves the other media server until the connection ends."""
        return await self._peers.accept(request)

    async def close(self) -> None:
        """End every link, router and peer connection. Idempotent."""
        self._closed = True
        for key in list(self._links):
            await self.close_link(key)
        for key in list(self._routers):
            await self.close_router(key, "the media server stops")
        while self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)
        await self._peers.close()

    # -- inner workings --

    def _server_name(self) -> str:
        return self.identity.server_name if self.identity is not None else ""

    def _slot_of(self, entry: RouterEntry) -> Any:
        slots = self._pool.slots
        if not 0 <= entry.worker_slot < len(slots):
            raise RouterUnavailableError(
                "NoSuchSlot", f"worker slot {entry.worker_slot}: the server has 0 to {len(slots) - 1}"
            )
        return slots[entry.worker_slot]

    def _router_closed(self, hosted: HostedRouter, reason: CloseReason | None) -> None:
        """mediasoup's router closed by itself: its worker died or was closed."""
        if self._routers.get(hosted.key) is not hosted:
            return
        del self._routers[hosted.key]
        words = reason.value if reason is not None else "closed"
        self._in_background(self._end_router(hosted, words))
        self.on_state_change.emit(None)

    async def _end_router(self, hosted: HostedRouter, reason: str) -> None:
        """The router's ends of links end with it; so does the other end of a link inside this server."""
        lost = {key: ends for key, ends in self._links.items() if any(_at(end, hosted) for end in ends)}
        for key in lost:
            del self._links[key]
        closing = asyncio.ensure_future(hosted.close(reason))
        self.on_router_closed.emit((hosted, reason))
        for ends in lost.values():
            await asyncio.gather(*(self._end_link(end, f"its router closed: {reason}") for end in ends))
        await closing

    def _open_inside(self, entry: LinkEntry, name: LinkName) -> tuple[LinkEnd, ...]:
        one, two = self._hosted(entry.namespace, name.first), self._hosted(entry.namespace, name.second)
        to_two, to_one = LoopbackEnd(self._pipe_protocol), LoopbackEnd(self._pipe_protocol)
        first = self._make_end(entry, name, one, to_two)
        second = self._make_end(entry, name, two, to_one)
        to_two.attach(second)
        to_one.attach(first)
        return first, second

    def _open_outside(self, entry: LinkEntry, name: LinkName) -> LinkEnd:
        if entry.remote_peer is None or self.identity is None:
            raise NotIdentifiedError(
                f"the link {name.first}-{name.second} leads to {entry.remote_server}, and no operator has "
                "told this server its own name yet"
            )
        hosted = self._hosted(entry.namespace, RouterName(entry.local_router))
        return self._peers.join(
            entry.remote_server,
            entry.remote_peer,
            name,
            lambda far: self._make_end(entry, name, hosted, far),
        )

    def _make_end(self, entry: LinkEntry, name: LinkName, hosted: HostedRouter, far: FarEnd) -> LinkEnd:
        end = LinkEnd(
            name=name,
            local=RouterName(hosted.entry.name),
            srtp=entry.srtp,
            rtx=entry.rtx,
            router=hosted.router,
            owner=hosted,
            far=far,
            listen_info=self._pool.pipe_listen_info,
            silence=lambda: self._settings.silence_timeout,
            pipe_protocol=self._pipe_protocol,
            on_change=lambda: self.on_state_change.emit(None),
            clock=self._clock,
        )
        hosted.add_link(end)
        return end

    def _hosted(self, namespace: str, name: str) -> HostedRouter:
        key = router_key(namespace, name)
        hosted = self._routers.get(key)
        if hosted is None:
            raise RouterClosedError(f"{key} is not open here, so no link can end at it")
        return hosted

    async def _end_link(self, end: LinkEnd, reason: str) -> None:
        await end.close(reason)
        hosted = end.owner
        if isinstance(hosted, HostedRouter):
            hosted.remove_link(end)

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _at(end: LinkEnd, hosted: HostedRouter) -> bool:
    return end.owner is hosted


def _state(ends: tuple[LinkEnd, ...]) -> LinkState:
    shown = next((end for end in ends if not end.ready), ends[0])
    return LinkState(
        namespace=shown.name.namespace,
        local_router=ends[0].local,
        remote_router=ends[0].remote,
        ready=shown.ready,
        reason=shown.reason,
        message=shown.message,
    )


def _worker(worker: Worker | None, entry: RouterEntry) -> Worker:
    if worker is None:
        raise RouterUnavailableError("WorkerStarting", f"worker slot {entry.worker_slot} has no worker now")
    return worker


def _codecs(codecs: list[dict[str, Any]]) -> list[RtpCodecCapability]:
    try:
        return msgspec.convert(codecs, list[RtpCodecCapability])
    except msgspec.ValidationError as error:
        raise InvalidArgumentError(f"mediaCodecs: {error}") from error
