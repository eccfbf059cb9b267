"""The process around the loop: health, metrics, the command line, and ending in order."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner
from mafalda_operator.__main__ import main
from mafalda_operator.app import beside
from mafalda_operator.health import LOOP_STALLED, WATCH_STALLED, Vitals, application
from mafalda_operator.metrics import Metrics


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """The command configures logging for the whole process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Body:
    """Vitals that a test sets."""

    def __init__(self) -> None:
        self.leading, self.complete = True, True
        self.loop_age = self.lag = self.api_age = 0.0
        self.ages = {"MediaSession": 1.0}

    @property
    def vitals(self) -> Vitals:
        return Vitals(
            leading=lambda: self.leading,
            loop_age=lambda: self.loop_age,
            event_loop_lag=lambda: self.lag,
            watch_ages=lambda: self.ages,
            api_age=lambda: self.api_age,
            complete=lambda: self.complete,
        )


def test_a_process_is_healthy_when_a_restart_would_not_help() -> None:
    body = Body()
    assert body.vitals.faults() == []
    body.api_age, body.complete = 1000.0, False
    body.ages = {"MediaSession": 1000.0}
    assert body.vitals.faults() == []
    assert len(body.vitals.unready()) == 2


def test_a_watch_that_is_silent_while_the_api_server_answers_is_a_fault() -> None:
    body = Body()
    body.ages = {"MediaSession": WATCH_STALLED + 1, "MediaRouter": 1.0}
    (fault,) = body.vitals.faults()
    assert "MediaSession" in fault


def test_a_stalled_loop_is_a_fault_of_a_leader_only() -> None:
    body = Body()
    body.loop_age = LOOP_STALLED + 1
    assert len(body.vitals.faults()) == 1
    body.leading = False
    assert body.vitals.faults() == []


async def test_the_endpoints() -> None:
    body, metrics = Body(), Metrics()
    metrics.note_request("patch", "mediasessions", "200", 0.01)
    metrics.gauge("things", "How many.", lambda: [(("a",), 2.0)], ("kind",))
    async with TestClient(TestServer(application(body.vitals, metrics.render))) as client:
        assert (await client.get("/healthz")).status == 200
        body.lag = 100.0
        assert (await client.get("/healthz")).status == 503
        assert (await client.get("/readyz")).status == 503
        text = await (await client.get("/metrics")).text()
    assert 'mafalda_operator_api_requests_total{code="200",resource="mediasessions",verb="patch"} 1.0' in text
    assert 'mafalda_operator_things{kind="a"} 2.0' in text


async def test_what_runs_beside_ends_with_the_main_work_and_faults_come_out() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def work() -> None:
        await asyncio.sleep(0)

    async def broken() -> None:
        raise ZeroDivisionError

    await beside(work(), forever())
    with pytest.raises(ZeroDivisionError):
        await beside(forever(), broken())
    with pytest.raises(RuntimeError, match="never does by itself"):
        await beside(forever(), work())
    assert len(ended) == 3


def test_usage_errors_have_exit_code_two(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(main, []).exit_code == 2
    short = tmp_path / "key"
    short.write_text("short")
    result = runner.invoke(main, ["--cluster-key-file", str(short)])
    assert result.exit_code == 2
    assert "--cluster-key-file" in result.output
    assert "openssl rand -base64 32" in result.output
    key = tmp_path / "good"
    key.write_text("k" * 40)
    result = runner.invoke(main, ["--cluster-key-file", str(key), "--metrics-listen", "nonsense"])
    assert result.exit_code == 2
    assert "HOST:PORT" in result.output


def test_a_fault_has_exit_code_one(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 40)
    arguments = ["--cluster-key-file", str(key), "--kubeconfig", str(tmp_path / "absent")]
    result = CliRunner().invoke(main, [*arguments, "--metrics-listen", "127.0.0.1:0"])
    assert result.exit_code == 1
    last = json.loads(result.stderr.strip().splitlines()[-1])
    assert "absent" in last["message"]
