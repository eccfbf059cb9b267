"""How fast sessions get their routers: from apply to Ready, with the real operator and fake media servers.

Two ways of arriving: all at once, and a steady stream. Goals on two shared cores: at least 100 sessions a
second, and p99 under a second at 50 a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from mafalda_operator.effects.api import ROUTERS, SESSIONS

from benchmarks.figures import Figures, count_server_writes, count_writes, means, total
from benchmarks.rig import NAMESPACE, Rig, rig, until
from mediaserver.gateway.kube import KubeReader

_OWN = "mafalda_operator"
_CREATORS = 16
_READY_SECONDS = 120.0
GOAL_PER_SECOND = 100.0
GOAL_P99_MS = 1000.0


@dataclass(frozen=True)
class Result:
    """One way of arriving. Times are from before a session's create is sent to its Ready=True being seen."""

    scenario: str
    sessions: int
    routers_per_session: int
    sessions_per_second: float
    """From the first create to the last Ready."""
    create_per_second: float
    """How fast the load generator got them into the API server: what the operator cannot beat."""
    ready_ms_p50: float
    ready_ms_p99: float
    ready_ms_max: float
    operator_rss_mib: float
    rss_peak_mib: dict[str, float]
    """By process."""
    operator_plan_seconds: float
    """Spent in the planner."""
    loop_wait_ms_mean: float
    """From the first change to the plan that takes it in."""
    request_ms_mean: dict[str, float]
    """How long the operator's requests took, by verb and kind."""
    cpu_seconds: dict[str, float]
    """By process, until nothing is left to write."""
    cpu_seconds_until_ready: dict[str, float]
    """The same until the last session was Ready."""
    operator_cpu_ms_per_session: float
    writes_per_session: float
    """The operator's, until it has nothing left to write; Kubernetes events included."""
    writes: dict[str, float]
    """The same by verb and kind, per session."""
    writes_until_ready: dict[str, float]
    """The same until the last session was Ready: what others had to wait for."""
    apiserver_writes_per_session: float
    """What the API server counted, creation of the sessions included."""


