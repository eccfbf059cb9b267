"""Links, servers and workers fail: what goes on, what is repaired, what is told."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from typing import Any

import pytest

from mediaserver.cascade import RouterClosedError, links, pipes
from mediaserver.cascade.messages import PipeAddress
from mediaserver.mediasoup import PipeTransport


def pipe_of(hosted: Any) -> PipeTransport:
    (pipe,) = [each for each in hosted.router.transports if isinstance(each, PipeTransport)]
    return pipe


async def piped(cascade: Any, origin: Any, to: Any, kind: str = "audio") -> tuple[Any, Any]:
    """A sender at one router and a receiver at the other."""
    sender = await cascade.media.send(origin, kind)
    await cascade.until(lambda: sender.id in to.producers, "announced")
    await to.attach(sender.id)
    receiver = await cascade.media.receive(to, sender.id)
    await receiver.hears()
    return sender, receiver


def restorations(hosted: Any) -> list[str]:
    seen: list[str] = []
    hosted.on_producer_restored.subscribe(lambda info: seen.append(info.id))
    return seen


def state(cascade: Any, site: str) -> Any:
    (only,) = cascade.sites[site].host.link_states()
    return only


async def test_media_goes_on_while_the_peer_connection_is_cut(cascade: Any) -> None:
    a, b = await cascade.mesh("a", "b")
    sender, receiver = await piped(cascade, a, b)
    restored, gone = restorations(b), []
    b.on_producer_gone.subscribe(lambda info: gone.append(info.id))
    before = pipe_of(b)
    proxy = cascade.sites["a"].proxies["media/b"]
    host = cascade.sites["b"].host
    heard = host.peer_ages()[0].age
    assert heard < 1.5
    proxy.cut()
    await cascade.until(lambda: host.peer_ages()[0].age > cascade.settings.silence_timeout + 1.5, "silence")
    await receiver.hears(50)
    assert state(cascade, "b").ready

    # What happens during the cut is caught up with afterwards.
    other = await cascade.media.send(a)
    await sender.producer.pause()
    proxy.passes = True
    await cascade.until(lambda: other.id in b.producers, "the tables were exchanged")
    await cascade.until(lambda: b.router.producers[sender.id].paused, "the pause came after all")
    await sender.producer.resume()
    await receiver.hears()
    assert pipe_of(b) is before
    assert not restored
    assert not gone
    await b.attach(other.id)


async def test_a_producer_closed_during_a_cut_is_gone_afterwards(cascade: Any) -> None:
    a, b = await cascade.mesh("a", "b")
    sender, receiver = await piped(cascade, a, b)
    proxy = cascade.sites["a"].proxies["media/b"]
    proxy.cut()
    await cascade.until(lambda: cascade.sites["a"].host.peer_ages()[0].age > 0.3, "cut")
    sender.producer.close()
    proxy.passes = True
    await cascade.until(lambda: receiver.consumer.closed, "its consumers closed")
    assert sender.id not in b.producers


@pytest.mark.parametrize("side", ["a", "b"])
async def test_a_pipe_closed_behind_our_back_is_made_anew(cascade: Any, side: str) -> None:
    a, b = await cascade.mesh("a", "b")
    sender, receiver = await piped(cascade, a, b)
    restored = restorations(b)
    pipe_of(a if side == "a" else b).close()
    await cascade.until(lambda: restored, "restored")
    assert restored == [sender.id]
    assert receiver.consumer.closed
    assert not cascade.unready()
    await (await cascade.media.receive(b, sender.id)).hears()
    assert len(b.router.producers) == 1


async def test_a_pipe_that_only_the_worker_has_lost_is_noticed(cascade: Any) -> None:
    a, b = await cascade.mesh("a", "b")
    sender, _ = await piped(cascade, a, b)
    restored = restorations(b)
    pipe_of(b)._tell_worker()  # closes it in the worker only
    await cascade.until(lambda: restored, "restored")
    await (await cascade.media.receive(b, sender.id)).hears()


async def test_a_pipe_through_which_nothing_comes_is_made_anew(
    cascade: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pipes.connect_pipe
    reasons: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))
        swallowed = [hole.getsockname()[1]]

        async def connect(transport: PipeTransport, address: PipeAddress) -> None:
            """The first end that connects sends into the hole."""
            if swallowed:
                address = PipeAddress(
                    ip=address.ip, port=swallowed.pop(), srtp_parameters=address.srtp_parameters
                )
            await real(transport, address)

        monkeypatch.setattr(pipes, "connect_pipe", connect)
        a, b = await cascade.mesh("a", "b")
        for name in "ab":
            cascade.sites[name].host.on_state_change.subscribe(
                lambda _, name=name: reasons.append(state(cascade, name).reason)
            )
        sender = await cascade.media.send(b)
        await cascade.until(lambda: sender.id in a.producers, "announced")
        await a.attach(sender.id)
        restored = restorations(a)
        await cascade.until(lambda: restored, "the pipe was made anew")
        await (await cascade.media.receive(a, sender.id)).hears()
    assert "MediaStalled" in reasons


async def test_worker_dies_and_its_router_is_opened_again(cascade: Any) -> None:
    a, b, c = await cascade.mesh("a", "b", "c")
    sender, receiver = await piped(cascade, a, b)
    other, kept = await piped(cascade, c, b)
    site = cascade.sites["a"]
    closed: list[str] = []
    site.host.on_router_closed.subscribe(lambda pair: closed.append(pair[1]))
    os.kill(site.pool.slots[0].worker.pid, signal.SIGKILL)
    killed = time.monotonic()
    await cascade.until(lambda: closed, "the router closed")
    assert a.closed
    with pytest.raises(RouterClosedError):
        await a.attach(other.id)
    assert not site.host.routers
    await cascade.until(lambda: receiver.consumer.closed, "the pipe is gone at the other end")
    await cascade.until(lambda: sender.id not in b.producers and sender.id not in c.producers, "withdrawn")
    assert time.monotonic() - killed < 2.0  # told by its server, not found out
    await kept.hears()
    await cascade.until(lambda: site.pool.slots[0].worker, "the slot is refilled")
    again = await cascade.router(site, "r-a")
    for name in "bc":
        there = cascade.sites[name]
        proxy = await site.proxy(there)
        await site.host.open_link(
            cascade.entry("r-a", f"r-{name}", there, type(there.peer)(host="127.0.0.1", port=proxy.port))
        )
    await cascade.linked()
    await cascade.until(lambda: other.id in again.producers, "it knows the session")
    await again.attach(other.id)
    await (await cascade.media.receive(again, other.id)).hears()


async def test_a_server_that_dies_is_forgotten_and_its_links_repaired_when_it_is_back(cascade: Any) -> None:
    a, b = await cascade.mesh("a", "b")
    sender, receiver = await piped(cascade, b, a)
    site = cascade.sites["b"]
    pipe_before = pipe_of(a)
    await site.restart_host()
    await cascade.until(lambda: receiver.consumer.closed, "the dead server's pipe was given up")
    b = await cascade.router(site, "r-b")
    await cascade.link(cascade.sites["a"], "r-a", site, "r-b")
    await cascade.linked()
    assert pipe_of(a) is not pipe_before
    await cascade.until(lambda: sender.id not in a.producers, "forgotten")
    await piped(cascade, b, a)


async def test_a_silent_server_with_an_idle_pipe_is_given_up(cascade: Any) -> None:
    await cascade.mesh("a", "b")
    cascade.sites["a"].proxies["media/b"].cut()
    for name in "ab":
        await cascade.until(lambda name=name: not state(cascade, name).ready, "given up")
        assert state(cascade, name).reason == "PeerUnreachable"
        assert "media/" in state(cascade, name).message
    cascade.sites["a"].proxies["media/b"].passes = True
    await cascade.linked()


async def test_other_pipe_protocol_is_refused_and_named(cascade: Any) -> None:
    one = await cascade.site("a")
    two = await cascade.site("b", pipe_protocol=99)
    await cascade.router(one, "r-a")
    await cascade.router(two, "r-b")
    await cascade.link(one, "r-a", two, "r-b")
    for name in "ab":
        await cascade.until(lambda name=name: state(cascade, name).reason == "PipeProtocol", "refused")
        assert "99" in state(cascade, name).message


async def test_no_free_pipe_ports(cascade: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        one = await cascade.site("a")
        two = await cascade.site("b", ports=(port, port))
        await cascade.router(one, "r-a")
        b = await cascade.router(two, "r-b")
        await cascade.link(one, "r-a", two, "r-b")
        await cascade.until(lambda: state(cascade, "a").reason == "NoPorts", "reported by the initiator")
        assert state(cascade, "b").reason == "NoPorts"
        assert "--pipe-ports" in state(cascade, "b").message
    await cascade.linked()
    assert pipe_of(b).tuple.local_port == port


async def test_a_link_told_to_one_server_first(cascade: Any) -> None:
    one, two = await cascade.site("a"), await cascade.site("b")
    await cascade.router(one, "r-a")
    await one.host.open_link(cascade.entry("r-a", "r-b", two, two.peer))
    await cascade.until(lambda: "no link" in state(cascade, "a").message, "refused for now")
    await cascade.router(two, "r-b")
    await two.host.open_link(cascade.entry("r-b", "r-a", one, one.peer))
    await cascade.linked()


async def test_closing_a_link_closes_both_pipes_and_stays_closed(cascade: Any) -> None:
    a, b = await cascade.mesh("a", "b")
    sender, receiver = await piped(cascade, a, b)
    await cascade.sites["b"].host.close_link(cascade.link_key("r-a", "r-b"))
    assert not b.router.transports or not b.router.producers
    await cascade.until(lambda: not pipes_of(a), "the other end closed too")
    await cascade.until(lambda: sender.id not in b.producers, "forgotten")
    assert receiver.consumer.closed
    await cascade.sites["a"].host.close_link(cascade.link_key("r-a", "r-b"))
    assert not a.table.links
    assert not a.table.holds_joins


def pipes_of(hosted: Any) -> list[PipeTransport]:
    return [each for each in hosted.router.transports if isinstance(each, PipeTransport)]


async def test_a_lost_link_of_a_mesh_is_bypassed(cascade: Any) -> None:
    a, b, c = await cascade.mesh("a", "b", "c")
    sender, _ = await piped(cascade, a, b)
    restored = restorations(b)
    for name in "ab":
        await cascade.sites[name].host.close_link(cascade.link_key("r-a", "r-b"))
    await cascade.until(lambda: restored, "it comes by way of c")
    assert sender.id in c.router.producers
    await (await cascade.media.receive(b, sender.id)).hears()


def test_what_a_link_waits_for_is_bounded() -> None:
    assert links.LONGEST_PAUSE <= 2.0
    assert pipes.OPEN_SECONDS <= 5.0


async def test_a_link_that_waits_stands_as_soon_as_the_other_server_is_told(cascade: Any) -> None:
    one, two = await cascade.site("a"), await cascade.site("b")
    await cascade.router(one, "r-a")
    await cascade.router(two, "r-b")
    await one.host.open_link(cascade.entry("r-a", "r-b", two, two.peer))
    await cascade.until(lambda: "no link" in state(cascade, "a").message, "refused for now")
    await asyncio.sleep(2.0)  # its pauses have grown to seconds by now
    begun = time.monotonic()
    await two.host.open_link(cascade.entry("r-b", "r-a", one, one.peer))
    await cascade.linked()
    assert time.monotonic() - begun < 0.5
