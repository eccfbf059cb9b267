"""The links of a session: each pair of its mesh, whether it can be made, and what its two ends say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from mafalda_operator.model import LinkPolicy, MediaSession, ObjectKey
from mafalda_operator.planning.recovery import Standing
from mafalda_operator.planning.topology import Member, Topology
from mediaserver.control.contract import Address, LinkEntry, link_key

LinkCondition = Literal["Ready", "Down"]


@dataclass(frozen=True, slots=True)
class Edge:
    """One link; ``one`` has the smaller name. ``problem`` says why it isn't asked for at all; None: it is."""

    one: Member
    other: Member
    srtp: bool
    ready: bool
    reason: str
    message: str
    possible: bool

    @property
    def ends(self) -> tuple[Member, Member]:
        return self.one, self.other

    @property
    def names(self) -> tuple[str, str]:
        return self.one.router.key.name, self.other.router.key.name


def edges(
    session: MediaSession, topology: Topology, policy: LinkPolicy, standings: Mapping[ObjectKey, Standing]
) -> list[Edge]:
    """Each pair of the mesh, ordered by name."""
    return [_edge(session, one, other, policy, standings) for one, other in combinations(topology.mesh, 2)]


def _edge(
    session: MediaSession,
    one: Member,
    other: Member,
    policy: LinkPolicy,
    standings: Mapping[ObjectKey, Standing],
) -> Edge:
    assert one.server is not None  # the mesh has placed routers only
    assert other.server is not None
    srtp = policy.srtp == "Always" or (policy.srtp == "BetweenServers" and one.server != other.server)
    ends = [standings[one.server], standings[other.server]]
    protocols = [standing.view.hello.pipe_protocol for standing in ends if standing.view.hello]
    if len(set(protocols)) > 1:
        message = (
            f"{one.router.key.name} on {one.server} speaks pipe protocol {protocols[0]}, "
            f"{other.router.key.name} on {other.server} {protocols[1]}; run both servers at one version"
        )
        return Edge(one, other, srtp, False, "PipeProtocol", message, False)
    reason, message = _state(session, one, other, ends)
    return Edge(one, other, srtp, not reason, reason, message, True)


def _state(session: MediaSession, one: Member, other: Member, ends: list[Standing]) -> tuple[str, str]:
    """Why a link isn't ready, by the first of its ends to say so; two empty strings when it is."""
    for member in (one, other):
        if member.verdict == "Unhealthy":
            return member.reason, member.message
    key = link_key(session.key.namespace, one.router.key.name, other.router.key.name)
    for standing in ends:
        state = standing.view.links.get(key)
        if state is None:
            return "Opening", f"{standing.server.key} is opening its end"
        if not state.ready:
            return state.reason or "Opening", f"{standing.server.key}: {state.message or 'opening'}"
    return "", ""


def link_entries(
    session: MediaSession, edge: Edge, rtx: bool, standings: Mapping[ObjectKey, Standing]
) -> Iterator[tuple[ObjectKey, str, LinkEntry]]:
    """What each end is told: server, replica key, entry. A link inside one server is told once."""
    if not edge.possible or edge.one.server is None or edge.other.server is None:
        return
    namespace = session.key.namespace
    key = link_key(namespace, *edge.names)
    inside = edge.one.server == edge.other.server
    for local, remote in ((edge.one, edge.other), (edge.other, edge.one)):
        if inside and local is edge.other:
            return
        assert local.server is not None
        assert remote.server is not None
        yield (
            local.server,
            key,
            LinkEntry(
                namespace=namespace,
                session_uid=session.uid,
                local_router=local.router.key.name,
                remote_router=remote.router.key.name,
                remote_server=str(remote.server),
                remote_peer=None if inside else _peer_address(standings[remote.server]),
                srtp=edge.srtp,
                rtx=rtx,
            ),
        )


def _peer_address(standing: Standing) -> Address:
    """Where the server says its peers reach it.

    Before it has said so, its endpoint, which serves /peer too: a new leader that doesn't reach one server
    leaves the links to it alone.
    """
    if standing.view.hello is not None:
        return standing.view.hello.peer
    host, _, port = standing.server.address.rpartition(":")
    return Address(host=host.strip("[]"), port=int(port) if port.isdigit() else 0)
