"""DirectTransport: media and messages from this process to itself, through a real worker."""

from __future__ import annotations

import asyncio
import struct

import pytest
from integration.mediasoup.rtp import (
    DEADLINE,
    Packet,
    audio_parameters,
    next_value,
    until,
    video_parameters,
    vp8,
)
from msgspec.structs import replace

from mediaserver.mediasoup import (
    ClosedError,
    DataMessage,
    DataProducer,
    DirectTransport,
    InvalidArgumentError,
    KeyFrameRequestTraceInfo,
    NotFoundError,
    Producer,
    RequestRejectedError,
    Router,
    RtpHeaderExtensionParameters,
    SctpStreamParameters,
    SrTraceInfo,
    UnsupportedError,
)


@pytest.fixture
async def direct(router: Router) -> DirectTransport:
    return await router.create_direct_transport()


async def test_what_it_is(router: Router) -> None:
    transport = await router.create_direct_transport(
        max_send_message_size=1024, max_receive_message_size=2048, app_data={"a": 1}
    )
    assert transport.type == "direct"
    assert transport.app_data == {"a": 1}
    dump = await transport.dump()
    assert dump.id == transport.id
    assert (dump.max_send_message_size, dump.max_receive_message_size) == (1024, 2048)
    assert not dump.producer_ids
    assert not dump.consumer_ids
    assert not dump.data_producer_ids
    assert not dump.data_consumer_ids
    stats = await transport.get_stats()
    assert (stats.type, stats.transport_id, stats.bytes_received) == ("direct-transport", transport.id, 0)
    await transport.connect()
    assert router.transports == [transport]
    transport.close()
    with pytest.raises(ClosedError):
        await transport.connect()


async def test_it_has_no_bitrate_limits(direct: DirectTransport) -> None:
    for limit in (
        direct.set_max_incoming_bitrate,
        direct.set_max_outgoing_bitrate,
        direct.set_min_outgoing_bitrate,
    ):
        with pytest.raises(UnsupportedError, match="no bitrate limits"):
            await limit(200_000)


async def test_rtp_goes_through_and_rtcp_comes_back(router: Router, direct: DirectTransport) -> None:
    producer = await direct.produce(kind="video", rtp_parameters=video_parameters(1111))
    consumer = await direct.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    got: list[Packet] = []
    rtcp: list[bytes] = []
    consumer.on_rtp.subscribe(lambda data: got.append(Packet.decode(data)))
    direct.on_rtcp.subscribe(rtcp.append)
    for number in range(1, 21):
        producer.send(Packet(96, number, number * 3000, 1111, vp8(number)).encode())
    await until(lambda: len(got) == 20, "20 packets")
    assert [packet.payload for packet in got] == [vp8(number) for number in range(1, 21)]
    assert {packet.ssrc for packet in got} == {consumer.rtp_parameters.encodings[0].ssrc}
    await consumer.request_key_frame()
    await until(lambda: any(data[1] == 206 for data in rtcp), "a key frame request as RTCP")
    stats = await direct.get_stats()
    assert stats.rtp_bytes_received > 0
    assert stats.rtp_bytes_sent > 0


async def test_rtcp_that_is_sent_is_read(router: Router, direct: DirectTransport) -> None:
    producer = await direct.produce(kind="audio", rtp_parameters=audio_parameters(2222))
    await producer.enable_trace_event(["sr"])
    producer.send(Packet(111, 1, 960, 2222, b"abcd").encode())
    trace = asyncio.ensure_future(next_value(producer.on_trace))
    await asyncio.sleep(0)
    direct.send_rtcp(struct.pack("!BBHIIIIII", 0x80, 200, 6, 2222, 7, 8, 960, 1, 4))
    assert (await trace).info == SrTraceInfo(
        ssrc=2222, ntp_sec=7, ntp_frac=8, rtp_ts=960, packet_count=1, octet_count=4
    )
    assert (await trace).direction == "in"


