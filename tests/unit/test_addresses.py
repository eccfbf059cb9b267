"""Which addresses are announced, from what, in what order; what is missing says what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mediaserver.addresses import (
    AddressQuery,
    Announce,
    AnnounceType,
    Entry,
    Files,
    Resolution,
    by_host,
    families,
    is_local,
    read_files,
    resolve,
)

POD = "10.244.1.7"
NODE = [
    Entry("Hostname", "n1"),
    Entry("InternalIP", "10.0.0.5"),
    Entry("InternalIP", "fd00::5"),
    Entry("ExternalIP", "203.0.113.7"),
    Entry("ExternalIP", "2001:db8::7"),
]
FILES: Files = {"node.n1": NODE, "server.main-abcde": [Entry("LoadBalancer", "198.51.100.9")]}


def query(*wanted: AnnounceType | Announce, hosts: tuple[str, ...] = (POD,)) -> AddressQuery:
    return AddressQuery(
        wanted=tuple(each if isinstance(each, Announce) else Announce(each) for each in wanted),
        hosts=hosts,
        directory=Path("/etc/mafalda/addresses"),
        node="n1",
        server="main-abcde",
    )


def found(
    asked: AddressQuery, files: Files = FILES, local: Sequence[str] = (), *, whole: bool = True
) -> Resolution:
    resolution = resolve(asked, files, is_local=lambda address: address in local)
    assert not (whole and resolution.missing), resolution.missing
    return resolution


@pytest.mark.parametrize(
    ("kind", "addresses"),
    [
        ("NodeExternalIP", ("203.0.113.7",)),
        ("NodeInternalIP", ("10.0.0.5",)),
        ("PodIP", (POD,)),
        ("LoadBalancer", ("198.51.100.9",)),
        (Announce("Address", "media.example.com"), ("media.example.com",)),
    ],
)
def test_each_type_has_its_addresses(kind: Any, addresses: tuple[str, ...]) -> None:
    assert found(query(kind)).addresses == addresses


def test_the_order_is_that_of_the_flags_and_nothing_comes_twice() -> None:
    asked = query("PodIP", Announce("Address", "10.0.0.5"), "NodeExternalIP", "NodeInternalIP")
    assert found(asked).addresses == (POD, "10.0.0.5", "203.0.113.7")


def test_both_families_of_a_dual_stack() -> None:
    asked = query("NodeExternalIP", "PodIP", hosts=(POD, "fd00::1:7"))
    assert found(asked).addresses == ("203.0.113.7", "2001:db8::7", POD, "fd00::1:7")
    assert found(query("NodeExternalIP", hosts=("fd00::1:7",))).addresses == ("2001:db8::7",)


def test_a_host_name_of_a_load_balancer_counts() -> None:
    files: Files = {"server.main-abcde": [Entry("LoadBalancer", "lb.example.com")]}
    assert found(query("LoadBalancer"), files).addresses == ("lb.example.com",)


def test_a_missing_type_is_never_replaced() -> None:
    files: Files = {"node.n1": [Entry("InternalIP", "10.0.0.5")]}
    resolution = found(query("NodeExternalIP", "NodeInternalIP"), files, whole=False)
    (told,) = resolution.missing
    for word in (
        "--announce-from NodeExternalIP",
        "node n1",
        "/etc/mafalda/addresses/node.n1",
        "InternalIP 10.0.0.5",
        "kubectl get node n1",
        "spec.network.announce",
    ):
        assert word in told
    assert resolution.addresses == ("10.0.0.5",)


def test_an_address_of_another_family_is_missing_and_says_so() -> None:
    files: Files = {"node.n1": [Entry("ExternalIP", "2001:db8::7")]}
    (told,) = found(query("NodeExternalIP"), files, whole=False).missing
    for word in ("ExternalIP 2001:db8::7", "IPv4 only", "--client-address", "ipFamilies"):
        assert word in told


def test_a_load_balancer_without_address_names_the_service() -> None:
    (told,) = found(query("LoadBalancer"), {"server.main-abcde": []}, whole=False).missing
    for word in ("server main-abcde", "no address at all", "kubectl describe service"):
        assert word in told


def test_addresses_of_this_very_host_are_listened_on() -> None:
    asked = query("NodeExternalIP", "NodeInternalIP", hosts=("10.0.0.5",))
    assert found(asked, local=["203.0.113.7"]).hosts == ("10.0.0.5", "203.0.113.7")
    assert found(asked).hosts == ("10.0.0.5",), "the others come through NAT"
    assert found(query("LoadBalancer"), local=["198.51.100.9"]).hosts == (POD,)
    for wildcard in ("0.0.0.0", "::"):
        assert found(query("NodeExternalIP", hosts=(wildcard,)), local=["203.0.113.7"]).hosts == (wildcard,)


def test_which_files_are_needed() -> None:
    assert query("PodIP", Announce("Address", "203.0.113.9")).files == ()
    assert query("PodIP", Announce("Address", "203.0.113.9")).given == (POD, "203.0.113.9")
    asked = query("NodeExternalIP", "NodeInternalIP", "LoadBalancer")
    assert asked.files == ("node.n1", "server.main-abcde")
    assert asked.given == ()


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (("10.0.0.1",), {4}),
        (("0.0.0.0",), {4}),
        (("fd00::1",), {6}),
        (("::",), {4, 6}),
        (("0.0.0.0", "::"), {4, 6}),
    ],
)
def test_families(hosts: tuple[str, ...], expected: set[int]) -> None:
    assert families(hosts) == expected


@pytest.mark.parametrize(
    ("hosts", "announced", "expected"),
    [
        (("10.0.0.1",), (), [None]),
        (("10.0.0.1",), ("203.0.113.7", "203.0.113.8"), ["203.0.113.7"]),
        (("10.0.0.1",), ("lb.example.com",), ["lb.example.com"]),
        (("10.0.0.1", "fd00::1"), ("2001:db8::7", "203.0.113.7"), ["203.0.113.7", "2001:db8::7"]),
        (("10.0.0.1", "fd00::1"), ("203.0.113.7",), ["203.0.113.7", None]),
        (("10.0.0.1", "203.0.113.7"), ("203.0.113.7", "10.0.0.1"), ["10.0.0.1", "203.0.113.7"]),
        (("::",), ("203.0.113.7",), ["203.0.113.7"]),
    ],
)
def test_what_each_listener_is_told_of_as(
    hosts: tuple[str, ...], announced: tuple[str, ...], expected: list[str | None]
) -> None:
    assert [address for _, address in by_host(hosts, announced)] == expected


def test_is_local() -> None:
    assert is_local("127.0.0.1")
    assert not is_local("203.0.113.7")


# -- files --------------------------------------------------------------------------------------------------


class ConfigMapMount:
    """A directory as the kubelet keeps it: files are links into `..data`, a link that is turned."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._version = 0

    def update(self, data: dict[str, str]) -> None:
        self._version += 1
        version = self.directory / f"..version_{self._version}"
        version.mkdir()
        for name, text in data.items():
            (version / name).write_text(text)
            link = self.directory / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        turned = self.directory / "..data_tmp"
        turned.symlink_to(version.name)
        old = (self.directory / "..data").resolve()
        turned.replace(self.directory / "..data")
        if self._version > 1:
            for path in (*old.iterdir(), old):
                path.rmdir() if path.is_dir() else path.unlink()


