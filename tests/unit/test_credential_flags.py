"""Every role takes exactly one of its credentials, and says which flags those are."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from mafalda_operator.__main__ import main as operator
from mafalda_operator.cli.workers import workers
from support.certificates import GATEWAY, SERVER, Authority

from mediaserver.__main__ import main as media_server
from mediaserver.gateway.__main__ import main as gateway

ROLES = [operator, media_server, gateway, workers]
IDS = ["operator", "media server", "gateway", "mafalda workers"]


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_bytes(b"k" * 32)
    return str(tmp_path / "key")


@pytest.mark.parametrize("command", ROLES, ids=IDS)
def test_none_is_refused(command: click.Command) -> None:
    result = CliRunner().invoke(command, [])
    assert result.exit_code != 0
    assert "--cluster-key-file" in result.output
    assert "--tls-dir" in result.output


@pytest.mark.parametrize("command", ROLES, ids=IDS)
def test_two_are_refused(command: click.Command, key: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--cluster-key-file", key, "--tls-dir", str(tmp_path)])
    assert result.exit_code != 0
    assert "--tls-dir" in result.output


def test_an_operator_that_issues_is_given_nothing_else(key: str) -> None:
    result = CliRunner().invoke(operator, ["--tls-issue", "--cluster-key-file", key])
    assert result.exit_code == 2
    assert "give one of the three" in result.output


@pytest.mark.parametrize(
    ("command", "name"), [(operator, GATEWAY), (gateway, SERVER), (workers, SERVER)], ids=[IDS[0], *IDS[2:]]
)
def test_a_certificate_of_another_role_is_told(command: click.Command, name: str, tmp_path: Path) -> None:
    directory = Authority().directory(tmp_path, name)
    result = CliRunner().invoke(command, ["--tls-dir", str(directory)])
    assert result.exit_code != 0
    assert f"is for {name}" in " ".join(result.output.split())
