import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from mafalda_operator.cli.local import boot
from mafalda_operator.cli.local.binaries import find_binaries
from mafalda_operator.cli.local.cluster import LocalCluster
from mafalda_operator.cli.local.components import HOST
from mafalda_operator.cli.local.directory import CONTROL_PLANE
from mafalda_operator.cli.local.errors import (
    DirectoryInUseError,
    KubectlFailedError,
    NotRunningError,
    StartFailedError,
)
from mafalda_operator.cli.local.ports import PortPicker, Protocol
from mafalda_operator.cli.local.processes import ProcessRecord, is_running

WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.mafalda.io}
spec:
  group: test.mafalda.io
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
"""


def until(condition: Callable[[], bool], what: str, timeout: float = 25.0) -> None:
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        pause.wait(0.1)


def apply(cluster: LocalCluster, *objects: dict[str, object]) -> None:
    cluster.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(thing) for thing in objects))


def exists(cluster: LocalCluster, kind: str, name: str) -> bool:
    return bool(cluster.kubectl("get", kind, name, "--ignore-not-found", "-o", "name"))


def test_two_run_side_by_side_and_leave_nothing(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with LocalCluster.start(one) as first, LocalCluster.start(two) as second:
        records = [*first.processes.records().values(), *second.processes.records().values()]
        assert len(records) == 2 * len(CONTROL_PLANE)
        first.kubectl("create", "configmap", "only-here")
        assert exists(first, "configmap", "only-here")
        assert not exists(second, "configmap", "only-here")
        assert (first.state(), second.state()) == ("Running", "Running")
        assert first.kubeconfig.stat().st_mode & 0o777 == 0o600
        first.down()
        assert first.state() == "Stopped"
        assert second.state() == "Running"
    assert not any(is_running(record) for record in records)
    assert not one.exists()
    assert not two.exists()


def test_objects_of_an_owner_that_is_gone_are_collected_and_a_namespace_ends(tmp_path: Path) -> None:
    definition = tmp_path / "widgets.yaml"
    definition.write_text(WIDGETS)
    with LocalCluster.start(tmp_path / "cluster", manifests=[definition]) as cluster:
        cluster.kubectl("create", "namespace", "play")
        widget = {"apiVersion": "test.mafalda.io/v1", "kind": "Widget"}
        apply(cluster, {**widget, "metadata": {"name": "owner", "namespace": "play"}})
        uid = cluster.kubectl("get", "widget", "owner", "-n", "play", "-o", "jsonpath={.metadata.uid}")
        owner = {"apiVersion": "test.mafalda.io/v1", "kind": "Widget", "name": "owner", "uid": uid}
        for kind in (widget, {"apiVersion": "v1", "kind": "ConfigMap"}):
            metadata = {"name": "owned", "namespace": "play", "ownerReferences": [owner]}
            apply(cluster, {**kind, "metadata": metadata})
        cluster.kubectl("delete", "widget", "owner", "-n", "play")

        def collected() -> bool:
            return not cluster.kubectl(
                "get", "widget,configmap", "owned", "-n", "play", "--ignore-not-found", "-o", "name"
            )

        until(collected, "owned objects are collected")
        apply(cluster, {**widget, "metadata": {"name": "last", "namespace": "play"}})
        cluster.kubectl("delete", "namespace", "play", "--wait=false")
        until(lambda: not exists(cluster, "namespace", "play"), "the namespace ends")


def test_the_api_server_keeps_its_data_and_address_over_a_restart_and_a_pause(
    embedded_cluster: LocalCluster,
) -> None:
    cluster = embedded_cluster
    cluster.kubectl("create", "configmap", "kept")
    cluster.stop_apiserver(grace=0)
    assert cluster.state() == "Degraded"
    with pytest.raises(KubectlFailedError) as refused:
        cluster.kubectl("get", "configmap", "kept", "--request-timeout=2s")
    assert refused.value.code == 1
    with pytest.raises(NotRunningError, match="start_apiserver"):
        cluster.pause_apiserver()
    cluster.start_apiserver()
    assert exists(cluster, "configmap", "kept")
    cluster.pause_apiserver()
    with pytest.raises(KubectlFailedError, match="hung"):
        cluster.kubectl("get", "configmap", "kept", timeout=1)
    cluster.resume_apiserver()
    cluster.kubectl("delete", "configmap", "kept")


@pytest.mark.parametrize("unlucky", [0, 2], ids=["etcd", "kube-apiserver"])
def test_a_port_that_somebody_took_meanwhile_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unlucky: int
) -> None:
    with socket.create_server((HOST, 0)) as holder:
        held = holder.getsockname()[1]
        picked: list[int] = []

        class Unlucky(PortPicker):
            def port(self, *, protocols: Sequence[Protocol] = ("tcp",)) -> int:
                port = held if len(picked) == unlucky else super().port(protocols=protocols)
                picked.append(port)
                return port

        monkeypatch.setattr(boot, "PortPicker", Unlucky)
        with LocalCluster.start(tmp_path / "cluster") as cluster:
            assert held in picked
            assert held not in (cluster.description.ports or {}).values()
            assert cluster.state() == "Running"


def test_a_program_that_ends_while_starting_is_named_with_its_last_lines(tmp_path: Path) -> None:
    broken = tmp_path / "broken-etcd"
    broken.write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(StartFailedError, match=r"etcd ended while starting(.|\n)*no space left"):
        LocalCluster.start(tmp_path / "cluster", binaries=replace(find_binaries(), etcd=str(broken)))
    assert not (tmp_path / "cluster").exists()


def test_a_directory_is_never_taken_from_another_nor_from_the_user(embedded_cluster: LocalCluster) -> None:
    with pytest.raises(DirectoryInUseError, match="mafalda local down"):
        LocalCluster.start(embedded_cluster.directory)
    assert embedded_cluster.state() == "Running"


def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DirectoryInUseError, match="not empty"):
        LocalCluster.start(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_manifest_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}\n")
    with pytest.raises(KubectlFailedError, match="Not_A_Name"):
        LocalCluster.start(tmp_path / "cluster", manifests=[bad])
    assert not (tmp_path / "cluster").exists()


def test_an_existing_api_server_is_used_and_left_running(
    embedded_cluster: LocalCluster, tmp_path: Path
) -> None:
    adopted = LocalCluster.adopt(tmp_path / "adopted", embedded_cluster.kubeconfig)
    assert adopted.url == embedded_cluster.url
    assert LocalCluster.attach(tmp_path / "adopted").state() == "Running"
    with pytest.raises(NotRunningError, match="the user's own"):
        adopted.stop_apiserver()
    adopted.down()
    assert not (tmp_path / "adopted").exists()
    assert embedded_cluster.state() == "Running"


@pytest.mark.parametrize("text", ["", "{}", "a: [", "contexts: 3"])
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(StartFailedError, match=str(path)):
        LocalCluster.adopt(tmp_path / "adopted", path)


STARTER = """
import pathlib, signal, sys
from mafalda_operator.cli.local import boot
from mafalda_operator.cli.local.binaries import find_binaries
from mafalda_operator.cli.local.cluster import LocalCluster
cluster = LocalCluster.start(pathlib.Path(sys.argv[1]))
cluster.processes.spawn("extra", ["sleep", "600"])
print("up", flush=True)
signal.pause()
"""


def test_it_does_not_outlive_a_starter_that_is_killed(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(directory)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert starter.stdout is not None
    with starter.stdout:
        assert starter.stdout.readline() == b"up\n"
        records: list[ProcessRecord] = list(LocalCluster.attach(directory).processes.records().values())
        assert len(records) == len(CONTROL_PLANE) + 1
        starter.send_signal(signal.SIGKILL)
        starter.wait(10)
    until(lambda: not directory.exists(), "the directory goes")
    assert not any(is_running(record) for record in records)


def test_ports_are_on_loopback_only(embedded_cluster: LocalCluster) -> None:
    ports = embedded_cluster.description.ports
    assert ports is not None
    assert embedded_cluster.url == f"https://{HOST}:{ports['apiserver']}"
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    for port in ports.values():
        lines = [line.split() for line in listening.splitlines()[1:]]
        addresses = {line[1] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}
        assert addresses == {f"0100007F:{port:04X}"}
