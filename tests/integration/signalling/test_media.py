"""Real WebRTC: aiortc participants, VP8 and Opus encoded and decoded, in one router and through pipes."""

import asyncio
import os
import signal
import time

import pytest
from mafalda_operator.cli.participant import CallEnded, Participant, Received, synthetic
from support.media_server import MediaServer, token, until
from yarl import URL

from mediaserver.mediasoup import PipeTransport

BOTH = (synthetic("audio"), synthetic("video", seed="x"))


def of(participant: Participant, peer: str, source: str) -> Received | None:
    return participant.received.get((peer, source))


async def decodes(participant: Participant, peer: str, source: str, frames: int = 10) -> Received:
    """Until so many more frames were decoded."""
    before = 0 if (known := of(participant, peer, source)) is None else known.frames

    def more() -> Received | None:
        received = of(participant, peer, source)
        return received if received is not None and received.frames >= before + frames else None

    found = await until(more, f"{participant.peer_id} decodes {frames} frames of {peer}/{source}", timeout=20)
    assert isinstance(found, Received)
    return found


async def test_two_participants_send_and_receive(server: MediaServer) -> None:
    async with (
        Participant(server.url, token("alice"), publish=BOTH) as alice,
        Participant(server.url, token("bob"), publish=BOTH) as bob,
    ):
        for receiver, sender in ((alice, "bob"), (bob, "alice")):
            for source in ("audio", "video"):
                await decodes(receiver, sender, source)
        picture, sound = of(alice, "bob", "video"), of(alice, "bob", "audio")
        assert picture is not None
        assert sound is not None
        assert (picture.width, picture.height, picture.kind) == (320, 240, "video")
        assert picture.lost == sound.lost == 0
        assert 10 < picture.rate(time.monotonic()) < 20
        assert 40 < sound.rate(time.monotonic()) < 60
        assert alice.router == "shop/standup-a"
    await nothing_is_left(server)


async def nothing_is_left(server: MediaServer) -> None:
    (hosted,) = server.host.routers.values()
    await until(lambda: not hosted.participants, "the participants have left")
    await until(lambda: not hosted.router.transports, "the transports are closed")
    assert (await hosted.router.dump()).transport_ids == []


async def test_what_is_not_allowed_is_not_tried(server: MediaServer) -> None:
    async with (
        Participant(server.url, token("alice", subscribe=False), publish=BOTH),
        Participant(server.url, token("bob", publish=False)) as bob,
    ):
        await decodes(bob, "alice", "video")
    await nothing_is_left(server)


async def test_a_source_that_ends_and_comes_again_is_received_again(server: MediaServer) -> None:
    async with (
        Participant(server.url, token("alice"), publish=BOTH) as alice,
        Participant(server.url, token("bob")) as bob,
    ):
        picture = await decodes(bob, "alice", "video")
        await alice.unpublish("video")
        await until(lambda: picture.ended, "bob knows that the picture ended")
        await alice.publish(synthetic("video", seed="again"))
        assert await decodes(bob, "alice", "video") is picture
        assert (picture.consumers, picture.ended, picture.lost) == (2, False, 0)
        await decodes(bob, "alice", "audio")


async def test_pausing_holds_the_media_back(server: MediaServer) -> None:
    async with (
        Participant(server.url, token("alice"), publish=BOTH) as alice,
        Participant(server.url, token("bob")) as bob,
    ):
        picture = await decodes(bob, "alice", "video")
        await alice.pause("video")
        await until(lambda: picture.paused, "bob knows of the pause")
        await asyncio.sleep(0.3)  # for what was under way
        frames = picture.frames
        await decodes(bob, "alice", "audio", frames=25)
        assert picture.frames == frames
        await alice.pause("video", paused=False)
        await decodes(bob, "alice", "video")
        assert not picture.paused


async def test_media_crosses_servers_both_ways(pair: tuple[MediaServer, MediaServer]) -> None:
    one, two = pair
    async with (
        Participant(one.url, token("alice"), publish=BOTH) as alice,
        Participant(two.url, token("bob")) as bob,
    ):
        for source in ("audio", "video"):
            assert (await decodes(bob, "alice", source)).lost == 0
        await bob.publish(synthetic("video", seed="bob"))
        await decodes(alice, "bob", "video")
        assert {alice.router, bob.router} == {"shop/standup-a", "shop/standup-b"}
    for server in pair:
        (hosted,) = server.host.routers.values()
        await until(lambda hosted=hosted: not hosted.participants, "the participants have left everywhere")
        await until(lambda hosted=hosted: not hosted.producers, "the producers have left everywhere")


async def test_a_broken_pipe_is_repaired_under_the_participants(
    pair: tuple[MediaServer, MediaServer],
) -> None:
    one, two = pair
    async with (
        Participant(one.url, token("alice"), publish=BOTH),
        Participant(two.url, token("bob")) as bob,
    ):
        picture = await decodes(bob, "alice", "video")
        (hosted,) = two.host.routers.values()
        for transport in hosted.router.transports:
            if isinstance(transport, PipeTransport):
                transport.close()
        await until(lambda: picture.consumers == 2, "bob is offered the picture anew")
        await decodes(bob, "alice", "video")
        assert bob.joins == 1


async def test_a_join_at_another_server_replaces(pair: tuple[MediaServer, MediaServer]) -> None:
    one, two = pair
    async with Participant(one.url, token("alice"), publish=BOTH) as older:
        async with Participant(two.url, token("alice")):
            with pytest.raises(CallEnded, match=r"^replaced$"):
                async with asyncio.timeout(10):
                    await older.wait()
        assert older.joins == 1
    (hosted,) = one.host.routers.values()
    await until(lambda: not hosted.participants and not hosted.router.transports[1:], "it left no trace")


async def test_after_a_workers_death_the_same_participants_come_back(server: MediaServer) -> None:
    async with (
        Participant(server.url, token("alice", exp=int(time.time()) - 28), publish=BOTH) as alice,
        Participant(server.url, token("bob")) as bob,
    ):
        picture = await decodes(bob, "alice", "video")
        slot = server.pool.slots[0]
        assert slot.worker is not None
        os.kill(slot.worker.pid, signal.SIGKILL)
        await until(lambda: not server.host.routers, "the router is closed")
        await until(lambda: slot.state == "Running", "the slot is filled again")
        await asyncio.sleep(2)  # until the leeway for the token of alice is over; her resume token holds
        await server.open("standup-a")
        await until(lambda: alice.joins == bob.joins == 2, "they have joined again", timeout=20)
        assert await decodes(bob, "alice", "video") is picture
        assert picture.consumers == 2
        assert picture.longest_gap > 1
    await nothing_is_left(server)


async def test_a_participant_that_vanishes_is_freed_after_a_while(server: MediaServer) -> None:
    async with Participant(server.url, token("bob")) as bob:
        alice = Participant(server.url, token("alice"), publish=BOTH)
        await alice.start()
        picture = await decodes(bob, "alice", "video")
        (hosted,) = server.host.routers.values()
        assert alice._attachment is not None
        socket = alice._attachment._signalling._socket
        connection = socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        # Its socket breaks, and it does not dial again; its media goes on for now.
        alice._address = URL("ws://127.0.0.1:9/")
        connection.transport.abort()
        await until(lambda: set(hosted.participants) == {"bob"}, "alice is gone")
        await until(lambda: picture.ended, "bob knows that the picture ended")
        await alice.close()
        assert len(hosted.router.transports) == 2