class Watcher:
    """Sees when sessions become Ready."""

    def __init__(self, reader: KubeReader) -> None:
        self.ready: dict[str, float] = {}
        self._reader = reader
        self._changed = asyncio.Event()

    async def run(self) -> None:
        version = ""
        while True:
            async with aclosing(self._reader.watch(SESSIONS.plural, version)) as lines:
                async for line in lines:
                    version = self._take(line) or version

    async def all_ready(self, count: int, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while len(self.ready) < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise TimeoutError(f"{len(self.ready)} of {count} sessions Ready within {seconds:g} s") from error

    def _take(self, line: bytes) -> str:
        event = msgspec.json.decode(line)
        item = event["object"]
        name = item["metadata"].get("name", "")
        if event["type"] in ("ADDED", "MODIFIED") and _is_ready(item) and name not in self.ready:
            self.ready[name] = time.perf_counter()
            self._changed.set()
        return str(item["metadata"].get("resourceVersion", ""))


def _is_ready(item: dict[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


async def arrive(made: Rig, prefix: str, count: int, routers: int, rate: float | None) -> dict[str, float]:
    """Create sessions, ``rate`` a second or as fast as it goes; when each was begun."""
    begun: dict[str, float] = {}
    start = time.perf_counter()
    numbers = iter(range(count))

    async def create() -> None:
        for index in numbers:
            if rate is not None:
                await asyncio.sleep(max(0.0, start + index / rate - time.perf_counter()))
            name = f"{prefix}-{index}"
            begun[name] = time.perf_counter()
            spec = {"clusterRef": {"name": "main"}, "routers": {"min": routers}}
            await made.api.create(SESSIONS, NAMESPACE, {"metadata": {"name": name}, "spec": spec})

    await asyncio.gather(*(create() for _ in range(_CREATORS)))
    return begun


async def measure(made: Rig, scenario: str, count: int, routers: int, rate: float | None) -> Result:
    """One arrival, from nothing to everything Ready and nothing left to write."""
    reader = await KubeReader.load(made.cluster.kubeconfig)
    watcher = Watcher(reader)
    watching = asyncio.create_task(watcher.run())
    try:
        before = await made.figures()
        begun = await arrive(made, scenario.replace("_", "-"), count, routers, rate)
        created = time.perf_counter()
        await watcher.all_ready(count, _READY_SECONDS)
        ready = await made.figures()
        await until(lambda: _nothing_queued(made), "the operator has written everything")
        after = await made.figures()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await reader.close()
    taken = sorted((watcher.ready[name] - begun[name]) * 1000 for name in begun)
    first, last = min(begun.values()), max(watcher.ready.values())
    writes = _writes(before, after, count)
    cpu = after.cpu_since(before)
    return Result(
        scenario=scenario,
        sessions=count,
        routers_per_session=routers,
        sessions_per_second=round(count / (last - first), 1),
        create_per_second=round(count / (created - first), 1),
        ready_ms_p50=round(_percentile(taken, 50), 1),
        ready_ms_p99=round(_percentile(taken, 99), 1),
        ready_ms_max=round(taken[-1], 1),
        operator_rss_mib=round(after.usage["operator"].rss, 1),
        rss_peak_mib={name: round(usage.peak, 1) for name, usage in sorted(after.usage.items())},
        operator_plan_seconds=round(total(before.operator, after.operator, f"{_OWN}_plan_seconds"), 2),
        loop_wait_ms_mean=means(before.operator, after.operator, f"{_OWN}_loop_wait_seconds").get("", 0.0),
        request_ms_mean=means(before.operator, after.operator, f"{_OWN}_api_request_seconds"),
        cpu_seconds=cpu,
        cpu_seconds_until_ready=ready.cpu_since(before),
        operator_cpu_ms_per_session=round(1000 * cpu["operator"] / count, 2),
        writes_per_session=round(sum(writes.values()), 2),
        writes=writes,
        writes_until_ready=_writes(before, ready, count),
        apiserver_writes_per_session=round(count_server_writes(before.apiserver, after.apiserver) / count, 2),
    )


def _writes(before: Figures, after: Figures, sessions: int) -> dict[str, float]:
    """The operator's writes per session, by verb and kind."""
    counted = count_writes(before.operator, after.operator, f"{_OWN}_api_requests_total")
    return {what: round(number / sessions, 3) for what, number in sorted(counted.items())}


async def _nothing_queued(made: Rig) -> bool:
    """Twice in a row, half a second apart, and no write in between."""
    seen = []
    for _ in range(2):
        samples = await made.operator_metrics()
        queued = [sample.value for sample in samples if sample.name == "mafalda_operator_queued_writes"]
        seen.append((queued, count_writes((), samples, f"{_OWN}_api_requests_total")))
        await asyncio.sleep(0.5)
    return seen[0] == seen[1] and not any(seen[0][0])


def _percentile(ordered: list[float], percent: int) -> float:
    """Nearest rank."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


async def clear(made: Rig) -> None:
    """Delete every session and wait until no router is left."""
    path = SESSIONS.path(NAMESPACE)
    await asyncio.to_thread(made.cluster.kubectl, "delete", "--raw", path, timeout=120)

    async def gone() -> bool:
        return not (await made.api.list(ROUTERS, NAMESPACE)).items and await _nothing_queued(made)

    await until(gone, "the routers of deleted sessions are gone", 120)


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    results = []
    with tempfile.TemporaryDirectory(prefix="mafalda-bench-") as directory:
        async with rig(Path(directory), servers=arguments.servers, workers=arguments.workers) as made:
            ways: dict[str, float | None] = {
                "at_once": None,
                f"at_{arguments.rate:g}_a_second": arguments.rate,
            }
            for scenario, rate in ways.items():
                _say(f"{scenario}: {arguments.sessions} sessions of {arguments.routers} routers")
                results.append(await measure(made, scenario, arguments.sessions, arguments.routers, rate))
                await clear(made)
            if arguments.keep_log:
                await asyncio.to_thread(shutil.copyfile, made.log, arguments.keep_log)
    burst, steady = results
    return {
        "benchmark": "placement",
        "machine": {"cpus": len(os.sched_getaffinity(0)), "load_average": os.getloadavg()[0]},
        "servers": arguments.servers,
        "workers_per_server": arguments.workers,
        "goals": {
            "at_least_100_sessions_a_second": burst.sessions_per_second >= GOAL_PER_SECOND,
            "p99_under_a_second_at_the_rate": steady.ready_ms_p99 < GOAL_P99_MS,
        },
        "results": [asdict(result) for result in results],
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _table(report: dict[str, Any]) -> str:
    lines = [f"placement on {report['machine']['cpus']} CPUs, {report['servers']} fake servers"]
    for result in report["results"]:
        lines.append(f"\n{result['scenario']}")
        for name, value in result.items():
            if isinstance(value, dict):
                lines += [f"  {name}", *(f"    {what:30} {number}" for what, number in value.items())]
            elif name != "scenario":
                lines.append(f"  {name:32} {value}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--routers", type=int, default=2)
    parser.add_argument("--rate", type=float, default=50.0, help="sessions a second of the steady stream")
    parser.add_argument("--servers", type=int, default=20)
    parser.add_argument("--workers", type=int, default=25, help="worker slots of each server")
    parser.add_argument("--keep-log", metavar="FILE", help="copy the operator's log there")
    report = uvloop.run(run(parser.parse_args()))
    print(json.dumps(report, indent=2) if "--json" in sys.argv[1:] else _table(report))


if __name__ == "__main__":
    main()