def entries(address: str) -> str:
    return json.dumps([{"type": "ExternalIP", "address": address, "later": "ignored"}])


def test_files_are_read_and_read_again_after_a_turn(tmp_path: Path) -> None:
    mount = ConfigMapMount(tmp_path)
    for address in ("203.0.113.7", "203.0.113.8"):
        mount.update({"node.n1": entries(address)})
        assert read_files(tmp_path, ["node.n1"]) == {"node.n1": [Entry("ExternalIP", address)]}


def test_files_of_a_version_that_goes_away_meanwhile_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = ConfigMapMount(tmp_path)
    mount.update({"node.n1": entries("203.0.113.7"), "server.s": entries("203.0.113.7")})
    turns = iter([True])
    read = Path.read_bytes

    def turning(path: Path) -> bytes:
        if "server" in path.name and next(turns, False):
            mount.update({"node.n1": entries("203.0.113.8"), "server.s": entries("203.0.113.8")})
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", turning)
    found = read_files(tmp_path, ["node.n1", "server.s"])
    assert [*found.values()] == [[Entry("ExternalIP", "203.0.113.8")]] * 2


def test_plain_directories_are_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "node.n1").write_text(entries("203.0.113.7"))
    assert read_files(tmp_path, ["node.n1"]) == {"node.n1": [Entry("ExternalIP", "203.0.113.7")]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["no such file", "operator"]),
        ("{}", ["not a list", "delete the ConfigMap"]),
        ("nonsense", ["not a list"]),
        ('[{"type": "ExternalIP"}]', ["not a list", "address"]),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, text: str | None, words: list[str]) -> None:
    if text is not None:
        (tmp_path / "node.n1").write_text(text)
    asked = AddressQuery(
        wanted=(Announce("NodeExternalIP"),), hosts=(POD,), directory=tmp_path, node="n1", server="s"
    )
    (told,) = found(asked, read_files(tmp_path, asked.files), whole=False).missing
    for word in (*words, "--announce-from NodeExternalIP", str(tmp_path / "node.n1")):
        assert word in told
