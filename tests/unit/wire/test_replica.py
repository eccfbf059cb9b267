from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mediaserver.wire.replica import Delta, Receiver, ResyncNeededError, Sender


class Entry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    some_number: int
    text: str = ""


class NewerEntry(Entry, frozen=True):
    more: list[str] = []


KEYS = st.text(max_size=3)
ENTRIES = st.builds(
    NewerEntry, st.integers(-5, 5), st.text(max_size=3), st.lists(st.text(max_size=2), max_size=2)
)
MAPS = st.dictionaries(KEYS, ENTRIES, max_size=6)


def over_the_wire(delta: Delta) -> Delta:
    return msgspec.json.decode(msgspec.json.encode(delta), type=Delta)


def known(entries: dict[str, NewerEntry]) -> dict[str, Entry]:
    return {key: Entry(entry.some_number, entry.text) for key, entry in entries.items()}


@given(st.lists(MAPS, min_size=1, max_size=6))
def test_the_receiver_follows(states: list[dict[str, NewerEntry]]) -> None:
    sender: Sender[NewerEntry] = Sender()
    receiver: Receiver[Entry] = Receiver(Entry)
    for state in states:
        delta = sender.update(state)
        if delta is not None:
            receiver.apply(over_the_wire(delta))
        assert receiver.entries == known(state)
        assert receiver.digest == sender.digest
        assert receiver.revision == sender.revision


@given(MAPS, MAPS)
def test_the_digest_depends_on_the_content_alone(
    first: dict[str, NewerEntry], last: dict[str, NewerEntry]
) -> None:
    long_way: Sender[NewerEntry] = Sender()
    long_way.update(first)
    long_way.update(last)
    direct: Sender[NewerEntry] = Sender()
    direct.update(dict(reversed(list(last.items()))))
    assert long_way.digest == direct.digest
    if first != last:
        other: Sender[NewerEntry] = Sender()
        other.update(first)
        assert other.digest != direct.digest


class Lossy(RuleBasedStateMachine):
    """Deltas may get lost, repeated or come late; after a resync both sides agree again."""

    def __init__(self) -> None:
        super().__init__()
        self.sender: Sender[NewerEntry] = Sender()
        self.receiver: Receiver[Entry] = Receiver(Entry)
        self.sent: list[Delta] = []
        self.truth: dict[int, dict[str, Entry]] = {}

    @initialize(state=MAPS)
    def start(self, state: dict[str, NewerEntry]) -> None:
        self.change(state, lost=False)

    @rule(state=MAPS, lost=st.booleans())
    def change(self, state: dict[str, NewerEntry], lost: bool) -> None:
        delta = self.sender.update(state)
        if delta is None:
            return
        self.sent.append(delta)
        self.truth[delta.revision] = known(state)
        if not lost:
            self.deliver(delta)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        if self.sent:
            self.deliver(data.draw(st.sampled_from(self.sent)))

    @rule()
    def new_receiver(self) -> None:
        self.receiver = Receiver(Entry)

    @rule()
    def resync(self) -> None:
        self.receiver.apply(over_the_wire(self.sender.whole()))
        assert self.receiver.digest == self.sender.digest

    def deliver(self, delta: Delta) -> None:
        before = dict(self.receiver.entries)
        try:
            self.receiver.apply(over_the_wire(delta))
        except ResyncNeededError:
            assert self.receiver.entries == before

    @invariant()
    def what_is_held_was_true_once(self) -> None:
        if self.receiver.revision is not None:
            assert self.receiver.entries == self.truth[self.receiver.revision]


TestLossy = Lossy.TestCase


def test_a_base_that_is_not_held() -> None:
    sender: Sender[Entry] = Sender()
    sender.update({"a": Entry(1)})
    lost = sender.update({"a": Entry(2)})
    assert lost is not None
    with pytest.raises(ResyncNeededError, match="have revision None, the change builds on 1"):
        Receiver[Entry](Entry).apply(over_the_wire(lost))


def test_a_digest_that_does_not_come_out() -> None:
    sender: Sender[Entry] = Sender()
    receiver: Receiver[Entry] = Receiver(Entry)
    first = sender.update({"a": Entry(1)})
    assert first is not None
    receiver.apply(over_the_wire(first))
    second = sender.update({"a": Entry(1), "b": Entry(2)})
    assert second is not None
    with pytest.raises(ResyncNeededError, match="digest is"):
        receiver.apply(msgspec.structs.replace(over_the_wire(second), digest="0" * 32))
    assert receiver.entries == {"a": Entry(1)}
    third = sender.update({})
    assert third is not None
    with pytest.raises(ResyncNeededError):
        receiver.apply(over_the_wire(third))
    receiver.apply(over_the_wire(sender.whole()))
    assert receiver.entries == {}


def test_an_entry_that_does_not_decode_changes_nothing() -> None:
    sender: Sender[Entry] = Sender()
    receiver: Receiver[Entry] = Receiver(Entry)
    first = sender.update({"a": Entry(1)})
    assert first is not None
    receiver.apply(over_the_wire(first))
    bad = Delta(revision=2, digest="0" * 32, base=1, set={"a": msgspec.Raw(b'{"someNumber": "x"}')})
    with pytest.raises(msgspec.ValidationError):
        receiver.apply(bad)
    assert receiver.entries == {"a": Entry(1)}
    assert receiver.revision == 1
    second = sender.update({"a": Entry(2)})
    assert second is not None
    receiver.apply(over_the_wire(second))
    assert receiver.entries == {"a": Entry(2)}


def test_nothing_changed_sends_nothing() -> None:
    sender: Sender[Entry] = Sender()
    assert sender.update({}) is not None
    assert sender.update({}) is None
    assert sender.update({"a": Entry(1)}) is not None
    assert sender.update({"a": Entry(1)}) is None


class Kind(msgspec.Struct, frozen=True, tag="known"):
    number: int


class OtherKind(msgspec.Struct, frozen=True, tag="other"):
    number: int


class NewKind(msgspec.Struct, frozen=True, tag="new"):
    text: str


def test_kinds_that_only_a_newer_sender_knows_can_be_ignored() -> None:
    sender: Sender[Kind | OtherKind | NewKind] = Sender()
    receiver: Receiver[Kind | OtherKind] = Receiver(Kind | OtherKind, ignore_unknown=True)
    strict: Receiver[Kind | OtherKind] = Receiver(Kind | OtherKind)
    first = sender.update({"a": Kind(1), "b": NewKind("x")})
    assert first is not None
    receiver.apply(over_the_wire(first))
    assert receiver.entries == {"a": Kind(1)}
    assert receiver.digest == sender.digest
    with pytest.raises(msgspec.ValidationError):
        strict.apply(over_the_wire(first))
    second = sender.update({"a": NewKind("y"), "b": OtherKind(2)})
    assert second is not None
    receiver.apply(over_the_wire(second))
    assert receiver.entries == {"b": OtherKind(2)}
    assert receiver.digest == sender.digest
