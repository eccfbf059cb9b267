"""Joining, leaving, being replaced, and what the others are told."""

import asyncio

import msgspec
import pytest
from doubles.protoo import JOIN, RECEIVER, Refusal, eventually

from mediaserver.cascade.messages import ParticipantInfo
from mediaserver.wire.close_codes import DIAL_AGAIN, DIAL_LATER, ENDED
from mediaserver.wire.tokens import ParticipantClaims, verify


async def test_the_demo_clients_flow(world) -> None:
    alice = await world.dial("alice")
    await alice.ask("getRouterRtpCapabilities")
    made = await alice.ask(
        "createWebRtcTransport",
        {"forceTcp": False, "producing": True, "consuming": False, "sctpCapabilities": {"numStreams": {}}},
    )
    assert set(made) == {"id", "iceParameters", "iceCandidates", "dtlsParameters"}
    dtls = {"role": "client", "fingerprints": [{"algorithm": "sha-256", "value": "00"}]}
    await alice.ask("connectWebRtcTransport", {"transportId": made["id"], "dtlsParameters": dtls})
    answer = await alice.ask("join", {**JOIN, "displayName": "Alice", "sctpCapabilities": None})
    assert answer["peers"] == []

    bob = await world.dial("bob")
    answer = await bob.ask("join", {**JOIN, "displayName": "Bob"})
    assert answer["peers"] == [{"id": "alice", "displayName": "Alice", "device": {"name": "test"}}]
    assert answer["router"] == "shop/standup-a"
    assert await alice.notified("newPeer") == {
        "id": "bob",
        "displayName": "Bob",
        "device": {"name": "test"},
    }
    await bob.leave()
    assert await alice.notified("peerClosed") == {"peerId": "bob"}
    assert list(world.hosted.participants) == ["alice"]


async def test_a_new_name_is_told(world) -> None:
    alice, bob = await world.dial("alice"), await world.dial("bob")
    await alice.ask("join", {**JOIN, "displayName": "Alice"})
    await bob.ask("join", JOIN)
    await alice.ask("changeDisplayName", {"displayName": "Al"})
    told = {"peerId": "alice", "displayName": "Al", "oldDisplayName": "Alice"}
    assert await bob.notified("peerDisplayNameChanged") == told


async def test_participants_of_other_routers_are_told(world) -> None:
    alice = await world.dial("alice")
    await alice.ask("join", JOIN)
    far = ParticipantInfo(
        peer_id="far", attachment="x", joined_at=1, server="s", router="r", display_name="Far"
    )
    world.hosted.add_participant(far)
    assert (await alice.notified("newPeer"))["id"] == "far"
    world.hosted.add_participant(msgspec.structs.replace(far, attachment="y", joined_at=2))
    await alice.notified("peerClosed")
    assert (await alice.notified("newPeer"))["id"] == "far"
    world.hosted.remove_participant("far", "y")
    assert await alice.notified("peerClosed") == {"peerId": "far"}


async def test_the_newest_join_wins(world) -> None:
    watcher = await world.dial("watcher")
    await watcher.ask("join", JOIN)
    older, _ = await world.publisher("alice")
    newer = await world.dial("alice")
    await newer.ask("join", JOIN)
    assert await older.end() == (ENDED, "replaced")
    assert world.router.open_transports == []
    assert list(world.hosted.participants) == ["watcher", "alice"]
    assert [method for method, _ in watcher.notifications] == ["newPeer", "peerClosed", "newPeer"]


async def test_a_join_elsewhere_replaces(world) -> None:
    alice, _ = await world.publisher("alice")
    world.hosted.on_participant_replaced.emit(world.hosted.participants["alice"])
    assert await alice.end() == (ENDED, "replaced")
    assert world.router.open_transports == []


async def test_a_join_counts_as_newer_than_the_one_it_follows_whatever_the_clocks_say(world) -> None:
    later = int(world.now * 1000) + 60_000
    world.hosted.add_participant(
        ParticipantInfo(peer_id="alice", attachment="x", joined_at=later, server="s", router="r")
    )
    alice = await world.dial("alice")
    await alice.ask("join", JOIN)
    assert world.hosted.participants["alice"].joined_at == later + 1


