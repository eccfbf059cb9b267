"""A release's life on an API server of its own: the objects, and what its hooks do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mafalda_operator.cli.chart import chart
from mafalda_operator.cli.check import check
from mafalda_operator.cli.local.cluster import LocalCluster
from support.chart import CHART, NAMESPACE, Helm, HelmFailedError

DRAIN = "mafalda.io/drain"


class Release:
    """Release mafalda, whose hooks are run here instead of by Jobs, since no node runs pods."""

    def __init__(self, helm: Helm, cluster: LocalCluster) -> None:
        self._helm, self.cluster = helm, cluster

    def run(self, verb: str, *arguments: str) -> str:
        chart = (str(CHART),) if verb in ("install", "upgrade") else ()
        return self._helm.run(
            *(verb, "mafalda", *chart, "-n", NAMESPACE, "--no-hooks", *arguments),
            f"--kubeconfig={self.cluster.kubeconfig}",
        )

    def hook(self, *arguments: str) -> Result:
        return CliRunner().invoke(chart, [*arguments, f"--kubeconfig={self.cluster.kubeconfig}"])

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", NAMESPACE, *arguments, stdin=stdin)

    def manifest(self, directory: Path) -> Path:
        """What the hook's ConfigMap holds."""
        found = json.loads(self.kubectl("get", "configmap", "mafalda-cluster", "-o", "json"))
        path = directory / "cluster.yaml"
        path.write_text(found["data"]["cluster.yaml"])
        return path

    def make_cluster(self, name: str, *, finalizer: bool) -> None:
        metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE}
        metadata |= {"finalizers": [DRAIN]} if finalizer else {}
        body = {"apiVersion": "mafalda.io/v1alpha1", "kind": "MediaCluster", "metadata": metadata, "spec": {}}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def let_go(self, name: str) -> None:
        self.kubectl(
            "patch",
            "mediacluster",
            name,
            "--type=merge",
            "-p",
            json.dumps({"metadata": {"finalizers": None}}),
        )

    def names(self, kind: str) -> list[str]:
        return self.kubectl("get", kind, "-o", "name", "--ignore-not-found").split()


@pytest.fixture(scope="module")
def release(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    with LocalCluster.start(tmp_path_factory.mktemp("release")) as cluster:
        cluster.kubectl("create", "namespace", NAMESPACE)
        found = Release(helm, cluster)
        found.run("install")
        yield found


def test_a_release_from_first_to_last(release: Release, tmp_path: Path) -> None:
    """Installed, its cluster made and changed, deleted, uninstalled: nothing is left but what is kept."""
    manifest = release.manifest(tmp_path)
    done = release.hook("apply", str(manifest), "--deadline=30s")
    assert done.exit_code == 0, done.output
    assert _spec(release)["replicas"] == 2

    release.run("upgrade", "--set=cluster.replicas=3", "--set=cluster.resources=null")
    done = release.hook("apply", str(release.manifest(tmp_path)))
    assert done.exit_code == 0, done.output
    assert _spec(release)["replicas"] == 3
    assert "resources" not in _spec(release)

    done = release.hook("delete-clusters", "--release=mafalda", f"--namespace={NAMESPACE}", "--deadline=10s")
    assert done.exit_code == 0, done.output
    assert not release.names("mediaclusters")
    said = release.run("uninstall")
    assert "kept due to the resource policy" in said

    kinds = "deployments,services,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,pdb"
    assert not [name for name in release.names(kinds) if "kube-root-ca.crt" not in name]
    everywhere = release.names("clusterroles,clusterrolebindings")
    assert not [name for name in everywhere if "mafalda" in name]
    assert len(release.names("customresourcedefinitions")) == 4

    release.run("install", "--set=crds.keep=false")  # takes the definitions that were kept
    release.run("uninstall")
    deadline = time.monotonic() + 60
    while release.names("customresourcedefinitions") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not release.names("customresourcedefinitions")
    release.run("install")


def _spec(release: Release) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(release.kubectl("get", "mediacluster", "main", "-o", "json"))["spec"]
    return found


def test_a_second_release_is_refused(release: Release, helm: Helm) -> None:
    release.cluster.kubectl("create", "namespace", "other")
    with pytest.raises(HelmFailedError, match="invalid ownership metadata"):
        helm.run(
            *("install", "second", str(CHART), "-n", "other", "--no-hooks"),
            f"--kubeconfig={release.cluster.kubeconfig}",
        )


def test_clusters_of_others_are_not_left_without_an_operator(release: Release) -> None:
    release.make_cluster("others", finalizer=True)
    release.make_cluster("hosts", finalizer=False)  # servers by address: they can do without
    hook = ("delete-clusters", "--release=mafalda", f"--namespace={NAMESPACE}", "--deadline=1s")
    refused = release.hook(*hook)
    assert refused.exit_code == 1
    assert f"MediaCluster {NAMESPACE}/others has media pods and is not of release mafalda" in refused.output
    assert release.hook(*hook, "--others=Keep").exit_code == 0
    assert len(release.names("mediaclusters")) == 2

    late = release.hook(*hook, "--others=Delete")  # there is no operator here that would let it go
    assert late.exit_code == 1
    assert f"still there after 1 s: MediaCluster {NAMESPACE}/others" in late.output
    assert "Does the operator run?" in late.output
    found = json.loads(release.kubectl("get", "mediacluster", "others", "-o", "json"))
    assert found["spec"]["drain"] == {"timeout": "0s"}
    release.let_go("others")
    assert release.hook(*hook, "--others=Delete").exit_code == 0
    release.kubectl("delete", "mediacluster", "hosts")


def test_what_the_operator_made_is_swept_up(release: Release) -> None:
    for name in ("mafalda-ca", "users-own"):
        release.kubectl("create", "secret", "generic", name)
    release.kubectl("create", "job", "mafalda-apply-cluster", "--image=none")
    done = release.hook(
        *("sweep", f"--namespace={NAMESPACE}", "--secret=mafalda-ca", "--secret=gone", "--lease=gone"),
        "--job=mafalda-apply-cluster",
    )
    assert done.exit_code == 0, done.output
    secrets = release.names("secrets")
    assert "secret/users-own" in secrets
    assert "secret/mafalda-ca" not in secrets
    assert not release.names("jobs")
    release.kubectl("delete", "secret", "users-own")


def test_a_cluster_that_cannot_be_is_refused_at_once(release: Release, tmp_path: Path) -> None:
    release.run("upgrade", "--set=cluster.networkType=Pod", "--set=cluster.announce[0].type=NodeExternalIP")
    done = release.hook("apply", str(release.manifest(tmp_path)), "--deadline=30s")
    assert done.exit_code == 1
    assert f"MediaCluster {NAMESPACE}/main: 422" in done.output
    assert "correct cluster.* in the values" in done.output
    release.run("upgrade", "--reset-values")


def test_check_says_that_no_operator_answers(release: Release) -> None:
    release.make_cluster("lonely", finalizer=False)
    done = CliRunner().invoke(
        check,
        [
            *(f"--cluster={NAMESPACE}/lonely", "--deadline=2s", "-o", "json"),
            f"--kubeconfig={release.cluster.kubeconfig}",
        ],
    )
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert "the operator has written no status; does it run?" in report["error"]
    assert report["deleted_ms"] is not None
    assert not release.names("mediasessions")
    release.kubectl("delete", "mediacluster", "lonely")
