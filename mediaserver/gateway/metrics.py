"""Figures of one gateway, in a registry of its own."""

from __future__ import annotations

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from mediaserver.gateway.directory import Directory
from mediaserver.gateway.links import ServerLinks

_ADMISSION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)


class WorkerMetrics:
    """Of applications' workers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tunnels = Gauge(
            "mafalda_gateway_worker_tunnels",
            "Connections of applications to their workers.",
            registry=registry,
        )
        self.dials = Counter(
            "mafalda_gateway_worker_dials",
            "Dials of applications for workers: started, resumed, or why not.",
            ["outcome"],
            registry=registry,
        )
        self.endings = Counter(
            "mafalda_gateway_worker_endings",
            "Ended connections of applications to their workers, by who ended them.",
            ["by"],
            registry=registry,
        )
        self.admission = Histogram(
            "mafalda_gateway_worker_admission_seconds",
            "From an application's dial to a media server having taken it.",
            buckets=_ADMISSION_BUCKETS,
            registry=registry,
        )


class Metrics:
    """What happens is counted as it happens, what is the case is read when scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.participants = Gauge(
            "mafalda_gateway_participants", "Participants that are connected.", registry=self.registry
        )
        self.dials = Counter(
            "mafalda_gateway_dials", "Dials of participants, by outcome.", ["outcome"], registry=self.registry
        )
        self.endings = Counter(
            "mafalda_gateway_endings",
            "Ended connections of admitted participants, by who ended them and close code.",
            ["by", "code"],
            registry=self.registry,
        )
        self.admission = Histogram(
            "mafalda_gateway_admission_seconds",
            "From a participant's dial to its media server having taken it.",
            buckets=_ADMISSION_BUCKETS,
            registry=self.registry,
        )
        self.workers = WorkerMetrics(self.registry)
        self._servers = Gauge(
            "mafalda_gateway_servers", "Media servers, by link state.", ["state"], registry=self.registry
        )
        self._watch_age = Gauge(
            "mafalda_gateway_watch_age_seconds",
            "Since the API server was last heard about a kind.",
            ["kind"],
            registry=self.registry,
        )

    def render(self, directory: Directory, links: ServerLinks) -> bytes:
        """Prometheus' text format."""
        states = [link.usable for link in links.all()]
        self._servers.labels("connected").set(states.count(True))
        self._servers.labels("away").set(states.count(False))
        now = time.monotonic()
        for reflector in directory.reflectors:
            if reflector.last_heard is not None:
                self._watch_age.labels(reflector.plural).set(now - reflector.last_heard)
        return generate_latest(self.registry)
