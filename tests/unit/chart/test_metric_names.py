"""Alerts and dashboard ask for metrics and labels that the code has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from mafalda_operator.app import Operator, Settings
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from mediaserver.control.contract import (
    LinkState,
    Load,
    PeerAge,
    RouterLoad,
    RouterState,
    TenantWorker,
    WorkerLoad,
    WorkerState,
)
from mediaserver.gateway.metrics import Metrics as GatewayMetrics
from mediaserver.metrics import Figures, metrics
from mediaserver.wire.listen import ListenAddress
from mediaserver.wire.membership import ClusterKey

FILES = Path(__file__).parents[3] / "charts/mafalda/files"
FROM_SCRAPE = {"pod", "namespace", "job", "instance"}
"""Labels that Prometheus puts on by itself."""
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}


def told(families: Iterable[Metric], registry: CollectorRegistry | None = None) -> dict[str, set[str]]:
    """Names as they are scraped, with their labels."""
    found: dict[str, set[str]] = {}
    for family in families:
        for suffix in SUFFIXES.get(family.type, ("",)):
            labels = {label for sample in family.samples for label in sample.labels}
            found[family.name + suffix] = labels
    for collector in () if registry is None else list(registry._collector_to_names):
        for name in registry._collector_to_names[collector]:
            labels = getattr(collector, "_labelnames", None) or getattr(collector, "_labels", ())
            found.setdefault(name, set()).update(labels)
    return found


def of_operator() -> dict[str, set[str]]:
    settings = Settings(
        kubeconfig=None,
        metrics_listen=ListenAddress("127.0.0.1", 0),
        lease_namespace="n",
        lease_name="l",
        identity="i",
    )
    registry = Operator(settings, ClusterKey(b"k" * 32)).metrics.registry
    return told((), registry)


def of_media_server() -> dict[str, set[str]]:
    states = {
        "worker/0": WorkerState(slot=0, state="Running", restarts=2),
        "router/shop/a": RouterState(
            namespace="shop", name="a", session_uid="s", worker_slot=0, ready=True, id="x"
        ),
        "link/shop/a/b": LinkState(namespace="shop", local_router="a", remote_router="b", ready=False),
    }
    load = Load(
        workers=[WorkerLoad(slot=0, cpu=0.25, routers=1, producers=2, consumers=3)],
        routers={"router/shop/a": RouterLoad(participants=4, producers=2, consumers=3)},
        peers=[PeerAge(server="media/b", instance_id="i", age=0.5)],
        free_pipe_ports=99,
    )
    figures = Figures(
        info={"version": "1"},
        states=states,
        load=load,
        control_connections={"operator": 1},
        loop_lag=0.5,
        draining=False,
        tenants=[
            TenantWorker(
                id="w",
                subject="app",
                token="t",
                version="1",
                pid=1,
                attached=True,
                age=1,
                cpu=0,
                memory=0,
                consumers=0,
                transports=0,
            )
        ],
    )
    return told(metrics(figures))


@pytest.fixture(scope="module")
def known() -> Mapping[str, set[str]]:
    return of_operator() | told((), GatewayMetrics().registry) | of_media_server()


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FILES / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text())
    return found


EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in rules()] + [
    (panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel.get("targets", ())
]


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_metrics_and_labels_exist(where: str, expression: str, known: Mapping[str, set[str]]) -> None:
    names = re.findall(r"\b(mafalda_\w+)(\{[^}]*\})?", expression)
    assert names, where
    labels: set[str] = set()
    for name, matchers in names:
        assert name in known, f"{where}: there is no metric {name}"
        labels |= known[name]
        for label in re.findall(r"(\w+)\s*[=!]", matchers):
            assert label in known[name] | FROM_SCRAPE, f"{where}: {name} has no label {label}"
    for grouped in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        for label in (label.strip() for label in grouped.split(",")):
            assert label in labels | FROM_SCRAPE | {"le"}, f"{where}: no label {label}"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alerts_say_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert len(rule["annotations"]["description"]) > 60
    assert rule["annotations"]["summary"]


def test_every_panel_has_a_place_of_its_own_and_says_what_it_shows() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    assert all(panel["description"] for panel in panels if panel["type"] != "row")
