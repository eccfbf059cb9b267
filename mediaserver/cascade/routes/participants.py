"""Which attachment of each participant counts: the newest join, then the greater server name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mediaserver.cascade.messages import EntryKey, ParticipantInfo
from mediaserver.cascade.routes.effects import (
    Effect,
    ParticipantAppeared,
    ParticipantChanged,
    ParticipantGone,
    ParticipantReplaced,
)


def _rank(info: ParticipantInfo) -> tuple[int, str, str]:
    return info.joined_at, info.server, info.attachment


class Roster:
    """The attachments known to a router, and of each participant the one that counts."""

    def __init__(self, emit: Callable[[Effect], None]) -> None:
        self._emit = emit
        self._attachments: dict[str, dict[str, ParticipantInfo]] = {}
        self.shown: dict[str, ParticipantInfo] = {}
        """The attachment that counts, by peer id."""
        self._contested: set[str] = set()

    def add(self, info: ParticipantInfo) -> None:
        attachments = self._attachments.setdefault(info.peer_id, {})
        attachments[info.attachment] = info
        if len(attachments) > 1:
            self._contested.add(info.peer_id)
        self._show(info.peer_id)

    def change(self, info: ParticipantInfo) -> None:
        self._attachments[info.peer_id][info.attachment] = info
        self._show(info.peer_id)

    def remove(self, info: ParticipantInfo) -> None:
        attachments = self._attachments[info.peer_id]
        attachments.pop(info.attachment, None)
        self._show(info.peer_id)
        if not attachments:
            del self._attachments[info.peer_id]

    def losers(self, local: Callable[[EntryKey], bool]) -> Iterator[ParticipantInfo]:
        """Local attachments that lost, each reported as replaced as it is yielded."""
        while self._contested:
            peer_id = self._contested.pop()
            winner = self.shown.get(peer_id)
            for info in sorted(self._attachments.get(peer_id, {}).values(), key=_rank):
                if (winner is None or info.attachment != winner.attachment) and local(info.key):
                    self._emit(ParticipantReplaced(info))
                    yield info

    def _show(self, peer_id: str) -> None:
        old = self.shown.get(peer_id)
        new = max(self._attachments[peer_id].values(), key=_rank, default=None)
        if old == new:
            return
        if old is not None and new is not None and old.attachment == new.attachment:
            self.shown[peer_id] = new
            self._emit(ParticipantChanged(new))
            return
        if old is not None:
            del self.shown[peer_id]
            self._emit(ParticipantGone(old))
        if new is not None:
            self.shown[peer_id] = new
            self._emit(ParticipantAppeared(new))
