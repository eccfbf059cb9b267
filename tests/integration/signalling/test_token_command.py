"""`mafalda token` with a key from the cluster."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kubernetes import client, config
from mafalda_operator.cli.local.cluster import LocalCluster
from mafalda_operator.cli.token import token

from mediaserver.wire.tokens import verify

KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}


class Place:
    """A namespace with a MediaCluster `main` and a MediaSession `standup` in another one."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        api = config.new_client_from_config(str(kubeconfig))
        self.core, self.custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        tail = secrets.token_hex(4)
        self.media, self.shop = f"media-{tail}", f"shop-{tail}"
        for name in (self.media, self.shop):
            self.core.create_namespace({"metadata": {"name": name}})

    def create(self, namespace: str, plural: str, kind: str, name: str, spec: dict[str, Any]) -> Any:
        body = {"apiVersion": "mafalda.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.custom.create_namespaced_custom_object("mafalda.io", "v1alpha1", namespace, plural, body)

    def cluster(self, namespaces: dict[str, Any]) -> str:
        key_sets = [{"name": "default", "secretRef": {"name": "keys"}, "namespaces": namespaces}]
        made = self.create(
            self.media, "mediaclusters", "MediaCluster", "main",
            {"publicURL": "wss://media.example.com", "tokens": {"keySets": key_sets}},
        )  # fmt: skip
        uid: str = made["metadata"]["uid"]
        return uid

    def session(self) -> None:
        spec = {"clusterRef": {"name": "main", "namespace": self.media}}
        self.create(self.shop, "mediasessions", "MediaSession", "standup", spec)

    def secret(self) -> None:
        data = {kid: base64.b64encode(key).decode() for kid, key in KEYS.items()}
        self.core.create_namespaced_secret(self.media, {"metadata": {"name": "keys"}, "data": data})

    def run(self) -> Result:
        arguments = [
            "--session",
            f"{self.shop}/standup",
            "--sub",
            "alice",
            "--kubeconfig",
            str(self.kubeconfig),
        ]
        return CliRunner().invoke(token, arguments)


@pytest.fixture
def place(embedded_cluster: LocalCluster) -> Iterator[Place]:
    made = Place(embedded_cluster.kubeconfig)
    yield made
    for name in (made.media, made.shop):
        made.core.delete_namespace(name)


def test_the_greatest_key_of_the_sessions_key_set_signs(place: Place) -> None:
    uid = place.cluster({"from": "All"})
    place.session()
    place.secret()
    result = place.run()
    assert result.exit_code == 0, result.stderr
    claims = verify(
        result.stdout.strip(),
        {"k2": KEYS["k2"]},
        [uid],
        session=f"{place.shop}/standup",
        peer_id="alice",
        now=time.time(),
    )
    assert (claims.publish, claims.subscribe) == (True, True)


def test_what_is_missing_is_named(place: Place) -> None:
    assert f"there is no MediaSession {place.shop}/standup" in place.run().stderr
    place.session()
    assert f"names MediaCluster {place.media}/main; there is none" in place.run().stderr
    place.cluster({"from": "Same"})
    assert f"counts for namespace {place.shop}" in place.run().stderr


def test_a_secret_that_is_not_there_yet(place: Place) -> None:
    place.cluster({"from": "All"})
    place.session()
    result = place.run()
    assert result.exit_code == 1
    assert f"there is no Secret {place.media}/keys" in result.stderr
