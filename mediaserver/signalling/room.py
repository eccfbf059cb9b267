"""The participants of one hosted router, and what they are told of the rest of the session."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import structlog

from mediaserver.cascade.messages import ParticipantInfo, ProducerInfo
from mediaserver.mediasoup import Event
from mediaserver.signalling import messages
from mediaserver.signalling.connection import Ending
from mediaserver.signalling.errors import UNAVAILABLE, Refused
from mediaserver.signalling.moving import REASON, Departure, Pace, hand_over, succeed
from mediaserver.signalling.participant import Participant, Peer
from mediaserver.signalling.settings import SignallingSettings
from mediaserver.wire.close_codes import DIAL_AGAIN, DIAL_LATER, ENDED
from mediaserver.wire.errors import TokenError
from mediaserver.wire.tokens import ParticipantClaims, mint_resume

if TYPE_CHECKING:
    from mediaserver.cascade import HostedRouter

log = structlog.get_logger(__name__)


def token_keys(hosted: HostedRouter) -> dict[str, bytes]:
    """The session's valid token keys by kid. Never logged."""
    return {kid: base64.b64decode(key) for kid, key in hosted.session.token_keys.items()}


class Room:
    """One for each hosted router, made and closed with it. Membership of the session is the router's;
    the room has the local attachments."""

    def __init__(
        self,
        hosted: HostedRouter,
        settings: SignallingSettings,
        *,
        pace: Pace | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`wall_clock` gives seconds since 1970; `pace` is shared by all rooms of the server."""
        self.hosted = hosted
        self.on_left: Event[None] = Event("left")
        """An attachment has ended, and nothing of it is left."""
        self._settings = settings
        self._pace = pace or Pace(settings)
        self._wall_clock = wall_clock
        self._attached: dict[str, Participant] = {}
        self._told: dict[str, ParticipantInfo] = dict(hosted.participants)
        """By peer id: whom the local participants know of."""
        self._lingering: set[asyncio.Task[None]] = set()
        self._closed: tuple[int, str] | None = None
        self._departure: Departure | None = None
        self._unsubscribe = [
            hosted.on_participant.subscribe(self._on_participant),
            hosted.on_participant_changed.subscribe(self._on_participant),
            hosted.on_participant_gone.subscribe(self._on_participant_gone),
            hosted.on_participant_replaced.subscribe(self._on_replaced),
            hosted.on_producer.subscribe(self._on_producer),
            hosted.on_producer_gone.subscribe(self._on_producer_gone),
            hosted.on_producer_changed.subscribe(self._on_producer_changed),
            hosted.on_producer_restored.subscribe(self._on_producer_restored),
        ]

    def __len__(self) -> int:
        """Attachments, joined or not, lingering ones included."""
        return len(self._attached)

    # -- attachments -----------------------------------------------------------------------------------------

    def admit(self, claims: ParticipantClaims, connection: Peer) -> Participant | None:
        """A new attachment; None, with the connection told to close, when there is no room."""
        if self._closed is not None:
            connection.end(*self._closed)
            return None
        if len(self._attached) >= self._settings.max_participants:
            connection.end(DIAL_LATER, f"router full: {self._settings.max_participants} participants")
            return None
        if self._departure is not None:
            connection.end(DIAL_AGAIN, REASON)
            return None
        participant = Participant(self.hosted, claims, connection, self._settings)
        self._attached[participant.attachment] = participant
        return participant

    def leave(self, participant: Participant, ending: Ending) -> None:
        """The connection has ended: frees all at once, or after a while if it was lost without a goodbye."""
        if participant.attachment not in self._attached:
            return
        if not ending.lost or not participant.joined:
            self._free(participant)
            return
        task = asyncio.create_task(self._linger(participant))
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def _linger(self, participant: Participant) -> None:
        log.info(
            "signalling lost, transports live on",
            session=f"{self.hosted.entry.namespace}/{self.hosted.entry.session}",
            participant=participant.peer_id,
            seconds=self._settings.linger,
        )
        await asyncio.sleep(self._settings.linger)
        self._free(participant)

    def _free(self, participant: Participant) -> None:
        if self._attached.pop(participant.attachment, None) is None:
            return
        participant.close()
        if participant.info is not None and not self.hosted.closed:
            self._on_participant_gone(participant.info)
            self.hosted.remove_participant(participant.peer_id, participant.attachment)
        self.on_left.emit(None)

    @property
    def leaving(self) -> bool:
        """Whether the router is to be left: whoever comes is told to dial again."""
        return self._departure is not None

    def set_leaving(self, leaving: bool) -> None:
        """Send everybody elsewhere, or call that off."""
        if leaving and self._departure is None:
            self._departure = Departure(
                lambda: tuple(self._attached.values()),
                self._settings,
                self._pace,
                router=self.hosted.entry.name,
            )
        elif not leaving and self._departure is not None:
            self._departure.cancel()
            self._departure = None

    async def close(self, code: int, reason: str) -> None:
        """Closes every attachment with `code`; returns when all that was theirs is freed."""
        self._closed = (code, reason)
        self.set_leaving(False)
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        for task in tuple(self._lingering):
            task.cancel()
        participants = tuple(self._attached.values())
        for participant in participants:
            participant.connection.end(code, reason)
            self._free(participant)
        for participant in participants:
            await participant.ended()

    def refuse_new(self, code: int, reason: str) -> None:
        """From now on new attachments are closed with `code`."""
        self._closed = (code, reason)

    # -- membership (verbs.Membership) -----------------------------------------------------------------------

    def join(self, participant: Participant, params: messages.Join) -> messages.Joined:
        """Makes the attachment the one that counts for its participant; the older one is closed."""
        resume = self._resume(participant.claims)
        for older in self._of(participant.peer_id):
            self._end_older(older, moved=params.reattach)
        info = participant.describe(
            params.display_name,
            params.device or {},
            self._join_time(participant),
            moved=params.reattach,
        )
        participant.info = info
        participant.rtp_capabilities = params.rtp_capabilities
        others = [peer for peer in self.hosted.participants.values() if peer.peer_id != participant.peer_id]
        self._on_participant(info)
        self.hosted.add_participant(info)
        participant.receive(tuple(self.hosted.producers.values()))
        return messages.Joined(
            peers=[_peer(peer) for peer in others],
            resume=resume,
            router=f"{self.hosted.entry.namespace}/{self.hosted.entry.name}",
        )

    def rename(self, participant: Participant, name: str) -> None:
        info = participant.renamed(name)
        participant.info = info
        self._on_participant(info)
        self.hosted.add_participant(info)

    def _resume(self, claims: ParticipantClaims) -> str:
        try:
            return mint_resume(claims, token_keys(self.hosted), now=self._wall_clock())
        except TokenError as error:
            raise Refused(UNAVAILABLE, f"join: {error}") from error

    def _join_time(self, participant: Participant) -> int:
        """Now, in ms; later than the participant's join elsewhere, whatever that server's clock says."""
        now = int(self._wall_clock() * 1000)
        older = self.hosted.participants.get(participant.peer_id)
        return now if older is None else max(now, older.joined_at + 1)

    def _of(self, peer_id: str) -> list[Participant]:
        return [p for p in self._attached.values() if p.peer_id == peer_id and p.joined]

    def _end_older(self, older: Participant, *, moved: bool) -> None:
        """The participant has attached anew: at once, or, having moved as asked, while this one goes on."""
        if moved:
            hand_over(older, self.hosted.producers.values(), self._settings)
        else:
            self._replace(older)

    def _replace(self, older: Participant) -> None:
        older.connection.end(ENDED, "replaced")
        self._free(older)

    # -- what the session's routers say ----------------------------------------------------------------------

    def _joined(self) -> Iterator[Participant]:
        return (participant for participant in tuple(self._attached.values()) if participant.joined)

    def _tell_others(self, peer_id: str, method: str, data: object) -> None:
        for participant in self._joined():
            if participant.peer_id != peer_id:
                participant.connection.notify(method, data)

    def _on_participant(self, info: ParticipantInfo) -> None:
        told = self._told.get(info.peer_id)
        self._told[info.peer_id] = info
        if told is None:
            self._tell_others(info.peer_id, "newPeer", _peer(info))
        elif told.attachment != info.attachment and not info.moved:
            self._tell_others(info.peer_id, "peerClosed", {"peerId": info.peer_id})
            self._tell_others(info.peer_id, "newPeer", _peer(info))
        elif told.display_name != info.display_name:
            self._tell_others(
                info.peer_id,
                "peerDisplayNameChanged",
                {
                    "peerId": info.peer_id,
                    "displayName": info.display_name,
                    "oldDisplayName": told.display_name,
                },
            )

    def _on_participant_gone(self, info: ParticipantInfo) -> None:
        told, newer = self._told.get(info.peer_id), self.hosted.participants.get(info.peer_id)
        if newer is not None and newer.moved and newer.attachment != info.attachment:
            return  # it is here all the time
        if told is not None and told.attachment == info.attachment:
            del self._told[info.peer_id]
            self._tell_others(info.peer_id, "peerClosed", {"peerId": info.peer_id})

    def _on_replaced(self, info: ParticipantInfo) -> None:
        participant = self._attached.get(info.attachment)
        if participant is not None:
            newer = self.hosted.participants.get(info.peer_id)
            self._end_older(participant, moved=newer is not None and newer.moved)

    def _on_producer(self, producer: ProducerInfo) -> None:
        for participant in self._joined():
            succeed(participant, producer, self._settings)
            participant.receive((producer,))

    def _on_producer_gone(self, producer: ProducerInfo) -> None:
        for participant in self._joined():
            participant.gone(producer.id)

    def _on_producer_changed(self, producer: ProducerInfo) -> None:
        for participant in self._joined():
            participant.changed(producer)

    def _on_producer_restored(self, producer: ProducerInfo) -> None:
        for participant in self._joined():
            participant.restored(producer)


def _peer(info: ParticipantInfo) -> messages.Peer:
    return messages.Peer(id=info.peer_id, display_name=info.display_name, device=info.device)
