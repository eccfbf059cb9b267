"""Who and what is in the session, and by which path: a path-vector protocol over the session's links.

Each neighbour's latest announcement of an entry is kept; the shortest path wins, ties by the routers'
names. The best path is announced to every neighbour that is not on it. An entry that its origin ended is
remembered for a while, so that an announcement still on its way in a cycle cannot bring it back; one that
merely lost its paths stays visible for a moment, since another path, or the same link again, often follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from mediaserver.cascade.messages import (
    Announce,
    Ended,
    Entry,
    EntryKey,
    Path,
    ProducerInfo,
    RouterName,
    Update,
    Withdraw,
)
from mediaserver.cascade.routes.effects import Effect, ProducerAppeared, ProducerChanged, ProducerGone, Send
from mediaserver.cascade.routes.participants import Roster

TOMBSTONE_SECONDS = 60.0
"""How long an ended entry's announcements are refused: far longer than a message can be on its way."""


@dataclass
class _Known:
    entry: Entry
    local: bool = False
    heard: dict[RouterName, Path] = field(default_factory=dict)
    announced: dict[RouterName, Path] = field(default_factory=dict)

    def best(self) -> Path | None:
        if self.local:
            return ()
        return min(self.heard.values(), key=lambda path: (len(path), path), default=None)


