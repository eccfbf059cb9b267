import pytest
from mafalda_operator.cli.participant.redial import pause_before_dial

from mediaserver.wire.close_codes import DIAL_AGAIN, DIAL_LATER, ENDED


def pauses(code: int | None, chance: float = 0.0) -> list[float | None]:
    return [pause_before_dial(code, attempt, chance) for attempt in range(8)]


def test_4000_is_the_end() -> None:
    assert pauses(ENDED) == [None] * 8


def test_4001_dials_at_once_and_then_slower() -> None:
    assert pauses(DIAL_AGAIN) == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_4002_waits_first() -> None:
    assert pauses(DIAL_LATER) == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0]


@pytest.mark.parametrize("code", [None, 1000, 1001, 1006, 1009, 4999])
def test_everything_else_is_tried_again(code: int | None) -> None:
    assert pauses(code) == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0]


def test_chance_shortens_by_a_quarter_at_most() -> None:
    assert pause_before_dial(DIAL_LATER, 0, 1.0) == 0.75


def test_many_attempts_do_not_overflow() -> None:
    assert pause_before_dial(DIAL_LATER, 100_000, 0.0) == 8.0
