"""The flags for addresses: their order, their forms, and errors that name flag and remedy."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from mediaserver import __main__ as command
from mediaserver.config import ConfigError, ServerConfig
from mediaserver.server import StartError
from mediaserver.wire.listen import ListenAddress


def parse(
    *arguments: str, env: dict[str, str] | None = None, credential: str = "--cluster-key-file=key"
) -> ServerConfig:
    """The checked settings. Raises ConfigError."""
    made: list[ServerConfig] = []
    refused: list[ConfigError] = []
    build = command.build_config

    def building(**options: Any) -> ServerConfig:
        try:
            made.append(build(**options))
            made[-1].check()
        except ConfigError as error:
            refused.append(error)
        raise StartError("not here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "build_config", building)
        result = CliRunner().invoke(command.main, [credential, "--workers=2", *arguments], env=env)
    if refused:
        raise refused[0]
    assert isinstance(result.exception, StartError), result.output
    return made[0]


FILES = ("--addresses-dir=/a", "--node=n1", "--server-name=s")


def wanted(config: ServerConfig) -> list[str]:
    assert config.addresses is not None
    return [announce.address or announce.type for announce in config.addresses.wanted]


def test_without_flags_it_is_as_ever() -> None:
    config = parse()
    assert (config.pool.client_hosts, config.pool.announced) == (("127.0.0.1",), ())
    assert config.addresses is None
    assert str(config.internal) == "127.0.0.1:4000"


def test_a_given_address() -> None:
    pool = parse("--announce=media.example.com").pool
    assert (pool.announced, pool.announced_address) == (("media.example.com",), "media.example.com")
    assert parse("--announce=").pool.announced == ()


def test_the_order_of_both_flags_is_kept() -> None:
    config = parse(
        *FILES,
        "--announce-from=NodeExternalIP",
        "--announce=203.0.113.9",
        "--announce-from",
        "PodIP",
        "--announce",
        "203.0.113.8",
        "--announce=203.0.113.9",
    )
    assert wanted(config) == ["NodeExternalIP", "203.0.113.9", "PodIP", "203.0.113.8"]
    assert config.pool.announced == ()
    config = parse("--announce=203.0.113.9", "--announce-from=PodIP", "--client-address=10.0.0.1")
    assert config.pool.announced == ("203.0.113.9", "10.0.0.1")
    assert config.addresses is None


def test_the_environment_counts_as_well() -> None:
    env = {
        "MAFALDA_MEDIASERVER_ANNOUNCE": "203.0.113.9 203.0.113.8",
        "MAFALDA_MEDIASERVER_ANNOUNCE_FROM": "NodeExternalIP",
        "MAFALDA_MEDIASERVER_NODE": "n1",
        "MAFALDA_MEDIASERVER_ADDRESSES_DIR": "/a",
    }
    assert wanted(parse(env=env)) == ["203.0.113.9", "203.0.113.8", "NodeExternalIP"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--client-address=10.0.0.1", "--client-address=fd00:0::1"),
        ("--client-address=10.0.0.1,fd00::1",),
        ("--client-address=10.0.0.1", "--client-address=[fd00::1]"),
    ],
)
def test_a_dual_stack(flags: tuple[str, ...]) -> None:
    pool = parse(*flags, "--announce=2001:db8::7", "--announce=203.0.113.7").pool
    assert pool.client_hosts == ("10.0.0.1", "fd00::1")
    assert pool.announced == ("2001:db8::7", "203.0.113.7")
    assert pool.announced_address == "203.0.113.7", "what tenants get leads to the first host"


@pytest.mark.parametrize(
    ("families", "hosts"),
    [
        ((), ("10.0.0.1", "fd00::1")),
        (("IPv4",), ("10.0.0.1",)),
        (("IPv6",), ("fd00::1",)),
        (("IPv6", "IPv4"), ("fd00::1", "10.0.0.1")),
    ],
)
def test_families_are_chosen_of_the_pods_addresses(families: tuple[str, ...], hosts: tuple[str, ...]) -> None:
    flags = [f"--ip-family={family}" for family in families]
    assert parse("--client-address=10.0.0.1,fd00::1", *flags).pool.client_hosts == hosts


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1"])
def test_listeners_on_one_address(host: str) -> None:
    config = parse(f"--listen-address={host}", "--internal-listen=:4010", "--health-listen=127.0.0.1:4012")
    assert config.internal == ListenAddress(host, 4010)
    assert config.participants == ListenAddress("127.0.0.1", 4001)
    assert config.health == ListenAddress("127.0.0.1", 4012)


@pytest.mark.parametrize(
    ("arguments", "flag", "words"),
    [
        (["--internal-listen=:4000"], "--internal-listen", ["--listen-address"]),
        (["--listen-address=pod", "--internal-listen=:4000"], "--listen-address", ["not an IP address"]),
        (["--listen-address=10.0.0.1", "--health-listen=:x"], "--health-listen", ["HOST:PORT"]),
        (["--client-address=pod"], "--client-address", ["'pod'", "not an IP address"]),
        (["--client-address="], "--client-address", ["none"]),
        (
            ["--client-address=10.0.0.1", "--ip-family=IPv4", "--ip-family=IPv6"],
            "--ip-family",
            ["no IPv6 address", "10.0.0.1", "ipFamilies"],
        ),
        (["--client-address=::1", "--client-address=::1"], "--client-address", ["twice"]),
        (
            ["--client-address=0.0.0.0,10.0.0.1", "--announce=203.0.113.7"],
            "--client-address",
            ["0.0.0.0 includes 10.0.0.1"],
        ),
        (["--client-address=0.0.0.0"], "--client-address", ["add --announce"]),
        (["--client-address=0.0.0.0", "--announce-from=PodIP"], "--announce-from", ["PodIP", "0.0.0.0"]),
        (["--announce=2001:db8::7"], "--announce", ["2001:db8::7", "127.0.0.1", "IPv6"]),
        (["--announce-from=NodeExternalIP"], "--announce-from", ["NodeExternalIP", "--node"]),
        (["--announce-from=LoadBalancer"], "--announce-from", ["LoadBalancer", "--server-name"]),
        (["--announce-from=NodeInternalIP", "--node=n1"], "--announce-from", ["--addresses-dir"]),
        ([f"--announce=203.0.113.{n}" for n in range(17)], "--announce", ["17", "at most 16"]),
    ],
)
def test_errors_name_flag_and_remedy(arguments: list[str], flag: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(*arguments)
    assert error.value.flag == flag
    for word in words:
        assert word in error.value.message


def test_an_unknown_type_is_refused_with_those_that_are() -> None:
    result = CliRunner().invoke(command.main, ["--cluster-key-file=key", "--announce-from=NodeIP"])
    assert result.exit_code == 2
    assert "NodeExternalIP" in result.output
