"""Comparing codecs."""

from __future__ import annotations

import functools
import re
from typing import Final, TypeVar

from msgspec.structs import replace

from ..rtp_parameters import RtpCodecCapability, RtpCodecParameters
from . import h264

Codec = RtpCodecCapability | RtpCodecParameters
C = TypeVar("C", RtpCodecCapability, RtpCodecParameters)

_RTX: Final = re.compile(r"[^\n\r\u2028\u2029]/rtx\Z", re.IGNORECASE | re.ASCII)


def is_rtx(codec: Codec) -> bool:
    """Whether the codec carries retransmissions (RFC 4588) of another."""
    return _is_rtx(codec.mime_type)


@functools.lru_cache(256)
def _is_rtx(mime_type: str) -> bool:
    return _RTX.search(mime_type) is not None


def match_codecs(first: Codec, second: Codec, *, strict: bool) -> bool:
    """Whether both are the same codec; `strict` compares H.264 and VP9 profiles as well."""
    name = first.mime_type.lower()
    if name != second.mime_type.lower():
        return False
    if first.clock_rate != second.clock_rate or first.channels != second.channels:
        return False
    if name == "audio/multiopus":
        return _same(first, second, "num_streams") and _same(first, second, "coupled_streams")
    if not strict:
        return True
    if name == "video/h264":
        return _same_or_zero(first, second, "packetization-mode") and h264.is_same_profile(
            first.parameters, second.parameters
        )
    if name == "video/vp9":
        return _same_or_zero(first, second, "profile-id")
    return True


def with_answered_profile(codec: C, other: Codec) -> C:
    """`codec` with the H.264 profile and level that both sides do; `codec` itself for other codecs."""
    if codec.mime_type.lower() != "video/h264":
        return codec
    answer = h264.answer_profile_level_id(codec.parameters, other.parameters)
    parameters = {name: value for name, value in codec.parameters.items() if name != "profile-level-id"}
    if answer is not None:
        parameters["profile-level-id"] = answer
    return codec if parameters == codec.parameters else replace(codec, parameters=parameters)


def _same(first: Codec, second: Codec, name: str) -> bool:
    return first.parameters.get(name) == second.parameters.get(name)


def _same_or_zero(first: Codec, second: Codec, name: str) -> bool:
    return (first.parameters.get(name) or 0) == (second.parameters.get(name) or 0)
