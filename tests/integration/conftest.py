"""Fixtures that several integration tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mafalda_operator.cli.local.cluster import LocalCluster

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def embedded_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A control plane of its own with our definitions, for the whole run: make names unique or a namespace a
    test.

    A test that stops or pauses the API server starts it again before it ends.
    """
    directory = tmp_path_factory.mktemp("cluster")
    manifests = [CRDS] if any(CRDS.glob("*.yaml")) else []
    with LocalCluster.start(directory, manifests=manifests) as cluster:
        yield cluster