async def test_transports_outlive_a_lost_connection_for_a_while(world) -> None:
    watcher = await world.dial("watcher")
    await watcher.ask("join", JOIN)
    alice, _ = await world.publisher("alice")
    alice.vanish()
    await eventually(lambda: world.endpoint.participants == 1)
    assert len(world.router.open_transports) == 1
    assert world.endpoint.participants_of(world.hosted.key) == 2
    assert await watcher.notified("newPeer")
    await watcher.notified("peerClosed")
    assert world.router.open_transports == []


async def test_coming_back_in_time_frees_what_was_left(world) -> None:
    alice, _ = await world.publisher("alice")
    alice.vanish()
    again, transport_id = await world.publisher("alice")
    assert [transport.id for transport in world.router.open_transports] == [transport_id]
    await asyncio.sleep(0.6)  # the time after which the lost attachment would have been freed
    assert list(world.hosted.participants) == ["alice"]
    assert not again.closed.done()


async def test_a_goodbye_frees_at_once(world) -> None:
    alice, _ = await world.publisher("alice")
    await alice.leave()
    await eventually(lambda: not world.hosted.participants)
    assert world.router.open_transports == []


async def test_an_attachment_that_is_lost_before_it_joins_is_freed_at_once(world) -> None:
    alice = await world.dial("alice")
    await alice.ask("createWebRtcTransport", {"producing": True})
    alice.vanish()
    await eventually(lambda: world.endpoint.participants_of(world.hosted.key) == 0)
    assert world.router.open_transports == []


async def test_resume_is_accepted_when_the_first_token_has_expired(world) -> None:
    alice = await world.dial("alice", publish=False)
    resume = (await alice.ask("join", JOIN))["resume"]
    world.now += 3600
    assert (await alice.ask("getRouterRtpCapabilities")) is not None, "a running call goes on"
    again = await world.dial("alice", token=resume)
    await again.ask("join", JOIN)
    with pytest.raises(Refusal, match="publish") as refusal:
        await again.ask("createWebRtcTransport", {"producing": True})
    assert refusal.value.code == 403


async def test_resume_names_this_participant_and_session(world) -> None:
    alice = await world.dial("alice")
    resume = (await alice.ask("join", JOIN))["resume"]
    thief = await world.dial("mallory", token=resume)
    assert await thief.end() == (ENDED, "token refused: wrongPeer")
    claims = verify(
        resume, {"1": b"k" * 32}, ["cluster-uid"], session="shop/standup", peer_id="alice", now=world.now
    )
    assert isinstance(claims, ParticipantClaims)
    assert claims.resume


async def test_the_end_of_a_router_sends_everybody_to_dial_again(world) -> None:
    alice = await world.receiver("alice")
    world.host.close(world.hosted, "worker died")
    assert await alice.end() == (DIAL_AGAIN, "worker died")
    assert world.endpoint.participants_of(world.hosted.key) == 0


async def test_draining_sends_everybody_elsewhere(world) -> None:
    alice = await world.receiver("alice")
    await world.endpoint.drain("draining")
    assert await alice.end() == (DIAL_AGAIN, "draining")
    late = await world.dial("bob")
    assert await late.end() == (DIAL_AGAIN, "draining")


async def test_a_session_that_is_not_here(world) -> None:
    lost = await world.dial("alice", room="shop/other")
    assert await lost.end() == (DIAL_LATER, "no router of this session here")


async def test_the_gateway_names_the_router(world) -> None:
    other = world.open_router("standup-b")
    alice = await world.dial("alice", headers={"X-Mafalda-Router": "shop/standup-b"})
    assert (await alice.ask("join", JOIN))["router"] == "shop/standup-b"
    assert list(other.participants) == ["alice"]
    moved = await world.dial("bob", headers={"X-Mafalda-Router": "shop/standup-z"})
    assert await moved.end() == (DIAL_AGAIN, "the router has moved")
    strange = world.open_router("party-a", session="party")
    wrong = await world.dial("bob", headers={"X-Mafalda-Router": "shop/party-a"})
    assert (await wrong.end())[0] == DIAL_AGAIN
    assert strange.participants == {}


async def test_without_a_name_the_emptiest_router_is_taken(world) -> None:
    world.open_router("standup-b")
    await (await world.dial("alice")).ask("join", JOIN)
    bob = await world.dial("bob")
    routers = {p.router for p in world.hosted.participants.values()}
    assert (await bob.ask("join", RECEIVER))["router"].removeprefix("shop/") not in routers
