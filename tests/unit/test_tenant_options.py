"""The flags for applications' workers: what they make, and that each error names its flag and the remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from support.remote import tenant_settings as made_settings
from unit.test_config import config, refused

from mediaserver import tenant_options as module
from mediaserver.config import ConfigError, ServerConfig, parse_size, parse_workers
from mediaserver.mediasoup import WorkerStartError
from mediaserver.remote.settings import TenantSettings
from mediaserver.tenant_options import TenantOptions, tenant_options, tenant_settings

POOL = config().pool


@pytest.fixture(autouse=True)
def worker_bin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "mediasoup-worker"
    path.touch(0o755)
    monkeypatch.setattr(module, "find_worker_bin", lambda _: path)
    monkeypatch.setattr(module, "default_workers", lambda: 4)
    return path


def parse(*arguments: str) -> TenantSettings | None:
    """Raises ConfigError."""
    made: list[TenantSettings | None] = []

    @click.command()
    @tenant_options
    def command(**options: Any) -> None:
        made.append(tenant_settings(TenantOptions(**options), POOL))  # type: ignore[typeddict-item]

    result = CliRunner().invoke(command, arguments)
    if isinstance(result.exception, ConfigError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return made[0]


def test_without_ports_there_are_no_tenants() -> None:
    assert parse() is None


def test_defaults_are_of_half_the_cores(worker_bin: Path) -> None:
    settings = parse("--tenant-ports=24000-24199")
    assert settings is not None
    assert (settings.cores, settings.most_cores, settings.most_workers) == (4, 2.0, 16)
    assert (settings.resume_timeout, settings.buffer) == (30.0, 16 * 2**20)
    assert settings.offer.versions == ["3.27.1"]
    policy = settings.policy
    assert (policy.addresses, policy.pipe_srtp) == ("Rewrite", "Never")
    assert policy.client_ports == (24000, 24199)
    assert policy.pipe_ports == (POOL.pipe_port, POOL.pipe_end_port)


def test_all_of_them() -> None:
    settings = parse(
        "--tenant-ports=24000-24199",
        "--tenant-cores=0.1",
        "--tenant-addresses=Keep",
        "--tenant-pipe-srtp=Auto",
        "--tenant-resume-timeout=1m",
        "--tenant-buffer=512KiB",
    )
    assert settings is not None
    assert (settings.most_cores, settings.most_workers) == (0.1, 1)
    assert (settings.policy.addresses, settings.policy.pipe_srtp) == ("Keep", "Auto")
    assert (settings.resume_timeout, settings.buffer) == (60.0, 512 * 1024)


@pytest.mark.parametrize(
    ("arguments", "flag", "told"),
    [
        (["--worker=3.27.1=/bin/true"], "--worker", "need --tenant-ports"),
        (["--tenant-ports=24000"], "--tenant-ports", "FIRST-LAST"),
        (["--tenant-ports=24199-24000"], "--tenant-ports", "the first not above the last"),
        (["--tenant-ports=24000-70000"], "--tenant-ports", "1 to 65535"),
        (["--tenant-ports=1-2", "--tenant-buffer=much"], "--tenant-buffer", "write 16MiB"),
        (["--tenant-ports=1-2", "--tenant-resume-timeout=soon"], "--tenant-resume-timeout", "write 0, 30s"),
        (["--tenant-ports=1-2", "--worker=3.27.1"], "--worker", "VERSION=PATH"),
    ],
)
def test_errors_name_flag_and_remedy(arguments: list[str], flag: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        parse(*arguments)
    assert error.value.flag == flag


def test_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> Path:
        raise WorkerStartError("no mediasoup-worker; build it with tools/build-worker")

    monkeypatch.setattr(module, "find_worker_bin", missing)
    with pytest.raises(ConfigError, match=r"--worker-bin: .* build it"):
        parse("--tenant-ports=24000-24199")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("65536", 65536), (" 512KiB ", 512 * 1024), ("16MiB", 16 * 2**20), ("1GiB", 2**30)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("--tenant-buffer", text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5MiB", "1MB", "1 MiB", "16mib", "1e6"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--tenant-buffer: .*write 16MiB"):
        parse_size("--tenant-buffer", text)


def test_workers(worker_bin: Path) -> None:
    assert parse_workers("--worker", []) == {}
    assert parse_workers("--worker", [f"3.27.1={worker_bin}"]) == {"3.27.1": worker_bin}


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["=/bin/true"], "VERSION=PATH"),
        (["3.27.1="], "VERSION=PATH"),
        (["2.0.0=/bin/true"], "the channel of 2.0.0 is not known here; known: 3.27.1"),
        (["3.27.1=/no/such/file"], "/no/such/file is no program that can be executed"),
        (["3.27.1=/tmp"], "no program"),
        (["3.27.1=/etc/passwd"], "no program"),
        (["3.27.1=/bin/sh", "3.27.1=/bin/sh"], "given twice"),
    ],
)
def test_workers_that_are_none(texts: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        parse_workers("--worker", texts)
    assert error.value.flag == "--worker"


def with_ports(first: int, last: int, listen: dict[str, str] | None = None) -> ServerConfig:
    settings = made_settings()
    policy = replace(settings.policy, client_ports=(first, last))
    return replace(config(listen), tenants=replace(settings, policy=policy))


@pytest.mark.parametrize(
    ("ports", "listen", "flag", "told"),
    [
        ((9990, 10000), None, "--tenant-ports", "of --client-port (and --workers); move one"),
        ((10001, 10001), None, "--tenant-ports", "of --client-port (and --workers); move one"),
        ((20099, 20200), None, "--tenant-ports", "of --pipe-ports; move one"),
        ((19000, 21000), None, "--tenant-ports", "of --pipe-ports; move one"),
        ((3990, 4000), None, "--internal-listen", "of --tenant-ports, which is for media; move one"),
        ((4001, 4001), None, "--participants-listen", "of --tenant-ports, which is for media; move one"),
    ],
)
def test_overlaps(ports: tuple[int, int], listen: dict[str, str] | None, flag: str, told: str) -> None:
    error = refused(with_ports(*ports, listen))
    assert error.flag == flag
    assert told in error.message


def test_ports_beside_the_others_are_fine() -> None:
    assert with_ports(10002, 19999).check() == []
    (warning,) = with_ports(32000, 33000).check()
    assert warning.startswith("--tenant-ports: ")
