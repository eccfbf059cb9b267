from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.wire.close_codes import MAX_REASON_BYTES, clip_reason


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_reasons_fit_a_close_frame(reason: str) -> None:
    clipped = clip_reason(reason)
    assert len(clipped) <= MAX_REASON_BYTES
    assert reason.startswith(clipped.decode())


def test_short_reasons_stay() -> None:
    assert clip_reason("replaced") == b"replaced"
