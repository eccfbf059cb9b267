"""H.264 profile-level-id: comparing and answering (RFC 6184, section 8.1, and its use in WebRTC)."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final

import msgspec

Parameters = Mapping[str, int | float | str]

_CONSTRAINT_SET_3: Final = 0x10
_ID: Final = re.compile(r"[0-9a-fA-F]{6}")
_LEVEL_1_B: Final = 0
_LEVELS: Final = frozenset({10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52})


class Profile(enum.Enum):
    CONSTRAINED_BASELINE = enum.auto()
    BASELINE = enum.auto()
    MAIN = enum.auto()
    CONSTRAINED_HIGH = enum.auto()
    HIGH = enum.auto()
    PREDICTIVE_HIGH_444 = enum.auto()


# profile_idc, mask and value of profile_iop, profile; the first match counts.
_PATTERNS: Final = (
    (0x42, 0b01001111, 0b01000000, Profile.CONSTRAINED_BASELINE),
    (0x4D, 0b10001111, 0b10000000, Profile.CONSTRAINED_BASELINE),
    (0x58, 0b11001111, 0b11000000, Profile.CONSTRAINED_BASELINE),
    (0x42, 0b01001111, 0b00000000, Profile.BASELINE),
    (0x58, 0b11001111, 0b10000000, Profile.BASELINE),
    (0x4D, 0b10101111, 0b00000000, Profile.MAIN),
    (0x64, 0b11111111, 0b00000000, Profile.HIGH),
    (0x64, 0b11111111, 0b00001100, Profile.CONSTRAINED_HIGH),
    (0xF4, 0b11111111, 0b00000000, Profile.PREDICTIVE_HIGH_444),
)
_PREFIXES: Final = {
    Profile.CONSTRAINED_BASELINE: "42e0",
    Profile.BASELINE: "4200",
    Profile.MAIN: "4d00",
    Profile.CONSTRAINED_HIGH: "640c",
    Profile.HIGH: "6400",
    Profile.PREDICTIVE_HIGH_444: "f400",
}
_LEVEL_1_B_IDS: Final = {
    Profile.CONSTRAINED_BASELINE: "42f00b",
    Profile.BASELINE: "42100b",
    Profile.MAIN: "4d100b",
}


class ProfileLevelId(msgspec.Struct, frozen=True):
    """`level` is ten times the level's number; 0 is level 1b."""

    profile: Profile
    level: int


DEFAULT: Final = ProfileLevelId(Profile.CONSTRAINED_BASELINE, 31)


def parse_profile_level_id(text: str) -> ProfileLevelId | None:
    """None for what is no profile-level-id, or one of an unknown profile or level."""
    if not _ID.fullmatch(text):
        return None
    idc, iop, level = int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)
    if level not in _LEVELS:
        return None
    if level == 11 and iop & _CONSTRAINT_SET_3:
        level = _LEVEL_1_B
    for pattern_idc, mask, value, profile in _PATTERNS:
        if idc == pattern_idc and iop & mask == value:
            return ProfileLevelId(profile, level)
    return None


def _of(parameters: Parameters) -> ProfileLevelId | None:
    value = parameters.get("profile-level-id")
    if not value:
        return DEFAULT
    return parse_profile_level_id(value) if isinstance(value, str) else None


def is_same_profile(first: Parameters, second: Parameters) -> bool:
    """Whether both parameters name the same profile; absent or empty means constrained baseline."""
    a, b = _of(first), _of(second)
    return a is not None and b is not None and a.profile is b.profile


def answer_profile_level_id(local: Parameters, remote: Parameters) -> str | None:
    """The profile-level-id to answer with; None when neither side names one, or none can express it.

    The profiles must be the same. Without level asymmetry on both sides it is the lower level.
    """
    if not local.get("profile-level-id") and not remote.get("profile-level-id"):
        return None
    ours, theirs = _of(local), _of(remote)
    if ours is None or theirs is None:
        return None
    asymmetric = _allows_asymmetry(local) and _allows_asymmetry(remote)
    level = ours.level if asymmetric or _is_lower(ours.level, theirs.level) else theirs.level
    if level == _LEVEL_1_B:
        return _LEVEL_1_B_IDS.get(ours.profile)
    return f"{_PREFIXES[ours.profile]}{level:02x}"


def _allows_asymmetry(parameters: Parameters) -> bool:
    return parameters.get("level-asymmetry-allowed") in (1, "1")


def _is_lower(a: int, b: int) -> bool:
    """As in WebRTC and in mediasoup's h264-profile-level-id: but for level 1, all count as lower than 1b.

    Level 1b is between 1 and 1.1, but whoever answers must answer as the others do.
    """
    if a == _LEVEL_1_B:
        return b not in (10, _LEVEL_1_B)
    if b == _LEVEL_1_B:
        return a != 10
    return a < b
