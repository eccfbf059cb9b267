"""What docs/troubleshooting.md and its neighbours name exists: reasons, log lines, metrics, flags, pages."""

from __future__ import annotations

import re
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = ("troubleshooting.md", "network.md", "sizing.md")
LATER = frozenset({"drain.md"})
"""Pages that are written beside this one."""


@cache
def sources() -> str:
    files = chain(ROOT.glob("operator/**/*.py"), ROOT.glob("mediaserver/**/*.py"))
    return "\n".join(path.read_text() for path in files)


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text()


def found(pattern: str) -> list[str]:
    matches = {match for page in PAGES for match in re.findall(pattern, text(page))}
    assert matches, pattern
    return sorted(matches)


@pytest.mark.parametrize("reason", found(r"\b[A-Z][A-Za-z]+=(?:True|False) ([A-Z][A-Za-z]+)"))
def test_reasons_of_conditions(reason: str) -> None:
    assert f'"{reason}"' in sources()


@pytest.mark.parametrize("condition", found(r"\b([A-Z][A-Za-z]+)=(?:True|False) [A-Z]"))
def test_types_of_conditions(condition: str) -> None:
    assert re.search(rf'"{condition}"', sources())


@pytest.mark.parametrize("line", found(r'"message": "([^"…]+)"'))
def test_log_lines(line: str) -> None:
    assert f'"{line}"' in sources()


@pytest.mark.parametrize("reason", found(r"token refused: ([a-zA-Z]+)`"))
def test_reasons_of_tokens(reason: str) -> None:
    assert f'"{reason}"' in sources()


@pytest.mark.parametrize("metric", found(r"mafalda_(?:operator|mediaserver|gateway)_([a-z_]+[a-z])"))
def test_metrics(metric: str) -> None:
    assert metric in sources()


@pytest.mark.parametrize("flag", found(r"`(--[a-z-]+)[` ]"))
def test_flags(flag: str) -> None:
    known = sources() + (ROOT / "benchmarks/sizing.py").read_text()
    assert f'"{flag}"' in known


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for name, heading in re.findall(r"\]\(([a-z-]+\.md)(#[a-z0-9-]+)?\)", text(page)):
        if name in LATER:
            continue
        assert (ROOT / "docs" / name).is_file(), name
        if heading:
            headings = re.findall(r"^#+ (.+)$", text(name), re.MULTILINE)
            slugs = {"#" + re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}
            assert heading in slugs, (name, heading)
