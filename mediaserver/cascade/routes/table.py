"""The route table of one router of a session: messages and events in, effects out. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mediaserver.cascade.messages import (
    Announce,
    Ended,
    Entry,
    EntryKey,
    Join,
    Leave,
    ParticipantInfo,
    Path,
    Paused,
    Piped,
    Produced,
    ProducerInfo,
    RefreshEnd,
    RefreshStart,
    Refused,
    RouteMessage,
    RouterName,
    Unpiped,
    Update,
    Withdraw,
)
from mediaserver.cascade.routes.effects import Effect, Leg, Send, Unserve
from mediaserver.cascade.routes.joins import JoinTable
from mediaserver.cascade.routes.paths import PathTable
from mediaserver.mediasoup import RtpParameters

HOLD_SECONDS = 3.0
"""How long an entry without any path stays visible, in case a path returns."""


class RouteTable:
    """What one router knows of its session, and which producers it needs or passes on.

    Every method that changes something returns the effects to carry out, in order. ``now`` is any clock
    that never goes back, the same in all calls. A message from a neighbour that has no link up is ignored,
    and none is sent to one. Links are named by the neighbour's router.
    """

    def __init__(self, router: RouterName, *, prune_delay: float = 10.0, hold: float = HOLD_SECONDS) -> None:
        self.router = router
        self._links: set[RouterName] = set()
        self._effects: list[Effect] = []
        self._paths = PathTable(router, hold=hold, emit=self._emit, moved=self._moved)
        self._joins = JoinTable(prune_delay=prune_delay, emit=self._emit, best=self._best)

    # -- reading --

    @property
    def links(self) -> frozenset[RouterName]:
        return frozenset(self._links)

    @property
    def producers(self) -> Mapping[str, ProducerInfo]:
        """Of the whole session, by id."""
        return self._paths.producers

    @property
    def participants(self) -> Mapping[str, ParticipantInfo]:
        """Of the whole session, by peer id: of each the attachment that counts."""
        return self._paths.roster.shown

    @property
    def deadline(self) -> float | None:
        """When `tick` is next due."""
        deadlines = (self._paths.deadline, self._joins.deadline)
        return min((at for at in deadlines if at is not None), default=None)

    @property
    def prune_delay(self) -> float:
        """Seconds between the last use of a producer and leaving it."""
        return self._joins.prune_delay

    @prune_delay.setter
    def prune_delay(self, seconds: float) -> None:
        self._joins.prune_delay = seconds

    @property
    def holds_joins(self) -> bool:
        """Any reference, join or timer of a join exists."""
        return not self._joins.idle

    def path(self, key: EntryKey) -> Path | None:
        """The path in use: () for a local entry, None without one."""
        return self._paths.best(key)

    def references(self, producer: str) -> int:
        """Consumers here plus neighbours that joined it from here."""
        return self._joins.references(producer)

    def upstream(self, producer: str) -> Leg | None:
        """The leg by which a remote producer is here, once it is."""
        return self._joins.upstream(producer)

    def serves(self, leg: Leg) -> bool:
        """The leg is still to be served from here."""
        return self._joins.serves(leg)

    def produces(self, leg: Leg) -> bool:
        """The leg is still to be produced here."""
        return self._joins.produces(leg)

    # -- local entries --

    def open(self, entry: Entry, now: float) -> list[Effect]:
        """Announce a local entry; one already open is changed when ``entry.version`` is greater."""
        self._paths.open(entry, now)
        return self._take()

    def end(self, key: EntryKey, now: float) -> list[Effect]:
        """End a local entry for everybody; its key is never used again. Idempotent."""
        self._paths.end(key, now)
        return self._take()

    def end_all(self, now: float) -> list[Effect]:
        """End every local entry: the router is about to close."""
        for key in self._paths.local():
            self._paths.end(key, now)
        return self._take()

    # -- links --

    def link_up(self, link: RouterName, now: float) -> list[Effect]:
        """The pair stands and its far end can be talked to (again): send the whole table."""
        self._links.add(link)
        self._emit(Send(link, RefreshStart(joins=self._joins.standing(link))))
        self._paths.link_up(link)
        self._emit(Send(link, RefreshEnd()))
        return self._take()

    def link_down(self, link: RouterName, now: float) -> list[Effect]:
        """The pipe pair is gone (losing only the connection to its far end is not this)."""
        self._links.discard(link)
        touched = self._joins.cut(link)
        self._paths.link_down(link, now)
        for producer in touched:
            self._joins.steer(producer, now)
        return self._take()

    def receive(self, link: RouterName, message: RouteMessage, now: float) -> list[Effect]:
        """Take in what a neighbour says."""
        if link in self._links and not self._receive_path(link, message, now):
            self._receive_join(link, message, now)
        return self._take()

    # -- consumers here --

    def acquire(self, producer: str, now: float) -> list[Effect]:
        """One more reference; `Attached` or `AttachFailed` follows, at once or later.

        Raises KeyError for a producer that is not known.
        """
        if producer not in self._paths.producers:
            raise KeyError(producer)
        self._joins.acquire(producer, now)
        return self._take()

    def release(self, producer: str, now: float) -> list[Effect]:
        """One reference less; the last one starts the prune delay."""
        self._joins.release(producer, now)
        return self._take()

    # -- what effects came to --

    def served(
        self, leg: Leg, kind: Literal["audio", "video"], rtp_parameters: RtpParameters, paused: bool
    ) -> list[Effect]:
        """`Serve` is done: the pipe consumer exists."""
        if self._joins.serves(leg):
            piped = Piped(
                producer=leg.producer,
                join=leg.join,
                serve=leg.serve,
                kind=kind,
                rtp_parameters=rtp_parameters,
                paused=paused,
            )
            self._emit(Send(leg.link, piped))
        else:
            self._emit(Unserve(leg))
        return self._take()

    def serve_paused(self, leg: Leg, paused: bool) -> list[Effect]:
        """The leg's producer was paused or resumed at this end."""
        if self._joins.serves(leg):
            message = Paused(producer=leg.producer, join=leg.join, serve=leg.serve, paused=paused)
            self._emit(Send(leg.link, message))
        return self._take()

    def serve_failed(self, leg: Leg, reason: str, now: float) -> list[Effect]:
        """`Serve` failed, or its pipe consumer closed by itself."""
        self._joins.serve_failed(leg, reason, now)
        return self._take()

    def produced(self, leg: Leg, now: float) -> list[Effect]:
        """`Produce` is done: the piped producer exists."""
        self._joins.produced(leg, now)
        return self._take()

    def produce_failed(self, leg: Leg, reason: str, now: float) -> list[Effect]:
        """`Produce` failed, or its producer closed by itself."""
        self._joins.produce_failed(leg, reason, now)
        return self._take()

    def tick(self, now: float) -> list[Effect]:
        """Do what is due: prune, try again, forget."""
        self._paths.tick(now)
        self._joins.tick(now)
        return self._take()

    # -- inner workings --

    def _emit(self, effect: Effect) -> None:
        if not isinstance(effect, Send) or effect.link in self._links:
            self._effects.append(effect)

    def _take(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def _best(self, producer: str) -> Path | None:
        return self._paths.best(EntryKey(kind="producer", id=producer))

    def _moved(self, producer: str, now: float) -> None:
        if self._paths.entry(EntryKey(kind="producer", id=producer)) is None:
            self._joins.forget(producer)
        else:
            self._joins.steer(producer, now)

    def _receive_path(self, link: RouterName, message: RouteMessage, now: float) -> bool:
        match message:
            case Announce():
                self._paths.announce(link, message, now)
            case Update():
                self._paths.update(message, now)
            case Withdraw():
                self._paths.withdraw(link, message, now)
            case Ended():
                self._paths.ended(link, message, now)
            case RefreshStart():
                self._joins.refresh(link, message.joins, now)
                self._paths.refresh_start(link)
            case RefreshEnd():
                self._paths.refresh_end(link, now)
            case _:
                return False
        return True

    def _receive_join(self, link: RouterName, message: RouteMessage, now: float) -> None:
        match message:
            case Join():
                self._joins.joined(link, message, now)
            case Leave():
                self._joins.left(link, message, now)
            case Piped():
                self._joins.piped(link, message)
            case Produced():
                self._joins.far_produces(link, message)
            case Unpiped():
                self._joins.unpiped(link, message)
            case Paused():
                self._joins.paused(link, message)
            case Refused():
                self._joins.refused(link, message, now)
