"""What all workers of one token may have together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.tenants import claims

from mediaserver.remote.tap import ChannelTap
from mediaserver.remote.usage import TokenUse

CONSUMERS, BANDWIDTH = "bound of 10 consumers", "its bound is 1000"


@pytest.mark.parametrize(
    ("bounds", "consumers", "bitrates", "consume", "produce"),
    [
        ({}, (10**6,), (10**9,), None, None),
        ({"consumers": 10}, (), (), None, None),
        ({"consumers": 10}, (4, 5), (10**9, 0), None, None),
        ({"consumers": 10}, (5, 5), (0, 0), CONSUMERS, None),
        ({"bandwidth": 1000}, (99, 0), (500, 499), None, None),
        ({"bandwidth": 1000}, (0, 0), (500, 500), BANDWIDTH, BANDWIDTH),
        ({"consumers": 10, "bandwidth": 1000}, (9,), (2000,), BANDWIDTH, BANDWIDTH),
        ({"consumers": 10, "bandwidth": 1000}, (10,), (2000,), CONSUMERS, BANDWIDTH),
    ],
)
def test_bounds_are_of_all_workers_together(
    bounds: dict[str, Any],
    consumers: tuple[int, ...],
    bitrates: tuple[int, ...],
    consume: str | None,
    produce: str | None,
) -> None:
    use = TokenUse(claims(**bounds))
    for index, (count, bitrate) in enumerate(zip(consumers, bitrates, strict=True)):
        use.taps[str(index)] = cast(ChannelTap, SimpleNamespace(consumers=count, bitrate=bitrate))
    for told, expected in ((use.may_consume(), consume), (use.may_produce(), produce)):
        assert (told is None) if expected is None else (expected in str(told) and "claim " in str(told))
