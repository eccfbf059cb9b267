"""The chart's files that are made of others, and its values against their schema."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts/mafalda"


def test_definitions_version_and_table_are_in_step() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/chart", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, found in schema.get("properties", {}).items():
        yield from objects(found, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from objects(schema["items"], f"{path}[]")


def test_schema_refuses_misspelt_values_wherever_ours_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path, found in objects(schema):
        if "properties" in found:
            assert found["additionalProperties"] is False, path


def test_every_value_is_described_and_has_a_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        assert set(schema["properties"]) - {"global"} == set(values), path
        for name, found in schema["properties"].items():
            assert found["description"].endswith("."), f"{path}.{name}"
            if "properties" in found:
                compare(found, values[name], f"{path}.{name}")

    compare(schema, values, "")
