"""The ledger against a model that keeps a list of what was made and looks through it each time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.remote.ledger import Change, Closing, Kind, Ledger, Opening

IDS = [f"{letter}{n}" for letter in "srtpc" for n in range(3)]
OWNERS = {
    Kind.WEBRTC_SERVER: "",
    Kind.ROUTER: "",
    Kind.TRANSPORT: "rs",
    Kind.PIPE_TRANSPORT: "r",
    Kind.DIRECT_TRANSPORT: "r",
    Kind.PRODUCER: "t",
    Kind.CONSUMER: "tp",
}

WITH_SOCKETS = (Kind.TRANSPORT, Kind.PIPE_TRANSPORT)


@dataclass
class Model:
    """What is open, in the order in which it was made."""

    things: list[Opening] = field(default_factory=list)
    asked: list[Change] = field(default_factory=list)

    def alive(self, ident: str) -> bool:
        return any(thing.id == ident for thing in self.things)

    def answer(self, change: Change, accepted: bool) -> None:
        self.asked.remove(change)
        if not accepted:
            return
        if isinstance(change, Opening):
            if not self.alive(change.id) and all(self.alive(owner) for owner in change.owners):
                self.things.append(change)
            return
        self.things = [thing for thing in self.things if thing.id != change.id]
        for thing in list(self.things):
            if not all(self.alive(owner) for owner in thing.owners):
                self.things = [other for other in self.things if other.id != thing.id]

    def count(self, *kinds: Kind) -> int:
        return sum(thing.kind in kinds for thing in self.things)


@st.composite
def openings(draw: st.DrawFn) -> Opening:
    kind = draw(st.sampled_from(Kind))
    letters = OWNERS[kind]
    if kind is Kind.TRANSPORT and draw(st.booleans()):
        letters = "r"
    owners = tuple(f"{letter}{draw(st.integers(0, 2))}" for letter in letters)
    odd = {Kind.WEBRTC_SERVER: "s", Kind.PIPE_TRANSPORT: "t", Kind.DIRECT_TRANSPORT: "t"}
    letter = odd.get(kind, kind.name[0].lower())
    return Opening(kind=kind, id=f"{letter}{draw(st.integers(0, 2))}", owners=owners)


CHANGES = st.one_of(openings(), openings(), st.builds(Closing, id=st.sampled_from(IDS)))


@given(st.lists(st.tuples(CHANGES, st.booleans(), st.integers(0, 3)), max_size=80))
def test_it_counts_what_a_model_finds(steps: list[tuple[Change, bool, int]]) -> None:
    """`late` requests more are sent before the answer to one comes; answers keep the order."""
    ledger, model = Ledger(), Model()
    waiting: list[tuple[Change, bool]] = []

    def check() -> None:
        in_flight = [c for c in model.asked if isinstance(c, Opening) and c.kind is Kind.CONSUMER]
        assert ledger.consumers == model.count(Kind.CONSUMER) + len(in_flight)
        assert ledger.producers == model.count(Kind.PRODUCER)
        assert ledger.pipes == model.count(Kind.PIPE_TRANSPORT)
        assert ledger.transports == model.count(*WITH_SOCKETS, Kind.DIRECT_TRANSPORT)
        assert set(ledger.network_transports()) == {
            thing.id for thing in model.things if thing.kind in WITH_SOCKETS
        }
        assert len(ledger) == len(model.things)

    for change, accepted, late in steps:
        ledger.ask(change)
        model.asked.append(change)
        waiting.append((change, accepted))
        while len(waiting) > late:
            ledger.answer(*waiting[0])
            model.answer(*waiting.pop(0))
            check()
        check()
    for change, accepted in waiting:
        ledger.answer(change, accepted)
        model.answer(change, accepted)
    check()


def apply(ledger: Ledger, *changes: Change) -> None:
    for change in changes:
        ledger.ask(change)
        ledger.answer(change, True)


@pytest.mark.parametrize("ended", ["s1", "r1", "t1", "t2", "p1", "c1"])
def test_a_consumer_ends_with_whatever_it_needs(ended: str) -> None:
    ledger = Ledger()
    apply(
        ledger,
        Opening(kind=Kind.WEBRTC_SERVER, id="s1"),
        Opening(kind=Kind.ROUTER, id="r1"),
        Opening(kind=Kind.TRANSPORT, id="t1", owners=("r1", "s1")),
        Opening(kind=Kind.TRANSPORT, id="t2", owners=("r1",)),
        Opening(kind=Kind.PRODUCER, id="p1", owners=("t1",)),
        Opening(kind=Kind.CONSUMER, id="c1", owners=("t2", "p1")),
        Opening(kind=Kind.ROUTER, id="r2"),
        Opening(kind=Kind.DIRECT_TRANSPORT, id="t3", owners=("r2",)),
        Opening(kind=Kind.PRODUCER, id="p2", owners=("t3",)),
        Opening(kind=Kind.CONSUMER, id="c2", owners=("t3", "p2")),
    )
    assert (ledger.consumers, ledger.transports) == (2, 3)
    apply(ledger, Closing(id=ended))
    assert ledger.consumers == 1
    apply(ledger, Closing(id="r2"))
    assert ledger.consumers == 0
    apply(ledger, Closing(id="r1"), Closing(id="s1"))
    assert len(ledger) == 0


def test_consumers_count_from_when_they_are_asked_for() -> None:
    ledger = Ledger()
    changes = [Opening(kind=Kind.CONSUMER, id=f"c{n}", owners=("t", "p")) for n in range(3)]
    for change in changes:
        ledger.ask(change)
    assert ledger.consumers == 3
    for change in changes:
        ledger.answer(change, False)
    assert ledger.consumers == 0


def test_a_refused_close_ends_nothing() -> None:
    ledger = Ledger()
    apply(ledger, Opening(kind=Kind.ROUTER, id="r1"))
    ledger.ask(Closing(id="r1"))
    ledger.answer(Closing(id="r1"), False)
    assert len(ledger) == 1
