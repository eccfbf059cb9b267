"""Producers and consumers: who is offered what, when, and what is freed."""

import asyncio
from typing import Any

import pytest
from doubles.mediasoup import FakeConsumer, FakeProducer
from doubles.protoo import JOIN, RECEIVER, RTP, Refusal, eventually

from mediaserver.cascade.messages import ProducerInfo
from mediaserver.mediasoup import CloseReason, ConsumerLayers, ConsumerScore


async def produce(participant: Any, transport_id: str, source: str | None = None, kind: str = "audio") -> str:
    app_data = {} if source is None else {"appData": {"source": source, "extra": 1}}
    data = {"transportId": transport_id, "kind": kind, "rtpParameters": RTP, **app_data}
    created = (await participant.ask("produce", data))["id"]
    assert isinstance(created, str)
    return created


def remote(world: Any, **changes: Any) -> tuple[ProducerInfo, FakeProducer]:
    """A producer that was piped here from another router."""
    piped = FakeProducer("video")
    world.router.add(piped)
    info = ProducerInfo(
        id=piped.id, kind="video", peer_id="far", source="video", router="standup-z", **changes
    )
    return info, piped


def only_consumer(producer: FakeProducer) -> FakeConsumer:
    (consumer,) = [consumer for consumer in producer.consumers if not consumer.closed]
    return consumer


async def test_a_producer_is_offered_paused_and_resumed_after_the_answer(world) -> None:
    alice, transport_id = await world.publisher()
    bob = await world.dial("bob")
    await bob.ask("createWebRtcTransport", {"consuming": True})
    bob.consents = None
    await bob.ask("join", RECEIVER)
    producer_id = await produce(alice, transport_id, "mic")
    offer = await bob.requested("newConsumer")
    consumer = only_consumer(world.router.producers[producer_id])
    assert offer == {
        "peerId": "alice",
        "producerId": producer_id,
        "id": consumer.id,
        "kind": "audio",
        "rtpParameters": offer["rtpParameters"],
        "type": "simple",
        "appData": {"source": "mic", "extra": 1, "peerId": "alice"},
        "producerPaused": False,
    }
    assert consumer.paused
    await bob.answer(1, True)
    await bob.notified("consumerScore")
    assert not consumer.paused
    assert world.hosted.references == {producer_id: 1}


async def test_who_joins_later_is_offered_what_is_there(world) -> None:
    alice, transport_id = await world.publisher()
    await produce(alice, transport_id)
    bob = await world.receiver("bob")
    assert (await bob.requested("newConsumer"))["peerId"] == "alice"


async def test_a_receiving_transport_may_come_after_the_join(world) -> None:
    alice, transport_id = await world.publisher()
    await produce(alice, transport_id)
    bob = await world.dial("bob")
    await bob.ask("join", RECEIVER)
    await bob.ask("createWebRtcTransport", {"consuming": True})
    await bob.requested("newConsumer")


@pytest.mark.parametrize("claims", [{"subscribe": False}, {}])
async def test_who_may_not_or_does_not_want_to_receive_is_offered_nothing(world, claims: dict) -> None:
    alice, transport_id = await world.publisher()
    bob = await world.dial("bob", **claims)
    await bob.ask("join", RECEIVER if claims else JOIN)
    await produce(alice, transport_id)
    await bob.ask("getRouterRtpCapabilities")
    assert bob.requests == []
    assert world.hosted.references == {}


async def test_nobody_is_offered_their_own(world) -> None:
    alice, transport_id = await world.publisher()
    await alice.ask("createWebRtcTransport", {"consuming": True})
    await produce(alice, transport_id)
    await alice.ask("getRouterRtpCapabilities")
    assert alice.requests == []


async def test_a_refused_consumer_is_freed(world) -> None:
    bob = await world.receiver("bob")
    bob.consents = False
    alice, transport_id = await world.publisher()
    producer_id = await produce(alice, transport_id)
    await bob.requested("newConsumer")
    await eventually(lambda: world.hosted.references == {producer_id: 0})
    assert world.router.producers[producer_id].consumers[0].closed


