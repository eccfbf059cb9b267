"""The media server's figures as Prometheus metrics, read when `/metrics` is scraped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from mediaserver.control.contract import LinkState, Load, ReportedEntry, RouterState, WorkerState

PREFIX = "mafalda_mediaserver"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is told at one moment. `load` is None until it was measured first."""

    info: Mapping[str, str]
    states: Mapping[str, ReportedEntry]
    load: Load | None
    control_connections: Mapping[str, int]
    loop_lag: float
    draining: bool


def metrics(figures: Figures) -> Iterable[Metric]:
    """The metric families; figures that are not known are left out, never told as 0."""
    yield InfoMetricFamily(PREFIX, "Versions of this media server", value=dict(figures.info))
    yield _gauge("event_loop_lag_seconds", "Worst lag of the event loop lately", figures.loop_lag)
    yield _gauge("draining", "1 while the server takes no new participants", float(figures.draining))
    yield _labelled(
        "control_connections", "Greeted connections to /control", "role", figures.control_connections
    )
    yield from _states(figures.states)
    if figures.load is not None:
        yield from _load(figures.load)


def _states(states: Mapping[str, ReportedEntry]) -> Iterable[Metric]:
    workers = [state for state in states.values() if isinstance(state, WorkerState)]
    for_state = dict.fromkeys(("Running", "Starting", "Failing"), 0)
    for worker in workers:
        for_state[worker.state] += 1
    yield _labelled("workers", "Worker slots by state", "state", for_state)
    restarts = CounterMetricFamily(
        f"{PREFIX}_worker_restarts", "Workers that took the place of one that died", labels=["slot"]
    )
    for worker in workers:
        restarts.add_metric([str(worker.slot)], worker.restarts)
    yield restarts
    routers = [state.ready for state in states.values() if isinstance(state, RouterState)]
    yield _labelled(
        "routers", "Routers desired or open here, by whether they are ready", "ready", _split(routers)
    )
    links = [state.ready for state in states.values() if isinstance(state, LinkState)]
    yield _labelled("links", "Links that end here, by whether they are ready", "ready", _split(links))


def _split(ready: list[bool]) -> dict[str, int]:
    return {"true": sum(ready), "false": len(ready) - sum(ready)}


def _load(load: Load) -> Iterable[Metric]:
    slots = {str(worker.slot): worker for worker in load.workers}
    yield _labelled(
        "worker_cpu_cores",
        "Cores that a worker used over the last second",
        "slot",
        {slot: worker.cpu for slot, worker in slots.items()},
    )
    yield _labelled(
        "producers",
        "Producers on a worker, piped ones too",
        "slot",
        {s: w.producers for s, w in slots.items()},
    )
    yield _labelled(
        "consumers",
        "Consumers on a worker, those of pipes too",
        "slot",
        {s: w.consumers for s, w in slots.items()},
    )
    participants = sum(router.participants for router in load.routers.values())
    yield _gauge("participants", "Participants attached to routers of this server", participants)
    yield _gauge("free_pipe_ports", "Ports of the pipe range that no pipe uses", load.free_pipe_ports)
    yield _labelled(
        "peer_age_seconds",
        "Time since a peer was last heard",
        "server",
        {peer.server: peer.age for peer in load.peers},
    )


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", help_text, value=value)


def _labelled(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
