"""No more workers than cores that are paid for: CPU quotas of cgroups, version 1 and 2, on made-up files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mediaserver import config
from mediaserver.config import ConfigError
from mediaserver.cores import QuotaError, cpu_quota, usable_cores

V2 = "30 23 0:26 {mounted} /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate"
V1 = "32 31 0:29 {mounted} /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct"


class Made:
    """A file system of nothing but cgroups."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def own(self, *lines: str) -> None:
        self._write("proc/self/cgroup", *lines)

    def mounts(self, *lines: str) -> None:
        self._write("proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw", *lines)

    def unified(self, group: str, text: str) -> None:
        self._write(f"sys/fs/cgroup/{group}/cpu.max", text)

    def split(self, group: str, quota: int, period: int = 100_000) -> None:
        self._write(f"sys/fs/cgroup/cpu,cpuacct/{group}/cpu.cfs_quota_us", str(quota))
        self._write(f"sys/fs/cgroup/cpu,cpuacct/{group}/cpu.cfs_period_us", str(period))

    def _write(self, path: str, *lines: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("250000 100000", 3), ("10000 100000", 1), ("999999 1000", 8)],
)
def test_a_container_of_version_2(made: Made, text: str, cores: int) -> None:
    made.own("0::/")
    made.mounts(V2.format(mounted="/"))
    made.unified(".", text)
    assert usable_cores(made.root, 8) == cores


@pytest.mark.parametrize(("quota", "cores"), [(-1, 8), (200_000, 2), (150_000, 2), (50_000, 1)])
def test_a_container_of_version_1_whose_path_is_that_of_the_host(made: Made, quota: int, cores: int) -> None:
    made.own("8:pids:/kubepods/pod1/c1", "4:cpu,cpuacct:/kubepods/pod1/c1", "0::/")
    made.mounts(V1.format(mounted="/kubepods/pod1/c1"))
    made.split(".", quota)
    assert usable_cores(made.root, 8) == cores


def test_the_least_quota_above_counts(made: Made) -> None:
    made.own("0::/kubepods/pod1/c1")
    made.mounts(V2.format(mounted="/"))
    made.unified("kubepods/pod1/c1", "max 100000")
    made.unified("kubepods/pod1", "300000 100000")
    made.unified("kubepods", "700000 100000")
    assert cpu_quota(made.root) == pytest.approx(3)


def test_a_path_outside_the_mount_is_that_of_the_mount(made: Made) -> None:
    made.own("0::/../other")
    made.mounts(V2.format(mounted="/"))
    made.unified(".", "200000 100000")
    assert cpu_quota(made.root) == pytest.approx(2)


def test_both_versions_at_once(made: Made) -> None:
    made.own("4:cpu,cpuacct:/a", "1:name=systemd:/", "0::/")
    made.mounts(V2.format(mounted="/"), V1.format(mounted="/"))
    made.split("a", 400_000)
    assert cpu_quota(made.root) == pytest.approx(4)


def test_without_cgroups_all_cores_count(made: Made) -> None:
    assert usable_cores(made.root, 8) == 8
    assert usable_cores() >= 1


def test_nonsense_is_told(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.own("0::/")
    made.mounts(V2.format(mounted="/"))
    made.unified(".", "200000 0")
    with pytest.raises(QuotaError, match=r"cpu\.max"):
        cpu_quota(made.root)
    monkeypatch.setattr(config, "usable_cores", lambda: usable_cores(made.root, 8))
    with pytest.raises(ConfigError, match=r"--workers: .*cpu\.max.*how many workers"):
        config.default_workers()
