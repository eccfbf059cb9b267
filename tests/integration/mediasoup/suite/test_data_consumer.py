"""Cases of test-DataConsumer.js: messages that leave a router."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from support.mediasoup_suite import LISTEN, case, refused, rejected, seen, soon, until

from mediaserver.mediasoup import (
    CloseReason,
    DataConsumer,
    DataProducer,
    DataProducerId,
    DirectTransport,
    InvalidArgumentError,
    NotFoundError,
    RequestRejectedError,
    Router,
    SctpStreamParameters,
    WebRtcTransport,
    Worker,
)


class Room(msgspec.Struct):
    """A router with a data producer over SCTP and one of this process, and a transport that receives."""

    router: Router
    receiving: WebRtcTransport
    direct: DirectTransport
    sctp_producer: DataProducer
    direct_producer: DataProducer

    async def consume(self, **options: Any) -> DataConsumer:
        return await self.receiving.consume_data(data_producer_id=self.sctp_producer.id, **options)


@pytest.fixture
async def room(worker: Worker) -> Room:
    router = await worker.create_router()
    sending = await router.create_webrtc_transport(listen_infos=[LISTEN], enable_sctp=True)
    receiving = await router.create_webrtc_transport(listen_infos=[LISTEN], enable_sctp=True)
    direct = await router.create_direct_transport()
    stream = SctpStreamParameters(stream_id=12_345, ordered=False, max_packet_life_time=5_000)
    sctp_producer = await sending.produce_data(sctp_stream_parameters=stream, label="news", protocol="text")
    return Room(router, receiving, direct, sctp_producer, await direct.produce_data())


async def check_listed(room: Room, producer: DataProducer, consumer: DataConsumer) -> None:
    dump = await room.router.dump()
    assert dump.map_data_producer_id_data_consumer_ids[producer.id] == [consumer.id]
    assert dump.map_data_consumer_id_data_producer_id == {consumer.id: producer.id}
    inside = await room.receiving.dump()
    assert (inside.id, inside.data_producer_ids, inside.data_consumer_ids) == (
        room.receiving.id,
        [],
        [consumer.id],
    )


@case("test-DataConsumer", "transport.consumeData() succeeds")
async def test_consume(room: Room) -> None:
    made = seen(room.receiving.observer.on_new_data_consumer)
    # Unlike Node's, which drops them, ours refuses subchannels that can't be.
    await rejected(InvalidArgumentError, room.consume(subchannels=[0, 65_536]))
    consumer = await room.consume(
        max_packet_life_time=4_000, subchannels=[0, 1, 1, 1, 2, 65_535, 100], app_data={"n": 1}
    )
    assert made == [consumer]
    assert (consumer.data_producer_id, consumer.closed, consumer.type) == (
        room.sctp_producer.id,
        False,
        "sctp",
    )
    stream = consumer.sctp_stream_parameters
    assert stream is not None
    assert (stream.ordered, stream.max_packet_life_time, stream.max_retransmits) == (False, 4_000, None)
    assert (consumer.label, consumer.protocol, consumer.paused) == ("news", "text", False)
    assert sorted(consumer.subchannels) == [0, 1, 2, 100, 65_535]
    assert consumer.app_data == {"n": 1}
    await check_listed(room, room.sctp_producer, consumer)


@case("test-DataConsumer", "transport.consumeData() with unknown dataProducerId fails")
async def test_consume_unknown(room: Room) -> None:
    nobody = DataProducerId("nobody")
    await rejected(NotFoundError, room.receiving.consume_data(data_producer_id=nobody))


@case("test-DataConsumer", "dataConsumer.dump() succeeds")
async def test_dump(room: Room) -> None:
    consumer = await room.consume(ordered=True, subchannels=[0, 1, 1, 2, 65_535, 100])
    dump = await consumer.dump()
    assert (dump.id, dump.data_producer_id, dump.type) == (consumer.id, room.sctp_producer.id, "sctp")
    assert consumer.sctp_stream_parameters is not None
    assert dump.sctp_stream_parameters == SctpStreamParameters(
        stream_id=consumer.sctp_stream_parameters.stream_id, ordered=True
    )
    assert (dump.label, dump.protocol) == ("news", "text")
    assert (dump.paused, dump.data_producer_paused) == (False, False)
    assert sorted(dump.subchannels) == [0, 1, 2, 100, 65_535]
    assert (dump.buffered_amount, dump.buffered_amount_low_threshold) == (0, 1_024)


@case("test-DataConsumer", "dataConsumer.getStats() succeeds")
async def test_get_stats(room: Room) -> None:
    stats = await (await room.consume()).get_stats()
    assert (stats.type, stats.label, stats.protocol) == ("data-consumer", "news", "text")
    assert (stats.messages_sent, stats.bytes_sent) == (0, 0)


@case("test-DataConsumer", "dataConsumer.setSubchannels() succeeds")
async def test_set_subchannels(room: Room) -> None:
    consumer = await room.consume()
    await consumer.set_subchannels([999, 999, 998, 0])
    assert sorted(consumer.subchannels) == [0, 998, 999]
    await rejected(InvalidArgumentError, consumer.set_subchannels([65_536]))


@case("test-DataConsumer", "dataConsumer.addSubchannel() and .removeSubchannel() succeed")
async def test_add_and_remove_subchannel(room: Room) -> None:
    consumer = await room.consume()
    await consumer.set_subchannels([])
    assert consumer.subchannels == []
    for change, number, after in (
        (consumer.add_subchannel, 5, [5]),
        (consumer.add_subchannel, 10, [5, 10]),
        (consumer.add_subchannel, 5, [5, 10]),
        (consumer.remove_subchannel, 666, [5, 10]),
        (consumer.remove_subchannel, 5, [10]),
    ):
        await change(number)
        assert sorted(consumer.subchannels) == after
    await consumer.set_subchannels([])
    assert consumer.subchannels == []


@case("test-DataConsumer", "transport.consumeData() from a direct DataProducer succeeds")
async def test_consume_direct_producer(room: Room) -> None:
    made = seen(room.receiving.observer.on_new_data_consumer)
    consumer = await room.receiving.consume_data(data_producer_id=room.direct_producer.id)
    assert made == [consumer]
    assert (consumer.data_producer_id, consumer.closed, consumer.type) == (
        room.direct_producer.id,
        False,
        "sctp",
    )
    stream = consumer.sctp_stream_parameters
    assert stream is not None
    assert (stream.ordered, stream.max_packet_life_time, stream.max_retransmits) == (True, None, None)
    assert (consumer.label, consumer.protocol, consumer.paused) == ("", "", False)
    assert (consumer.subchannels, consumer.app_data) == ([], {})
    await check_listed(room, room.direct_producer, consumer)


@case("test-DataConsumer", "dataConsumer.dump() consuming from a direct DataProducer succeeds")
async def test_dump_direct_producer(room: Room) -> None:
    consumer = await room.receiving.consume_data(
        data_producer_id=room.direct_producer.id, ordered=False, max_retransmits=2, subchannels=[0, 1]
    )
    dump = await consumer.dump()
    assert (dump.id, dump.data_producer_id, dump.type) == (consumer.id, room.direct_producer.id, "sctp")
    assert consumer.sctp_stream_parameters is not None
    assert dump.sctp_stream_parameters == SctpStreamParameters(
        stream_id=consumer.sctp_stream_parameters.stream_id, ordered=False, max_retransmits=2
    )
    assert (dump.label, dump.protocol, dump.paused, dump.data_producer_paused) == ("", "", False, False)
    assert sorted(dump.subchannels) == [0, 1]


@case("test-DataConsumer", "transport.consumeData() on a DirectTransport succeeds")
async def test_consume_on_direct(room: Room) -> None:
    made = seen(room.direct.observer.on_new_data_consumer)
    consumer = await room.direct.consume_data(
        data_producer_id=room.sctp_producer.id, paused=True, app_data={"n": 2}
    )
    assert made == [consumer]
    assert (consumer.data_producer_id, consumer.closed) == (room.sctp_producer.id, False)
    assert (consumer.type, consumer.sctp_stream_parameters) == ("direct", None)
    assert (consumer.label, consumer.protocol, consumer.paused) == ("news", "text", True)
    assert consumer.app_data == {"n": 2}
    dump = await room.direct.dump()
    assert (dump.id, dump.data_producer_ids, dump.data_consumer_ids) == (
        room.direct.id,
        [room.direct_producer.id],
        [consumer.id],
    )


@case("test-DataConsumer", "dataConsumer.dump() on a DirectTransport succeeds")
async def test_dump_on_direct(room: Room) -> None:
    consumer = await room.direct.consume_data(data_producer_id=room.sctp_producer.id, paused=True)
    dump = await consumer.dump()
    assert (dump.id, dump.data_producer_id) == (consumer.id, room.sctp_producer.id)
    assert (dump.type, dump.sctp_stream_parameters) == ("direct", None)
    assert (dump.label, dump.protocol, dump.paused, dump.subchannels) == ("news", "text", True, [])


@case("test-DataConsumer", "dataConsumer.getStats() on a DirectTransport succeeds")
async def test_get_stats_on_direct(room: Room) -> None:
    consumer = await room.direct.consume_data(data_producer_id=room.sctp_producer.id)
    stats = await consumer.get_stats()
    assert (stats.type, stats.label, stats.protocol) == ("data-consumer", "news", "text")
    assert (stats.messages_sent, stats.bytes_sent) == (0, 0)


@case("test-DataConsumer", "dataConsumer.send() on a DirectTransport rejects with TypeError")
async def test_send_on_direct(room: Room) -> None:
    consumer = await room.direct.consume_data(data_producer_id=room.sctp_producer.id)
    await rejected(RequestRejectedError, consumer.send("hello"))


@case("test-DataConsumer", "dataConsumer.pause() and resume() succeed")
async def test_pause_and_resume(room: Room) -> None:
    consumer = await room.consume()
    pauses, resumes = seen(consumer.observer.on_pause), seen(consumer.observer.on_resume)
    await consumer.pause()
    assert (consumer.paused, (await consumer.dump()).paused) == (True, True)
    await consumer.resume()
    assert (consumer.paused, (await consumer.dump()).paused) == (False, False)
    p, r = consumer.pause, consumer.resume
    await asyncio.gather(p(), r(), p(), p(), p(), r())
    assert (len(pauses), len(resumes)) == (3, 3)


@case("test-DataConsumer", "dataProducer.pause() and resume() emit events")
async def test_producer_pause_events(room: Room) -> None:
    consumer = await room.consume()
    events: list[str] = []
    consumer.observer.on_resume.subscribe(lambda _: events.append("resume"))
    consumer.observer.on_pause.subscribe(lambda _: events.append("pause"))
    await asyncio.gather(room.sctp_producer.pause(), room.sctp_producer.resume())
    await until(lambda: len(events) == 2, "both events")
    assert events == ["pause", "resume"]
    assert not consumer.paused


@case("test-DataConsumer", "dataConsumer.close() succeeds")
async def test_close(room: Room) -> None:
    consumer = await room.consume()
    closes = seen(consumer.observer.on_close)
    consumer.close()
    assert closes == [CloseReason.CLOSED]
    assert consumer.closed
    await refused(CloseReason.CLOSED, consumer.dump())
    dump = await room.router.dump()
    assert dump.map_data_producer_id_data_consumer_ids[room.sctp_producer.id] == []
    assert dump.map_data_consumer_id_data_producer_id == {}
    inside = await room.receiving.dump()
    assert (inside.id, inside.data_producer_ids, inside.data_consumer_ids) == (room.receiving.id, [], [])


@case("test-DataConsumer", "Consumer methods reject if closed")
async def test_closed(room: Room) -> None:
    consumer = await room.consume()
    consumer.close()
    await refused(CloseReason.CLOSED, consumer.dump(), consumer.get_stats(), consumer.send("hello"))


@case("test-DataConsumer", 'DataConsumer emits "dataproducerclose" if DataProducer is closed')
async def test_producer_close(room: Room) -> None:
    consumer = await room.consume()
    closes, told = seen(consumer.observer.on_close), soon(consumer.on_data_producer_close)
    room.sctp_producer.close()
    await told
    assert closes == [CloseReason.PRODUCER_CLOSED]
    await refused(CloseReason.PRODUCER_CLOSED, consumer.dump())


@case("test-DataConsumer", 'DataConsumer emits "transportclose" if Transport is closed')
async def test_transport_close(room: Room) -> None:
    consumer = await room.consume()
    closes, told = seen(consumer.observer.on_close), soon(consumer.on_transport_close)
    room.receiving.close()
    assert await told is CloseReason.TRANSPORT_CLOSED
    assert len(closes) == 1
    await refused(CloseReason.TRANSPORT_CLOSED, consumer.dump())
    dump = await room.router.dump()
    assert dump.map_data_producer_id_data_consumer_ids == {
        room.sctp_producer.id: [],
        room.direct_producer.id: [],
    }
    assert dump.map_data_consumer_id_data_producer_id == {}