async def test_what_is_too_large_or_too_late_is_refused(direct: DirectTransport) -> None:
    producer = await direct.produce(kind="audio", rtp_parameters=audio_parameters(3333))
    with pytest.raises(InvalidArgumentError, match="too many"):
        producer.send(bytes(9_000_000))
    with pytest.raises(InvalidArgumentError, match="too many"):
        direct.send_rtcp(bytes(9_000_000))
    direct.close()
    with pytest.raises(ClosedError):
        producer.send(b"x")
    with pytest.raises(ClosedError):
        direct.send_rtcp(b"x")


async def collect(producer: DataProducer, transport: DirectTransport, **options: object) -> list[DataMessage]:
    consumer = await transport.consume_data(data_producer_id=producer.id, **options)  # type: ignore[arg-type]
    got: list[DataMessage] = []
    consumer.on_message.subscribe(got.append)
    return got


async def test_messages_arrive_in_order_as_what_they_are(direct: DirectTransport) -> None:
    producer = await direct.produce_data(label="chat", protocol="v1", app_data={"b": 2})
    assert (producer.type, producer.label, producer.protocol) == ("direct", "chat", "v1")
    assert producer.sctp_stream_parameters is None
    assert producer.app_data == {"b": 2}
    consumer = await direct.consume_data(data_producer_id=producer.id)
    assert (consumer.type, consumer.label, consumer.protocol) == ("direct", "chat", "v1")
    assert consumer.data_producer_id == producer.id
    got: list[DataMessage] = []
    consumer.on_message.subscribe(got.append)
    producer.send("text ✓")
    producer.send(b"bytes")
    producer.send("")
    producer.send(b"")
    producer.send(b"own", 1234)
    await until(lambda: len(got) == 5, "five messages")
    assert got == [
        DataMessage("text ✓".encode(), 51),
        DataMessage(b"bytes", 53),
        DataMessage(b" ", 56),
        DataMessage(b"\0", 57),
        DataMessage(b"own", 1234),
    ]
    sent, received = await consumer.get_stats(), await producer.get_stats()
    assert (sent.type, sent.messages_sent, sent.label) == ("data-consumer", 5, "chat")
    assert (received.type, received.messages_received, received.protocol) == ("data-producer", 5, "v1")
    assert sent.bytes_sent == received.bytes_received == sum(len(message.data) for message in got)


async def test_large_messages_and_many(direct: DirectTransport) -> None:
    producer = await direct.produce_data()
    got = await collect(producer, direct)
    for number in range(1000):
        producer.send(number.to_bytes(4, "big") * 64)
    producer.send(bytes(262_000))
    await until(lambda: len(got) == 1001, "all messages")
    assert [int.from_bytes(message.data[:4], "big") for message in got[:1000]] == list(range(1000))
    assert len(got[1000].data) == 262_000


async def test_a_message_over_the_limit_is_dropped(router: Router) -> None:
    small = await router.create_direct_transport(max_receive_message_size=10)
    producer = await small.produce_data()
    got = await collect(producer, small)
    producer.send(bytes(11))
    producer.send(bytes(10))
    await until(lambda: got, "a message")
    assert got == [DataMessage(bytes(10), 53)]


async def test_subchannels_say_who_gets_a_message(direct: DirectTransport) -> None:
    producer = await direct.produce_data()
    everybody = await collect(producer, direct)
    one = await collect(producer, direct, subchannels=[1])
    both = await collect(producer, direct, subchannels=[1, 2])
    producer.send("all")
    producer.send("to 1", subchannels=[1])
    producer.send("to 2", subchannels=[2])
    producer.send("to 1 with 2", subchannels=[1], required_subchannel=2)
    producer.send("to 1 without 2", subchannels=[1], ignored_subchannel=2)
    producer.send("end")
    await until(lambda: all(x and x[-1].data == b"end" for x in (everybody, one, both)), "the end")
    assert [message.data for message in everybody] == [b"all", b"end"]
    assert [message.data for message in one] == [b"all", b"to 1", b"to 1 without 2", b"end"]
    assert [message.data for message in both] == [b"all", b"to 1", b"to 2", b"to 1 with 2", b"end"]


