"""Cases of test-DataProducer.js: messages that enter a router."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.mediasoup_suite import LISTEN, case, refused, rejected, seen, soon

from mediaserver.mediasoup import (
    CloseReason,
    DataProducer,
    InvalidArgumentError,
    RequestRejectedError,
    Router,
    SctpStreamParameters,
    WebRtcTransport,
    Worker,
)

RELIABLE = SctpStreamParameters(stream_id=666)
LOSSY = SctpStreamParameters(stream_id=777, max_retransmits=3)


@pytest.fixture
async def router(worker: Worker) -> Router:
    return await worker.create_router()


@pytest.fixture
async def transport(router: Router) -> WebRtcTransport:
    return await router.create_webrtc_transport(listen_infos=[LISTEN], enable_sctp=True)


async def produce(transport: WebRtcTransport, stream: SctpStreamParameters = RELIABLE) -> DataProducer:
    return await transport.produce_data(
        sctp_stream_parameters=stream,
        label="news",
        protocol="text",
        paused=stream is LOSSY,
        app_data={"n": 1},
    )


async def check_made(
    router: Router, transport: WebRtcTransport, stream: SctpStreamParameters
) -> DataProducer:
    made = seen(transport.observer.on_new_data_producer)
    producer = await produce(transport, stream)
    assert made == [producer]
    assert producer.id
    assert (producer.closed, producer.type, producer.label, producer.protocol) == (
        False,
        "sctp",
        "news",
        "text",
    )
    assert producer.app_data == {"n": 1}
    dump = await router.dump()
    assert dump.map_data_producer_id_data_consumer_ids == {producer.id: []}
    assert dump.map_data_consumer_id_data_producer_id == {}
    inside = await transport.dump()
    assert (inside.id, inside.data_producer_ids, inside.data_consumer_ids) == (
        transport.id,
        [producer.id],
        [],
    )
    return producer


@case("test-DataProducer", "webRtcTransport1.produceData() succeeds")
async def test_produce_reliable(router: Router, transport: WebRtcTransport) -> None:
    producer = await check_made(router, transport, RELIABLE)
    assert not producer.paused
    assert producer.sctp_stream_parameters == SctpStreamParameters(stream_id=666, ordered=True)


@case("test-DataProducer", "webRtcTransport2.produceData() succeeds")
async def test_produce_lossy(router: Router, transport: WebRtcTransport) -> None:
    producer = await check_made(router, transport, LOSSY)
    assert producer.paused
    assert producer.sctp_stream_parameters == SctpStreamParameters(
        stream_id=777, ordered=False, max_retransmits=3
    )


@case("test-DataProducer", "webRtcTransport1.produceData() with wrong arguments rejects with TypeError")
async def test_produce_wrong(transport: WebRtcTransport) -> None:
    await rejected(InvalidArgumentError, transport.produce_data())
    make: Any = SctpStreamParameters
    with pytest.raises(TypeError):
        make(chicken=1)
    for number in (-1, 65_536):
        stream = SctpStreamParameters(stream_id=number)
        await rejected(InvalidArgumentError, transport.produce_data(sctp_stream_parameters=stream))


@case("test-DataProducer", "transport.produceData() with already used streamId rejects with Error")
async def test_produce_twice(transport: WebRtcTransport) -> None:
    await produce(transport)
    await rejected(RequestRejectedError, produce(transport))


@case(
    "test-DataProducer",
    "transport.produceData() with ordered and maxPacketLifeTime rejects with TypeError",
)
async def test_produce_contradiction(transport: WebRtcTransport) -> None:
    for stream in (
        SctpStreamParameters(stream_id=999, ordered=True, max_packet_life_time=4_000),
        SctpStreamParameters(stream_id=999, ordered=True, max_retransmits=4),
    ):
        await rejected(InvalidArgumentError, produce(transport, stream))


@case("test-DataProducer", "dataProducer.dump() succeeds")
async def test_dump(transport: WebRtcTransport) -> None:
    for stream, ordered, retransmits in ((RELIABLE, True, None), (LOSSY, False, 3)):
        producer = await produce(transport, stream)
        dump = await producer.dump()
        assert (dump.id, dump.type, dump.label, dump.protocol) == (producer.id, "sctp", "news", "text")
        assert dump.sctp_stream_parameters == SctpStreamParameters(
            stream_id=stream.stream_id, ordered=ordered, max_retransmits=retransmits
        )
        assert dump.paused == (stream is LOSSY)


@case("test-DataProducer", "dataProducer.getStats() succeeds")
async def test_get_stats(transport: WebRtcTransport) -> None:
    for stream in (RELIABLE, LOSSY):
        stats = await (await produce(transport, stream)).get_stats()
        assert (stats.type, stats.label, stats.protocol) == ("data-producer", "news", "text")
        assert (stats.messages_received, stats.bytes_received) == (0, 0)


@case("test-DataProducer", "dataProducer.pause() and resume() succeed")
async def test_pause_and_resume(transport: WebRtcTransport) -> None:
    producer = await produce(transport)
    pauses, resumes = seen(producer.observer.on_pause), seen(producer.observer.on_resume)
    await producer.pause()
    assert (producer.paused, (await producer.dump()).paused) == (True, True)
    await producer.resume()
    assert (producer.paused, (await producer.dump()).paused) == (False, False)
    p, r = producer.pause, producer.resume
    await asyncio.gather(p(), r(), p(), p(), p(), r())
    assert (len(pauses), len(resumes)) == (3, 3)


@case("test-DataProducer", "producer.pause() and resume() emit events")
async def test_pause_and_resume_events(transport: WebRtcTransport) -> None:
    producer = await produce(transport)
    events: list[str] = []
    producer.observer.on_resume.subscribe(lambda _: events.append("resume"))
    producer.observer.on_pause.subscribe(lambda _: events.append("pause"))
    await asyncio.gather(producer.pause(), producer.resume())
    assert events == ["pause", "resume"]
    assert not producer.paused


@case("test-DataProducer", "dataProducer.close() succeeds")
async def test_close(router: Router, transport: WebRtcTransport) -> None:
    producer = await produce(transport)
    closes = seen(producer.observer.on_close)
    producer.close()
    assert closes == [CloseReason.CLOSED]
    assert producer.closed
    await refused(CloseReason.CLOSED, producer.dump())
    dump = await router.dump()
    assert dump.map_data_producer_id_data_consumer_ids == {}
    assert dump.map_data_consumer_id_data_producer_id == {}
    inside = await transport.dump()
    assert (inside.id, inside.data_producer_ids, inside.data_consumer_ids) == (transport.id, [], [])


@case("test-DataProducer", "DataProducer methods reject if closed")
async def test_closed(transport: WebRtcTransport) -> None:
    producer = await produce(transport)
    producer.close()
    await refused(
        CloseReason.CLOSED, producer.dump(), producer.get_stats(), producer.pause(), producer.resume()
    )


@case("test-DataProducer", 'DataProducer emits "transportclose" if Transport is closed')
async def test_transport_close(transport: WebRtcTransport) -> None:
    producer = await produce(transport, LOSSY)
    closes, told = seen(producer.observer.on_close), soon(producer.on_transport_close)
    transport.close()
    assert await told is CloseReason.TRANSPORT_CLOSED
    assert len(closes) == 1
    await refused(CloseReason.TRANSPORT_CLOSED, producer.dump())
