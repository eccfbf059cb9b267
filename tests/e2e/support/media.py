"""Media pods: where they run, what their MediaServers and they themselves say, and the processes in them."""

import os
import signal
from pathlib import Path

from e2e.support import processes
from e2e.support.chart import MEDIA_PODS, NAMESPACE
from e2e.support.http import fetch
from e2e.support.kubernetes import Document, exists, get, kubectl, listing, name_of, node_of
from e2e.support.running import until
from prometheus_client.parser import text_string_to_metric_families

HEALTH_PORT = 4002
CLIENT_PORT = 10000
"""Of worker slot 0; the others' follow."""
_SUPERVISOR = "mafalda-mediaserver"
_WORKER = "mediasoup-worker"


async def pods() -> dict[str, Document]:
    """All of the project's cluster, by name."""
    return {name_of(pod): pod for pod in await listing("pods", NAMESPACE, MEDIA_PODS)}


async def pod_on(node: str) -> str:
    """The name of the one media pod of that node."""
    (name,) = [name for name, pod in (await pods()).items() if node_of(pod) == node]
    return name


async def server(name: str) -> Document:
    """The MediaServer. Raises CommandFailed if there is none."""
    return await get("mediaserver", name, NAMESPACE)


async def columns(name: str) -> dict[str, str]:
    """What `kubectl get mediaservers` shows of one, by column; empty if it shows none of that name."""
    header, *rows = (await kubectl("-n", NAMESPACE, "get", "mediaservers")).splitlines()
    titles = header.split()
    for row in rows:
        found = dict(zip(titles, row.split(), strict=False))
        if found["NAME"] == name:
            return found
    return {}


async def until_drain_is_shown(name: str, *, seconds: float = 10.0) -> Document:
    """The MediaServer's status.drain, once its columns say so too."""
    shown: dict[str, str] = {}

    async def holds() -> bool:
        nonlocal shown
        shown = await columns(name)
        return shown.get("READY") == "False" and shown.get("STATE") in ("Draining", "Drained")

    await until(f"the columns of {name} show the drain", holds, seconds=seconds, tell=lambda: shown)
    drain: Document = (await server(name))["status"]["drain"]
    return drain


async def until_gone(name: str, *, seconds: float = 60.0) -> float:
    """Waits until neither the pod nor its MediaServer is there; the seconds it took."""

    async def gone() -> bool:
        return not (await exists("pod", name, NAMESPACE) or await exists("mediaserver", name, NAMESPACE))

    return await until(f"pod and MediaServer {name} are gone", gone, seconds=seconds)


async def figures(name: str, metric: str) -> dict[str, float]:
    """A metric of the media server itself, by the value of its one label; without label by an empty text.
    Empty if it does not answer.
    """
    address = (await get("pod", name, NAMESPACE))["status"]["podIP"]
    page = await fetch(f"http://{address}:{HEALTH_PORT}/metrics") or ""
    return {
        next(iter(sample.labels.values()), ""): sample.value
        for family in text_string_to_metric_families(page + "\n")
        for sample in family.samples
        if sample.name == f"mafalda_mediaserver_{metric}"
    }


async def restarts(name: str) -> int:
    """How often Kubernetes has started the pod's container again."""
    return int((await get("pod", name, NAMESPACE))["status"]["containerStatuses"][0]["restartCount"])


async def kill_server(name: str) -> None:
    """SIGKILL to the media server process of that pod, and so to all of its container."""
    os.kill(await _supervisor(name), signal.SIGKILL)


async def kill_worker(name: str, slot: int) -> None:
    """SIGKILL to the mediasoup worker of that slot: the one that has its client port open."""
    (pid,) = [pid for pid in await workers(name) if _has_open(pid, CLIENT_PORT + slot)]
    os.kill(pid, signal.SIGKILL)


async def workers(name: str) -> list[int]:
    """Process ids of the pod's mediasoup workers."""
    return processes.children(await _supervisor(name), _WORKER)


async def _supervisor(name: str) -> int:
    return processes.first_process(await get("pod", name, NAMESPACE), _SUPERVISOR)


def _has_open(pid: int, port: int) -> bool:
    """Whether the process has a UDP socket of that port."""
    rows = [row.split() for row in Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port}
    links = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
    return any(f"socket:[{inode}]" in links for inode in inodes)
