"""When tools/build-image builds and when not, and what of this machine it hands over. buildah is a double."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
REPOSITORY = "ghcr.io/mafalda-sfu/mafalda-operator"
# Logs its calls; knows the images of the file `store`; keeps what is mounted at /mnt when it builds.
BUILDAH = """#!/bin/bash
echo "$*" >>"$DOUBLE/calls"
case $1 in
  images) grep -qxF "${@: -1}" "$DOUBLE/store" && echo 0123456789ab ;;
  build)
    for argument; do
      case $previous in
        --tag) echo "$argument" >>"$DOUBLE/store" ;;
        --volume) case $argument in *:/mnt) cp -R "${argument%:/mnt}" "$DOUBLE/host" ;; esac ;;
      esac
      previous=$argument
    done
    echo "STEP 1/3: FROM somewhere AS worker"
    exit "${BUILD_CODE:-0}" ;;
  tag) echo "$3" >>"$DOUBLE/store" ;;
esac
"""


class Checkout:
    """The script in a checkout of a few small files, with a PATH that has buildah's double."""

    def __init__(self, directory: Path) -> None:
        self.root, self.double, self.bin = directory / "checkout", directory / "double", directory / "bin"
        for folder in (self.root / "tools/lib", self.double, self.bin):
            folder.mkdir(parents=True)
        for name in ("tools/build-image", "tools/base-image", "tools/lib/cache.sh", ".dockerignore"):
            shutil.copy(ROOT / name, self.root / name)
        for name in self.entering():
            path = self.root / name
            if path.exists():
                continue
            if (ROOT / name).is_dir():
                path.mkdir(parents=True)
                path /= "a"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("content\n")
        (self.root / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
        (self.root / "tools/build-worker").write_text("VERSION=3.99.0\n")
        (self.root / "Dockerfile").write_text("FROM scratch\n")
        (self.double / "store").write_text("docker.io/library/debian:bookworm-slim\n")
        self.program("buildah", BUILDAH)

    def entering(self) -> list[str]:
        return re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(script)
        path.chmod(0o755)

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        base = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.double),
            "MAFALDA_CACHE": str(self.double / "cache"),
            "DOUBLE": str(self.double),
        }
        return subprocess.run(
            [self.root / "tools/build-image", *arguments],
            env={**base, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def names(self) -> list[str]:
        done = self.run("--print-name")
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def builds(self) -> list[str]:
        calls = (self.double / "calls").read_text().splitlines()
        return [line for line in calls if line.startswith("build ")]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_names_are_those_of_version_and_content(checkout: Checkout) -> None:
    by_version, by_content = checkout.names()
    assert by_version == f"{REPOSITORY}:1.2.3"
    assert re.fullmatch(re.escape(by_version) + "-[0-9a-f]{12}", by_content)
    assert checkout.names() == [by_version, by_content]


def test_every_file_that_enters_the_image_makes_another_content(checkout: Checkout) -> None:
    seen = {checkout.names()[1]}
    for name in (*checkout.entering(), "Dockerfile", ".dockerignore"):
        path = checkout.root / name
        path = path / "another" if path.is_dir() else path
        path.write_text(path.read_text() + "# changed\n" if path.exists() else "new\n")
        (now,) = set(checkout.names()[1:])
        assert now not in seen, name
        seen.add(now)


def test_what_does_not_enter_does_not_count(checkout: Checkout) -> None:
    before = checkout.names()
    for name in (
        "docs/a.md",
        "tests/test_a.py",
        "operator/__pycache__/a.pyc",
        "mediaserver/mediasoup/_fbs/a.py",
    ):
        path = checkout.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("something")
    assert checkout.names() == before


def test_an_image_is_built_once_for_each_content(checkout: Checkout) -> None:
    by_version, by_content = checkout.names()
    first = checkout.run()
    assert first.returncode == 0, first.stderr
    assert "stage worker" in first.stdout
    (build,) = checkout.builds()
    for argument in (
        f"--tag {by_content}",
        "--build-arg VERSION=1.2.3",
        "--build-arg WORKER_VERSION=3.99.0",
        f"--label mafalda.io/content={by_content[-12:]}",
        f"--volume {checkout.double}/cache:/mnt/cache",
    ):
        assert argument in build
    again = checkout.run("--tag", "localhost/other:1")
    assert again.returncode == 0, again.stderr
    assert len(checkout.builds()) == 1
    store = (checkout.double / "store").read_text().split()
    assert by_version in store
    assert "localhost/other:1" in store
    assert checkout.run("--force").returncode == 0
    assert len(checkout.builds()) == 2
    assert "--no-cache" in checkout.builds()[1]


def test_a_build_that_fails_shows_its_log_and_names_no_image(checkout: Checkout) -> None:
    done = checkout.run(environment={"BUILD_CODE": "7"})
    assert done.returncode == 1
    assert "failed: buildah build" in done.stderr
    assert "| STEP 1/3: FROM somewhere AS worker" in done.stderr
    assert f"{REPOSITORY}:1.2.3\n" not in (checkout.double / "store").read_text()
    assert not list((checkout.double / "cache/image").glob(".build-*"))


def test_pip_and_npm_are_told_where_this_machine_gets_packages_from(checkout: Checkout) -> None:
    settings = [
        "global.index-url='https://pip.example/simple'",
        ":env:.default-timeout='180'",
        "global.find-links='/opt/wheels'",
        "global.cert='/somewhere/ca.crt'",
    ]
    checkout.program("python3", "#!/bin/sh\ncat <<'END'\n" + "\n".join(settings) + "\nEND\n")
    checkout.program("npm", "#!/bin/sh\necho https://npm.example/\n")
    assert checkout.run().returncode == 0
    pip = (checkout.double / "host/pip.conf").read_text()
    assert "[global]\nindex-url = https://pip.example/simple\ntimeout = 180\n" in pip
    assert "/opt/wheels" not in pip
    assert "/somewhere" not in pip
    assert "registry=https://npm.example/\n" in (checkout.double / "host/npmrc").read_text()
    for name in ("pip.conf", "npmrc"):  # they may hold a password
        assert (checkout.double / "host" / name).stat().st_mode & 0o077 == 0


def test_a_base_image_that_can_not_be_had_is_told_with_the_remedy(checkout: Checkout) -> None:
    (checkout.double / "store").write_text("")
    checkout.program("buildah", BUILDAH.replace("  tag)", "  pull) exit 1 ;;\n  tag)"))
    done = checkout.run(environment={"MAFALDA_BASE_IMAGE": "registry.example/debian:12"})
    assert done.returncode == 1
    assert "registry.example/debian:12 can't be pulled" in done.stderr
    assert "unset MAFALDA_BASE_IMAGE" in done.stderr


def test_what_is_misspelt_is_refused(checkout: Checkout) -> None:
    done = checkout.run("--chekc")
    assert done.returncode == 1
    assert "unknown argument --chekc" in done.stderr
    help_text = checkout.run("--help").stdout
    assert "--check" in help_text
    assert "MAFALDA_BASE_IMAGE" in help_text


def test_without_a_builder_the_remedy_is_told(checkout: Checkout) -> None:
    done = checkout.run("--with", "dockre")
    assert done.returncode == 1
    assert "Install buildah" in done.stderr


# -- what is said in two places agrees ---------------------------------------------------------------------


def _pinned(name: str) -> dict[str, str]:
    return dict(
        re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE)
    )


def test_the_image_has_the_versions_that_are_tested() -> None:
    image, runtime, tested = _pinned("image.txt"), _pinned("runtime.txt"), _pinned("dev.txt")
    assert runtime.keys() <= image.keys()
    assert {**image, **runtime} == image
    assert {**tested, **image} == tested
    assert {**tested, **_pinned("build.txt")} == tested


def test_a_plain_docker_build_has_the_right_labels() -> None:
    defaults = dict(re.findall(r"^ARG (\w+)=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert f'\nversion = "{defaults["VERSION"]}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f"\nVERSION={defaults['WORKER_VERSION']}\n" in (ROOT / "tools/build-worker").read_text()
    assert os.access(ROOT / "tools/build-image", os.X_OK)
