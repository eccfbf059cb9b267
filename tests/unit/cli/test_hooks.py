"""Which MediaClusters go with a release, and how what stands in the way is told."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from mafalda_operator.cli.chart import chart
from mafalda_operator.cli.hooks import HookError, apply_cluster, choose, is_of, sweep
from mafalda_operator.effects.api import CLUSTERS, SECRETS, Resource
from mafalda_operator.effects.errors import ApiUnavailable, Invalid, KubeError, NotFound
from mafalda_operator.model import ObjectKey


def cluster(name: str, *, release: str = "", finalizer: bool = False) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/instance": release}
    return {
        "metadata": {
            "namespace": "media",
            "name": name,
            "uid": f"uid-{name}",
            "labels": labels if release else {"team": "a"},
            "finalizers": ["mafalda.io/drain"] if finalizer else [],
        }
    }


OWN = cluster("main", release="mafalda", finalizer=True)
DRAINED = cluster("drained", finalizer=True)
HOSTS = cluster("hosts")
FOREIGN = cluster("foreign", release="other", finalizer=True)


def chosen(*found: dict[str, Any], others: str = "Refuse", keep: bool = False, pods: str = "") -> list[str]:
    with_pods = frozenset({ObjectKey("media", pods)} if pods else ())
    picked = choose(found, with_pods, release="mafalda", others=others, keep=keep)
    return [one["metadata"]["name"] for one in picked]


def test_the_releases_own_goes() -> None:
    assert is_of(OWN, "mafalda")
    assert not is_of(FOREIGN, "mafalda")
    assert chosen(OWN, HOSTS) == ["main"]
    assert chosen(OWN, HOSTS, keep=True) == []


@pytest.mark.parametrize("found", [DRAINED, FOREIGN])
def test_others_with_pods_are_refused_unless_asked_otherwise(found: dict[str, Any]) -> None:
    name = found["metadata"]["name"]
    with pytest.raises(HookError, match=f"MediaCluster media/{name} has media pods .* Nothing was deleted"):
        chosen(OWN, found)
    assert chosen(OWN, found, others="Delete") == ["main", name]
    assert chosen(OWN, found, others="Keep") == ["main"]


def test_pods_count_without_the_finalizer_too() -> None:
    with pytest.raises(HookError, match="media/hosts has media pods"):
        chosen(HOSTS, pods="hosts")


class Api:
    """Answers what it was given, in turn; then it succeeds."""

    def __init__(self, *faults: KubeError) -> None:
        self.faults = list(faults)
        self.done: list[tuple[str, str]] = []

    async def apply(self, resource: Resource, namespace: str, name: str, body: Any, *, manager: str) -> Any:
        assert resource is CLUSTERS
        return self._answer("apply", name)

    async def get(self, resource: Resource, namespace: str, name: str) -> Any:
        self._answer("get", name)
        return {"metadata": {"uid": "u"}}

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> Any:
        assert uid == "u"
        return self._answer("delete", name)

    def _answer(self, verb: str, name: str) -> Any:
        if self.faults:
            raise self.faults.pop(0)
        self.done.append((verb, name))
        return {}


BODY = {"apiVersion": "mafalda.io/v1alpha1", "kind": "MediaCluster", **cluster("main"), "spec": {}}


async def test_a_kind_that_is_not_known_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mafalda_operator.cli.hooks.POLL_SECONDS", 0)
    api = Api(NotFound(404, "NotFound", "no such kind"), ApiUnavailable("away"))
    said: list[str] = []
    await apply_cluster(api, BODY, seconds=5, say=said.append)  # type: ignore[arg-type]
    assert api.done == [("apply", "main")]
    assert len(said) == 2
    assert said[-1] == "MediaCluster media/main applied"


async def test_a_refused_cluster_is_not_tried_again() -> None:
    api = Api(Invalid(422, "Invalid", "spec.network: wrong"))
    with pytest.raises(HookError, match=r"media/main: 422 Invalid: spec.network: wrong; correct cluster\.\*"):
        await apply_cluster(api, BODY, seconds=5, say=print)  # type: ignore[arg-type]


async def test_what_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mafalda_operator.cli.hooks.POLL_SECONDS", 0)
    api = Api(*[NotFound(404, "NotFound", "no such kind")] * 100_000)
    with pytest.raises(HookError, match=r"could not be applied in 0\.01 s.*are the definitions installed"):
        await apply_cluster(api, BODY, seconds=0.01, say=lambda _: None)  # type: ignore[arg-type]


async def test_sweeping_passes_over_what_is_not_there() -> None:
    api = Api(NotFound(404, "NotFound", "gone"))
    said: list[str] = []
    await sweep(api, "media", {SECRETS: ["gone", "there"]}, say=said.append)  # type: ignore[arg-type]
    assert api.done == [("get", "there"), ("delete", "there")]
    assert said == ["Secret media/there deleted"]


def test_wrong_manifests_are_wrong_use(tmp_path: Any) -> None:
    for text in ("a: [", "kind: Pod"):
        manifest = tmp_path / "cluster.yaml"
        manifest.write_text(text)
        done = CliRunner().invoke(chart, ["apply", str(manifest)])
        assert done.exit_code == 2, done.output
        assert "cluster.yaml" in done.output
