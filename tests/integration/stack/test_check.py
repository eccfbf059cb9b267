"""`mafalda check` on a whole system: what it measures when the call works, and what it says when not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from mafalda_operator.cli.demo.stack import GATEWAY, Stack

pytestmark = pytest.mark.timeout(180)


def check(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "mafalda_operator.cli.main", "check"]
    return subprocess.run(
        [*program, f"--kubeconfig={stack.cluster.kubeconfig}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def sessions(stack: Stack) -> str:
    return stack.cluster.kubectl("get", "mediasessions", "-A", "-o", "name")


def test_a_call_works(stack: Stack) -> None:
    done = check(stack, "--cluster=media/main", "--routers=2", "-o", "json", "--deadline=60s")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(done.stdout)
    assert report["error"] is None
    assert len(report["servers"]) == 2
    assert set(report["joined_ms"]) == {"alice", "bob"}
    assert len(report["frames"]) == 4
    assert all(flow["decoded"] > 10 for flow in report["frames"])
    assert {flow["receiver"] for flow in report["first_frames"]} == {"alice", "bob"}
    assert not sessions(stack)


def test_it_tells_people_the_same(stack: Stack) -> None:
    done = check(stack, "--cluster=media/main", "--namespace=shop")
    assert done.returncode == 0, done.stderr
    assert "Available after" in done.stdout
    assert "alice receives video of bob" in done.stdout
    assert "passed in" in done.stdout


def test_a_gateway_that_is_not_there(stack: Stack) -> None:
    done = check(stack, "--cluster=media/main", "--url=ws://127.0.0.1:1", "--deadline=6s")
    assert done.returncode == 1
    assert "ws://127.0.0.1:1" in done.stderr
    assert not sessions(stack)


def test_a_cluster_that_is_not_there(stack: Stack) -> None:
    done = check(stack, "--cluster=media/typo", "--deadline=4s")
    assert done.returncode == 1
    assert "there is no MediaCluster media/typo" in done.stderr
    assert not sessions(stack)


def test_wrong_use(stack: Stack) -> None:
    assert check(stack, "--cluster=typo").returncode == 2
    assert check(stack).returncode == 2
    assert stack.cluster.processes.running(GATEWAY)
