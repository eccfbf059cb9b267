"""Cases of test-mediasoup.js: what the package itself offers."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.mediasoup_suite import case, until

from mediaserver.mediasoup import (
    WORKER_VERSION,
    ScalabilityMode,
    Worker,
    get_supported_rtp_capabilities,
    parse_scalability_mode,
    set_log_event_listeners,
)

NODE_PACKAGE = Path(__file__).parents[3] / "node/package.json"


@case("test-mediasoup", "mediasoup.version matches version field in package.json")
def test_version() -> None:
    assert json.loads(NODE_PACKAGE.read_text())["dependencies"]["mediasoup"] == WORKER_VERSION


@case("test-mediasoup", "mediasoup.setLoggerEventListeners() succeeds")
async def test_log_listeners(
    start_worker: Callable[..., Awaitable[Worker]], caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[tuple[str, str]] = []
    with caplog.at_level(logging.DEBUG, logger="mediaserver.mediasoup"):
        set_log_event_listeners(on_debug=lambda namespace, line: lines.append((namespace, line)))
        try:
            worker = await start_worker(log_level="debug", log_tags=["info"])
            await until(lambda: lines, "a debug line")
            worker.close()
        finally:
            set_log_event_listeners()
    assert all(namespace.startswith("mediaserver.mediasoup") for namespace, _ in lines)


@case("test-mediasoup", "mediasoup.getSupportedRtpCapabilities() returns the mediasoup RTP capabilities")
def test_supported_capabilities() -> None:
    capabilities = get_supported_rtp_capabilities()
    assert "audio/opus" in {codec.mime_type for codec in capabilities.codecs}
    capabilities.codecs.clear()
    assert get_supported_rtp_capabilities().codecs


@case("test-mediasoup", "mediasoup.parseScalabilityMode() succeeds")
@pytest.mark.parametrize(
    ("mode", "layers"),
    [
        ("L1T3", (1, 3, False)),
        ("L3T2_KEY", (3, 2, True)),
        ("S2T3", (2, 3, False)),
        ("foo", (1, 1, False)),
        (None, (1, 1, False)),
        ("S0T3", (1, 1, False)),
        ("S1T0", (1, 1, False)),
        ("L20T3", (20, 3, False)),
        ("S200T3", (1, 1, False)),
        ("L4T7_KEY_SHIFT", (4, 7, True)),
    ],
)
def test_scalability_mode(mode: str | None, layers: tuple[int, int, bool]) -> None:
    assert parse_scalability_mode(mode) == ScalabilityMode(*layers)
