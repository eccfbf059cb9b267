"""The build scripts' refusals. That they build is shown by every test that runs a worker or a cluster."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[3] / "tools"
# What the scripts themselves are written in; packages that they look for are not among them.
BASICS = [
    *("bash", "env", "sed", "cut", "sort", "head", "tail", "grep", "find", "xargs", "sha256sum", "tr", "cat"),
    *("mkdir", "mktemp", "rm", "mv", "ln", "readlink", "dirname", "uname", "flock", "diff", "wc"),
]


class Sandbox:
    """A PATH of our own making, and an empty cache."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.cache = directory / "cache"
        self.bin.mkdir()
        for name in BASICS:
            found = shutil.which(name)
            assert found is not None, name
            (self.bin / name).symlink_to(found)
        self.program("python3", f'exec {sys.executable} "$@"')

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(
        self, tool: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        base = {"PATH": str(self.bin), "HOME": str(self.cache), "MAFALDA_CACHE": str(self.cache)}
        return subprocess.run(
            [TOOLS / tool, *arguments],
            env={**base, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def everything_installed(sandbox: Sandbox) -> None:
    for name in ("gcc", "ninja", "pkg-config", "patch"):
        sandbox.program(name, "echo 1.0")
    sandbox.program("g++", "echo 12.2.0")


def test_missing_packages_are_asked_for_in_one_line_without_root(sandbox: Sandbox) -> None:
    sandbox.program("id", "echo 1000")
    sandbox.program("apt-get", "echo apt-get must not run >&2; exit 1")
    for name in ("gcc", "g++", "patch"):
        sandbox.program(name, "exit 0")
    done = sandbox.run("build-worker")
    assert done.returncode == 3
    lines = [line for line in done.stderr.splitlines() if "apt-get" in line]
    assert lines == [
        "sudo apt-get install -y ninja-build pkg-config libuv1-dev libssl-dev libsrtp2-dev libabsl-dev"
    ]


def test_missing_packages_are_installed_as_root(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.program("id", "echo 0")
    sandbox.program("apt-get", f'echo "$@" >> {tmp_path}/apt; ')
    done = sandbox.run("build-worker")
    assert done.returncode == 1
    assert "still missing after apt-get install: gcc g++ ninja-build" in done.stderr
    update, install = (tmp_path / "apt").read_text().splitlines()
    assert update.startswith("update")
    assert install.endswith(" patch libuv1-dev libssl-dev libsrtp2-dev libabsl-dev")


def test_a_system_without_apt_is_told_what_is_missing(sandbox: Sandbox) -> None:
    done = sandbox.run("build-worker")
    assert done.returncode == 1
    assert "libsrtp2-dev" in done.stderr
    assert "your system's package manager" in done.stderr


def test_a_tarball_that_is_not_the_pinned_one_is_refused_and_leaves_nothing(sandbox: Sandbox) -> None:
    everything_installed(sandbox)
    # npm pack --silent --pack-destination DIR
    sandbox.program("npm", 'echo forged > "$4/mediasoup-3.27.1.tgz"')
    done = sandbox.run("build-worker")
    assert done.returncode == 1
    assert "mediasoup-3.27.1.tgz is not the expected file" in done.stderr
    assert not list((sandbox.cache / "worker").glob(".build-*"))
    assert not (sandbox.cache / "worker" / "current").exists()


def test_a_step_that_fails_shows_its_last_lines_and_the_log(sandbox: Sandbox) -> None:
    everything_installed(sandbox)
    sandbox.program("npm", "echo no network today >&2; exit 7")
    done = sandbox.run("build-worker")
    assert done.returncode == 1
    assert "| no network today" in done.stderr
    log = next((sandbox.cache / "worker" / "logs").glob("*.log"))
    assert str(log) in done.stderr


def test_check_says_what_to_do_when_nothing_is_built(sandbox: Sandbox) -> None:
    everything_installed(sandbox)
    done = sandbox.run("build-worker", "--check")
    assert done.returncode == 1
    assert "Run 'make worker'." in done.stderr


def test_the_key_changes_with_a_library(sandbox: Sandbox) -> None:
    everything_installed(sandbox)
    before = sandbox.run("build-worker", "--print-key").stdout
    assert before.startswith("3.27.1-")
    assert sandbox.run("build-worker", "--print-key").stdout == before
    sandbox.program("pkg-config", "echo 1.0.7")  # a patch release has the same binary interface
    assert sandbox.run("build-worker", "--print-key").stdout == before
    sandbox.program("pkg-config", "echo 2.0")
    assert sandbox.run("build-worker", "--print-key").stdout != before


def test_a_cached_worker_needs_no_builder_and_is_installed_without_being_selected(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    for name in ("g++", "pkg-config"):
        sandbox.program(name, "echo 1.0")
    (sandbox.bin / "install").symlink_to(shutil.which("install") or "")
    assert sandbox.run("build-worker", "--is-built").returncode == 1
    built = sandbox.cache / "worker" / sandbox.run("build-worker", "--print-key").stdout.strip()
    (built / "fbs").mkdir(parents=True)
    worker = built / "mediasoup-worker"
    worker.write_text("#!/bin/sh\n")
    worker.chmod(0o755)
    assert sandbox.run("build-worker", "--is-built").returncode == 0
    # Its generated code is that of the checkout, so that nothing is put there.
    generator = subprocess.run(
        ["bash", "-c", f". {TOOLS}/lib/cache.sh; hash_of {TOOLS}/generate-fbs"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    shutil.copytree(TOOLS.parent / "mediaserver/mediasoup/_fbs", built / f"python-{generator}")
    done = sandbox.run("build-worker", "--install", str(tmp_path / "there"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there" / "mediasoup-worker").read_text() == "#!/bin/sh\n"
    assert not (sandbox.cache / "worker" / "current").exists()


@pytest.mark.parametrize("tool", ["build-worker", "build-kubernetes"])
def test_an_unknown_argument_is_refused(sandbox: Sandbox, tool: str) -> None:
    done = sandbox.run(tool, "--chekc")
    assert done.returncode == 1
    assert f"usage: tools/{tool}" in done.stderr


def test_kubernetes_wants_go(sandbox: Sandbox) -> None:
    done = sandbox.run("build-kubernetes")
    assert done.returncode == 1
    assert "go is not on PATH" in done.stderr
    assert "MAFALDA_KUBERNETES_BIN" in done.stderr


def test_kubernetes_wants_a_go_that_is_new_enough(sandbox: Sandbox) -> None:
    sandbox.program("go", "echo go1.19.8")
    done = sandbox.run("build-kubernetes")
    assert done.returncode == 1
    assert "is go1.19.8, but Go 1." in done.stderr


def test_ready_made_binaries_are_checked_and_nothing_is_built(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "ready"
    folder.mkdir()
    environment = {"MAFALDA_KUBERNETES_BIN": str(folder)}
    incomplete = sandbox.run("build-kubernetes", environment=environment)
    assert incomplete.returncode == 1
    assert f"{folder} has no etcd" in incomplete.stderr
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl"):
        shutil.copy(shutil.which("true") or "", folder / name)
    assert sandbox.run("build-kubernetes", environment=environment).returncode == 0
    (folder / "kubectl").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    broken = sandbox.run("build-kubernetes", environment=environment)
    assert broken.returncode == 1
    assert "kubectl does not run: broken" in broken.stderr
    assert not os.path.lexists(sandbox.cache)


def test_testbed_binaries_that_are_not_built_are_told_with_their_target(sandbox: Sandbox):
    done = sandbox.run("build-cluster", "--check")
    assert done.returncode == 1
    assert "make cluster-binaries" in done.stderr
    done = sandbox.run("build-cluster", "--wrong")
    assert done.returncode == 1
    assert "usage: tools/build-cluster" in done.stderr


def test_versions_of_testbed_and_modules_agree(sandbox: Sandbox):
    script = (TOOLS / "build-cluster").read_text()
    for name, module in (("HELM", "helm"), ("COREDNS", "coredns"), ("KUBE_ROUTER", "kube-router")):
        version = re.search(rf"^{name}=(.+)$", script, re.MULTILINE)
        assert version is not None
        text = (TOOLS / "testbed/binaries" / module / "go.mod").read_text()
        assert re.search(rf"^require \S+ v{re.escape(version[1])}$", text, re.MULTILINE), name
    kubernetes = re.search(r"^KUBERNETES=(.+)$", (TOOLS / "build-kubernetes").read_text(), re.MULTILINE)
    assert kubernetes is not None
    nodes = (TOOLS / "testbed/binaries/nodes/go.mod").read_text()
    assert f"k8s.io/kubernetes v{kubernetes[1]}\n" in nodes
    assert f"k8s.io/kubelet v0.{kubernetes[1].removeprefix('1.')}\n" in nodes
