"""The comparison of certificates with a cluster key runs, and finds figures of both."""

from __future__ import annotations

from benchmarks.tls import compare


async def test_a_short_run() -> None:
    found = await compare(dials=3, calls=3)
    assert set(found) == {"key", "tls"}
    for figures in found.values():
        assert len(figures) == 6
        assert all(value >= 0 for value in figures.values())
        assert figures["dial_p50_ms"] > 0
