"""Objects on the real API server, each test in a namespace of its own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from mafalda_operator.cli.local.cluster import LocalCluster
from mafalda_operator.cli.local.errors import KubectlFailedError


class Api:
    """Applies and reads objects in one namespace."""

    def __init__(self, cluster: LocalCluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def apply(self, kind: str, name: str, spec: dict[str, Any], *, strict: bool = True) -> dict[str, Any]:
        obj = {
            "apiVersion": "mafalda.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        validate = "strict" if strict else "ignore"
        out = self.cluster.kubectl(
            "apply", f"--validate={validate}", "-o", "json", "-f", "-", stdin=json.dumps(obj)
        )
        stored: dict[str, Any] = json.loads(out)
        return stored

    def refused(self, kind: str, name: str, spec: dict[str, Any]) -> str:
        """What the API server says against an object."""
        with pytest.raises(KubectlFailedError) as caught:
            self.apply(kind, name, spec)
        return caught.value.stderr

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)


@pytest.fixture
def api(embedded_cluster: LocalCluster) -> Iterator[Api]:
    namespace = f"crds-{uuid.uuid4().hex[:8]}"
    embedded_cluster.kubectl("create", "namespace", namespace)
    yield Api(embedded_cluster, namespace)
    embedded_cluster.kubectl("delete", "namespace", namespace, "--wait=false")
