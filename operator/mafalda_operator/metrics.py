"""What the operator tells Prometheus. Names begin with `mafalda_operator_`; times are in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

Samples = Callable[[], Iterable[tuple[tuple[str, ...], float]]]


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "mafalda_operator_api_requests",
            "Requests to the Kubernetes API.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "mafalda_operator_api_request_seconds",
            "How long requests to the Kubernetes API took.",
            ["verb", "resource"],
            buckets=_FAST,
            registry=self.registry,
        )
        self.plan_seconds = Histogram(
            "mafalda_operator_plan_seconds", "How long a plan took.", buckets=_FAST, registry=self.registry
        )
        self.planned_sessions = Histogram(
            "mafalda_operator_planned_sessions",
            "Sessions that one plan looked at.",
            buckets=(0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000),
            registry=self.registry,
        )
        self.wait_seconds = Histogram(
            "mafalda_operator_loop_wait_seconds",
            "From the first change to the plan that takes it in: the loop's lag.",
            buckets=_FAST,
            registry=self.registry,
        )
        self.event_loop_lag = Gauge(
            "mafalda_operator_event_loop_lag_seconds",
            "How late the process's event loop last woke a timer.",
            registry=self.registry,
        )
        self.actions = Counter(
            "mafalda_operator_actions",
            "Planned actions by reason.",
            ["action", "reason"],
            registry=self.registry,
        )
        self.withheld = Counter(
            "mafalda_operator_withheld_applies",
            "Applies held back since they would close too many live routers.",
            registry=self.registry,
        )
        self.dropped_events = Counter(
            "mafalda_operator_dropped_events",
            "Kubernetes events that were not written.",
            registry=self.registry,
        )
        self.failures = Counter(
            "mafalda_operator_loop_failures",
            "Plans that failed by a fault of the operator.",
            registry=self.registry,
        )

    def note_request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        self.requests.labels(verb, resource, code).inc()
        self.request_seconds.labels(verb, resource).observe(seconds)

    def gauge(self, name: str, text: str, samples: Samples, labels: tuple[str, ...] = ()) -> None:
        """A gauge whose values are asked for at each scrape."""
        self.registry.register(_Asked(f"mafalda_operator_{name}", text, samples, labels))

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _Asked(Collector):
    def __init__(self, name: str, text: str, samples: Samples, labels: tuple[str, ...]) -> None:
        self._name, self._text, self._samples, self._labels = name, text, samples, labels

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self._samples():
            family.add_metric(labels, value)
        yield family

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(self._name, self._text, labels=self._labels)]
