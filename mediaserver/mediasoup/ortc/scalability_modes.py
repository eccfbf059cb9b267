"""Scalability modes of simulcast and SVC (https://www.w3.org/TR/webrtc-svc/#scalabilitymodes)."""

from __future__ import annotations

import re
from typing import Final

import msgspec

_MODE: Final = re.compile(r"[LS]([1-9][0-9]?)T([1-9][0-9]?)(_KEY)?")


class ScalabilityMode(msgspec.Struct, frozen=True):
    """Layers of an encoding; `ksvc`: spatial layers depend on each other only at key frames."""

    spatial_layers: int
    temporal_layers: int
    ksvc: bool


def parse_scalability_mode(mode: str | None) -> ScalabilityMode:
    """The layers that a mode such as "L3T2_KEY" names; one of each for anything unknown."""
    match = _MODE.match(mode or "")
    if match is None:
        return ScalabilityMode(spatial_layers=1, temporal_layers=1, ksvc=False)
    return ScalabilityMode(
        spatial_layers=int(match[1]), temporal_layers=int(match[2]), ksvc=match[3] is not None
    )
