"""H.264 profile-level-id (RFC 6184)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.mediasoup.ortc.h264 import (
    DEFAULT,
    Profile,
    ProfileLevelId,
    answer_profile_level_id,
    is_same_profile,
    parse_profile_level_id,
)


@pytest.mark.parametrize(
    ("text", "profile", "level"),
    [
        ("42e01f", Profile.CONSTRAINED_BASELINE, 31),
        ("42C02A", Profile.CONSTRAINED_BASELINE, 42),
        ("58f01f", Profile.CONSTRAINED_BASELINE, 31),
        ("4d8028", Profile.CONSTRAINED_BASELINE, 40),
        ("42a01f", Profile.BASELINE, 31),
        ("58a01f", Profile.BASELINE, 31),
        ("4d401f", Profile.MAIN, 31),
        ("64001f", Profile.HIGH, 31),
        ("640c1f", Profile.CONSTRAINED_HIGH, 31),
        ("f4001f", Profile.PREDICTIVE_HIGH_444, 31),
        ("42f00b", Profile.CONSTRAINED_BASELINE, 0),
        ("42100b", Profile.BASELINE, 0),
        ("42e00b", Profile.CONSTRAINED_BASELINE, 11),
    ],
)
def test_known_ids(text: str, profile: Profile, level: int) -> None:
    assert parse_profile_level_id(text) == ProfileLevelId(profile, level)


@pytest.mark.parametrize("text", ["", "42e01", "42e01ff", "gggggg", "000000", "42e000", "ffe01f", "640f1f"])
def test_unknown_ids(text: str) -> None:
    assert parse_profile_level_id(text) is None


def test_same_profile() -> None:
    assert is_same_profile({}, {"profile-level-id": "42e01f"})
    assert is_same_profile({"profile-level-id": "42e01f"}, {"profile-level-id": "42c02a"})
    assert not is_same_profile({"profile-level-id": 640032}, {"profile-level-id": "640029"})  # as in Node
    assert not is_same_profile({"profile-level-id": "42e01f"}, {"profile-level-id": "64001f"})
    assert not is_same_profile({"profile-level-id": "nonsense"}, {"profile-level-id": "nonsense"})


def test_the_answer_is_the_lower_level_unless_both_allow_asymmetry() -> None:
    low: dict[str, int | float | str] = {"profile-level-id": "42e015"}
    high: dict[str, int | float | str] = {"profile-level-id": "42e01f"}
    assert answer_profile_level_id(low, high) == "42e015"
    assert answer_profile_level_id(high, low) == "42e015"
    asymmetric: dict[str, int | float | str] = {"level-asymmetry-allowed": 1}
    assert answer_profile_level_id(high | asymmetric, low | asymmetric) == "42e01f"
    assert answer_profile_level_id(low | asymmetric, {**high, "level-asymmetry-allowed": "1"}) == "42e015"
    assert answer_profile_level_id(high | asymmetric, low) == "42e015"


def test_level_1b_lies_between_1_and_1_1() -> None:
    one_b = {"profile-level-id": "42f00b"}
    assert answer_profile_level_id(one_b, {"profile-level-id": "42e00a"}) == "42e00a"
    assert answer_profile_level_id(one_b, {"profile-level-id": "42e00b"}) == "42f00b"
    # as Node's does, although 1.1 is no lower than 1b
    assert answer_profile_level_id({"profile-level-id": "42e00b"}, one_b) == "42e00b"


def test_no_answer_when_nobody_names_a_profile() -> None:
    assert answer_profile_level_id({"packetization-mode": 1}, {}) is None
    assert DEFAULT.level == 31


@given(st.text(max_size=8), st.text(max_size=8))
def test_any_text_is_compared_without_error(first: str, second: str) -> None:
    a, b = {"profile-level-id": first}, {"profile-level-id": second}
    assert is_same_profile(a, b) == is_same_profile(b, a)
    answer = answer_profile_level_id(a, b)
    assert answer is None or parse_profile_level_id(answer) is not None
