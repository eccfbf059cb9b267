"""Peer links by TLS: media over them, certificates and CA exchanged while they are up, and who is refused."""

from __future__ import annotations

from typing import Any

import pytest
from support.certificates import OTHER_SERVER, SERVER, Authority

from mediaserver.wire.membership import ClusterKey
from mediaserver.wire.tls import Certificates


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def held(cascade: Any, authority: Authority) -> dict[str, Certificates]:
    """What each site presents."""
    held: dict[str, Certificates] = {}
    cascade.credential = lambda name: held.setdefault(name, authority.certificates(SERVER))
    return held


async def piped(cascade: Any, origin: Any, to: Any) -> Any:
    """A receiver at one router of what is sent at the other."""
    sender = await cascade.media.send(origin, "audio")
    await cascade.until(lambda: sender.id in to.producers, "announced")
    await to.attach(sender.id)
    receiver = await cascade.media.receive(to, sender.id)
    await receiver.hears()
    return receiver


def connections(cascade: Any) -> list[Any]:
    """Of both ends of the one peer link."""
    peers = [site.host._peers._peers for site in cascade.sites.values()]
    return [peer.connection for known in peers for peer in known.values()]


def serial(connection: Any) -> int:
    """Of the certificate that the other end presents."""
    return int(connection.socket.get_extra_info("ssl_object").getpeercert()["serialNumber"], 16)


async def test_renewal_cuts_no_peer_link_and_the_next_one_has_the_new_certificate(
    cascade: Any, authority: Authority, held: dict[str, Certificates]
) -> None:
    a, b = await cascade.mesh("a", "b")
    receiver = await piped(cascade, a, b)
    before = connections(cascade)
    assert [connection.presented for connection in before] == [{SERVER}, {SERVER}]
    proxy = cascade.sites["a"].proxies["media/b"]
    for step in (lambda: None, authority.add_next, authority.promote, authority.drop_others):
        step()
        # One side after the other, as their volumes are written.
        for name in ("b", "a"):
            held[name].put(authority.material(SERVER))
            await receiver.hears()
    assert connections(cascade) == before
    assert not any(connection.closed for connection in before)

    proxy.cut()
    proxy.passes = True
    await cascade.until(
        lambda: all(after and after not in before for after in connections(cascade)), "dialled again"
    )
    assert {serial(connection) for connection in connections(cascade)} == {
        certificates.material.serial for certificates in held.values() if certificates.material is not None
    }
    await receiver.hears()
    late = await cascade.media.send(a, "audio")
    await cascade.until(lambda: late.id in b.producers, "the new connection carries announcements")


@pytest.mark.parametrize("stranger", ["of another cluster", "of another CA", "by key"])
async def test_a_stranger_gets_no_peer_link(
    cascade: Any, authority: Authority, held: dict[str, Certificates], stranger: str
) -> None:
    """Whichever of the two dials; the problem is told in the link's state."""
    others = {
        "of another cluster": lambda: authority.certificates(OTHER_SERVER),
        "of another CA": lambda: Authority().certificates(SERVER),
        "by key": lambda: ClusterKey(b"k" * 32),
    }
    told = {
        "of another cluster": "not for main.media.media-server",
        "of another CA": "of a CA that is not in this side's ca.crt",
        "by key": "does not speak TLS",
    }
    other = others[stranger]()
    cascade.credential = lambda name: other if name == "b" else authority.certificates(SERVER)
    sites = [await cascade.site(name) for name in ("a", "b")]
    for site, name in zip(sites, ("r-a", "r-b"), strict=True):
        await cascade.router(site, name)
    await cascade.link(sites[0], "r-a", sites[1], "r-b")
    await cascade.until(
        lambda: any(told[stranger] in state.message for state in sites[0].host.link_states()), "refused"
    )
    assert connections(cascade) == [None, None]
