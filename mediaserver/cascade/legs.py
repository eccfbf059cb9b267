"""Carries out what a route table wants of mediasoup: pipe consumers and piped producers of one router.

Operations on one producer run one after another, in the order in which the table asked for them. Closing
is done at once, since it cannot fail; an operation that is overtaken by it closes what it has made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from mediaserver.cascade.messages import RouterName
from mediaserver.cascade.routes import Effect, Leg, Produce, RouteTable
from mediaserver.mediasoup import (
    AppData,
    CloseReason,
    Consumer,
    MediasoupError,
    PipeTransport,
    Producer,
    ProducerId,
    Router,
)

log = structlog.get_logger(__name__)

KEY_FRAME_REQUEST_DELAY_MS = 500
"""Of piped producers: key frame requests of a large audience are gathered for so long, after the first."""
OPERATION_SECONDS = 10.0
"""How long one operation may take; it counts as failed then."""

Operation = Callable[[], Awaitable[None]]


class InOrder:
    """Runs operations of one key one after another, those of different keys side by side."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Operation]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, key: str, operation: Operation) -> None:
        """Run ``operation`` after the earlier ones of ``key``; it handles its own errors."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(operation)
            return
        self._waiting[key] = deque((operation,))
        task = asyncio.create_task(self._run(key), name=f"piping {key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel what runs and forget what waits."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: str) -> None:
        waiting = self._waiting[key]
        try:
            while waiting:
                try:
                    await waiting[0]()
                except Exception:  # a bug in one operation must not stop the ones after it
                    log.exception("an operation on a producer failed unexpectedly", producer=key)
                waiting.popleft()
        finally:
            del self._waiting[key]


class Legs:
    """The pipe consumers and piped producers of one router. ``apply`` takes what the table answers."""

    def __init__(
        self,
        *,
        table: RouteTable,
        router: Router,
        pipe: Callable[[RouterName], PipeTransport | None],
        apply: Callable[[list[Effect]], None],
        app_data: Callable[[str], AppData],
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._router = router
        self._pipe = pipe
        self._apply = apply
        self._app_data = app_data
        self._clock = clock
        self._order = InOrder()
        self._consumers: dict[Leg, Consumer] = {}
        self._producers: dict[Leg, Producer] = {}
        self._closed = False

    async def close(self) -> None:
        """End what runs. The objects end with their router."""
        self._closed = True
        await self._order.close()
        self._consumers.clear()
        self._producers.clear()

    def resync(self, link: RouterName) -> None:
        """Tell the far end again which of the producers it gets are paused: what was said may be lost."""
        for leg, consumer in list(self._consumers.items()):
            if leg.link == link:
                self._apply(self._table.serve_paused(leg, consumer.producer_paused))

    # -- at the end nearer the origin --

    def serve(self, leg: Leg) -> None:
        self._order.submit(leg.producer, lambda: self._serve(leg))

    def unserve(self, leg: Leg) -> None:
        consumer = self._consumers.pop(leg, None)
        # One whose producer has closed is closed by the worker, which would complain of our doing it too.
        if consumer is not None and leg.producer in self._router.producers:
            consumer.close()

    def flow(self, leg: Leg) -> None:
        self._order.submit(leg.producer, lambda: self._flow(leg))

    async def _serve(self, leg: Leg) -> None:
        if not self._serves(leg):
            return
        pipe = self._pipe(leg.link)
        if pipe is None:
            return  # the link is going down: the table hears of it
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                consumer = await pipe.consume(producer_id=ProducerId(leg.producer), paused=True)
        except (MediasoupError, TimeoutError) as error:
            self._apply(self._table.serve_failed(leg, _words(error), self._clock()))
            return
        if not self._serves(leg):
            consumer.close()
            return
        self._consumers[leg] = consumer
        consumer.on_producer_pause.subscribe(lambda _: self._tell_paused(leg, True))
        consumer.on_producer_resume.subscribe(lambda _: self._tell_paused(leg, False))
        consumer.on_close.subscribe(lambda reason: self._consumer_closed(leg, reason))
        if consumer.closed:
            self._consumer_closed(leg, consumer.close_reason)
            return
        self._apply(self._table.served(leg, consumer.kind, consumer.rtp_parameters, consumer.producer_paused))

    async def _flow(self, leg: Leg) -> None:
        consumer = self._consumers.get(leg)
        if consumer is None or not consumer.paused:
            return
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                await consumer.resume()
        except (MediasoupError, TimeoutError) as error:
            self._consumers.pop(leg, None)
            consumer.close()
            self._apply(self._table.serve_failed(leg, _words(error), self._clock()))

    def _tell_paused(self, leg: Leg, paused: bool) -> None:
        if leg in self._consumers:
            self._apply(self._table.serve_paused(leg, paused))

    def _consumer_closed(self, leg: Leg, reason: CloseReason | None) -> None:
        if self._consumers.pop(leg, None) is None or self._closed:
            return
        # The end of a pipe or of the producer is heard of as such; anything else is a failure of this leg.
        if reason is CloseReason.PRODUCER_CLOSED:
            self._apply(self._table.serve_failed(leg, "the producer has closed", self._clock()))

    # -- at the far end --

    def produce(self, effect: Produce) -> None:
        self._order.submit(effect.leg.producer, lambda: self._produce(effect))

    def unproduce(self, leg: Leg) -> None:
        producer = self._producers.pop(leg, None)
        if producer is not None:
            producer.close()

    def mirror(self, leg: Leg, paused: bool) -> None:
        self._order.submit(leg.producer, lambda: self._mirror(leg, paused))

    async def _produce(self, effect: Produce) -> None:
        leg = effect.leg
        if not self._produces(leg):
            return
        pipe = self._pipe(leg.link)
        if pipe is None:
            return
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                producer = await pipe.produce(
                    id=ProducerId(leg.producer),
                    kind=effect.kind,
                    rtp_parameters=effect.rtp_parameters,
                    paused=effect.paused,
                    key_frame_request_delay=KEY_FRAME_REQUEST_DELAY_MS,
                    app_data=self._app_data(leg.producer),
                )
        except (MediasoupError, TimeoutError) as error:
            self._apply(self._table.produce_failed(leg, _words(error), self._clock()))
            return
        if producer.closed or not self._produces(leg):
            producer.close()
            return
        self._producers[leg] = producer
        self._apply(self._table.produced(leg, self._clock()))

    async def _mirror(self, leg: Leg, paused: bool) -> None:
        producer = self._producers.get(leg)
        if producer is None or producer.paused == paused:
            return
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                await (producer.pause() if paused else producer.resume())
        except (MediasoupError, TimeoutError) as error:
            self.unproduce(leg)
            self._apply(self._table.produce_failed(leg, _words(error), self._clock()))

    def _serves(self, leg: Leg) -> bool:
        return not self._closed and self._table.serves(leg)

    def _produces(self, leg: Leg) -> bool:
        return not self._closed and self._table.produces(leg)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
