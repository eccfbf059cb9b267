"""Candidates of several announced addresses: order, priorities after RFC 8445, protocols and ports."""

from __future__ import annotations

from itertools import pairwise

from mediaserver.mediasoup import IceCandidate
from mediaserver.signalling.candidates import announced_candidates

UDP = IceCandidate(
    foundation="udpcandidate",
    priority=1076558079,
    ip="10.0.0.1",
    address="10.0.0.1",
    protocol="udp",
    port=10003,
    type="host",
)
TCP = IceCandidate(
    foundation="tcpcandidate",
    priority=1076276479,
    ip="10.0.0.1",
    address="10.0.0.1",
    protocol="tcp",
    port=10003,
    type="host",
    tcp_type="passive",
)
THREE = ("203.0.113.7", "2001:db8::7", "lb.example.com")


def test_without_announced_addresses_the_workers_stand() -> None:
    assert announced_candidates([UDP, TCP], ()) == [UDP, TCP]


def test_one_address_is_as_mediasoup_has_it() -> None:
    assert announced_candidates([UDP, TCP], ("10.0.0.1",)) == [UDP, TCP]


def test_every_address_by_udp_and_tcp_at_the_workers_port() -> None:
    made = announced_candidates([UDP, TCP], THREE)
    assert [(one.address, one.protocol, one.tcp_type) for one in made] == [
        each for address in THREE for each in ((address, "udp", None), (address, "tcp", "passive"))
    ]
    assert {one.port for one in made} == {10003}
    assert all(one.ip == one.address for one in made)
    assert len({one.foundation for one in made if one.protocol == "udp"}) == 1


def test_earlier_addresses_come_first_and_udp_before_tcp() -> None:
    made = announced_candidates([UDP, TCP], [f"203.0.113.{number}" for number in range(4)])
    for protocol in ("udp", "tcp"):
        priorities = [one.priority for one in made if one.protocol == protocol]
        assert all(better > worse for better, worse in pairwise(priorities))
    assert len({one.priority for one in made}) == len(made)
    assert min(one.priority for one in made if one.protocol == "udp") > max(
        one.priority for one in made if one.protocol == "tcp"
    )


def test_a_transport_by_tcp_alone() -> None:
    made = announced_candidates([TCP], THREE)
    assert [one.protocol for one in made] == ["tcp"] * 3
    assert made[0].priority == TCP.priority
