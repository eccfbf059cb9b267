"""The project's chart in the cluster."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from e2e.support.kubernetes import Document, condition_of, exists, get, kubectl, listing
from e2e.support.running import ROOT, CommandFailed, run, until

CHART = ROOT / "charts" / "mafalda"
RELEASE = "mafalda"
NAMESPACE = "mafalda-system"
CLUSTER = "main"
GATEWAY = f"ws://{RELEASE}-gateway.{NAMESPACE}.svc:8080"
MEDIA_PODS = "mafalda.io/role=media-server"
OPERATORS = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=operator"
GATEWAYS = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=gateway"

Values = Mapping[str, Any]


def values(**cluster: Any) -> dict[str, Any]:
    """What the tests install: three media servers, reached through the gateway's Service. `cluster` has
    other values below `cluster`.
    """
    repository, _, tag = os.environ["MAFALDA_IMAGE"].rpartition(":")
    small = {"requests": {"cpu": "50m", "memory": "64Mi"}}
    return {
        "image": {"repository": repository, "tag": tag},
        "operator": {"resources": small},
        "gateway": {"resources": small},
        "cluster": {"publicURL": GATEWAY, "replicas": 3, "resources": small, **cluster},
    }


async def helm(*arguments: str, stdin: str | None = None, seconds: float = 120.0) -> str:
    return await run("helm", *arguments, stdin=stdin, seconds=seconds)


async def install(chosen: Values, *extra: str, seconds: float = 180.0) -> str:
    """Installs the chart or upgrades it to these values, and waits; what helm said. Raises CommandFailed."""
    return await helm(
        "upgrade", RELEASE, str(CHART), "--install", "--namespace", NAMESPACE, "--create-namespace",
        "--reset-values", "--values", "-", "--wait", f"--timeout={seconds:g}s", *extra,
        stdin=json.dumps(chosen), seconds=seconds + 20,
    )  # fmt: skip


async def uninstall(*, seconds: float = 320.0) -> None:
    """Returns when the release is gone; no error if it was not there. CRDs may be left, as values said."""
    await helm(
        "uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait",
        f"--timeout={seconds:g}s", seconds=seconds + 20,
    )  # fmt: skip


async def installed_values() -> Document | None:
    """Of the release; None if there is none, or it is not deployed."""
    try:
        told = json.loads(await helm("status", RELEASE, "-n", NAMESPACE, "-o", "json"))
        if told["info"]["status"] != "deployed":
            return None
        found: Document = json.loads(await helm("get", "values", RELEASE, "-n", NAMESPACE, "-o", "json"))
    except CommandFailed as error:
        if "not found" in error.said:
            return None
        raise
    return found


async def until_available(replicas: int = 3, *, seconds: float = 120.0) -> Document:
    """The MediaCluster, once just that many media servers exist and are ready, and sessions can be placed."""
    seen: Document = {}

    async def holds() -> bool:
        nonlocal seen
        if not await exists("mediacluster", CLUSTER, NAMESPACE):
            return False
        seen = await get("mediacluster", CLUSTER, NAMESPACE)
        status = seen.get("status", {})
        available = condition_of(seen, "Available").get("status") == "True"
        pods = await listing("pods", NAMESPACE, MEDIA_PODS)
        return available and status.get("readyServers") == replicas == len(pods)

    await until(
        f"{replicas} media servers of {NAMESPACE}/{CLUSTER} are ready",
        holds,
        seconds=seconds,
        tell=lambda: seen.get("status"),
    )
    return seen


@dataclass
class Mafalda:
    """The installed system, as a test gets it: healthy, with the default values."""

    values: dict[str, Any] = field(default_factory=values)

    @property
    def replicas(self) -> int:
        return int(self.values["cluster"]["replicas"])

    async def ensure(self) -> None:
        """Installs it, or repairs what an earlier test left."""
        if await installed_values() != self.values:
            await install(self.values)
        scaled = str(self.replicas)
        await kubectl("-n", NAMESPACE, "scale", f"mediacluster/{CLUSTER}", f"--replicas={scaled}")
        for labels in (OPERATORS, GATEWAYS):
            await kubectl(
                "-n", NAMESPACE, "rollout", "status", "deployment", "-l", labels, "--timeout=90s", seconds=100
            )
        await until_available(self.replicas)

    async def leader(self) -> str:
        """The pod of the operator that leads, by its Lease."""
        for lease in await listing("leases", NAMESPACE):
            holder = str(lease["spec"].get("holderIdentity", ""))
            for pod in await listing("pods", NAMESPACE, OPERATORS):
                if pod["metadata"]["name"] in holder:
                    return str(pod["metadata"]["name"])
        raise AssertionError(f"no Lease in {NAMESPACE} names a pod of the operator")
