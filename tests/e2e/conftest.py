"""End-to-end tests: the project on the testbed's Kubernetes. `make e2e` runs them in `tools/cluster exec`."""

import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from e2e.support import kubernetes
from e2e.support.chart import Mafalda
from e2e.support.measured import measured
from e2e.support.testbed import NODES, cluster, until_node

__all__ = ["measured"]

TEST_SECONDS = 300
_HERE = Path(__file__).parent
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Outside the testbed's network nothing here can work."""
    for item in items:
        if not item.path.is_relative_to(_HERE):
            continue
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))
        if "MAFALDA_CLUSTER" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="needs the testbed: run `make e2e`"))


@pytest.fixture
async def namespace() -> AsyncIterator[str]:
    """A fresh one; it is deleted with all that is in it when the test ends, which is not awaited."""
    name = f"e2e-{os.getpid()}-{next(_numbers)}"
    await kubernetes.kubectl("create", "namespace", name)
    yield name
    await kubernetes.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def nodes() -> tuple[str, ...]:
    """All nodes, connected, Ready and open for pods, whatever an earlier test left."""
    for node in NODES:
        await cluster("join", node)
        await kubernetes.kubectl("uncordon", node)
    for node in NODES:
        await until_node(node, ready=True)
    return NODES


@pytest.fixture
async def mafalda(nodes: tuple[str, ...]) -> Mafalda:
    """The project, installed by its chart with the values of `chart.values`, three media servers ready."""
    system = Mafalda()
    await system.ensure()
    return system
