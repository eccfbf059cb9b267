"""What a user reads: explain, columns, examples, and the statuses that planning writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mafalda_operator.model import (
    EVERYTHING,
    Inventory,
    KeySecret,
    MediaCluster,
    MediaRouter,
    MediaServer,
    MediaSession,
    NamespaceInfo,
    ObjectKey,
    ServerView,
)
from mafalda_operator.planning import CreateRouter, Memory, plan

from mediaserver.control.contract import (
    Address,
    Load,
    PortRange,
    RouterState,
    ServerHello,
    WorkerState,
    router_key,
)

ROOT = Path(__file__).parents[3]
KINDS = {"mediacluster": "mfc", "mediaserver": "mfsrv", "mediasession": "mfs", "mediarouter": "mfr"}
COLUMNS = {
    "mfs": "NAME AVAILABLE READY REASON ROUTERS DESIRED SERVERS CLUSTER AGE",
    "mfr": "NAME SESSION SERVER WORKER READY REASON AGE",
    "mfsrv": "NAME CLUSTER READY STATE NODE ZONE AGE",
    "mfc": "NAME AVAILABLE READY REPLICAS SERVERS AGE",
}


def spec_fields(node: dict[str, Any], path: str) -> list[tuple[str, str]]:
    found = []
    for name, child in node.get("properties", {}).items():
        found.append((f"{path}.{name}", child["description"]))
        found += spec_fields(child, f"{path}.{name}")
        if isinstance(child.get("items"), dict):
            found += spec_fields(child["items"], f"{path}.{name}")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_explain_teaches_every_field(api: Any, kind: str) -> None:
    definition = yaml.safe_load((ROOT / "crds" / f"mafalda.io_{kind}s.yaml").read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    explained = " ".join(api.kubectl("explain", kind, "--recursive").split())
    for path, _ in spec_fields(schema["spec"], "spec"):
        assert path.rsplit(".", 1)[-1] in explained, path
    for path, _ in spec_fields(schema["spec"], "spec")[:3]:
        description = next(text for where, text in spec_fields(schema["spec"], "spec") if where == path)
        said = " ".join(api.kubectl("explain", f"{kind}.{path}").split())
        assert " ".join(description.split())[:60] in said, path


def test_explain_tells_whom_applications_tokens_concern(api: Any) -> None:
    key_sets = "mediacluster.spec.tokens.keySets"
    workers = " ".join(api.kubectl("explain", f"{key_sets}.workers").split())
    assert "Those tokens count in the whole cluster, whatever namespaces says" in workers
    assert "If absent: no." in workers
    secret = " ".join(api.kubectl("explain", f"{key_sets}.secretRef").split())
    assert "The data key named revoked is no key id" in secret
    assert "whose workers end within 10 seconds" in secret


@pytest.mark.parametrize("short", COLUMNS)
def test_columns(api: Any, short: str) -> None:
    specs: dict[str, tuple[str, dict[str, Any]]] = {
        "mfs": ("MediaSession", {"clusterRef": {"name": "main"}}),
        "mfr": ("MediaRouter", {"sessionName": "standup"}),
        "mfsrv": ("MediaServer", {"clusterRef": {"name": "main"}, "endpoint": {"address": "a:1"}}),
        "mfc": ("MediaCluster", {}),
    }
    kind, spec = specs[short]
    api.apply(kind, "one", spec)
    assert api.kubectl("get", short).splitlines()[0].split() == COLUMNS[short].split()
    assert kind.lower() in api.kubectl("get", "mafalda")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid(api: Any, path: Path) -> None:
    """Applied for real, as a user does, in namespaces of this test."""
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    for document in documents:
        if document["kind"] == "Namespace":
            continue
        stored = api.apply(document["kind"], document["metadata"]["name"], document["spec"])
        for name, value in document["spec"].items():
            assert stored["spec"][name] == value or isinstance(value, dict), f"{document['kind']} {name}"


def stored(api: Any, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(api.kubectl("get", kind, name, "-o", "json"))
    return found


def connected(key: ObjectKey) -> ServerView:
    address = Address(host="127.0.0.1", port=4000)
    ports = PortRange(host="127.0.0.1", port=20000, end_port=20099)
    hello = ServerHello(
        protocol_version=1,
        cluster_uid="",
        instance_id="instance",
        highest_epoch=0,
        version="0.1.0",
        worker_version="3.27.1",
        pipe_protocol=1,
        workers=[WorkerState(slot=slot, state="Running") for slot in range(3)],
        control=address,
        peer=address,
        participants=address,
        client=ports,
        pipe=ports,
        nonce="",
        proof="",
        zone="a",
    )
    load = Load(workers=[], routers={}, peers=[], free_pipe_ports=100)
    return ServerView(
        key=key, connected=True, last_heard=0.0, hello=hello, report_received=True, load=load, load_at=0.0
    )


def test_statuses_of_planning_are_stored_as_they_are(api: Any) -> None:
    """Nothing that planning says is pruned or refused by the schema, and what is stored compares equal."""
    codecs = [
        {"mimeType": "video/H264", "parameters": {"packetization-mode": 1, "profile-level-id": "42e01f"}}
    ]
    api.apply("MediaCluster", "main", {"publicURL": "wss://media.example.com"})
    api.apply("MediaServer", "main-1", {"clusterRef": {"name": "main"}, "endpoint": {"address": "a:4000"}})
    api.apply(
        "MediaSession",
        "standup",
        {"clusterRef": {"name": "main"}, "routers": {"min": 2}, "mediaCodecs": codecs},
    )
    inventory = Inventory()
    inventory.put_namespace(api.namespace, NamespaceInfo({}))
    inventory.put(MediaCluster.parse(stored(api, "mfc", "main")))
    inventory.put(MediaServer.parse(stored(api, "mfsrv", "main-1")))
    session = MediaSession.parse(stored(api, "mfs", "standup"))
    inventory.put(session)
    inventory.put_token_keys(ObjectKey(api.namespace, "main"), {"default": KeySecret({"k1": b"k" * 32})})
    server = ObjectKey(api.namespace, "main-1")
    view = connected(server)
    memory = Memory()

    def make_plan() -> Any:
        snapshot = inventory.snapshot(
            views={server: view}, now=0.0, wall_time="2026-11-22T12:00:00Z", leading_since=0.0
        )
        return plan(snapshot, memory, EVERYTHING)

    for action in make_plan().actions:
        assert isinstance(action, CreateRouter)
        api.apply("MediaRouter", action.key.name, dict(action.spec))
        obj = stored(api, "mfr", action.key.name)
        obj["metadata"]["ownerReferences"] = [
            {"kind": "MediaSession", "uid": session.uid, "controller": True}
        ]
        obj["metadata"]["annotations"] = dict(action.annotations)
        inventory.put(MediaRouter.parse(obj))
        state = RouterState(
            namespace=api.namespace,
            name=action.key.name,
            session_uid=session.uid,
            worker_slot=action.spec["workerSlot"],
            ready=True,
            id="5f0e",
        )
        view.reported.put(router_key(*action.key), state)
    statuses = make_plan().statuses
    assert {status.kind for status in statuses} == {
        "MediaCluster",
        "MediaServer",
        "MediaSession",
        "MediaRouter",
    }
    for status in statuses:
        patch = json.dumps({"status": status.status})
        api.kubectl(
            "patch", status.kind.lower(), status.key.name, "--subresource=status", "--type=merge", "-p", patch
        )
        assert stored(api, status.kind.lower(), status.key.name)["status"] == status.status
    wide = api.kubectl("get", "mfs", "standup", "-o", "wide")
    assert f"wss://media.example.com/?roomId={api.namespace}/standup" in wide
