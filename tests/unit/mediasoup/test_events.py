"""Event: order, unsubscribing, and handlers that fail."""

from __future__ import annotations

import logging

import pytest

from mediaserver.mediasoup import Event


def test_handlers_are_called_in_the_order_of_subscription() -> None:
    event: Event[int] = Event("x")
    seen: list[str] = []
    event.subscribe(lambda value: seen.append(f"a{value}"))
    event.subscribe(lambda value: seen.append(f"b{value}"))
    event.emit(1)
    event.emit(2)
    assert seen == ["a1", "b1", "a2", "b2"]


def test_the_same_handler_may_be_subscribed_twice_and_unsubscribed_singly() -> None:
    event: Event[int] = Event("x")
    seen: list[int] = []
    first = event.subscribe(seen.append)
    event.subscribe(seen.append)
    event.emit(1)
    first()
    first()
    event.emit(2)
    assert seen == [1, 1, 2]


def test_once_is_called_for_one_value() -> None:
    event: Event[int] = Event("x")
    seen: list[int] = []
    event.once(seen.append)
    event.emit(1)
    event.emit(2)
    assert seen == [1]


def test_a_failing_handler_is_reported_and_the_others_run() -> None:
    reported: list[tuple[str, BaseException]] = []
    event: Event[int] = Event("Consumer.on_score", lambda name, error: reported.append((name, error)))
    seen: list[int] = []

    def fail(_: int) -> None:
        raise RuntimeError("boom")

    event.subscribe(fail)
    event.subscribe(seen.append)
    event.emit(3)
    assert seen == [3]
    assert [(name, str(error)) for name, error in reported] == [("Consumer.on_score", "boom")]


def test_without_a_hook_a_failing_handler_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    event: Event[None] = Event("Router.on_close")

    def fail(_: None) -> None:
        raise RuntimeError("boom")

    event.subscribe(fail)
    with caplog.at_level(logging.ERROR, logger="mediaserver.mediasoup"):
        event.emit(None)
    assert "a handler of Router.on_close failed" in caplog.text
    assert "boom" in caplog.text


def test_a_handler_removed_during_an_emission_is_not_called_any_more() -> None:
    event: Event[int] = Event("x")
    seen: list[str] = []

    def first(_: int) -> None:
        seen.append("first")
        unsubscribe()

    event.subscribe(first)
    unsubscribe = event.subscribe(lambda _: seen.append("second"))
    event.emit(1)
    assert seen == ["first"]


def test_a_handler_added_during_an_emission_is_called_from_the_next_one_on() -> None:
    event: Event[int] = Event("x")
    seen: list[int] = []

    def subscribe(_: int) -> None:
        event.subscribe(seen.append)

    event.once(subscribe)
    event.emit(1)
    assert seen == []
    event.emit(2)
    assert seen == [2]
