"""Every case of mediasoup's own suite has a test of ours or a reason; and the tool that says so can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOOL = ROOT / "tools/compare-suite"
PACKAGE = ROOT / "tests/node/node_modules/mediasoup"


def compare(package: Path = PACKAGE) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, str(TOOL), str(package)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 2, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_nothing_is_missing() -> None:
    assert (PACKAGE / "package.json").is_file(), "the npm package mediasoup is not installed; run 'make node'"
    assert compare() == (0, [])


def test_a_case_that_we_lack_and_one_that_is_gone_are_told(tmp_path: Path) -> None:
    suite = tmp_path / "node/lib/test"
    shutil.copytree(PACKAGE / "node/lib/test", suite)
    path = suite / "test-Worker.js"
    path.write_text(path.read_text().replace("test('worker.dump() succeeds'", "test(\n  'worker makes tea'"))
    status, problems = compare(tmp_path)
    assert status == 1
    assert "missing: test-Worker: worker makes tea" in problems
    assert (
        "no such case: test-Worker: worker.dump() succeeds (named by test_worker.py::test_dump)" in problems
    )


def test_a_folder_without_the_suite_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "run 'make node'" in done.stderr