async def test_subchannels_are_changed(direct: DirectTransport) -> None:
    producer = await direct.produce_data()
    consumer = await direct.consume_data(data_producer_id=producer.id, subchannels=[2, 1, 1, 65_535])
    assert sorted(consumer.subchannels) == [1, 2, 65_535]
    await consumer.add_subchannel(7)
    await consumer.remove_subchannel(65_535)
    await consumer.remove_subchannel(500)
    assert sorted(consumer.subchannels) == [1, 2, 7]
    await consumer.set_subchannels([9, 8])
    assert sorted(consumer.subchannels) == sorted((await consumer.dump()).subchannels) == [8, 9]
    for wrong in (-1, 65_536):
        with pytest.raises(InvalidArgumentError, match="subchannel"):
            await consumer.add_subchannel(wrong)
        with pytest.raises(InvalidArgumentError, match="subchannel"):
            producer.send("x", subchannels=[wrong])


async def test_pausing_on_either_side_stops_messages(direct: DirectTransport) -> None:
    producer = await direct.produce_data(paused=True)
    consumer = await direct.consume_data(data_producer_id=producer.id, paused=True)
    assert producer.paused
    assert (consumer.paused, consumer.data_producer_paused) == (True, True)
    told: list[str] = []
    for name in ("on_pause", "on_resume", "on_data_producer_pause", "on_data_producer_resume"):
        getattr(consumer, name).subscribe(lambda _, name=name: told.append(name))
    got: list[DataMessage] = []
    consumer.on_message.subscribe(got.append)
    producer.send("lost: producer paused")
    await producer.resume()
    await until(lambda: not consumer.data_producer_paused, "the producer's resuming")
    producer.send("lost: consumer paused")
    await consumer.resume()
    producer.send("heard")
    await until(lambda: got, "a message")
    assert got[0].data == b"heard"
    await producer.pause()
    await until(lambda: consumer.data_producer_paused, "the producer's pausing")
    await consumer.pause()
    assert told == ["on_data_producer_resume", "on_resume", "on_data_producer_pause", "on_pause"]
    assert (await producer.dump()).paused
    assert (await consumer.dump()).data_producer_paused


async def test_closing_is_told_to_the_other_side(direct: DirectTransport, router: Router) -> None:
    other = await router.create_direct_transport()
    producer = await direct.produce_data()
    consumer = await other.consume_data(data_producer_id=producer.id)
    told: list[str] = []
    consumer.on_data_producer_close.subscribe(lambda _: told.append("data producer"))
    consumer.on_close.subscribe(lambda reason: told.append(reason.value))
    assert (direct.data_producers, other.data_consumers) == ([producer], [consumer])
    dump = await router.dump()
    assert dump.map_data_producer_id_data_consumer_ids == {producer.id: [consumer.id]}
    assert dump.map_data_consumer_id_data_producer_id == {consumer.id: producer.id}
    producer.close()
    await until(lambda: consumer.closed, "the consumer's end")
    assert told == ["data producer", "producer closed"]
    assert dict(router.data_producers) == {}
    assert (await other.dump()).data_consumer_ids == []
    with pytest.raises(NotFoundError, match="no data producer"):
        await other.consume_data(data_producer_id=producer.id)


async def test_closing_the_transport_closes_its_data(direct: DirectTransport) -> None:
    producer = await direct.produce_data()
    consumer = await direct.consume_data(data_producer_id=producer.id)
    told: list[str] = []
    producer.on_transport_close.subscribe(lambda _: told.append("producer"))
    consumer.on_transport_close.subscribe(lambda _: told.append("consumer"))
    direct.close()
    assert told == ["producer", "consumer"]
    assert producer.closed
    with pytest.raises(ClosedError):
        await consumer.get_stats()


