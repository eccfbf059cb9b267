"""What benchmarks of the operator run on: an embedded cluster, fake media servers, the real operator.

Everything is a process of its own and ends with the rig, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from mafalda_operator.cli.local.cluster import LocalCluster
from mafalda_operator.effects.api import CLUSTERS, NAMESPACES, SERVERS, KubeApi
from mafalda_operator.effects.credentials import Credentials

from benchmarks.figures import Figures, Sample, Usage, parse_metrics

ROOT = Path(__file__).parents[1]
CRDS = ROOT / "crds"
NAMESPACE = "bench"
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Rig:
    """A running whole. ``log`` is the operator's."""

    api: KubeApi
    cluster: LocalCluster
    operator_pid: int
    fakes_pid: int
    metrics_url: str
    log: Path
    session: aiohttp.ClientSession

    async def figures(self) -> Figures:
        """Everything that is counted, as of now."""
        pids = {name: record.pid for name, record in self.cluster.processes.records().items()}
        pids |= {"operator": self.operator_pid, "fakes": self.fakes_pid, "load generator": os.getpid()}
        usage = {name: Usage.of(pid) for name, pid in pids.items()}
        return Figures(usage, await self.operator_metrics(), await self.apiserver_metrics())

    async def operator_metrics(self) -> list[Sample]:
        async with self.session.get(self.metrics_url) as answer:
            return parse_metrics(await answer.text())

    async def apiserver_metrics(self) -> list[Sample]:
        text = await asyncio.to_thread(self.cluster.kubectl, "get", "--raw", "/metrics")
        return parse_metrics(text)


async def until(condition: Callable[[], Any], what: str, seconds: float = _START_SECONDS) -> None:
    """Poll an async ``condition``. Raises TimeoutError naming ``what``."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110  what is polled is another process
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise TimeoutError(f"not within {seconds:g} s: {what}") from error


@asynccontextmanager
async def rig(directory: Path, *, servers: int, workers: int) -> AsyncIterator[Rig]:
    """Start everything in ``directory``; returns once every server is connected."""
    key_file = directory / "cluster.key"
    key_file.write_text(secrets.token_hex(32))
    with LocalCluster.start(directory / "cluster", manifests=[CRDS]) as cluster:
        api = KubeApi(Credentials(cluster.kubeconfig))
        fakes = _spawn("benchmarks.fakes", "--key-file", str(key_file), "--servers", str(servers),
                       "--workers", str(workers), stdout=subprocess.PIPE)  # fmt: skip
        try:
            if fakes.stdout is None:
                raise RuntimeError("the fakes have no standard output")
            endpoints = json.loads(await asyncio.to_thread(fakes.stdout.readline))
            await _describe(api, endpoints)
            async with (
                _operator(directory, cluster, key_file) as (pid, url, log),
                aiohttp.ClientSession() as session,
            ):
                made = Rig(api, cluster, pid, fakes.pid, url, log, session)
                await until(lambda: _connected(made, servers), "every fake server is connected")
                yield made
        finally:
            await api.close()
            _end(fakes)


async def _describe(api: KubeApi, endpoints: list[str]) -> None:
    await api.create(NAMESPACES, None, {"metadata": {"name": NAMESPACE}})
    await api.create(CLUSTERS, NAMESPACE, {"metadata": {"name": "main"}, "spec": {}})
    for index, endpoint in enumerate(endpoints):
        spec = {"clusterRef": {"name": "main"}, "endpoint": {"address": endpoint}}
        await api.create(SERVERS, NAMESPACE, {"metadata": {"name": f"server-{index}"}, "spec": spec})


@asynccontextmanager
async def _operator(
    directory: Path, cluster: LocalCluster, key_file: Path
) -> AsyncIterator[tuple[int, str, Path]]:
    log = directory / "operator.log"
    with log.open("wb") as output:
        process = _spawn(
            "mafalda_operator", "--kubeconfig", str(cluster.kubeconfig), "--cluster-key-file", str(key_file),
            "--metrics-listen", "127.0.0.1:0", "--lease-namespace", NAMESPACE, stderr=output,
        )  # fmt: skip
    try:
        address = await _logged_address(process, log)
        yield process.pid, f"http://{address}/metrics", log
    finally:
        _end(process)


async def _logged_address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the operator answers: it chose the port and logs it."""

    found: list[str] = []

    async def known() -> bool:
        text = await asyncio.to_thread(log.read_text)
        if process.poll() is not None:
            raise RuntimeError(f"the operator ended with {process.returncode}: {text}")
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        found.extend(line["metrics"] for line in lines if line["message"] == "operator started")
        return bool(found)

    await until(known, "the operator starts")
    return found[0]


async def _connected(made: Rig, servers: int) -> bool:
    try:
        samples = await made.operator_metrics()
    except aiohttp.ClientError:
        return False
    return any(s.name == "mafalda_operator_connected_servers" and s.value == servers for s in samples)


def _spawn(module: str, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "operator")])
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
        **streams,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL; its pipes are closed."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
