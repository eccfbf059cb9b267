"""Stand-ins for the cascade: one router alone, with the interface of HostedRouter and CascadeHost."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec

from mediaserver.cascade.errors import AttachTimeoutError
from mediaserver.cascade.messages import ParticipantInfo, ProducerInfo
from mediaserver.control.contract import RouterEntry, SessionEntry, router_key
from mediaserver.mediasoup.events import Event

KEY = b"k" * 32
ISSUER = "cluster-uid"


def session_entry(name: str = "standup", namespace: str = "shop") -> SessionEntry:
    keys = {"1": base64.b64encode(KEY).decode()}
    return SessionEntry(namespace=namespace, name=name, uid="uid-1", issuers=[ISSUER], token_keys=keys)


def router_entry(name: str = "standup-a", session: str = "standup", namespace: str = "shop") -> RouterEntry:
    return RouterEntry(
        namespace=namespace,
        name=name,
        uid="uid-2",
        session=session,
        session_uid="uid-1",
        worker_slot=0,
        media_codecs=[],
    )


class LoneRouter:
    """A hosted router without links: everybody and everything in the session is here, or put in by tests."""

    def __init__(self, router: Any, webrtc_server: Any, entry: RouterEntry, session: SessionEntry) -> None:
        self.router, self.entry, self.session = router, entry, session
        self.key = router_key(entry.namespace, entry.name)
        self.server_name = "media/one"
        self.slot = SimpleNamespace(webrtc_server=webrtc_server)
        self.participants: dict[str, ParticipantInfo] = {}
        self.producers: dict[str, ProducerInfo] = {}
        self.references: dict[str, int] = {}
        self.unreachable: set[str] = set()
        self.closed = False
        self.on_participant: Event[ParticipantInfo] = Event("on_participant")
        self.on_participant_changed: Event[ParticipantInfo] = Event("on_participant_changed")
        self.on_participant_gone: Event[ParticipantInfo] = Event("on_participant_gone")
        self.on_participant_replaced: Event[ParticipantInfo] = Event("on_participant_replaced")
        self.on_producer: Event[ProducerInfo] = Event("on_producer")
        self.on_producer_gone: Event[ProducerInfo] = Event("on_producer_gone")
        self.on_producer_changed: Event[ProducerInfo] = Event("on_producer_changed")
        self.on_producer_restored: Event[ProducerInfo] = Event("on_producer_restored")

    def add_participant(self, info: ParticipantInfo) -> None:
        changed = info.version > 0
        self.participants[info.peer_id] = info
        (self.on_participant_changed if changed else self.on_participant).emit(info)

    def remove_participant(self, peer_id: str, attachment: str) -> None:
        info = self.participants.get(peer_id)
        if info is not None and info.attachment == attachment:
            del self.participants[peer_id]
            self.on_participant_gone.emit(info)

    def publish(self, producer: Any, *, peer_id: str, source: str, app_data: dict[str, Any]) -> None:
        info = ProducerInfo(
            id=producer.id,
            kind=producer.kind,
            peer_id=peer_id,
            source=source,
            router=self.entry.name,
            app_data=app_data,
        )
        producer.on_close.subscribe(lambda _: self.withdraw(producer.id))
        self.announce(info)

    def announce(self, info: ProducerInfo) -> None:
        self.producers[info.id] = info
        self.on_producer.emit(info)

    def withdraw(self, producer_id: str) -> None:
        if (info := self.producers.pop(producer_id, None)) is not None:
            self.on_producer_gone.emit(info)

    def change(self, producer_id: str, **changes: Any) -> None:
        info = msgspec.structs.replace(self.producers[producer_id], **changes)
        self.producers[producer_id] = info
        self.on_producer_changed.emit(info)

    async def attach(self, producer_id: str, *, timeout: float = 5.0) -> None:
        if producer_id in self.unreachable:
            raise AttachTimeoutError(f"no path to {producer_id}")
        self.references[producer_id] = self.references.get(producer_id, 0) + 1

    def release(self, producer_id: str) -> None:
        self.references[producer_id] -= 1


@dataclass
class LoneHost:
    """A cascade host whose routers tests open and close."""

    routers: dict[str, LoneRouter] = field(default_factory=dict)
    on_router_opened: Event[LoneRouter] = field(default_factory=lambda: Event("opened"))
    on_router_changed: Event[LoneRouter] = field(default_factory=lambda: Event("changed"))
    on_router_closed: Event[tuple[LoneRouter, str]] = field(default_factory=lambda: Event("closed"))

    def open(self, router: LoneRouter) -> LoneRouter:
        self.routers[router.key] = router
        self.on_router_opened.emit(router)
        return router

    def set_leaving(self, router: LoneRouter, leaving: bool) -> None:
        router.entry = msgspec.structs.replace(router.entry, leaving=leaving)
        self.on_router_changed.emit(router)

    def close(self, router: LoneRouter, reason: str) -> None:
        del self.routers[router.key]
        router.closed = True
        router.router.close()
        self.on_router_closed.emit((router, reason))


MakeToken = Callable[..., str]
