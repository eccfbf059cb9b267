"""With which arguments an application's worker is started."""

from typing import Literal

import pytest

from mediaserver import shim
from mediaserver.remote.errors import CannotStart
from mediaserver.remote.policy import TenantPolicy
from mediaserver.remote.process import MOST_ARGUMENTS, worker_arguments

Addresses = Literal["Rewrite", "RewritePipes", "Keep"]


def policy(addresses: Addresses = "Rewrite") -> TenantPolicy:
    return TenantPolicy(
        addresses=addresses,
        client_host="127.0.0.1",
        announced_address=None,
        client_ports=(4000, 4999),
        pipe_host="127.0.0.1",
        pipe_ports=(5000, 5099),
        pipe_srtp="Never",
    )


def test_ports_are_this_servers():
    asked = ["--logLevel=warn", "--rtcMinPort=1000", "--rtcMaxPort=2000", "--logTag=ice"]
    assert worker_arguments(asked, policy()) == [
        *("--logLevel=warn", "--logTag=ice", "--rtcMinPort=4000", "--rtcMaxPort=4999")
    ]


@pytest.mark.parametrize("addresses", ["Keep", "RewritePipes"])
def test_ports_are_the_applications_where_addresses_are(addresses: Addresses):
    asked = ["--rtcMinPort=1000", "--rtcMaxPort=999"]
    assert worker_arguments(asked, policy(addresses)) == asked


@pytest.mark.parametrize(
    "asked",
    [
        ["--rtcMinPort=1000", "--rtcMaxPort=999"],
        ["--rtcMaxPort=999"],
        ["--rtcMinPort=60000"],
        ["--rtcMinPort=1000", "--rtcMaxPort=65536"],
        ["--rtcMinPort=-1"],
        ["--rtcMinPort=many"],
        ["--rtcMinPort="],
        ["--rtcMinPort=" + "9" * 10_000],
    ],
)
def test_ports_that_no_worker_takes_are_refused_even_where_they_are_replaced(asked: list[str]):
    with pytest.raises(CannotStart) as refused:
        worker_arguments(asked, policy())
    assert refused.value.exit_code == shim.EXIT_WRONG_SETTINGS
    assert len(str(refused.value)) < 100


@pytest.mark.parametrize("argument", ["--help", "--dtlsCertificateFile=/etc/passwd", "--logLevel=a\0b", "x"])
def test_no_other_argument_comes_through(argument: str):
    with pytest.raises(CannotStart) as refused:
        worker_arguments([argument], policy("Keep"))
    assert refused.value.exit_code == shim.EXIT_WRONG_SETTINGS


def test_arguments_have_a_bound():
    with pytest.raises(CannotStart, match="at most"):
        worker_arguments(["--logTag=ice"] * (MOST_ARGUMENTS + 1), policy())
