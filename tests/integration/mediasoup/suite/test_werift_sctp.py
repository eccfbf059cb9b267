"""Cases of test-werift-sctp.js: data channels with another's SCTP stack, here aiortc's, over plain UDP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest
from aiortc.rtcsctptransport import RTCSctpTransport
from support.mediasoup_suite import LISTEN, case, until

from mediaserver.mediasoup import (
    DataConsumer,
    DataProducer,
    PlainTransport,
    SctpStreamParameters,
    Worker,
)
from mediaserver.mediasoup.types import SctpNegotiatedCapabilities

STREAM = 123
TEXT, BINARY = 51, 53
ALL_STREAMS = SctpNegotiatedCapabilities(
    negotiated_max_outbound_streams=65_535, negotiated_max_inbound_streams=65_535
)


class Udp(asyncio.DatagramProtocol):
    """Stands in for the DTLS transport that aiortc's SCTP is made for."""

    state = "connected"
    _role = "client"

    def __init__(self) -> None:
        self.transport: asyncio.DatagramTransport
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue(10_000)
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._inbox.put_nowait(data)

    def _register_data_receiver(self, receiver: RTCSctpTransport) -> None:
        self._task = asyncio.ensure_future(self._deliver(receiver))

    def _unregister_data_receiver(self, receiver: RTCSctpTransport) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _deliver(self, receiver: RTCSctpTransport) -> None:
        while True:
            await receiver._handle_data(await self._inbox.get())

    async def _send_data(self, data: bytes) -> None:
        self.transport.sendto(data)


class Endpoint(RTCSctpTransport):
    """An SCTP endpoint that keeps what it gets: stream, payload protocol id, payload."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self.got: list[tuple[int, int, bytes]] = []

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        self.got.append((stream_id, pp_id, data))


class Link(msgspec.Struct):
    """A PlainTransport with an SCTP endpoint, which gets back what it sends."""

    transport: PlainTransport
    endpoint: Endpoint
    producer: DataProducer
    consumer: DataConsumer


@pytest.fixture
async def link(worker: Worker) -> AsyncIterator[Link]:
    router = await worker.create_router()
    transport = await router.create_plain_transport(listen_info=LISTEN, comedia=True, enable_sctp=True)
    _, udp = await asyncio.get_running_loop().create_datagram_endpoint(
        Udp, remote_addr=(transport.tuple.local_address, transport.tuple.local_port)
    )
    endpoint = Endpoint(udp)
    producer = await transport.produce_data(
        sctp_stream_parameters=SctpStreamParameters(stream_id=STREAM, ordered=True),
        label="sctp",
        protocol="smiles 😀😀",
    )
    consumer = await transport.consume_data(data_producer_id=producer.id)
    try:
        await endpoint.start(None, 5_000)
        await until(
            lambda: transport.sctp_state == "connected" and endpoint.state == "connected",
            "SCTP is up on both sides",
        )
        yield Link(transport, endpoint, producer, consumer)
    finally:
        await endpoint.stop()
        udp.transport.close()


@case("test-werift-sctp", "SCTP state is connected")
async def test_connected(link: Link) -> None:
    assert link.transport.sctp_state == "connected"
    await until(lambda: link.transport.sctp_negotiated_capabilities, "the negotiated streams")
    assert link.transport.sctp_negotiated_capabilities == ALL_STREAMS
    dump = await link.transport.dump()
    assert (dump.sctp_state, dump.sctp_negotiated_capabilities) == ("connected", ALL_STREAMS)


@case("test-werift-sctp", "ordered DataProducer delivers all SCTP messages to the DataConsumer")
async def test_all_delivered_in_order(link: Link) -> None:
    assert link.consumer.sctp_stream_parameters is not None
    assert link.consumer.sctp_stream_parameters.stream_id == 0  # the transport's first
    sent = [(TEXT if number < 100 else BINARY, str(number).encode()) for number in range(1, 201)]
    for ppid, data in sent:
        await link.endpoint._send(STREAM, ppid, data)
    await until(lambda: len(link.endpoint.got) == len(sent), "all messages come back")
    assert link.endpoint.got == [(0, ppid, data) for ppid, data in sent]
    size = sum(len(data) for _, data in sent)
    of_producer, of_consumer = await link.producer.get_stats(), await link.consumer.get_stats()
    assert (of_producer.type, of_producer.label, of_producer.protocol) == (
        "data-producer",
        "sctp",
        "smiles 😀😀",
    )
    assert (of_producer.messages_received, of_producer.bytes_received) == (200, size)
    assert (of_consumer.type, of_consumer.label, of_consumer.protocol) == (
        "data-consumer",
        "sctp",
        "smiles 😀😀",
    )
    assert (of_consumer.messages_sent, of_consumer.bytes_sent) == (200, size)
    assert await link.consumer.get_buffered_amount() == 0


@case("test-werift-sctp", "can send messages from the SCTP DataConsumer")
async def test_send_from_consumer(link: Link) -> None:
    assert await link.consumer.get_buffered_amount() == 0
    assert await link.consumer.send("hello") == 0
    await until(lambda: link.endpoint.got, "the message")
    assert link.endpoint.got == [(0, TEXT, b"hello")]
