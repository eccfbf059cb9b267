"""What every definition must have, read from the files themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "crds").glob("*.yaml"))
SHORT_NAMES = {"MediaCluster": "mfc", "MediaServer": "mfsrv", "MediaSession": "mfs", "MediaRouter": "mfr"}
BEHAVIOUR = {"from", "type", "replicas"}
"""Fields that select behaviour may have a schema default; tuning may not, for a stored default freezes."""

SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def load(path: Path) -> dict[str, Any]:
    definition: dict[str, Any] = yaml.safe_load(path.read_text())
    return definition


def schema(definition: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def fields(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in node.get("properties", {}).items():
        if path == "" and name == "metadata":
            continue
        yield f"{path}.{name}".strip("."), child
        yield from fields(child, f"{path}.{name}".strip("."))
    for inner in ("items", "additionalProperties"):
        child = node.get(inner)
        if isinstance(child, dict):
            yield f"{path}[]", child
            yield from fields(child, f"{path}[]")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def definition(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def test_there_are_four() -> None:
    assert {load(path)["spec"]["names"]["kind"] for path in FILES} == set(SHORT_NAMES)


def test_names_and_subresources(definition: dict[str, Any]) -> None:
    spec = definition["spec"]
    assert spec["group"] == "mafalda.io"
    assert spec["scope"] == "Namespaced"
    assert spec["names"]["shortNames"] == [SHORT_NAMES[spec["names"]["kind"]]]
    assert spec["names"]["categories"] == ["mafalda"]
    version = spec["versions"][0]
    assert version["name"] == "v1alpha1"
    subresources = {"status": {}}
    if spec["names"]["kind"] == "MediaCluster":
        subresources["scale"] = SCALE
    assert version["subresources"] == subresources
    assert version["additionalPrinterColumns"][-1]["name"] == "Age"


def test_every_field_is_described(definition: dict[str, Any]) -> None:
    bare = [
        path
        for path, node in fields(schema(definition), "")
        if not node.get("description") and not path.endswith("[]") and path != "metadata"
    ]
    assert bare == []


def test_optional_fields_of_spec_say_what_absence_means(definition: dict[str, Any]) -> None:
    silent = []
    spec = schema(definition)["properties"]["spec"]
    for path, node in [("", spec), *fields(spec, "")]:
        for name, child in node.get("properties", {}).items():
            if name not in node.get("required", []) and "If absent:" not in child.get("description", ""):
                silent.append(f"{path}.{name}")
    assert silent == []


def test_lists_are_typed_and_bounded_and_strings_too(definition: dict[str, Any]) -> None:
    for path, node in fields(schema(definition), ""):
        if path in ("apiVersion", "kind"):
            continue
        if node.get("type") == "array":
            assert node.get("x-kubernetes-list-type") in ("set", "map", "atomic"), path
            assert node.get("maxItems"), path
        if node.get("type") == "string" and "enum" not in node and node.get("format") != "date-time":
            assert node.get("maxLength"), path
        if isinstance(node.get("additionalProperties"), dict):
            assert node.get("maxProperties"), path


def test_only_fields_that_select_behaviour_have_defaults(definition: dict[str, Any]) -> None:
    defaults = {path.rsplit(".", 1)[-1] for path, node in fields(schema(definition), "") if "default" in node}
    assert defaults <= BEHAVIOUR


def test_every_rule_has_a_message(definition: dict[str, Any]) -> None:
    nodes = [("", schema(definition)), *fields(schema(definition), "")]
    for path, node in nodes:
        for rule in node.get("x-kubernetes-validations", []):
            assert rule.get("message"), f"{path}: {rule['rule']}"
