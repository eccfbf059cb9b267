from pathlib import Path

import pytest
from mafalda_operator.cli.local.binaries import NAMES, cache_root, find_binaries, find_kubectl
from mafalda_operator.cli.local.errors import BinariesMissingError


def programs(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder


def test_cache_root_follows_the_environment() -> None:
    assert cache_root({"MAFALDA_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_root({"XDG_CACHE_HOME": "/b"}) == Path("/b/mafalda")
    assert cache_root({}) == Path.home() / ".cache/mafalda"


def test_what_was_built_is_used_by_default(tmp_path: Path) -> None:
    built = programs(tmp_path / "kubernetes/current/bin", *NAMES)
    assert find_binaries(environment={"MAFALDA_CACHE": str(tmp_path)}).etcd == str(built / "etcd")


def test_a_folder_that_was_asked_for_must_have_all(tmp_path: Path) -> None:
    programs(tmp_path / "cache/kubernetes/current/bin", *NAMES)
    partial = programs(tmp_path / "partial", "etcd", "kubectl")
    environment = {"MAFALDA_CACHE": str(tmp_path / "cache")}
    message = "kube-apiserver, kube-controller-manager not found: they were asked for in"
    with pytest.raises(BinariesMissingError, match=message):
        find_binaries(str(partial), environment)
    with pytest.raises(BinariesMissingError, match=message):
        find_binaries(environment={**environment, "MAFALDA_KUBERNETES_BIN": str(partial)})


def test_kubebuilder_assets_come_first_and_the_rest_is_ours(tmp_path: Path) -> None:
    built = programs(tmp_path / "cache/kubernetes/current/bin", *NAMES)
    assets = programs(tmp_path / "assets", "etcd", "kube-apiserver", "kubectl")
    found = find_binaries(
        environment={"MAFALDA_CACHE": str(tmp_path / "cache"), "KUBEBUILDER_ASSETS": str(assets)}
    )
    assert found.kube_apiserver == str(assets / "kube-apiserver")
    assert found.kube_controller_manager == str(built / "kube-controller-manager")


def test_path_is_searched_when_told(tmp_path: Path) -> None:
    one = programs(tmp_path / "one", "etcd", "kubectl")
    two = programs(tmp_path / "two", "kube-apiserver", "kube-controller-manager")
    found = find_binaries("path", {"PATH": f"{one}:{two}"})
    assert (found.etcd, found.kube_apiserver) == (str(one / "etcd"), str(two / "kube-apiserver"))


def test_nothing_built_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BinariesMissingError, match="run `make kubernetes`"):
        find_binaries(environment={"MAFALDA_CACHE": str(tmp_path)})


def test_kubectl_alone_may_come_from_path(tmp_path: Path) -> None:
    folder = programs(tmp_path / "bin", "kubectl")
    environment = {"MAFALDA_CACHE": str(tmp_path / "empty"), "PATH": str(folder)}
    assert find_kubectl(environment=environment) == str(folder / "kubectl")
    with pytest.raises(BinariesMissingError):
        find_kubectl(environment={**environment, "PATH": str(tmp_path)})
