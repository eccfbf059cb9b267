"""helm, what it renders of the chart, and an API server to take it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mafalda_operator.cli.local.cluster import LocalCluster
from support.chart import ACCOUNT, NAMESPACE, Helm, Render, find_helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(find_helm(), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    return helm.render


@pytest.fixture(scope="session")
def prepared(embedded_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """With the namespaces that the values name; pods in the release's must be restricted ones."""
    namespaces = (NAMESPACE, "media-a", "media-b")
    for namespace in namespaces:
        embedded_cluster.kubectl("create", "namespace", namespace)
        embedded_cluster.kubectl("-n", namespace, "create", "serviceaccount", ACCOUNT)
    embedded_cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    yield embedded_cluster
    for namespace in namespaces:
        embedded_cluster.kubectl("delete", "namespace", namespace, "--wait=false")
