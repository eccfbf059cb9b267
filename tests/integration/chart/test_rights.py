"""The rights that the chart grants: those of the list and no more, and a real API server reads them so."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from mafalda_operator.cli.local.cluster import LocalCluster
from support.chart import NAMESPACE, VALUE_SETS, Render, Rendered
from support.rights import EVERYWHERE, MEDIA, Granted, wanted


def granted(rendered: Rendered) -> Granted:
    """By role, namespace and resource, as the bindings have it; those of media-a are as those of media-b."""
    found: Granted = defaultdict(set)
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        for binding in rendered.all(kind):
            where = EVERYWHERE if kind == "ClusterRoleBinding" else binding["metadata"]["namespace"]
            reference = binding["roleRef"]
            role = rendered.one(reference["kind"], reference["name"])
            for subject in binding["subjects"]:
                assert subject["namespace"] == NAMESPACE
                name = subject["name"].removeprefix("mafalda-")
                for what, verbs in _rules(role["rules"]):
                    found[name, where, what] |= verbs
    return {key: verbs for key, verbs in found.items() if key[1] != "media-a"}


def _rules(rules: list[dict[str, Any]]) -> Iterator[tuple[str, set[str]]]:
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                what = f"{group}/{resource}" if group else resource
                for name in rule.get("resourceNames", [""]):
                    yield f"{what}:{name}" if name else what, set(rule["verbs"])


def test_rights_are_these_and_no_more(render: Render) -> None:
    assert granted(render(VALUE_SETS["several-namespaces"])) == wanted()


@pytest.mark.parametrize(
    ("values", "readable"),
    [
        ({}, {f"{NAMESPACE} secrets:main-token-keys"}),
        ({"cluster": {"name": "first"}}, {f"{NAMESPACE} secrets:first-token-keys"}),
        (
            {"mediaNamespaces": [MEDIA, NAMESPACE]},
            {f"{MEDIA} secrets", f"{NAMESPACE} secrets:main-token-keys"},
        ),
        (
            {"gateway": {"tokenSecrets": ["main-token-keys", "shop-keys"]}},
            {f"{NAMESPACE} secrets:main-token-keys", f"{NAMESPACE} secrets:shop-keys"},
        ),
        (
            {"mediaNamespaces": [MEDIA, NAMESPACE], "gateway": {"tokenSecrets": ["shop-keys"]}},
            {f"{MEDIA} secrets:shop-keys", f"{NAMESPACE} secrets:shop-keys"},
        ),
    ],
)
def test_secrets_of_the_gateway(values: dict[str, Any], readable: set[str], render: Render) -> None:
    """Never the CA's, which is in the release's own namespace, unless somebody names it."""
    rights = granted(render(values))
    assert {
        f"{where} {what}" for role, where, what in rights if role == "gateway" and "secrets" in what
    } == readable


def test_people_may_view_all_and_edit_sessions(render: Render) -> None:
    rendered = render()
    for name, to in (("mafalda-view", "view"), ("mafalda-edit", "edit")):
        labels = rendered.one("ClusterRole", name)["metadata"]["labels"]
        assert labels[f"rbac.authorization.k8s.io/aggregate-to-{to}"] == "true"
    (rule,) = rendered.one("ClusterRole", "mafalda-edit")["rules"]
    assert rule["resources"] == ["mediasessions"]


# -- on the API server ----------------------------------------------------------------------------------

CASES = [
    ("operator", "create", "pods", MEDIA, True),
    ("operator", "create", "pods", NAMESPACE, False),
    ("operator", "list", "pods", "shop", False),
    ("operator", "get", "secrets", "shop", False),
    ("operator", "get", "secret/mafalda-ca", NAMESPACE, True),
    ("operator", "get", "secret/other", NAMESPACE, False),
    ("operator", "patch", "mediasessions", "shop", False),
    ("operator", "create", "mediarouters.mafalda.io", "shop", True),
    ("operator", "delete", "mediaclusters.mafalda.io", MEDIA, False),
    ("gateway", "get", "secrets", MEDIA, True),
    ("gateway", "list", "secrets", MEDIA, False),
    ("gateway", "get", "secrets", NAMESPACE, False),
    ("gateway", "get", "pods", MEDIA, False),
    ("gateway", "patch", "mediasessions.mafalda.io", "shop", False),
    ("check", "create", "mediasessions.mafalda.io", MEDIA, True),
    ("check", "get", "secret/mafalda-ca", NAMESPACE, False),
]


@pytest.fixture(scope="module")
def bound(render: Render, prepared: LocalCluster) -> Iterator[LocalCluster]:
    """With the rights of a release whose media namespaces are others, and nothing else of it."""
    kinds = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    rendered = render(VALUE_SETS["several-namespaces"])
    manifests = [found for kind in kinds for found in rendered.all(kind)]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    prepared.kubectl("apply", "-f", "-", stdin=text)
    yield prepared
    prepared.kubectl("delete", "-f", "-", "--wait=false", stdin=text)


@pytest.mark.parametrize(("role", "verb", "what", "namespace", "allowed"), CASES)
def test_the_api_server_agrees(
    role: str, verb: str, what: str, namespace: str, allowed: bool, bound: LocalCluster
) -> None:
    done = subprocess.run(
        [
            *(bound.description.kubectl, f"--kubeconfig={bound.kubeconfig}", "auth", "can-i", verb, what),
            *("-n", namespace, f"--as=system:serviceaccount:{NAMESPACE}:mafalda-{role}"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.strip() == ("yes" if allowed else "no"), done.stderr
