"""Participants that are asked to attach elsewhere, and their media meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from doubles.protoo import JOIN, RECEIVER, RTP, eventually

from mediaserver.cascade.messages import ParticipantInfo, ProducerInfo
from mediaserver.signalling import SignallingSettings
from mediaserver.signalling.moving import Pace
from mediaserver.wire.close_codes import DIAL_AGAIN, ENDED


@pytest.fixture
def settings() -> SignallingSettings:
    return SignallingSettings(
        linger=0.5,
        close_timeout=0.5,
        leave_within=0.3,
        leave_burst=2,
        leave_pause=0.02,
        overlap=0.1,
        handover=0.4,
    )


async def produces(participant: Any, transport: str, source: str = "camera") -> str:
    made = await participant.ask(
        "produce",
        {"transportId": transport, "kind": "audio", "rtpParameters": RTP, "appData": {"source": source}},
    )
    return str(made["id"])


def newer(world: Any, peer_id: str = "alice", *, moved: bool = True) -> ParticipantInfo:
    """The participant's attachment at another server."""
    older = world.hosted.participants[peer_id]
    return msgspec.structs.replace(
        older, attachment="new", joined_at=older.joined_at + 1, server="media/two", router="b", moved=moved
    )


def arrives_elsewhere(world: Any, peer_id: str = "alice", *, moved: bool = True) -> None:
    """As the cascade tells of it: what counts, then who has lost, then what is shown."""
    older, info = world.hosted.participants[peer_id], newer(world, peer_id, moved=moved)
    world.hosted.participants[peer_id] = info
    world.hosted.on_participant_gone.emit(older)
    world.hosted.on_participant.emit(info)
    world.hosted.on_participant_replaced.emit(older)


def produced_elsewhere(world: Any, source: str = "camera", peer_id: str = "alice") -> None:
    info = ProducerInfo(id=f"far-{source}", kind="audio", peer_id=peer_id, source=source, router="b")
    world.hosted.announce(info)


async def test_everybody_is_asked_and_who_stays_is_told_to_dial_again(world: Any) -> None:
    alice, _ = await world.publisher("alice")
    bob = await world.receiver("bob")
    silent = await world.dial("carol")
    await silent.ask("getRouterRtpCapabilities")
    world.host.set_leaving(world.hosted, True)
    assert await alice.notified("reattach") == {"reason": "the router moves", "within": 0.3}
    assert (await bob.notified("reattach"))["within"] == 0.3
    assert await silent.end() == (DIAL_AGAIN, "the router moves"), "it has nothing to move"
    late = await world.dial("dave")
    assert await late.end() == (DIAL_AGAIN, "the router moves")
    assert len(world.router.open_transports) == 2, "their media goes on until then"
    assert await alice.end() == (DIAL_AGAIN, "the router moves")
    assert await bob.end() == (DIAL_AGAIN, "the router moves")
    await eventually(lambda: world.endpoint.participants_of(world.hosted.key) == 0)
    assert world.router.open_transports == []


async def test_they_are_asked_a_few_at_a_time(world: Any) -> None:
    crowd = [await world.receiver(f"p{number}") for number in range(5)]
    times = Counter[int]()
    world.host.set_leaving(world.hosted, True)
    for participant in crowd:
        await participant.notified("reattach")
        asked = sum(any(n[0] == "reattach" for n in other.notifications) for other in crowd)
        times[asked] += 1
    assert max(times) <= 3, "no more than the burst that is under way, and who was asked before"


async def test_the_pace_holds_over_all_routers(settings: SignallingSettings) -> None:
    pace = Pace(settings)
    loop = asyncio.get_running_loop()
    moments: list[float] = []

    async def ask(count: int) -> None:
        for _ in range(count):
            await pace.turn()
            moments.append(loop.time())

    await asyncio.gather(*(ask(2) for _ in range(4)))
    gaps = [later - moments[index] for index, later in enumerate(moments[settings.leave_burst :])]
    assert min(gaps) >= settings.leave_pause * 0.9