async def test_a_consumer_that_is_not_answered_is_freed_and_offered_again(world) -> None:
    bob = await world.receiver("bob")
    bob.consents = None
    alice, transport_id = await world.publisher()
    producer_id = await produce(alice, transport_id)
    first = await bob.requested("newConsumer")
    assert await bob.notified("consumerClosed") == {"consumerId": first["id"]}
    bob.consents = True
    assert (await bob.requested("newConsumer"))["producerId"] == producer_id


async def test_the_end_of_a_producer_is_told(world) -> None:
    alice, transport_id = await world.publisher()
    bob = await world.receiver("bob")
    producer_id = await produce(alice, transport_id)
    offer = await bob.requested("newConsumer")
    await bob.notified("consumerScore")
    await alice.ask("closeProducer", {"producerId": producer_id})
    assert await bob.notified("consumerClosed") == {"consumerId": offer["id"]}
    await eventually(lambda: world.hosted.references == {producer_id: 0})
    with pytest.raises(Refusal, match="no producer"):
        await alice.ask("pauseProducer", {"producerId": producer_id})


async def test_a_second_producer_of_a_source_replaces_the_first(world) -> None:
    alice, transport_id = await world.publisher()
    first = await produce(alice, transport_id, "cam", "video")
    second = await produce(alice, transport_id, "cam", "video")
    other = await produce(alice, transport_id, "mic")
    assert set(world.hosted.producers) == {second, other}
    assert first not in world.router.producers


@pytest.mark.parametrize(
    ("app_data", "source"), [({}, "video"), ({"share": True}, "share"), ({"source": "cam"}, "cam")]
)
async def test_the_demo_clients_producers_have_sources_too(world, app_data: dict, source: str) -> None:
    alice, transport_id = await world.publisher()
    data = {"transportId": transport_id, "kind": "video", "rtpParameters": RTP, "appData": app_data}
    await alice.ask("produce", data)
    (info,) = world.hosted.producers.values()
    assert (info.source, info.peer_id) == (source, "alice")


async def test_a_transport_for_receiving_does_not_send(world) -> None:
    alice = await world.receiver("alice")
    with pytest.raises(Refusal, match="not made for producing"):
        await produce(alice, world.router.transports[0].id)


async def test_pausing_and_the_rest_reach_mediasoup(world) -> None:
    alice, transport_id = await world.publisher()
    bob = await world.receiver("bob")
    producer_id = await produce(alice, transport_id)
    consumer_id = (await bob.requested("newConsumer"))["id"]
    await bob.notified("consumerScore")
    producer = world.router.producers[producer_id]
    consumer = only_consumer(producer)
    await alice.ask("pauseProducer", {"producerId": producer_id})
    assert producer.paused
    await alice.ask("resumeProducer", {"producerId": producer_id})
    assert not producer.paused
    await bob.ask("pauseConsumer", {"consumerId": consumer_id})
    assert consumer.paused
    await bob.ask("resumeConsumer", {"consumerId": consumer_id})
    assert not consumer.paused
    await bob.ask("setConsumerPreferredLayers", {"consumerId": consumer_id, "spatialLayer": 1})
    await bob.ask("setConsumerPriority", {"consumerId": consumer_id, "priority": 2})
    await bob.ask("requestConsumerKeyFrame", {"consumerId": consumer_id})
    assert consumer.calls == [("layers", 1, None), ("priority", 2), ("key frame",)]
    with pytest.raises(Refusal, match="priority is 0"):
        await bob.ask("setConsumerPriority", {"consumerId": consumer_id, "priority": 0})
    assert await bob.ask("getConsumerStats", {"consumerId": consumer_id})
    assert await alice.ask("getProducerStats", {"producerId": producer_id})
    assert await alice.ask("getTransportStats", {"transportId": transport_id})
    assert (await alice.ask("restartIce", {"transportId": transport_id}))["usernameFragment"] == "u"


