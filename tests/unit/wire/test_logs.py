from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest
import structlog

from mediaserver.wire import logs


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def emit() -> None:
    log = structlog.get_logger()
    log.debug("hidden")
    log.info("router opened", router="shop/a b", count=2)
    logging.getLogger("elsewhere").warning("two\nlines %s", 1, extra={"server": "main-1"})
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it failed")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    emit()
    out, err = capsys.readouterr()
    assert out == ""
    first, second, third = (json.loads(line) for line in err.splitlines())
    assert first["message"] == "router opened"
    assert (first["level"], first["router"], first["count"]) == ("info", "shop/a b", 2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", first["ts"])
    assert (second["message"], second["server"], second["level"]) == ("two\nlines 1", "main-1", "warning")
    assert third["message"] == "it failed"
    assert "ValueError: broken" in third["exception"]


def test_text_is_one_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", "text")
    emit()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[1].endswith('info    router opened router="shop/a b" count=2')
    assert "two\\nlines 1" in lines[2]


def test_unknown_level() -> None:
    with pytest.raises(ValueError, match="must be one of debug, info"):
        logs.configure("loud", "json")


def test_no_access_log(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", "json")
    logging.getLogger("aiohttp.access").info("GET /?token=secret")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fmt", ["json", "text"])
def test_a_field_called_message_loses_nothing(fmt: logs.Format, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", fmt)
    structlog.get_logger().info("it failed", message="too late")
    assert "it failed: too late" in capsys.readouterr().err


def test_what_a_request_names_is_clipped_and_has_no_token() -> None:
    query = {"roomId": "shop/standup", "peerId": "x" * 1000, "token": "secret"}
    assert logs.claimed(query) == {"session": "shop/standup", "participant": "x" * 128}
    assert logs.claimed({}) == {"session": "", "participant": ""}
