"""Piping a producer or data producer from one router to another of this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .consumer import Consumer
from .data_consumer import DataConsumer
from .data_producer import DataProducer
from .errors import NotFoundError
from .node import Node, new_id
from .pipe_transport import PipeTransport
from .producer import Producer
from .types import DataProducerId, ProducerId, SctpOptions, TransportListenInfo

if TYPE_CHECKING:
    from .router import Router


class PipedProducer(msgspec.Struct, frozen=True):
    """A producer's way to another router: the consumer on this one's end, the producer on that one's."""

    pipe_consumer: Consumer
    pipe_producer: Producer


class PipedDataProducer(msgspec.Struct, frozen=True):
    """A data producer's way to another router."""

    pipe_data_consumer: DataConsumer
    pipe_data_producer: DataProducer


PipeToRouterResult: TypeAlias = PipedProducer | PipedDataProducer


class PipeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the pipe between two routers is made, if there is none yet."""

    listen_info: TransportListenInfo
    enable_rtx: bool
    enable_srtp: bool
    enable_sctp: bool
    sctp_options: SctpOptions | None


class PipePair(msgspec.Struct, frozen=True):
    """The two ends of the pipe between two routers."""

    here: PipeTransport
    there: PipeTransport


class Pipes:
    """A router's pipes to other routers: at most one to each, shared by calls from either side."""

    def __init__(self) -> None:
        self._tasks: dict[Router, asyncio.Task[PipePair]] = {}

    async def between(self, here: Router, there: Router, options: PipeOptions) -> PipePair:
        """The pipe, seen from `here`; made by the first who asks, for whom the others wait.

        If that one gives up waiting the pipe is made nevertheless. A failure is everybody's who waits, and
        whoever asks next tries again.
        """
        task = self._tasks.get(there)
        if task is None:
            task = asyncio.create_task(_connect_pair(here, there, options))
            self._tasks[there] = task
            there._pipes._tasks[here] = task
            task.add_done_callback(lambda done: _when_made(done, here, there))
        pair = await asyncio.shield(task)
        return pair if pair.here._router is here else PipePair(pair.there, pair.here)

    def forget(self, router: Router) -> None:
        self._tasks.pop(router, None)


def _when_made(task: asyncio.Task[PipePair], here: Router, there: Router) -> None:
    def forget(_: object) -> None:
        if here._pipes._tasks.get(there) is task:
            here._pipes.forget(there)
            there._pipes.forget(here)

    if task.cancelled() or task.exception() is not None:
        forget(None)
        return
    pair = task.result()
    pair.here.on_close.subscribe(forget)
    pair.here.on_close.subscribe(lambda _: pair.there.close())
    pair.there.on_close.subscribe(forget)
    pair.there.on_close.subscribe(lambda _: pair.here.close())
    if pair.here.closed or pair.there.closed:
        pair.here.close()
        pair.there.close()
        forget(None)


async def _connect_pair(here: Router, there: Router, options: PipeOptions) -> PipePair:
    made: list[PipeTransport] = []

    async def make(router: Router) -> PipeTransport:
        transport = await router.create_pipe_transport(
            listen_info=options.listen_info,
            enable_rtx=options.enable_rtx,
            enable_srtp=options.enable_srtp,
            enable_sctp=options.enable_sctp,
            sctp_options=options.sctp_options,
        )
        made.append(transport)
        return transport

    try:
        # Two in a row, not at once: a failure then leaves no other call behind.
        pair = PipePair(await make(here), await make(there))
        await _connect(pair.here, pair.there)
        await _connect(pair.there, pair.here)
    except BaseException:
        for transport in made:
            transport.close()
        raise
    return pair


async def _connect(transport: PipeTransport, to: PipeTransport) -> None:
    await transport.connect(
        ip=to.tuple.local_address, port=to.tuple.local_port, srtp_parameters=to.srtp_parameters
    )


async def pipe_producer(pair: PipePair, producer: Producer, *, keep_id: bool) -> PipedProducer:
    """Consumes here, produces there, and ties the two together."""
    consumer: Consumer | None = None
    copy: Producer | None = None
    try:
        consumer = await pair.here.consume(producer_id=producer.id)
        copy = await pair.there.produce(
            id=producer.id if keep_id else ProducerId(new_id()),
            kind=consumer.kind,
            rtp_parameters=consumer.rtp_parameters,
            paused=consumer.producer_paused,
            app_data=producer.app_data,
        )
        if producer.closed:
            raise NotFoundError(f"{producer!r} was closed while it was piped")
        if copy.paused != producer.paused:
            await (copy.pause() if producer.paused else copy.resume())
    except BaseException:
        _close(consumer, copy)
        raise
    _close_together(consumer, copy)
    consumer.on_pause.subscribe(lambda _: copy._set_paused(True))
    consumer.on_resume.subscribe(lambda _: copy._set_paused(False))
    return PipedProducer(consumer, copy)


async def pipe_data_producer(pair: PipePair, producer: DataProducer, *, keep_id: bool) -> PipedDataProducer:
    """Consumes here, produces there, and ties the two together."""
    consumer: DataConsumer | None = None
    copy: DataProducer | None = None
    try:
        consumer = await pair.here.consume_data(data_producer_id=producer.id)
        copy = await pair.there.produce_data(
            id=producer.id if keep_id else DataProducerId(new_id()),
            sctp_stream_parameters=consumer.sctp_stream_parameters,
            label=consumer.label,
            protocol=consumer.protocol,
            app_data=producer.app_data,
        )
        if producer.closed:
            raise NotFoundError(f"{producer!r} was closed while it was piped")
    except BaseException:
        _close(consumer, copy)
        raise
    _close_together(consumer, copy)
    return PipedDataProducer(consumer, copy)


def _close(*nodes: Node | None) -> None:
    for node in nodes:
        if node is not None:
            node.close()


def _close_together(one: Node, other: Node) -> None:
    one.on_close.subscribe(lambda _: other.close())
    other.on_close.subscribe(lambda _: one.close())
    if one.closed or other.closed:
        _close(one, other)
