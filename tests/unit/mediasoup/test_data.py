"""What is sent on data channels, SCTP streams, and what events cost until somebody listens."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.mediasoup import (
    ErrorHook,
    Event,
    InvalidArgumentError,
    InvalidStateError,
    SctpStreamParameters,
    ortc,
)
from mediaserver.mediasoup.data_messages import check_subchannels, encode_data
from mediaserver.mediasoup.events import EventSlot, log_handler_error
from mediaserver.mediasoup.sctp_streams import MAX_STREAMS, SctpStreams


@pytest.mark.parametrize(
    ("message", "ppid", "data", "sent"),
    [
        ("text", None, b"text", 51),
        (b"bytes", None, b"bytes", 53),
        ("", None, b" ", 56),
        (b"", None, b"\0", 57),
        ("text", 1234, b"text", 1234),
        (b"lost", 56, b" ", 56),
        ("lost", 57, b"\0", 57),
        (bytearray(b"also"), None, b"also", 53),
        (memoryview(b"view"), None, b"view", 53),
    ],
)
def test_messages(message: str | bytes, ppid: int | None, data: bytes, sent: int) -> None:
    assert encode_data(message, ppid) == (data, sent)


def test_what_can_not_be_sent() -> None:
    for ppid in (-1, 2**32):
        with pytest.raises(InvalidArgumentError, match="ppid"):
            encode_data("x", ppid)
    with pytest.raises(InvalidArgumentError, match="too many"):
        encode_data(bytes(9_000_000), None)
    with pytest.raises(InvalidArgumentError, match="65535"):
        check_subchannels(1, None, 65_536)


def test_streams_are_taken_in_turn_and_reused_late() -> None:
    streams = SctpStreams()
    assert [streams.take() for _ in range(3)] == [0, 1, 2]
    streams.release(1)
    assert streams.take() == 3
    streams.limit = 4
    assert streams.take() == 1
    assert streams.take() == 4  # over what was agreed, as in Node, rather than none


def test_there_are_65535_streams() -> None:
    streams = SctpStreams()
    assert {streams.take() for _ in range(MAX_STREAMS)} == set(range(MAX_STREAMS))
    with pytest.raises(InvalidStateError, match="65535"):
        streams.take()
    streams.release(7)
    assert streams.take() == 7


@given(st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=60))
def test_no_stream_is_given_twice(steps: list[int | None]) -> None:
    streams, taken = SctpStreams(), set[int]()
    for step in steps:
        if step is None:
            number = streams.take()
            assert number not in taken
            taken.add(number)
        else:
            streams.release(step)
            taken.discard(step)


def stream(**values: object) -> SctpStreamParameters:
    return SctpStreamParameters(stream_id=1, **values)  # type: ignore[arg-type]


def test_stream_parameters_get_their_order() -> None:
    validate = ortc.validate_sctp_stream_parameters
    assert validate(stream()).ordered is True
    assert validate(stream(ordered=False)).ordered is False
    assert validate(stream(max_retransmits=0)).ordered is True
    assert validate(stream(max_retransmits=1)).ordered is False
    assert validate(stream(max_packet_life_time=1, ordered=False)).max_packet_life_time == 1
    for wrong in (
        {"ordered": True, "max_retransmits": 1},
        {"ordered": True, "max_packet_life_time": 1},
        {"max_packet_life_time": 1, "max_retransmits": 1},
        {"max_retransmits": 65_536},
        {"max_packet_life_time": -1},
    ):
        with pytest.raises(InvalidArgumentError, match="sctp_stream_parameters"):
            validate(stream(**wrong))


class Thing:
    KIND: ClassVar[str] = "Thing"
    on_happening = EventSlot[int]()

    def __init__(self) -> None:
        self._hook: ErrorHook = log_handler_error


def test_an_event_is_made_when_looked_at_and_then_stays() -> None:
    thing, other = Thing(), Thing()
    assert "on_happening" not in vars(thing)
    event: Event[int] = thing.on_happening
    assert event.name == "Thing.on_happening"
    assert thing.on_happening is event
    assert other.on_happening is not event
    seen: list[int] = []
    thing.on_happening.subscribe(seen.append)
    thing.on_happening.emit(1)
    other.on_happening.emit(2)
    assert seen == [1]
    assert isinstance(Thing.on_happening, EventSlot)


async def test_waiting_for_an_event() -> None:
    event: Event[int] = Event("x")
    waiting = asyncio.create_task(event.wait(5))
    await asyncio.sleep(0)
    event.emit(1)
    event.emit(2)
    assert await waiting == 1
    with pytest.raises(TimeoutError):
        await event.wait(0.001)
    assert repr(event) == "<Event x, 0 handlers>"
