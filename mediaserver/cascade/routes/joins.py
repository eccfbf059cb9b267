"""Which producers this router wants, over which link, and which neighbours want them from here.

A join is a standing wish: it is made toward the origin when the first consumer, or the first neighbour
further out, needs the producer, it is served whenever this side has the producer, and it ends by Leave.
So nothing has to be retried when paths change in between; and a loop of wishes, possible for as long as
paths are settling, carries no media, since nobody in it has the producer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mediaserver.cascade.messages import (
    Join,
    Leave,
    Path,
    Paused,
    Piped,
    Produced,
    Refused,
    RouterName,
    StandingJoin,
    Unpiped,
)
from mediaserver.cascade.routes.effects import (
    Attached,
    AttachFailed,
    Effect,
    Flow,
    Leg,
    Mirror,
    Produce,
    Restored,
    Send,
    Serve,
    Unproduce,
    Unserve,
)

FIRST_RETRY = 0.1
"""Seconds before a refused join is tried again; doubles to LONGEST_RETRY."""
LONGEST_RETRY = 5.0


@dataclass
class _Out:
    """A neighbour's wish; ``serve`` is 0 while it is not served."""

    join: int
    serve: int = 0


@dataclass
class _Up:
    """This router's wish toward the origin; ``serve`` is 0 until it is served, ``standing`` once produced."""

    link: RouterName
    join: int
    serve: int = 0
    standing: bool = False


@dataclass
class _Need:
    refs: int = 0
    out: dict[RouterName, _Out] = field(default_factory=dict)
    up: _Up | None = None
    prune_at: float | None = None
    retry_at: float | None = None
    failures: int = 0
    lost: bool = False

    @property
    def wanted(self) -> bool:
        return self.refs > 0 or bool(self.out)

    @property
    def idle(self) -> bool:
        return not self.wanted and self.up is None


