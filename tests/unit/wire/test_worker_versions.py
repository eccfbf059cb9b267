"""Which worker serves which mediasoup."""

from __future__ import annotations

import pytest

from mediaserver.mediasoup import WORKER_VERSION
from mediaserver.wire.worker_versions import SERVES, choose, refusal


@pytest.mark.parametrize(
    ("asked", "held", "chosen"),
    [
        ("3.27.1", ["3.27.1"], "3.27.1"),
        ("3.27.0", ["3.27.1"], "3.27.1"),
        ("3.27.0", ["3.27.0", "3.27.1"], "3.27.0"),
        ("3.26.0", ["3.27.1"], None),
        ("", ["3.27.1"], None),
        ("3.27.1", [], None),
    ],
)
def test_the_own_version_comes_first_then_one_that_was_tried(
    asked: str, held: list[str], chosen: str | None
) -> None:
    assert choose(asked, held) == chosen


def test_our_own_worker_is_one_whose_channel_is_known() -> None:
    assert WORKER_VERSION in SERVES


def test_a_refusal_names_both_versions_and_the_remedy() -> None:
    told = refusal("3.20.0", ["3.27.1"])
    assert "mediasoup 3.20.0" in told
    assert "have 3.27.1" in told
    assert "--worker VERSION=PATH" in told
