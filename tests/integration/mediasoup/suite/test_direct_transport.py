"""Cases of test-DirectTransport.js: messages between this process and a router."""

from __future__ import annotations

import asyncio

import pytest
from support.mediasoup_suite import case, counters, refused, seen, soon, until

from mediaserver.mediasoup import CloseReason, DataMessage, DirectTransport, Router, Worker


@pytest.fixture
async def router(worker: Worker) -> Router:
    return await worker.create_router()


@pytest.fixture
async def transport(router: Router) -> DirectTransport:
    return await router.create_direct_transport()


@case("test-DirectTransport", "router.createDirectTransport() succeeds")
async def test_create(router: Router) -> None:
    made = seen(router.observer.on_new_transport)
    transport = await router.create_direct_transport(
        max_send_message_size=1_024, max_receive_message_size=2_048, app_data={"n": 1}
    )
    assert (await router.dump()).transport_ids == [transport.id]
    assert made == [transport]
    assert (transport.type, transport.closed, transport.app_data) == ("direct", False, {"n": 1})
    dump = await transport.dump()
    assert dump.id == transport.id
    assert (dump.producer_ids, dump.consumer_ids) == ([], [])
    assert (dump.data_producer_ids, dump.data_consumer_ids) == ([], [])
    assert (dump.max_send_message_size, dump.max_receive_message_size) == (1_024, 2_048)
    assert dump.rtp_listener.ssrc_table == {}
    assert dump.recv_rtp_header_extensions.mid is None
    transport.close()
    assert transport.closed


@case("test-DirectTransport", "directTransport.getStats() succeeds")
async def test_get_stats(transport: DirectTransport) -> None:
    stats = await transport.get_stats()
    assert (stats.type, stats.transport_id) == ("direct-transport", transport.id)
    assert stats.timestamp > 0
    assert set(counters(stats).values()) == {0}


@case("test-DirectTransport", "directTransport.connect() succeeds")
async def test_connect(transport: DirectTransport) -> None:
    await transport.connect()


@case("test-DirectTransport", "dataProducer.send() succeeds")
async def test_send(transport: DirectTransport) -> None:
    producer = await transport.produce_data(label="news", protocol="text")
    consumer = await transport.consume_data(data_producer_id=producer.id)
    got = seen(consumer.on_message)
    sent_bytes, expected = 0, []
    switches = {10: producer.pause, 20: producer.resume, 40: consumer.pause, 60: consumer.resume}
    for number in range(1, 201):
        if number in switches:
            await switches[number]()
        text = str(number)
        producer.send(text if number < 100 else text.encode())
        sent_bytes += len(text)
        if not producer.paused and not consumer.paused:
            expected.append(DataMessage(text.encode(), 51 if number < 100 else 53))
    await until(lambda: got and got[-1] == expected[-1], "the last message")
    assert len(expected) == 200 - 10 - 20
    assert got == expected
    of_producer, of_consumer = await producer.get_stats(), await consumer.get_stats()
    assert (of_producer.type, of_producer.label, of_producer.protocol) == ("data-producer", "news", "text")
    assert (of_producer.messages_received, of_producer.bytes_received) == (200, sent_bytes)
    assert (of_consumer.type, of_consumer.label, of_consumer.protocol) == ("data-consumer", "news", "text")
    assert of_consumer.messages_sent == len(expected)
    assert of_consumer.bytes_sent == sum(len(message.data) for message in expected)


@case("test-DirectTransport", "dataProducer.send() with subchannels succeeds")
async def test_send_subchannels(transport: DirectTransport) -> None:
    producer = await transport.produce_data()
    first = await transport.consume_data(data_producer_id=producer.id, subchannels=[1, 11, 666])
    second = await transport.consume_data(data_producer_id=producer.id, subchannels=[2, 22, 666])
    got_first, got_second = seen(first.on_message), seen(second.on_message)
    producer.send("both 1")
    producer.send("both 2", subchannels=[1, 2])
    producer.send("both 3", subchannels=[11, 22, 33], required_subchannel=666)
    producer.send("none 4", subchannels=[3], required_subchannel=666)
    producer.send("none 5", subchannels=[666], required_subchannel=3)
    producer.send("first 6", subchannels=[1])
    producer.send("first 7", subchannels=[11], required_subchannel=1)
    producer.send("first 8", subchannels=[666], required_subchannel=11)
    producer.send("second 9", subchannels=[666], required_subchannel=2)
    # Sent in order with the messages, so nobody needs to wait for the answer.
    change = asyncio.ensure_future(second.set_subchannels([*second.subchannels, 1]))
    await asyncio.sleep(0)
    producer.send("both 10", subchannels=[1], required_subchannel=666)
    await change
    await until(
        lambda: all(got and got[-1].data == b"both 10" for got in (got_first, got_second)), "the last message"
    )
    assert [message.data.decode().split()[1] for message in got_first] == ["1", "2", "3", "6", "7", "8", "10"]
    assert [message.data.decode().split()[1] for message in got_second] == ["1", "2", "3", "9", "10"]


@case("test-DirectTransport", "DirectTransport methods reject if closed")
async def test_closed(transport: DirectTransport) -> None:
    closes = seen(transport.observer.on_close)
    transport.close()
    assert closes == [CloseReason.CLOSED]
    assert transport.closed
    await refused(CloseReason.CLOSED, transport.dump(), transport.get_stats(), transport.connect())


@case("test-DirectTransport", 'DirectTransport emits "routerclose" if Router is closed')
async def test_router_close(router: Router, transport: DirectTransport) -> None:
    closes, told = seen(transport.observer.on_close), soon(transport.on_router_close)
    router.close()
    assert await told is CloseReason.ROUTER_CLOSED
    assert len(closes) == 1
    await refused(CloseReason.ROUTER_CLOSED, transport.get_stats())


@case("test-DirectTransport", 'DirectTransport emits "routerclose" if Worker is closed')
async def test_worker_close(worker: Worker, transport: DirectTransport) -> None:
    closes, told = seen(transport.observer.on_close), soon(transport.on_router_close)
    worker.close()
    assert await told is CloseReason.WORKER_CLOSED
    assert len(closes) == 1
    await refused(CloseReason.WORKER_CLOSED, transport.get_stats())
