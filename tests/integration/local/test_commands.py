import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mafalda_operator.cli.local.cluster import LocalCluster
from mafalda_operator.cli.local.commands import local
from mafalda_operator.cli.local.directory import remove
from mafalda_operator.cli.local.errors import DirectoryInUseError


def run(*arguments: str) -> Result:
    return CliRunner().invoke(local, list(arguments))


def test_up_status_down(tmp_path: Path) -> None:
    place = ["--dir", str(tmp_path / "cluster")]
    try:
        up = run("up", *place, "-o", "json")
        assert up.exit_code == 0, up.output
        report = json.loads(up.stdout)
        assert report["state"] == "Running"
        assert set(report["processes"]) == {"etcd", "kube-apiserver", "kube-controller-manager"}
        again = run("up", *place, "-o", "json")
        assert json.loads(again.stdout)["processes"] == report["processes"]
        status = run("status", *place)
        assert status.exit_code == 0
        assert f"export KUBECONFIG={report['kubeconfig']}" in status.stdout

        LocalCluster.attach(tmp_path / "cluster").stop_apiserver(grace=0)
        degraded = run("status", *place, "-o", "json")
        assert degraded.exit_code == 1
        assert json.loads(degraded.stdout)["state"] == "Degraded"
        refused = run("up", *place)
        assert refused.exit_code == 1
        assert "`mafalda local down` ends them" in refused.stderr
    finally:
        down = run("down", *place)
    assert down.exit_code == 0
    assert not (tmp_path / "cluster").exists()


def test_without_a_cluster(tmp_path: Path) -> None:
    place = ["--dir", str(tmp_path / "nothing")]
    status = run("status", *place, "-o", "json")
    assert status.exit_code == 1
    assert json.loads(status.stdout)["state"] == "Absent"
    assert run("status", *place).exit_code == 1
    down = run("down", *place)
    assert down.exit_code == 0
    assert "no cluster" in down.stdout


@pytest.mark.parametrize("source", ["folder", "path"])
def test_missing_binaries_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = str(tmp_path) if source == "folder" else "path"
    refused = run("up", "--dir", str(tmp_path / "cluster"), "--binaries", chosen)
    assert refused.exit_code == 1
    assert "etcd, kube-apiserver, kube-controller-manager, kubectl not found" in refused.stderr
    assert "make kubernetes" in refused.stderr
    assert not (tmp_path / "cluster").exists()


def test_down_leaves_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    assert run("down", "--dir", str(tmp_path)).exit_code == 0
    with pytest.raises(DirectoryInUseError, match="left alone"):
        remove(tmp_path)
    assert (tmp_path / "run" / "thesis.txt").exists()
