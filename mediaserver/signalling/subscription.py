"""One participant's wish to receive one producer, for as long as both are in the session.

    attach (the producer reaches this router) ▸ consume, paused ▸ newConsumer ▸ the participant agrees
      ▸ resume ▸ until the consumer closes: with its producer (a pipe broke; wait for it to be restored, then
        consume again), or for good

The reference on the router's copy is held throughout, so that the cascade repairs what breaks on the way.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING

import structlog

from mediaserver.cascade.errors import CascadeError
from mediaserver.cascade.messages import ProducerInfo
from mediaserver.mediasoup import (
    CloseReason,
    Consumer,
    ConsumerLayers,
    ConsumerScore,
    MediasoupError,
    ProducerId,
)
from mediaserver.signalling.errors import Rejected, SignallingLost

if TYPE_CHECKING:
    from mediaserver.signalling.participant import Participant

log = structlog.get_logger(__name__)


_GONE_GRACE = 2.0
"""Seconds for a consumer to close with its producer, once that has left the session."""


class _Outcome(enum.Enum):
    OVER = enum.auto()
    """The participant does not want it, can't have it, or leaves."""
    FAILED = enum.auto()
    """Worth another try."""
    BROKEN = enum.auto()
    """It was received until its producer closed; the cascade may restore that."""


class Subscription:
    """Makes, watches and frees the consumers of one producer for one participant. `end` it in the end."""

    def __init__(self, participant: Participant, producer: ProducerInfo) -> None:
        self.producer = producer
        self._participant = participant
        self._consumer: Consumer | None = None
        self._attached = False
        self._gone = False
        self._restored = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"subscription {producer.id}")

    @property
    def done(self) -> asyncio.Task[None]:
        """Ends once everything is freed."""
        return self._task

    def restored(self) -> None:
        """The producer is on this router again."""
        self._restored.set()

    def update(self, producer: ProducerInfo) -> None:
        """The origin describes the producer anew; its score is passed on (a pipe's own is always 10)."""
        changed = producer.score != self.producer.score
        self.producer = producer
        if changed and self._consumer is not None:
            self._tell_score(self._consumer.score)

    def gone(self) -> None:
        """The producer has left the session: its end closes the consumer, which is closed if that fails."""
        self._gone = True
        if self._consumer is None:
            self.end()
        else:
            timer = asyncio.get_running_loop().call_later(_GONE_GRACE, self.end)
            self._task.add_done_callback(lambda _: timer.cancel())

    def end(self) -> None:
        """Frees the consumer and the reference, soon."""
        self._task.cancel()

    async def _run(self) -> None:
        settings = self._participant.settings
        pause = settings.retry_pause
        try:
            while True:
                self._restored.clear()
                outcome = await self._serve()
                if outcome is _Outcome.OVER or self._gone:
                    return
                if outcome is _Outcome.BROKEN:
                    pause = settings.max_retry_pause
                try:
                    async with asyncio.timeout(pause):
                        await self._restored.wait()
                    pause = settings.retry_pause
                except TimeoutError:
                    pause = min(pause * 2, settings.max_retry_pause)
        finally:
            self._drop_consumer()
            if self._attached:
                self._participant.hosted.release(self.producer.id)

    async def _serve(self) -> _Outcome:
        participant = self._participant
        producer_id = self.producer.id
        try:
            if not self._attached:
                await participant.hosted.attach(producer_id, timeout=participant.settings.attach_timeout)
                self._attached = True
            async with participant.offers:
                offered = await self._offer()
        except (CascadeError, MediasoupError, SignallingLost) as error:
            log.info("producer not received", producer=producer_id, reason=str(error))
            self._drop_consumer()
            return _Outcome.OVER if participant.connection.closed else _Outcome.FAILED
        if offered is None:
            return _Outcome.OVER
        reason = await offered
        return _Outcome.BROKEN if reason is CloseReason.PRODUCER_CLOSED else _Outcome.OVER

    async def _offer(self) -> asyncio.Future[CloseReason] | None:
        """The future of the end of a consumer that the participant took; None when it took none.

        Raises MediasoupError, SignallingLost.
        """
        participant = self._participant
        capabilities, transport = participant.rtp_capabilities, participant.receiving_transport()
        if capabilities is None or transport is None:
            return None
        producer_id, router = ProducerId(self.producer.id), participant.hosted.router
        here = producer_id in router.producers  # if not, it has just closed, and consume says so
        if here and not router.can_consume(producer_id=producer_id, rtp_capabilities=capabilities):
            log.debug("participant has no codec for it", producer=self.producer.id)
            return None
        consumer = await transport.consume(
            producer_id=producer_id, rtp_capabilities=capabilities, paused=True, ignore_dtx=True
        )
        closed = self._watch(consumer)
        try:
            await participant.connection.request("newConsumer", self._description(consumer))
        except Rejected as error:
            log.info("participant does not want it", producer=self.producer.id, reason=error.reason)
            return None
        await consumer.resume()
        self._tell_score(consumer.score)
        return closed

    def _drop_consumer(self) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def _description(self, consumer: Consumer) -> dict[str, object]:
        return {
            "peerId": self.producer.peer_id,
            "producerId": consumer.producer_id,
            "id": consumer.id,
            "kind": consumer.kind,
            "rtpParameters": consumer.rtp_parameters,
            "type": consumer.type,
            "appData": self.producer.app_data,
            "producerPaused": consumer.producer_paused,
        }

    # -- the consumer's events -----------------------------------------------------------------------------

    def _watch(self, consumer: Consumer) -> asyncio.Future[CloseReason]:
        closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
        self._consumer = consumer
        self._participant.consumers[consumer.id] = consumer
        named = {"consumerId": consumer.id}

        def on_close(reason: CloseReason) -> None:
            self._participant.consumers.pop(consumer.id, None)
            self._consumer = None
            self._tell("consumerClosed", named)
            if not closed.done():
                closed.set_result(reason)

        consumer.on_close.subscribe(on_close)
        consumer.on_producer_pause.subscribe(lambda _: self._tell("consumerPaused", named))
        consumer.on_producer_resume.subscribe(lambda _: self._tell("consumerResumed", named))
        consumer.on_score.subscribe(self._tell_score)
        consumer.on_layers_change.subscribe(self._tell_layers)
        if consumer.closed:  # its producer closed while the worker's answer was on its way
            on_close(consumer.close_reason or CloseReason.CLOSED)
        return closed

    def _tell(self, method: str, data: object) -> None:
        self._participant.connection.notify(method, data)

    def _tell_layers(self, layers: ConsumerLayers | None) -> None:
        if self._consumer is None:
            return
        self._tell(
            "consumerLayersChanged",
            {
                "consumerId": self._consumer.id,
                "spatialLayer": None if layers is None else layers.spatial_layer,
                "temporalLayer": None if layers is None else layers.temporal_layer,
            },
        )

    def _tell_score(self, score: ConsumerScore) -> None:
        if self._consumer is None:
            return
        origin = self.producer.score
        if origin and self.producer.router != self._participant.hosted.entry.name:
            score = ConsumerScore(score=score.score, producer_score=max(origin), producer_scores=origin)
        self._tell("consumerScore", {"consumerId": self._consumer.id, "score": score})