async def test_sctp_is_not_for_direct_transports(
    direct: DirectTransport, caplog: pytest.LogCaptureFixture
) -> None:
    producer = await direct.produce_data(sctp_stream_parameters=SctpStreamParameters(stream_id=1))
    consumer = await direct.consume_data(data_producer_id=producer.id, ordered=False, max_retransmits=1)
    assert producer.sctp_stream_parameters is consumer.sctp_stream_parameters is None
    assert len([record for record in caplog.records if "ignores" in record.message]) == 2
    with pytest.raises(RequestRejectedError):
        await consumer.get_buffered_amount()
    with pytest.raises(RequestRejectedError):
        await consumer.set_buffered_amount_low_threshold(1)
    with pytest.raises(InvalidArgumentError, match="threshold"):
        await consumer.set_buffered_amount_low_threshold(-1)
    with pytest.raises(InvalidArgumentError, match="ppid"):
        producer.send("x", -1)
    with pytest.raises(InvalidArgumentError, match="already has"):
        await direct.produce_data(id=producer.id)


async def test_trace_events_of_producer_and_consumer(router: Router, direct: DirectTransport) -> None:
    producer = await direct.produce(kind="video", rtp_parameters=video_parameters(4444))
    consumer = await direct.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    await producer.enable_trace_event(["rtp", "keyframe", "pli"])
    await consumer.enable_trace_event(["rtp", "keyframe"])
    assert set((await producer.dump()).trace_event_types) == {"rtp", "keyframe", "pli"}
    assert set((await consumer.dump()).trace_event_types) == {"rtp", "keyframe"}
    of_producer: list[object] = []
    of_consumer: list[object] = []
    producer.on_trace.subscribe(lambda trace: of_producer.append((trace.type, trace.direction)))
    consumer.on_trace.subscribe(lambda trace: of_consumer.append((trace.type, trace.direction)))
    infos: list[object] = []
    producer.on_trace.subscribe(lambda trace: infos.append(trace.info))
    first = asyncio.ensure_future(next_value(producer.on_trace))
    await asyncio.sleep(0)
    producer.send(Packet(96, 1, 3000, 4444, vp8(1)).encode())
    producer.send(Packet(96, 2, 6000, 4444, vp8(2, key=False)).encode())
    await until(lambda: {("rtp", "in"), ("keyframe", "in")} <= set(of_producer), "the producer's traces")
    await until(lambda: {("rtp", "out"), ("keyframe", "out")} <= set(of_consumer), "the consumer's traces")
    trace = await first
    assert trace.timestamp > 0
    packet = trace.info.rtp_packet  # type: ignore[union-attr]
    assert (packet.ssrc, packet.payload_type, packet.sequence_number, packet.is_key_frame) == (
        4444,
        96,
        1,
        True,
    )
    await consumer.request_key_frame()
    await until(lambda: ("pli", "out") in of_producer, "the key frame request's trace")
    assert KeyFrameRequestTraceInfo(ssrc=4444) in infos
    await producer.enable_trace_event()
    await consumer.enable_trace_event([])
    assert (await producer.dump()).trace_event_types == []
    assert (await consumer.dump()).trace_event_types == []
    with pytest.raises(InvalidArgumentError, match="probation"):
        await producer.enable_trace_event(["probation"])  # type: ignore[list-item]


async def test_video_orientation_is_told(router: Router, direct: DirectTransport) -> None:
    uri = "urn:3gpp:video-orientation"
    assert uri in [extension.uri for extension in router.rtp_capabilities.header_extensions]
    params = video_parameters(5555)
    params = replace(params, header_extensions=[RtpHeaderExtensionParameters(uri=uri, id=4)])
    producer: Producer = await direct.produce(kind="video", rtp_parameters=params)
    change = asyncio.ensure_future(next_value(producer.on_video_orientation_change))
    await asyncio.sleep(0)
    head = struct.pack("!BBHII", 0x90, 96, 1, 3000, 5555)
    extension = struct.pack("!HHBBxx", 0xBEDE, 1, 0x40, 0b1101)  # back camera, flipped, 90 degrees
    producer.send(head + extension + vp8(1))
    orientation = await asyncio.wait_for(change, DEADLINE)
    assert (orientation.camera, orientation.flip, orientation.rotation) == (True, True, 90)
