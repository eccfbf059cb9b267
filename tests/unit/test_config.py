"""Settings that can't work are refused with the flag's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mediaserver.__main__ import main
from mediaserver.config import ConfigError, ServerConfig, parse_duration, parse_listen, parse_ports
from mediaserver.pool import PoolConfig
from mediaserver.wire.listen import ListenAddress

POOL: dict[str, Any] = {
    "workers": 2,
    "client_host": "127.0.0.1",
    "client_port": 10000,
    "pipe_host": "127.0.0.1",
    "pipe_port": 20000,
    "pipe_end_port": 20099,
}


def config(listen: dict[str, str] | None = None, **pool: Any) -> ServerConfig:
    addresses = {
        "internal": "127.0.0.1:4000",
        "participants": "127.0.0.1:4001",
        "health": "127.0.0.1:4002",
        **(listen or {}),
    }
    parsed = {name: ListenAddress.parse(text) for name, text in addresses.items()}
    return ServerConfig(**parsed, pool=PoolConfig(**{**POOL, **pool}), cluster_key_file=Path("key"))


def refused(made: ServerConfig) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        made.check()
    return error.value


def test_the_defaults_work() -> None:
    assert config().check() == []


@pytest.mark.parametrize(
    ("pool", "flag"),
    [
        ({"workers": 0}, "--workers"),
        ({"workers": 257}, "--workers"),
        ({"client_host": "media.example.com"}, "--client-address"),
        ({"client_host": "0.0.0.0"}, "--client-address"),
        ({"client_host": "::"}, "--client-address"),
        ({"pipe_host": "0.0.0.0"}, "--pipe-address"),
        ({"pipe_host": "localhost"}, "--pipe-address"),
        ({"client_port": 65535}, "--client-port"),
        ({"client_port": 19999}, "--pipe-ports"),
        ({"client_port": 20099}, "--pipe-ports"),
        ({"client_port": 4000}, "--internal-listen"),
        ({"client_port": 4001, "workers": 1}, "--participants-listen"),
    ],
)
def test_what_cannot_work_names_its_flag(pool: dict[str, Any], flag: str) -> None:
    assert refused(config(**pool)).flag == flag


def test_adjacent_ranges_do_not_overlap() -> None:
    assert config(client_port=19998).check() == []
    assert config(client_port=20100).check() == []


def test_a_wildcard_needs_an_announced_address() -> None:
    assert config(client_host="0.0.0.0", announced=("media.example.com",)).check() == []


def test_two_listeners_cannot_share_an_address() -> None:
    error = refused(config({"health": "127.0.0.1:4000"}))
    assert error.flag == "--health-listen"
    assert "--internal-listen" in error.message


def test_others_must_know_where_to_dial() -> None:
    assert refused(config({"internal": "127.0.0.1:0"})).flag == "--internal-listen"
    assert config({"health": "127.0.0.1:0"}).check() == []


@pytest.mark.parametrize(
    ("pool", "flags"),
    [
        ({"client_port": 32767}, ["--client-port"]),
        ({"pipe_port": 32000, "pipe_end_port": 33000}, ["--pipe-ports"]),
        ({"client_port": 61000}, []),
    ],
)
def test_ephemeral_ports_are_warned_of(pool: dict[str, Any], flags: list[str]) -> None:
    assert [warning.partition(":")[0] for warning in config(**pool).check()] == flags


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("1.5s", 1.5), ("15m", 900), ("1h", 3600), ("250ms", 0.25)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration("--x", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1", "1d", "soon", "1 h", "inf"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_duration("--drain-timeout", text)


@pytest.mark.parametrize("text", ["", "20000", "20000-", "5-4", "0-9", "1-65536", "a-b", "1-2-3"])
def test_no_port_ranges(text: str) -> None:
    with pytest.raises(ConfigError, match="--pipe-ports"):
        parse_ports("--pipe-ports", text)


def test_no_listen_address() -> None:
    with pytest.raises(ConfigError, match="--health-listen"):
        parse_listen("--health-listen", "4000")


def test_the_command_refuses_with_exit_code_2_and_names_the_flag(tmp_path: Path) -> None:
    key = tmp_path / "key"
    arguments = ["--cluster-key-file", str(key), "--pipe-ports", "nonsense"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "--pipe-ports" in result.output
    assert CliRunner().invoke(main, []).exit_code == 2
