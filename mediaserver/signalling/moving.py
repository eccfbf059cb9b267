"""Participants that go elsewhere while their media goes on: who is asked, and when the old ends.

A participant of a router that is to be left gets the notification ``reattach``. One that knows it dials
again, joins with ``reattach``, produces its sources anew and leaves its older attachment when all is flowing.
Until then both carry media, so that nobody misses any. One that doesn't know it is closed with 4001.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from mediaserver.cascade.messages import ProducerInfo
from mediaserver.signalling.messages import Reattach
from mediaserver.signalling.participant import Participant
from mediaserver.signalling.settings import SignallingSettings
from mediaserver.wire.close_codes import DIAL_AGAIN, ENDED

log = structlog.get_logger(__name__)

REASON = "the router moves"


class Pace:
    """Lets a few through at a time, over all routers of the server, so that hundreds do not dial at once."""

    def __init__(self, settings: SignallingSettings) -> None:
        self._burst, self._pause = settings.leave_burst, settings.leave_pause
        self._lock = asyncio.Lock()
        self._began = 0.0
        self._count = 0

    async def turn(self) -> None:
        """Returns when the caller may ask one more; callers come in the order in which they asked."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            if self._count >= self._burst:
                await asyncio.sleep(max(0.0, self._began + self._pause - loop.time()))
                self._count = 0
            if not self._count:
                self._began = loop.time()
            self._count += 1


class Departure:
    """Asks the participants of one router to leave it, one after another, from its making until `cancel`."""

    def __init__(
        self,
        attached: Callable[[], Iterable[Participant]],
        settings: SignallingSettings,
        pace: Pace,
        *,
        router: str,
    ) -> None:
        self._attached = attached
        self._settings = settings
        self._pace = pace
        self._asked: list[tuple[Participant, asyncio.TimerHandle]] = []
        self._task = asyncio.create_task(self._ask_all(), name=f"departure {router}")
        self._log = log.bind(router=router)

    def cancel(self) -> None:
        """The router stays: who has not gone yet may stay as well."""
        self._task.cancel()
        for participant, timer in self._asked:
            timer.cancel()
            participant.asked = False

    async def _ask_all(self) -> None:
        while any(not one.asked for one in self._attached()):
            await self._pace.turn()
            participant = next((one for one in self._attached() if not one.asked), None)
            if participant is not None:
                self._ask(participant)
        self._log.info("participants asked to attach elsewhere", count=len(self._asked))

    def _ask(self, participant: Participant) -> None:
        participant.asked = True
        if not participant.joined:
            participant.connection.end(DIAL_AGAIN, REASON)
            return
        within = self._settings.leave_within
        participant.connection.notify("reattach", Reattach(reason=REASON, within=within))
        timer = asyncio.get_running_loop().call_later(within, self._expel, participant)
        self._asked.append((participant, timer))

    def _expel(self, participant: Participant) -> None:
        if not participant.superseded:
            participant.connection.end(DIAL_AGAIN, REASON)


def hand_over(
    participant: Participant, producers: Iterable[ProducerInfo], settings: SignallingSettings
) -> None:
    """Its owner has attached elsewhere as asked: this attachment goes on until its owner leaves it, for
    `settings.handover` seconds at most. Idempotent."""
    if participant.superseded:
        return
    participant.superseded = True
    timer = asyncio.get_running_loop().call_later(
        settings.handover, participant.connection.end, ENDED, "replaced"
    )
    participant.timers.append(timer)
    for producer in tuple(producers):
        succeed(participant, producer, settings)


def succeed(participant: Participant, producer: ProducerInfo, settings: SignallingSettings) -> None:
    """A producer of the session: if it takes the place of one of this attachment's, that one ends soon."""
    if not participant.superseded or producer.peer_id != participant.peer_id:
        return
    old = participant.producer_of(producer.source)
    if old is not None and producer.id not in participant.producers:
        participant.timers.append(asyncio.get_running_loop().call_later(settings.overlap, old.close))
