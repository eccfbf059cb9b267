"""What the tests measured: a line each on the terminal, all of them in a report."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

REPORT = "MAFALDA_E2E_REPORT"


class Measured:
    """One test's figures. `measured(gapMs=…)` may be called several times."""

    def __init__(self, test: str) -> None:
        self._test = test

    def __call__(self, **figures: Any) -> None:
        line = json.dumps({"test": self._test, **figures})
        print(f"measured: {line}")
        if path := os.environ.get(REPORT):
            with Path(path).open("a") as report:
                report.write(f"{line}\n")


@pytest.fixture
def measured(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Any:
    """Prints and keeps a test's figures."""
    inner = Measured(request.node.name)

    def say(**figures: Any) -> None:
        with capsys.disabled():
            print()
            inner(**figures)

    return say
