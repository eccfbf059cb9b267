"""Random meshes of routers under random faults: what must hold once everything has settled."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from itertools import combinations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediaserver.cascade.messages import EntryKey, ParticipantInfo, ProducerInfo, RouteMessage, RouterName
from mediaserver.cascade.routes import (
    Effect,
    Flow,
    Leg,
    ParticipantAppeared,
    ParticipantGone,
    ParticipantReplaced,
    Produce,
    ProducerAppeared,
    ProducerGone,
    RouteTable,
    Send,
    Serve,
    Unproduce,
    Unserve,
)
from mediaserver.mediasoup import RtpParameters

PRUNE = 10.0


@dataclass
class Link:
    """One edge: per direction an ordered queue, and what each end believes."""

    ends: tuple[RouterName, RouterName]
    queues: dict[RouterName, deque[tuple[int, RouteMessage]]]
    number: int = 0
    up: dict[RouterName, int] = field(default_factory=dict)
    connected: bool = False

    def other(self, name: RouterName) -> RouterName:
        return self.ends[1] if name == self.ends[0] else self.ends[0]


class Node:
    def __init__(self, name: RouterName) -> None:
        self.table = RouteTable(name, prune_delay=PRUNE)
        self.todo: deque[Serve | Produce] = deque()
        self.consumers: dict[Leg, bool] = {}
        self.producers: dict[str, Leg] = {}
        self.local: set[str] = set()
        self.refs: dict[str, int] = {}
        self.seen_producers: set[str] = set()
        self.seen_peers: dict[str, str] = {}


class Mesh:
    """Routers with links whose messages, failures and worker requests interleave as ``rng`` says."""

    def __init__(self, size: int, edges: list[tuple[int, int]], rng: random.Random) -> None:
        self.rng = rng
        self.now = 0.0
        self.names = [RouterName("abcdef"[index]) for index in range(size)]
        self.nodes = {name: Node(name) for name in self.names}
        self.links: dict[frozenset[str], Link] = {}
        for one, two in edges:
            ends = (self.names[min(one, two)], self.names[max(one, two)])
            self.links[frozenset(ends)] = Link(ends, {end: deque() for end in ends})
        self.counter = 0
        self.attachments: dict[str, ParticipantInfo] = {}

    # -- carrying out effects --

    def run(self, name: RouterName, effects: list[Effect]) -> None:
        node = self.nodes[name]
        for effect in effects:
            match effect:
                case Send(link=link, message=message):
                    self.send(name, link, message)
                case Serve() | Produce():
                    node.todo.append(effect)
                case Unserve(leg=leg):
                    node.consumers.pop(leg, None)
                case Flow(leg=leg):
                    assert leg in node.consumers
                    node.consumers[leg] = True
                case Unproduce(leg=leg):
                    if node.producers.get(leg.producer) == leg:
                        del node.producers[leg.producer]
                        # As in the worker: a producer's consumers close with it.
                        for fed in [fed for fed in node.consumers if fed.producer == leg.producer]:
                            del node.consumers[fed]
                case _:
                    self.observe(node, effect)

    @staticmethod
    def observe(node: Node, effect: Effect) -> None:
        match effect:
            case ProducerAppeared(producer=info):
                assert info.id not in node.seen_producers
                node.seen_producers.add(info.id)
            case ProducerGone(producer=info):
                node.seen_producers.remove(info.id)
                node.refs.pop(info.id, None)
            case ParticipantAppeared(participant=who):
                assert who.peer_id not in node.seen_peers
                node.seen_peers[who.peer_id] = who.attachment
            case ParticipantGone(participant=who):
                assert node.seen_peers.pop(who.peer_id) == who.attachment
            case ParticipantReplaced(participant=who):
                assert who.router == node.table.router

    def send(self, name: RouterName, to: RouterName, message: RouteMessage) -> None:
        link = self.links[frozenset((name, to))]
        if link.connected:
            link.queues[to].append((link.up[name], message))

    # -- steps --

    def deliver(self, link: Link, to: RouterName) -> None:
        number, message = link.queues[to].popleft()
        sender = link.other(to)
        if link.up.get(to) != number:
            if number != link.number or to == link.ends[0]:
                return
            # The acceptor learns by the first message that the initiator has connected its end.
            link.up[to] = number
            self.run(to, self.nodes[to].table.link_up(sender, self.now))
        self.run(to, self.nodes[to].table.receive(sender, message, self.now))

    def work(self, name: RouterName, fail: bool) -> None:
        """One worker request of a router completes."""
        node = self.nodes[name]
        effect = node.todo.popleft()
        leg = effect.leg
        table = node.table
        if isinstance(effect, Serve):
            have = leg.producer in node.local or leg.producer in node.producers
            if fail or not have:
                self.run(name, table.serve_failed(leg, "failed", self.now))
                return
            node.consumers[leg] = False
            self.run(name, table.served(leg, "audio", RtpParameters(codecs=[]), False))
        elif fail:
            self.run(name, table.produce_failed(leg, "failed", self.now))
        else:
            assert leg.producer not in node.producers, "two producers with one id in a router"
            node.producers[leg.producer] = leg
            self.run(name, table.produced(leg, self.now))

    def raise_link(self, link: Link) -> None:
        """A new pipe pair, replacing any older."""
        for end in link.ends:
            self.drop_end(link, end)
        link.number += 1
        link.connected = True
        first, second = link.ends
        link.up[first] = link.number
        self.run(first, self.nodes[first].table.link_up(second, self.now))

    def drop_end(self, link: Link, end: RouterName) -> None:
        if link.up.pop(end, None) is not None:
            self.run(end, self.nodes[end].table.link_down(link.other(end), self.now))

    def cut(self, link: Link) -> None:
        """The connection between the servers is lost, the pipes stand."""
        link.connected = False
        for queue in link.queues.values():
            queue.clear()

    def resume(self, link: Link) -> None:
        if link.connected:
            return
        if not all(link.up.get(end) == link.number for end in link.ends):
            self.raise_link(link)
            return
        link.connected = True
        for end in link.ends:
            self.run(end, self.nodes[end].table.link_up(link.other(end), self.now))

    def lower_link(self, link: Link) -> None:
        self.cut(link)
        for end in link.ends:
            self.drop_end(link, end)

    def open_producer(self, name: RouterName) -> None:
        self.counter += 1
        info = ProducerInfo(id=f"p{self.counter}", kind="audio", peer_id="x", source="mic", router=name)
        self.nodes[name].local.add(info.id)
        self.run(name, self.nodes[name].table.open(info, self.now))

    def close_producer(self, name: RouterName) -> None:
        node = self.nodes[name]
        if node.local:
            victim = self.rng.choice(sorted(node.local))
            node.local.discard(victim)
            key = EntryKey(kind="producer", id=victim)
            self.run(name, node.table.end(key, self.now))

    def change_producer(self, name: RouterName) -> None:
        node = self.nodes[name]
        if node.local:
            info = node.table.producers[self.rng.choice(sorted(node.local))]
            changed = ProducerInfo(
                id=info.id,
                kind=info.kind,
                peer_id=info.peer_id,
                source=info.source,
                router=info.router,
                paused=not info.paused,
                version=info.version + 1,
            )
            self.run(name, node.table.open(changed, self.now))

    def attach(self, name: RouterName) -> None:
        node = self.nodes[name]
        if node.table.producers:
            wanted = self.rng.choice(sorted(node.table.producers))
            node.refs[wanted] = node.refs.get(wanted, 0) + 1
            self.run(name, node.table.acquire(wanted, self.now))

    def release(self, name: RouterName) -> None:
        node = self.nodes[name]
        if node.refs:
            wanted = self.rng.choice(sorted(node.refs))
            node.refs[wanted] -= 1
            if not node.refs[wanted]:
                del node.refs[wanted]
            self.run(name, node.table.release(wanted, self.now))

    def enter(self, name: RouterName) -> None:
        self.counter += 1
        info = ParticipantInfo(
            peer_id=self.rng.choice("uvw"),
            attachment=f"t{self.counter}",
            joined_at=self.counter,
            server=name,
            router=name,
        )
        self.attachments[info.attachment] = info
        self.run(name, self.nodes[name].table.open(info, self.now))

    def leave(self, name: RouterName) -> None:
        mine = sorted(key for key, info in self.attachments.items() if info.router == name)
        if mine:
            gone = self.attachments.pop(self.rng.choice(mine))
            self.run(name, self.nodes[name].table.end(gone.key, self.now))

    def random_fault(self) -> None:
        if not self.links:
            return
        link = self.rng.choice(list(self.links.values()))
        match self.rng.randrange(5):
            case 0:
                self.lower_link(link)
            case 1:
                self.drop_end(link, self.rng.choice(link.ends))
                self.cut(link)
            case 2:
                self.cut(link)
            case 3:
                self.resume(link)
            case _:
                self.raise_link(link)

    def random_step(self) -> None:
        name = self.rng.choice(self.names)
        actions = [self.open_producer, self.close_producer, self.change_producer, self.attach, self.attach]
        actions += [self.release, self.enter, self.leave]
        roll = self.rng.random()
        if roll < 0.25:
            self.rng.choice(actions)(name)
        elif roll < 0.35:
            self.random_fault()
        elif roll < 0.4:
            self.advance(self.rng.choice((0.05, 1.0, 4.0, 11.0)))
        else:
            self.progress(allow_failures=True)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for name, node in self.nodes.items():
            self.run(name, node.table.tick(self.now))

    def progress(self, *, allow_failures: bool) -> bool:
        """One message or worker request, chosen at random; False when there is none."""
        choices: list[tuple[str, Link | None, RouterName]] = []
        for link in self.links.values():
            choices += [("message", link, end) for end in link.ends if link.queues[end]]
        choices += [("work", None, name) for name, node in self.nodes.items() if node.todo]
        if not choices:
            return False
        what, link, name = self.rng.choice(choices)
        if what == "message" and link is not None:
            self.deliver(link, name)
        else:
            self.work(name, allow_failures and self.rng.random() < 0.1)
        return True

    def settle(self) -> None:
        """Let every message and timer run out; what is half up or cut is repaired, as often as it takes."""
        for _ in range(1000):
            for link in self.links.values():
                if link.up and not link.connected:
                    self.resume(link)
            budget = 200_000
            while self.progress(allow_failures=False):
                budget -= 1
                assert budget > 0, "messages without end"
            for link in self.links.values():
                if link.connected and any(link.up.get(end) != link.number for end in link.ends):
                    self.raise_link(link)
            deadlines = [node.table.deadline for node in self.nodes.values()]
            due = [at for at in deadlines if at is not None]
            if not due and not any(link.queues[end] for link in self.links.values() for end in link.ends):
                return
            self.advance(max(0.0, min(due, default=self.now) - self.now))
        raise AssertionError("timers without end")

    # -- what must hold --

    def distances(self, origin: RouterName) -> dict[RouterName, int]:
        found = {origin: 0}
        todo = deque([origin])
        while todo:
            here = todo.popleft()
            for link in self.links.values():
                if here in link.ends and link.up:
                    there = link.other(here)
                    if there not in found:
                        found[there] = found[here] + 1
                        todo.append(there)
        return found

    def check(self) -> None:
        reach = {name: self.distances(name) for name in self.names}
        for name, node in self.nodes.items():
            expected = {
                producer
                for origin in self.names
                for producer in self.nodes[origin].local
                if name in reach[origin]
            }
            assert set(node.table.producers) == expected == node.seen_producers
            for producer in expected:
                self.check_path(name, producer, reach)
                if node.refs.get(producer):
                    self.check_chain(name, producer)
            self.check_participants(name, node, reach)
        self.check_nothing_extra()

    def check_path(
        self, name: RouterName, producer: str, reach: dict[RouterName, dict[RouterName, int]]
    ) -> None:
        info = self.nodes[name].table.producers[producer]
        origin = RouterName(info.router)
        path = self.nodes[name].table.path(info.key)
        assert path is not None
        assert len(path) == reach[origin][name]
        assert len(set(path)) == len(path)
        assert name not in path
        assert (path[-1] if path else name) == origin
        assert info == self.nodes[origin].table.producers[producer], "an old version lives on"

    def check_chain(self, name: RouterName, producer: str) -> None:
        """From a consumer back to the origin, every hop stands and flows."""
        seen = set()
        while producer not in self.nodes[name].local:
            assert name not in seen
            seen.add(name)
            leg = self.nodes[name].table.upstream(producer)
            path = self.nodes[name].table.path(EntryKey(kind="producer", id=producer))
            assert leg is not None
            assert path is not None
            assert leg.link == path[0]
            assert self.nodes[name].producers[producer] == leg
            near = Leg(producer, name, leg.join, leg.serve)
            assert self.nodes[leg.link].consumers[near] is True
            name = leg.link

    def check_participants(
        self, name: RouterName, node: Node, reach: dict[RouterName, dict[RouterName, int]]
    ) -> None:
        best: dict[str, ParticipantInfo] = {}
        for info in self.attachments.values():
            if name in reach[RouterName(info.router)]:
                other = best.get(info.peer_id)
                if other is None or other.joined_at < info.joined_at:
                    best[info.peer_id] = info
        shown = {peer: info.attachment for peer, info in node.table.participants.items()}
        assert shown == node.seen_peers
        for peer, attachment in shown.items():
            assert attachment in self.attachments
            assert self.attachments[attachment].peer_id == peer
        for peer, info in best.items():
            # One that was replaced by an attachment that is gone by now is gone as well.
            if peer in shown:
                assert self.attachments[shown[peer]].joined_at <= info.joined_at

    def check_nothing_extra(self) -> None:
        """Each pipe consumer has its piped producer and each of those is wanted."""
        for name, node in self.nodes.items():
            for leg in node.consumers:
                far = Leg(leg.producer, name, leg.join, leg.serve)
                assert self.nodes[leg.link].producers.get(leg.producer) == far
            for producer, leg in node.producers.items():
                assert node.table.upstream(producer) == leg
                assert node.table.references(producer) > 0


def connected_edges(size: int, rng: random.Random, extra: int) -> list[tuple[int, int]]:
    tree = [(rng.randrange(index), index) for index in range(1, size)]
    others = [edge for edge in combinations(range(size), 2) if edge not in tree]
    rng.shuffle(others)
    return tree + others[:extra]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=st.integers(1, 6),
    extra=st.integers(0, 6),
    steps=st.integers(5, 400),
    seed=st.integers(0, 2**32),
)
def test_everything_settles(size: int, extra: int, steps: int, seed: int) -> None:
    rng = random.Random(seed)
    mesh = Mesh(size, connected_edges(size, rng, extra), rng)
    for link in mesh.links.values():
        mesh.raise_link(link)
    for _ in range(steps):
        mesh.random_step()
    mesh.settle()
    mesh.check()
    release_everything(mesh)
    mesh.check()
    for node in mesh.nodes.values():
        assert not node.consumers
        assert not node.producers
        assert not node.table.holds_joins


def release_everything(mesh: Mesh) -> None:
    for name, node in mesh.nodes.items():
        while node.refs:
            mesh.release(name)
    mesh.settle()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_three_in_a_mesh_under_constant_change(seed: int) -> None:
    rng = random.Random(seed)
    mesh = Mesh(3, [(0, 1), (0, 2), (1, 2)], rng)
    for link in mesh.links.values():
        mesh.raise_link(link)
    for _ in range(300):
        mesh.random_step()
    mesh.settle()
    mesh.check()