async def test_it_can_be_called_off(world: Any) -> None:
    alice = await world.receiver("alice")
    world.host.set_leaving(world.hosted, True)
    await alice.notified("reattach")
    world.host.set_leaving(world.hosted, False)
    late = await world.receiver("bob")
    assert not late.closed.done()
    world.host.set_leaving(world.hosted, True)
    await alice.notified("reattach")
    assert await alice.end() == (DIAL_AGAIN, "the router moves")


async def test_the_older_attachment_goes_on_until_the_newer_one_produces_the_same(world: Any) -> None:
    watcher = await world.dial("watcher")
    await watcher.ask("join", JOIN)
    alice, transport = await world.publisher("alice")
    camera, screen = await produces(alice, transport), await produces(alice, transport, "screen")
    world.host.set_leaving(world.hosted, True)
    await alice.notified("reattach")
    arrives_elsewhere(world)
    assert {camera, screen} <= world.hosted.producers.keys()
    produced_elsewhere(world)
    assert camera in world.hosted.producers, "receivers need a moment"
    await eventually(lambda: camera not in world.hosted.producers)
    assert screen in world.hosted.producers, "nothing has taken its place"
    assert world.endpoint.participants_of(world.hosted.key) == 2, "an attachment that counts no more is there"
    assert await alice.end() == (ENDED, "replaced"), "in the end, whatever is missing"
    await eventually(lambda: screen not in world.hosted.producers)
    told = [method for method, _ in watcher.notifications if method != "reattach"]
    assert told == ["newPeer"], "it never went away"


async def test_its_owner_ends_the_older_attachment_when_all_is_there(world: Any) -> None:
    alice, transport = await world.publisher("alice")
    camera = await produces(alice, transport)
    world.host.set_leaving(world.hosted, True)
    await alice.notified("reattach")
    produced_elsewhere(world)
    arrives_elsewhere(world)
    await alice.leave()
    await eventually(lambda: camera not in world.hosted.producers)
    await eventually(lambda: world.endpoint.participants_of(world.hosted.key) == 0)
    assert world.hosted.participants["alice"].attachment == "new"


async def test_who_dials_again_without_having_been_asked_replaces_at_once(world: Any) -> None:
    alice, transport = await world.publisher("alice")
    camera = await produces(alice, transport)
    arrives_elsewhere(world, moved=False)
    assert await alice.end() == (ENDED, "replaced")
    assert camera not in world.hosted.producers


async def test_another_sources_producer_ends_nothing(world: Any) -> None:
    alice, transport = await world.publisher("alice")
    camera = await produces(alice, transport)
    arrives_elsewhere(world)
    produced_elsewhere(world, "screen")
    produced_elsewhere(world, "camera", peer_id="bob")
    await alice.end()
    await eventually(lambda: camera not in world.hosted.producers)


async def test_a_move_within_the_router_goes_on_as_well(world: Any) -> None:
    """A drain that is called off meanwhile: the next dial lands where the participant was."""
    alice, transport = await world.publisher("alice")
    camera = await produces(alice, transport)
    world.host.set_leaving(world.hosted, True)
    await alice.notified("reattach")
    world.host.set_leaving(world.hosted, False)
    again = await world.dial("alice")
    made = await again.ask("createWebRtcTransport", {"producing": True})
    await again.ask("join", {**JOIN, "reattach": True})
    assert camera in world.hosted.producers
    await produces(again, made["id"])
    await eventually(lambda: camera not in world.hosted.producers)
    assert await alice.end() == (ENDED, "replaced")
    assert world.hosted.participants["alice"].moved
    assert not again.closed.done()


async def test_without_a_named_router_one_that_stays_is_preferred(world: Any) -> None:
    world.host.set_leaving(world.hosted, True)
    other = world.open_router("standup-b")
    alice = await world.dial("alice")
    answer = await alice.ask("join", RECEIVER)
    assert answer["router"] == f"shop/{other.entry.name}"