class PathTable:
    """The entries part of a route table. ``emit`` takes effects; ``moved`` hears of producers whose best
    path may have changed (or ended, when they are no longer known)."""

    def __init__(
        self,
        router: RouterName,
        *,
        hold: float,
        emit: Callable[[Effect], None],
        moved: Callable[[str, float], None],
    ) -> None:
        self._router = router
        self._hold = hold
        self._emit = emit
        self._moved = moved
        self._links: set[RouterName] = set()
        self._known: dict[EntryKey, _Known] = {}
        # Both in the order in which they fall due, since each waits equally long.
        self._held: dict[EntryKey, float] = {}
        self._ended: dict[EntryKey, float] = {}
        self._unrefreshed: dict[RouterName, set[EntryKey]] = {}
        self.roster = Roster(emit)
        self.producers: dict[str, ProducerInfo] = {}
        """Every producer of the session that this router knows, by id."""

    # -- reading --

    def entry(self, key: EntryKey) -> Entry | None:
        known = self._known.get(key)
        return known.entry if known else None

    def best(self, key: EntryKey) -> Path | None:
        """The path in use: () for a local entry, None without one."""
        known = self._known.get(key)
        return known.best() if known else None

    @property
    def deadline(self) -> float | None:
        first = (next(iter(waiting.values())) for waiting in (self._held, self._ended) if waiting)
        return min(first, default=None)

    # -- local entries --

    def open(self, entry: Entry, now: float) -> None:
        """Add a local entry, or change it when the version is newer."""
        if entry.key in self._ended:
            return
        known = self._known.get(entry.key)
        if known is None:
            known = self._add(entry)
        known.local = True
        self._freshen(known, entry)
        self._spread(known)
        self._moved_entry(entry.key, now)
        self._settle_roster(now)

    def end(self, key: EntryKey, now: float) -> None:
        """A local entry is over, for everybody."""
        known = self._known.get(key)
        if known is not None and known.local:
            self._bury(key, None, now)
            self._settle_roster(now)

    def local(self) -> list[EntryKey]:
        """The local entries."""
        return [key for key, known in self._known.items() if known.local]

    # -- links --

    def link_up(self, link: RouterName) -> None:
        """Announce everything to ``link`` (anew)."""
        self._links.add(link)
        for known in self._known.values():
            known.announced.pop(link, None)
            self._spread(known, (link,))

    def link_down(self, link: RouterName, now: float) -> None:
        self._links.discard(link)
        self._unrefreshed.pop(link, None)
        for key, known in list(self._known.items()):
            known.announced.pop(link, None)
            if link in known.heard:
                self._unhear(key, link, now)

    # -- messages --

    def refresh_start(self, link: RouterName) -> None:
        self._unrefreshed[link] = {key for key, known in self._known.items() if link in known.heard}

    def refresh_end(self, link: RouterName, now: float) -> None:
        """Withdraw what the neighbour did not repeat; what was its own has ended."""
        for key in sorted(self._unrefreshed.pop(link, ()), key=lambda key: (key.kind, key.id)):
            known = self._known.get(key)
            if known is not None and known.heard.get(link) == (link,):
                self._bury(key, link, now)
            else:
                self._unhear(key, link, now)
        self._settle_roster(now)

    def announce(self, link: RouterName, message: Announce, now: float) -> None:
        entry, path = message.entry, tuple(message.path)
        key = entry.key
        self._unrefreshed.get(link, set()).discard(key)
        if key in self._ended or not path or path[0] != link:
            return
        known = self._known.get(key)
        if self._router in path:
            if known is not None:
                self._unhear(key, link, now)
            return
        if known is None:
            known = self._add(entry)
        known.heard[link] = path
        self._held.pop(key, None)
        self._freshen(known, entry)
        self._spread(known)
        self._moved_entry(key, now)
        self._settle_roster(now)

    def update(self, message: Update, now: float) -> None:
        known = self._known.get(message.entry.key)
        if known is not None:
            self._freshen(known, message.entry)
            self._settle_roster(now)

    def withdraw(self, link: RouterName, message: Withdraw, now: float) -> None:
        self._unrefreshed.get(link, set()).discard(message.key)
        self._unhear(message.key, link, now)

    def ended(self, link: RouterName, message: Ended, now: float) -> None:
        if message.key in self._ended:
            return
        self._bury(message.key, link, now)
        self._settle_roster(now)

    def tick(self, now: float) -> None:
        """Forget what is due."""
        for key in _due(self._held, now):
            self._remove(key, now)
        for key in _due(self._ended, now):
            del self._ended[key]
        self._settle_roster(now)

    # -- inner workings --

    def _add(self, entry: Entry) -> _Known:
        known = self._known[entry.key] = _Known(entry)
        if isinstance(entry, ProducerInfo):
            self.producers[entry.id] = entry
            self._emit(ProducerAppeared(entry))
        else:
            self.roster.add(entry)
        return known

    def _freshen(self, known: _Known, entry: Entry) -> None:
        """Take a newer version in, and pass it on to all whom the entry was announced to.

        To the one it came from as well, who may have forgotten the entry since, with an older
        announcement from here still on its way.
        """
        if entry.version <= known.entry.version:
            return
        known.entry = entry
        if isinstance(entry, ProducerInfo):
            self.producers[entry.id] = entry
            self._emit(ProducerChanged(entry))
        else:
            self.roster.change(entry)
        for link in sorted(known.announced):
            self._emit(Send(link, Update(entry=entry)))

    def _spread(self, known: _Known, links: Iterable[RouterName] | None = None) -> None:
        """Bring what neighbours were told in line with the best path."""
        best = known.best()
        for link in sorted(self._links if links is None else links):
            wanted = None if best is None or link in best else (self._router, *best)
            if wanted == known.announced.get(link):
                continue
            if wanted is None:
                del known.announced[link]
                self._emit(Send(link, Withdraw(key=known.entry.key)))
            else:
                known.announced[link] = wanted
                self._emit(Send(link, Announce(entry=known.entry, path=list(wanted))))

    def _unhear(self, key: EntryKey, link: RouterName, now: float) -> None:
        known = self._known.get(key)
        if known is None or known.heard.pop(link, None) is None:
            return
        if known.best() is None:
            self._held[key] = now + self._hold
        self._spread(known)
        self._moved_entry(key, now)

    def _bury(self, key: EntryKey, source: RouterName | None, now: float) -> None:
        self._ended[key] = now + TOMBSTONE_SECONDS
        known = self._known.get(key)
        if known is None:
            return
        for link in sorted(self._links & (known.announced.keys() | known.heard.keys())):
            if link != source:
                self._emit(Send(link, Ended(key=key)))
        self._remove(key, now)

    def _remove(self, key: EntryKey, now: float) -> None:
        entry = self._known.pop(key).entry
        self._held.pop(key, None)
        self._moved_entry(key, now)
        if isinstance(entry, ProducerInfo):
            del self.producers[entry.id]
            self._emit(ProducerGone(entry))
        else:
            self.roster.remove(entry)

    def _moved_entry(self, key: EntryKey, now: float) -> None:
        if key.kind == "producer":
            self._moved(key.id, now)

    def _settle_roster(self, now: float) -> None:
        """End local attachments that lost to a newer one."""
        for loser in self.roster.losers(self._is_local):
            self._bury(loser.key, None, now)

    def _is_local(self, key: EntryKey) -> bool:
        known = self._known.get(key)
        return known is not None and known.local


def _due(waiting: dict[EntryKey, float], now: float) -> list[EntryKey]:
    return list(takewhile(lambda key: waiting[key] <= now, waiting))
