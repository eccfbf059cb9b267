"""The media server's figures as Prometheus metrics, read when `/metrics` is scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from mediaserver.control.contract import (
    LinkState,
    Load,
    ReportedEntry,
    RouterState,
    TenantWorker,
    WorkerState,
)

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
    tenants: Sequence[TenantWorker] = ()
    """Workers that run for applications."""


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
    yield from _tenants(figures.tenants)


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


_TENANT_FIGURES: Sequence[tuple[str, str, Callable[[TenantWorker], float]]] = (
    ("tenant_attached", "1 while the application is connected to its worker", lambda w: float(w.attached)),
    ("tenant_age_seconds", "Time since an application's worker was started", lambda w: w.age),
    ("tenant_cpu_cores", "Cores that an application's worker used lately", lambda w: w.cpu),
    ("tenant_memory_bytes", "Resident memory of an application's worker", lambda w: float(w.memory)),
    ("tenant_consumers", "Consumers of an application's worker", lambda w: float(w.consumers)),
    ("tenant_transports", "Transports of an application's worker", lambda w: float(w.transports)),
)


def _tenants(workers: Sequence[TenantWorker]) -> Iterable[Metric]:
    """One series a worker: their number is bounded by --tenant-workers."""
    if not workers:
        return
    for name, help_text, figure in _TENANT_FIGURES:
        family = GaugeMetricFamily(f"{PREFIX}_{name}", help_text, labels=["subject", "worker"])
        for worker in workers:
            family.add_metric([worker.subject, worker.id], figure(worker))
        yield family


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", help_text, value=value)


def _labelled(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
