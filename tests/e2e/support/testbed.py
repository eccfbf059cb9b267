"""What a test does to the machines below the cluster."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from e2e.support.kubernetes import is_ready, listing, name_of
from e2e.support.running import ROOT, run, until

NODES = tuple(f"{os.environ.get('MAFALDA_CLUSTER_NAME', 'mafalda')}-n{number}" for number in (1, 2, 3))


async def cluster(*arguments: str, seconds: float = 60.0) -> str:
    """tools/cluster with these arguments. Raises CommandFailed."""
    return await run(str(ROOT / "tools" / "cluster"), *arguments, seconds=seconds)


async def on_node(node: str, *command: str) -> str:
    """Runs a command in that node's network. Raises CommandFailed."""
    return await run("nsenter", f"--net=/run/netns/{node}", *command)


async def status() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await cluster("status", "-o", "json"))
    return told


async def ready_nodes() -> set[str]:
    return {name_of(node) for node in await listing("nodes") if is_ready(node)}


async def until_node(name: str, *, ready: bool, seconds: float = 60.0) -> float:
    """Waits until Kubernetes takes that node for ready, or no longer; the seconds it took."""
    seen: set[str] = set()

    async def holds() -> bool:
        nonlocal seen
        seen = await ready_nodes()
        return (name in seen) == ready

    what = f"{name} is {'Ready' if ready else 'not Ready'}"
    return await until(what, holds, seconds=seconds, tell=lambda: f"Ready: {sorted(seen)}")


async def audited(user: str = "") -> list[dict[str, Any]]:
    """What the API server was asked, oldest first, as events of audit.k8s.io; by that user if given."""
    path = Path((await status())["auditLog"])
    text = await asyncio.to_thread(path.read_text)
    events = [json.loads(line) for line in text.splitlines() if user in line]
    return [event for event in events if "objectRef" in event and user in ("", event["user"].get("username"))]


@contextlib.asynccontextmanager
async def cut_off(node: str) -> AsyncIterator[None]:
    """Off the network for the length of the block; Ready again at its end."""
    await cluster("cut", node)
    try:
        yield
    finally:
        await cluster("join", node)
        await until_node(node, ready=True)


@contextlib.asynccontextmanager
async def without_api_server() -> AsyncIterator[None]:
    """No API server for the length of the block."""
    await cluster("stop", "apiserver", "--kill")
    try:
        yield
    finally:
        await cluster("start", "apiserver")