async def test_events_of_consumers_and_producers_are_told(world) -> None:
    alice, transport_id = await world.publisher()
    bob = await world.receiver("bob")
    producer_id = await produce(alice, transport_id)
    consumer_id = (await bob.requested("newConsumer"))["id"]
    await bob.notified("consumerScore")
    producer = world.router.producers[producer_id]
    consumer = only_consumer(producer)
    named = {"consumerId": consumer_id}
    consumer.on_producer_pause.emit(None)
    assert await bob.notified("consumerPaused") == named
    consumer.on_producer_resume.emit(None)
    assert await bob.notified("consumerResumed") == named
    consumer.on_layers_change.emit(ConsumerLayers(spatial_layer=1, temporal_layer=2))
    assert await bob.notified("consumerLayersChanged") == {**named, "spatialLayer": 1, "temporalLayer": 2}
    consumer.on_layers_change.emit(None)
    assert await bob.notified("consumerLayersChanged") == {
        **named,
        "spatialLayer": None,
        "temporalLayer": None,
    }
    consumer.on_score.emit(ConsumerScore(score=7, producer_score=6, producer_scores=[6]))
    score = {"score": 7, "producerScore": 6, "producerScores": [6]}
    assert await bob.notified("consumerScore") == {**named, "score": score}
    producer.on_score.emit([])
    assert await alice.notified("producerScore") == {"producerId": producer_id, "score": []}


async def test_a_remote_producers_score_is_its_origins(world) -> None:
    bob = await world.receiver("bob")
    info, piped = remote(world, score=[3])
    world.hosted.announce(info)
    told = await bob.notified("consumerScore")
    assert told["score"] == {"score": 10, "producerScore": 3, "producerScores": [3]}
    world.hosted.change(piped.id, score=[5], version=1)
    assert (await bob.notified("consumerScore"))["score"]["producerScores"] == [5]


async def test_a_producer_that_can_not_be_reached_yet_is_tried_again(world) -> None:
    bob = await world.receiver("bob")
    info, piped = remote(world)
    world.hosted.unreachable.add(piped.id)
    world.hosted.announce(info)
    await asyncio.sleep(0.05)  # longer than the first pause: more than one try has failed
    assert bob.requests == []
    world.hosted.unreachable.clear()
    assert (await bob.requested("newConsumer"))["producerId"] == piped.id
    assert world.hosted.references == {piped.id: 1}


async def test_a_restored_producer_is_offered_anew_under_the_same_reference(world) -> None:
    bob = await world.receiver("bob")
    info, piped = remote(world)
    world.hosted.announce(info)
    first = await bob.requested("newConsumer")
    await bob.notified("consumerScore")
    piped.close(CloseReason.TRANSPORT_CLOSED)
    assert await bob.notified("consumerClosed") == {"consumerId": first["id"]}
    assert world.hosted.references == {info.id: 1}
    restored = FakeProducer("video")
    restored.id = info.id
    world.router.add(restored)
    world.hosted.on_producer_restored.emit(info)
    second = await bob.requested("newConsumer")
    assert second["producerId"] == info.id
    assert second["id"] != first["id"]
    assert world.hosted.references == {info.id: 1}


async def test_a_producer_that_leaves_the_session_while_it_is_broken_is_let_go(world) -> None:
    bob = await world.receiver("bob")
    info, piped = remote(world)
    world.hosted.announce(info)
    await bob.requested("newConsumer")
    piped.close(CloseReason.TRANSPORT_CLOSED)
    await bob.notified("consumerClosed")
    world.hosted.withdraw(info.id)
    await eventually(lambda: world.hosted.references == {info.id: 0})


async def test_a_participant_that_leaves_lets_everything_go(world) -> None:
    alice, transport_id = await world.publisher()
    bob = await world.receiver("bob")
    producer_id = await produce(alice, transport_id)
    await bob.requested("newConsumer")
    await bob.notified("consumerScore")
    await bob.leave()
    await eventually(lambda: world.hosted.references == {producer_id: 0})
    await alice.leave()


async def test_a_request_under_way_when_its_participant_leaves_frees_what_it_makes(world) -> None:
    alice, transport_id = await world.publisher()
    world.router.delay = 0.1
    asking = asyncio.create_task(produce(alice, transport_id))
    await asyncio.sleep(0.02)  # until it is under way
    await alice.leave()
    asking.cancel()
    await eventually(lambda: world.endpoint.participants == 0)
    assert world.router.producers == {}
    assert world.hosted.producers == {}