class JoinTable:
    """The joins part of a route table. ``best`` gives a producer's path, None without one."""

    def __init__(
        self,
        *,
        prune_delay: float,
        emit: Callable[[Effect], None],
        best: Callable[[str], Path | None],
    ) -> None:
        self.prune_delay = prune_delay
        self._emit = emit
        self._best = best
        self._needs: dict[str, _Need] = {}
        self._last_number = 0

    # -- reading --

    @property
    def idle(self) -> bool:
        """No reference, no join and no timer is held."""
        return not self._needs

    @property
    def deadline(self) -> float | None:
        times = (at for need in self._needs.values() for at in (need.prune_at, need.retry_at))
        return min((at for at in times if at is not None), default=None)

    def references(self, producer: str) -> int:
        """Consumers here plus neighbours further out."""
        need = self._needs.get(producer)
        return need.refs + len(need.out) if need else 0

    def standing(self, link: RouterName) -> list[StandingJoin]:
        """This router's joins over ``link``, for a refresh."""
        ups = ((producer, need.up) for producer, need in self._needs.items())
        return [
            StandingJoin(producer=producer, join=up.join, serve=up.serve if up.standing else 0)
            for producer, up in ups
            if up is not None and up.link == link
        ]

    def upstream(self, producer: str) -> Leg | None:
        """The leg by which this router has the producer, once it stands."""
        need = self._needs.get(producer)
        if need is None or need.up is None or not need.up.standing:
            return None
        return _leg(producer, need.up)

    # -- consumers here --

    def acquire(self, producer: str, now: float) -> None:
        need = self._need(producer)
        need.refs += 1
        need.retry_at = None
        self.steer(producer, now)
        if self._available(producer, need):
            self._emit(Attached(producer))

    def release(self, producer: str, now: float) -> None:
        """One consumer less; does nothing when there is none, since the end of a producer ends them all."""
        need = self._needs.get(producer)
        if need is not None and need.refs > 0:
            need.refs -= 1
            need.lost = need.lost and need.refs > 0
            self.steer(producer, now)

    # -- paths and links --

    def steer(self, producer: str, now: float) -> None:
        """Bring joins in line with the producer's best path and with what is wanted."""
        need = self._needs.get(producer)
        if need is None:
            return
        path = self._best(producer)
        self._point(producer, need, path, now)
        self._time_prune(need, now)
        if self._available(producer, need):
            for link, out in _in_order(need.out):
                self._serve(producer, need, link, out)
        if need.idle:
            self._needs.pop(producer, None)

    def forget(self, producer: str) -> None:
        """The producer is over."""
        need = self._needs.pop(producer, None)
        if need is None:
            return
        if need.up is not None:
            self._leave(producer, need)
        for link, out in _in_order(need.out):
            self._close_out(producer, link, out)
        if need.refs:
            self._emit(AttachFailed(producer, "the producer has ended"))

    def cut(self, link: RouterName) -> list[str]:
        """The pipe pair is gone with all that was on it; returns the producers to steer next."""
        touched = []
        for producer, need in self._needs.items():
            out = need.out.pop(link, None)
            self._close_out(producer, link, out)
            up = need.up if need.up is not None and need.up.link == link else None
            if up is not None:
                self._fall(producer, need)
                need.up = None
            if out is not None or up is not None:
                touched.append(producer)
        return touched

    # -- messages, at the end nearer the origin --

    def refresh(self, link: RouterName, joins: list[StandingJoin], now: float) -> None:
        """The neighbour's wishes are exactly these."""
        wishes = {wish.producer: wish for wish in joins}
        for producer, need in list(self._needs.items()):
            if link in need.out and producer not in wishes:
                self._drop_out(producer, need, link, now)
        for producer, wish in wishes.items():
            self._refresh_one(link, producer, wish, now)

    def joined(self, link: RouterName, message: Join, now: float) -> None:
        need = self._need(message.producer)
        out = need.out.get(link)
        if out is None or out.join != message.join:
            self._close_out(message.producer, link, out)
            need.out[link] = _Out(message.join)
        self.steer(message.producer, now)

    def left(self, link: RouterName, message: Leave, now: float) -> None:
        need = self._needs.get(message.producer)
        if need is not None and link in need.out and need.out[link].join == message.join:
            self._drop_out(message.producer, need, link, now)

    def far_produces(self, link: RouterName, message: Produced) -> None:
        leg = Leg(message.producer, link, message.join, message.serve)
        if self.serves(leg):
            self._emit(Flow(leg))

    # -- messages, at the far end --

    def piped(self, link: RouterName, message: Piped) -> None:
        up = self._up(message.producer, link, message.join)
        if up is None:
            return
        need = self._needs[message.producer]
        self._fall(message.producer, need)
        up.serve = message.serve
        leg = _leg(message.producer, up)
        self._emit(Produce(leg, message.kind, message.rtp_parameters, message.paused))

    def unpiped(self, link: RouterName, message: Unpiped) -> None:
        up = self._up(message.producer, link, message.join)
        if up is not None and up.serve == message.serve:
            self._fall(message.producer, self._needs[message.producer])

    def paused(self, link: RouterName, message: Paused) -> None:
        up = self._up(message.producer, link, message.join)
        if up is not None and up.serve == message.serve:
            self._emit(Mirror(_leg(message.producer, up), message.paused))

    def refused(self, link: RouterName, message: Refused, now: float) -> None:
        if self._up(message.producer, link, message.join) is not None:
            need = self._needs[message.producer]
            self._fall(message.producer, need)
            need.up = None
            self._fail(message.producer, need, message.reason, now)

    # -- what carrying out effects came to --

    def serves(self, leg: Leg) -> bool:
        """The leg is still to be served from here."""
        need = self._needs.get(leg.producer)
        out = need.out.get(leg.link) if need else None
        return out is not None and (out.join, out.serve) == (leg.join, leg.serve)

    def produces(self, leg: Leg) -> bool:
        """The leg is still to be produced here."""
        need = self._needs.get(leg.producer)
        return need is not None and need.up is not None and _leg(leg.producer, need.up) == leg

    def serve_failed(self, leg: Leg, reason: str, now: float) -> None:
        """The pipe consumer could not be made, or closed by itself."""
        if not self.serves(leg):
            return
        del self._needs[leg.producer].out[leg.link]
        self._emit(Send(leg.link, Refused(producer=leg.producer, join=leg.join, reason=reason)))
        self.steer(leg.producer, now)

    def produced(self, leg: Leg, now: float) -> None:
        """The piped producer exists."""
        need = self._needs.get(leg.producer)
        if need is None or need.up is None or not self.produces(leg):
            self._emit(Unproduce(leg))
            return
        need.up.standing, need.failures = True, 0
        self._emit(Send(leg.link, Produced(producer=leg.producer, join=leg.join, serve=leg.serve)))
        self._emit(Attached(leg.producer))
        if need.lost and need.refs:
            self._emit(Restored(leg.producer))
        need.lost = False
        self.steer(leg.producer, now)

    def produce_failed(self, leg: Leg, reason: str, now: float) -> None:
        """The piped producer could not be made, or closed by itself."""
        if not self.produces(leg):
            return
        need = self._needs[leg.producer]
        self._leave(leg.producer, need)
        self._fail(leg.producer, need, reason, now)

    def tick(self, now: float) -> None:
        for producer, need in list(self._needs.items()):
            if need.prune_at is not None and need.prune_at <= now:
                need.prune_at = None
                self._leave(producer, need)
                self.steer(producer, now)
            elif need.retry_at is not None and need.retry_at <= now:
                need.retry_at = None
                self.steer(producer, now)

    # -- inner workings --

    def _need(self, producer: str) -> _Need:
        return self._needs.setdefault(producer, _Need())

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _up(self, producer: str, link: RouterName, join: int) -> _Up | None:
        need = self._needs.get(producer)
        up = need.up if need else None
        return up if up is not None and (up.link, up.join) == (link, join) else None

    def _available(self, producer: str, need: _Need) -> bool:
        """This router has the producer: its own, or a piped one."""
        return self._best(producer) == () or (need.up is not None and need.up.standing)

    def _point(self, producer: str, need: _Need, path: Path | None, now: float) -> None:
        """Join over the link of the best path, and leave any other."""
        target = path[0] if path else None
        if need.up is not None and need.up.link != target:
            self._leave(producer, need)
        if target is None or need.up is not None or not need.wanted or need.retry_at is not None:
            return
        need.up = _Up(target, self._number())
        self._emit(Send(target, Join(producer=producer, join=need.up.join)))

    def _time_prune(self, need: _Need, now: float) -> None:
        if need.wanted or need.up is None:
            need.prune_at = None
        elif need.prune_at is None:
            need.prune_at = now + self.prune_delay
        if not need.wanted:
            need.retry_at = None

    def _serve(self, producer: str, need: _Need, link: RouterName, out: _Out) -> None:
        if out.serve or (need.up is not None and need.up.link == link):
            return
        out.serve = self._number()
        self._emit(Serve(Leg(producer, link, out.join, out.serve)))

    def _leave(self, producer: str, need: _Need) -> None:
        if need.up is None:
            return
        self._fall(producer, need)
        self._emit(Send(need.up.link, Leave(producer=producer, join=need.up.join)))
        need.up = None

    def _fall(self, producer: str, need: _Need) -> None:
        """What came over the upstream link is gone: close it, and what it fed."""
        up = need.up
        if up is None or not up.serve:
            return
        self._emit(Unproduce(_leg(producer, up)))
        need.lost = need.lost or (up.standing and need.refs > 0)
        up.serve, up.standing = 0, False
        for link, out in _in_order(need.out):
            self._unserve(producer, link, out)

    def _unserve(self, producer: str, link: RouterName, out: _Out) -> None:
        """Stop serving a wish that stays."""
        if out.serve:
            self._emit(Unserve(Leg(producer, link, out.join, out.serve)))
            self._emit(Send(link, Unpiped(producer=producer, join=out.join, serve=out.serve)))
            out.serve = 0

    def _close_out(self, producer: str, link: RouterName, out: _Out | None) -> None:
        if out is not None and out.serve:
            self._emit(Unserve(Leg(producer, link, out.join, out.serve)))

    def _drop_out(self, producer: str, need: _Need, link: RouterName, now: float) -> None:
        self._close_out(producer, link, need.out.pop(link))
        self.steer(producer, now)

    def _refresh_one(self, link: RouterName, producer: str, wish: StandingJoin, now: float) -> None:
        need = self._need(producer)
        out = need.out.get(link)
        if out is None or out.join != wish.join:
            self._close_out(producer, link, out)
            out = need.out[link] = _Out(wish.join)
        if out.serve != wish.serve:
            self._unserve(producer, link, out)
            if wish.serve:
                self._emit(Send(link, Unpiped(producer=producer, join=wish.join, serve=wish.serve)))
        elif out.serve:
            self._emit(Flow(Leg(producer, link, out.join, out.serve)))
        self.steer(producer, now)

    def _fail(self, producer: str, need: _Need, reason: str, now: float) -> None:
        need.failures += 1
        need.retry_at = now + min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(need.failures - 1, 10))
        self._emit(AttachFailed(producer, reason))
        self.steer(producer, now)


def _leg(producer: str, up: _Up) -> Leg:
    return Leg(producer, up.link, up.join, up.serve)


def _in_order(out: dict[RouterName, _Out]) -> list[tuple[RouterName, _Out]]:
    return sorted(out.items(), key=lambda item: item[0])
