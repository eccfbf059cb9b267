"""What the chart renders, as a real API server takes it: by strict dry runs of server-side apply."""

from __future__ import annotations

import json

import pytest
from mafalda_operator.cli.local.cluster import LocalCluster
from support.chart import ACCOUNT, NAMESPACE, VALUE_SETS, Manifest, Render

FOREIGN = {"monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"}
"""Kinds of other projects, which the embedded API server does not know."""


def dry_run(prepared: LocalCluster, manifests: list[Manifest]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    prepared.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--force-conflicts", "--validate=strict", "-f", "-"),
        stdin=text,
    )


@pytest.mark.parametrize("name", VALUE_SETS)
def test_is_accepted(name: str, render: Render, prepared: LocalCluster) -> None:
    rendered = render(VALUE_SETS[name])
    known = [
        found
        for found in rendered.manifests
        if found["apiVersion"] not in FOREIGN and found["kind"] != "Pod"  # pods: below
    ]
    dry_run(prepared, known)
    if "mafalda-cluster" in rendered.names("ConfigMap"):
        dry_run(prepared, [rendered.cluster])


@pytest.mark.parametrize("name", ["default", "given-certificates", "everything-scheduled"])
def test_pods_meet_the_restricted_standard(name: str, render: Render, prepared: LocalCluster) -> None:
    """As pods, since workloads only get warnings; without what would have to exist."""
    pods = []
    for maker, spec in render(VALUE_SETS[name]).pod_specs().items():
        metadata = {"name": maker, "namespace": NAMESPACE}
        spec = {**spec, "serviceAccountName": ACCOUNT}
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    assert len(pods) == 6
    dry_run(prepared, pods)
