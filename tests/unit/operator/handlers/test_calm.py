"""What kopf says of its requests: once a minute for each path, and everything else."""

from __future__ import annotations

import logging

from mafalda_operator.handlers.calm import REPEAT_SECONDS, Calm, calm

WHAT = "GET https://10.0.0.1/apis/mafalda.io/v1alpha1/{kind}?watch=true&resourceVersion={version}"


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("kopf", logging.ERROR, "", 0, message, (), None)


def test_repeated_attempts_are_told_once_a_minute_for_each_path() -> None:
    now = [0.0]
    one = Calm(lambda: now[0])
    first = record(f"Request attempt #1 failed; will retry: {WHAT.format(kind='a', version=1)} -> X('y')")
    assert one.filter(first)
    assert first.levelname == "WARNING"
    other = (
        f"Request attempt #2/9 failed; TCP closed; will re-authenticate: {WHAT.format(kind='a', version=2)}"
    )
    assert not one.filter(record(other))
    assert one.filter(record(f"Request attempt #1 failed; will retry: {WHAT.format(kind='b', version=1)}"))
    now[0] += REPEAT_SECONDS
    assert one.filter(record(other))


def test_everything_else_passes() -> None:
    one = Calm()
    for _ in range(2):
        kept = record("Handler 'x' failed with an exception")
        assert one.filter(kept)
        assert kept.levelname == "ERROR"


def test_it_is_put_in_once() -> None:
    calm("test.calm")
    calm("test.calm")
    assert len(logging.getLogger("test.calm").filters) == 1
