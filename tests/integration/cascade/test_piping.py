"""Producers cross links on demand: media, state and closes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from mediaserver.cascade import AttachTimeoutError, ParticipantInfo, UnknownProducerError
from mediaserver.mediasoup import PipeTransport


def pipes(hosted: Any) -> list[PipeTransport]:
    return [transport for transport in hosted.router.transports if isinstance(transport, PipeTransport)]


async def announced(cascade: Any, producer_id: str, *routers: Any) -> None:
    await cascade.until(
        lambda: all(producer_id in hosted.producers for hosted in routers), "announced everywhere"
    )


async def test_three_servers_link_fast_and_carry_media(cascade: Any) -> None:
    sites = [await cascade.site(name) for name in "abc"]
    routers = [await cascade.router(site, f"r-{site.name[-1]}") for site in sites]
    begun = time.monotonic()
    for one, two in (("a", "b"), ("a", "c"), ("b", "c")):
        await cascade.link(cascade.sites[one], f"r-{one}", cascade.sites[two], f"r-{two}")
    await cascade.linked()
    assert time.monotonic() - begun < 2.0
    a, b, c = routers
    sender = await cascade.media.send(a)
    await announced(cascade, sender.id, b, c)
    await asyncio.gather(b.attach(sender.id), c.attach(sender.id))
    for hosted in (b, c):
        assert hosted.router.producers[sender.id].rtp_parameters.rtcp.cname == (
            sender.producer.rtp_parameters.rtcp.cname
        )
        receiver = await cascade.media.receive(hosted, sender.id)
        await receiver.hears()
    info = b.producers[sender.id]
    assert (info.peer_id, info.source, info.app_data, info.router) == ("pat", "mic", {"tag": 1}, "r-a")
    await cascade.until(lambda: c.producers[sender.id].score == [10], "the origin's score is relayed")


async def test_one_pair_per_link_with_srtp_and_rtx(cascade: Any) -> None:
    a, b = await cascade.mesh("a", "b")
    first = await cascade.media.send(a, "video")
    second = await cascade.media.send(b, "video")
    await announced(cascade, first.id, b)
    await announced(cascade, second.id, a)
    await asyncio.gather(b.attach(first.id), a.attach(second.id))
    for hosted, producer_id in ((b, first.id), (a, second.id)):
        assert len(pipes(hosted)) == 1
        dump = await pipes(hosted)[0].dump()
        assert dump.rtx
        assert dump.srtp_parameters is not None
        assert dump.srtp_parameters.crypto_suite == "AEAD_AES_256_GCM"
        assert any(
            "rtx" in codec.mime_type for codec in hosted.router.producers[producer_id].rtp_parameters.codecs
        )
        await (await cascade.media.receive(hosted, producer_id)).hears()
    assert pipes(a)[0].tuple.remote_port == pipes(b)[0].tuple.local_port
    assert pipes(b)[0].tuple.remote_port == pipes(a)[0].tuple.local_port


async def test_pause_is_mirrored_and_announced(cascade: Any) -> None:
    a, b, c = await cascade.mesh("a", "b", "c")
    sender = await cascade.media.send(a)
    await announced(cascade, sender.id, b, c)
    await sender.producer.pause()
    await b.attach(sender.id)
    assert b.router.producers[sender.id].paused
    await cascade.until(lambda: c.producers[sender.id].paused, "pause announced")
    receiver = await cascade.media.receive(b, sender.id)
    await sender.producer.resume()
    await cascade.until(lambda: not b.router.producers[sender.id].paused, "resume mirrored")
    await receiver.hears()
    await sender.producer.pause()
    await cascade.until(lambda: b.router.producers[sender.id].paused, "pause mirrored")
    await cascade.until(lambda: c.producers[sender.id].paused, "pause announced again")


async def test_close_reaches_everybody(cascade: Any) -> None:
    a, b, c = await cascade.mesh("a", "b", "c")
    sender = await cascade.media.send(a)
    await announced(cascade, sender.id, b, c)
    await b.attach(sender.id)
    receiver = await cascade.media.receive(b, sender.id)
    gone: list[str] = []
    b.on_producer_gone.subscribe(lambda info: gone.append(info.id))
    sender.producer.close()
    await cascade.until(lambda: sender.id not in b.producers and sender.id not in c.producers, "withdrawn")
    assert gone == [sender.id]
    await cascade.until(lambda: receiver.consumer.closed, "the consumer closed")
    await cascade.until(lambda: not b.router.producers, "the piped producer closed")
    assert not b.table.holds_joins
    assert not a.table.holds_joins


async def test_prune_after_the_last_reference(cascade: Any) -> None:
    a, b = await cascade.mesh("a", "b")
    sender = await cascade.media.send(a)
    await announced(cascade, sender.id, b)
    await b.attach(sender.id)
    await b.attach(sender.id)
    b.release(sender.id)
    await asyncio.sleep(cascade.settings.prune_delay * 1.5)
    assert sender.id in b.router.producers
    released = time.monotonic()
    b.release(sender.id)
    await cascade.until(lambda: sender.id not in b.router.producers, "pruned")
    assert time.monotonic() - released >= cascade.settings.prune_delay * 0.9
    await cascade.until(lambda: not pipes(a)[0].consumers, "the pipe consumer closed")
    assert sender.id in b.producers
    await b.attach(sender.id)
    await (await cascade.media.receive(b, sender.id)).hears()


async def test_a_chain_of_routers_and_a_link_inside_a_server(cascade: Any) -> None:
    one = await cascade.site("a", workers=2)
    two = await cascade.site("b")
    a0 = await cascade.router(one, "r-0", slot=0)
    a1 = await cascade.router(one, "r-1", slot=1)
    b = await cascade.router(two, "r-2")
    await cascade.link(one, "r-0", one, "r-1")
    await cascade.link(one, "r-1", two, "r-2")
    await cascade.linked()
    assert [state.local_router for state in one.host.link_states()] == ["r-0", "r-1"]
    sender = await cascade.media.send(a0)
    await announced(cascade, sender.id, a1, b)
    await b.attach(sender.id)
    assert sender.id in a1.router.producers
    await (await cascade.media.receive(b, sender.id)).hears()
    b.release(sender.id)
    await cascade.until(lambda: not a1.router.producers and not b.router.producers, "pruned hop by hop")


async def test_many_attach_at_once_share_one_piped_producer(cascade: Any) -> None:
    a, b = await cascade.mesh("a", "b")
    senders = [await cascade.media.send(a) for _ in range(3)]
    for sender in senders:
        await announced(cascade, sender.id, b)
    await asyncio.gather(*(b.attach(sender.id) for sender in senders for _ in range(5)))
    assert len(b.router.producers) == 3
    assert len(pipes(a)[0].consumers) == 3


async def test_attach_to_what_does_not_exist_or_cannot_come(cascade: Any) -> None:
    a, b = await cascade.mesh("a", "b")
    with pytest.raises(UnknownProducerError):
        await b.attach("nobody")
    sender = await cascade.media.send(a)
    await announced(cascade, sender.id, b)
    cascade.sites["a"].proxies["media/b"].cut()
    await cascade.until(lambda: not cascade.sites["b"].host._peers._peers["media/a"].connection, "cut")
    with pytest.raises(AttachTimeoutError):
        await b.attach(sender.id, timeout=0.3)
    assert not b.table.references(sender.id)


async def test_participants_are_unique_in_the_session(cascade: Any) -> None:
    a, b, c = await cascade.mesh("a", "b", "c")
    replaced: list[str] = []
    a.on_participant_replaced.subscribe(lambda info: replaced.append(info.attachment))

    def info(hosted: Any, attachment: str, joined_at: int) -> ParticipantInfo:
        return ParticipantInfo(
            peer_id="pat",
            attachment=attachment,
            joined_at=joined_at,
            server=hosted.server_name,
            router=hosted.entry.name,
        )

    a.add_participant(info(a, "one", 1))
    await cascade.until(lambda: "pat" in b.participants and "pat" in c.participants, "announced")
    b.add_participant(info(b, "two", 2))
    await cascade.until(lambda: replaced, "the older was replaced")
    assert replaced == ["one"]
    for hosted in (a, b, c):
        await cascade.until(
            lambda hosted=hosted: hosted.participants["pat"].attachment == "two", "the newer counts"
        )
    b.remove_participant("pat", "two")
    await cascade.until(lambda: not (a.participants or b.participants or c.participants), "gone")
