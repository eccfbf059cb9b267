"""Every name of Node's API is one of ours or left out with a reason; and the tool that says so can fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TOOL = ROOT / "tools/compare-api"
PACKAGE = ROOT / "tests/node/node_modules/mediasoup"


def compare(package: Path = PACKAGE, tool: Path = TOOL) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, str(tool), str(package)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 2, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_nothing_is_missing() -> None:
    assert (PACKAGE / "package.json").is_file(), "the npm package mediasoup is not installed; run 'make node'"
    assert compare() == (0, [])


def test_a_folder_without_the_package_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "run 'make node'" in done.stderr


@pytest.mark.parametrize(
    ("file", "before", "after", "missing"),
    [
        (
            "index.d.ts",
            "export declare function createWorker",
            "export declare function makeTea(): void;\nexport declare function createWorker",
            "function makeTea",
        ),
        (
            "WorkerTypes.d.ts",
            "get pid(): number;",
            "get pid(): number; get shoeSize(): number;",
            "member Worker.shoeSize",
        ),
        (
            "WorkerTypes.d.ts",
            "rtcMinPort?: number;",
            "rtcMinPort?: number; rtcLuckyPort?: number;",
            "parameter createWorker(rtcLuckyPort)",
        ),
        (
            "RouterTypes.d.ts",
            "canConsume({ producerId,",
            "canSmell(): boolean; canConsume({ producerId,",
            "member Router.canSmell",
        ),
        (
            "ConsumerTypes.d.ts",
            "producerpause: [];",
            "producerpause: []; producersneeze: [];",
            "event Consumer 'producersneeze'",
        ),
        (
            "ConsumerTypes.d.ts",
            "    close: [];\n    pause: [];",
            "    close: [];\n    itch: [];\n    pause: [];",
            "event ConsumerObserver 'itch'",
        ),
        ("TransportTypes.d.ts", "'bwe'", "'bwe' | 'mood'", "value TransportTraceEventType 'mood'"),
        (
            "srtpParametersTypes.d.ts",
            "keyBase64: string;",
            "keyBase64: string; keyBase32: string;",
            "field SrtpParameters.keyBase32",
        ),
        (
            "srtpParametersTypes.d.ts",
            "export type SrtpParameters",
            "export type SrtpMood = string;\nexport type SrtpParameters",
            "type SrtpMood",
        ),
        (
            "ortc.d.ts",
            "export declare function canConsume",
            "export declare function canSmell(x: string): void;\nexport declare function canConsume",
            "function ortc.canSmell",
        ),
        (
            "errors.d.ts",
            "export declare class NotFoundError",
            "export declare class TeaError extends Error {}\nexport declare class NotFoundError",
            "class TeaError",
        ),
    ],
)
def test_a_new_name_is_reported(tmp_path: Path, file: str, before: str, after: str, missing: str) -> None:
    shutil.copytree(PACKAGE / "node/lib", tmp_path / "node/lib", ignore=shutil.ignore_patterns("fbs", "test"))
    path = tmp_path / "node/lib" / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    code, lines = compare(tmp_path)
    assert code == 1
    assert missing in lines


def test_a_difference_that_serves_nothing_is_reported(tmp_path: Path) -> None:
    tool = tmp_path / "tools/compare-api"
    tool.parent.mkdir()
    shutil.copy(TOOL, tool)
    (tmp_path / "mediaserver").symlink_to(ROOT / "mediaserver")
    differences = TOOL.with_suffix(".toml").read_text() + 'makeTea = "no kettle"\n'
    tool.with_suffix(".toml").write_text(differences)
    assert compare(tool=tool) == (1, ["compare-api.toml: 'makeTea' serves nothing"])


def test_every_difference_has_a_reason() -> None:
    for line in TOOL.with_suffix(".toml").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            assert re.search(r'"[^"]{10,}"( \})?$', line), line
