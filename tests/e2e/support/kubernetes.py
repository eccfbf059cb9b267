"""The cluster as kubectl sees it. Everything is awaited and has a deadline."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from e2e.support.running import CommandFailed, run, until

Document = dict[str, Any]


async def kubectl(*arguments: str, stdin: str | None = None, seconds: float = 30.0) -> str:
    """What it prints. Raises CommandFailed."""
    return await run("kubectl", *arguments, stdin=stdin, seconds=seconds)


async def apply(*objects: Mapping[str, Any], namespace: str | None = None) -> None:
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    await kubectl(*_in(namespace), "apply", "-f", "-", stdin=document)


async def get(kind: str, name: str, namespace: str | None = None) -> Document:
    """Raises CommandFailed if there is none."""
    found: Document = json.loads(await kubectl(*_in(namespace), "get", kind, name, "-o", "json"))
    return found


async def listing(kind: str, namespace: str | None = None, labels: str = "") -> list[Document]:
    """All of that kind in the namespace (absent: in all) that have these labels."""
    where = _in(namespace) or ["--all-namespaces"]
    chosen = ["-l", labels] if labels else []
    items: list[Document] = json.loads(await kubectl("get", kind, *where, *chosen, "-o", "json"))["items"]
    return items


async def exists(kind: str, name: str, namespace: str | None = None) -> bool:
    return bool(await kubectl(*_in(namespace), "get", kind, name, "--ignore-not-found", "-o", "name"))


async def delete(kind: str, *names: str, namespace: str | None = None, seconds: float = 60.0) -> None:
    """Returns when they are gone; what is not there is no error."""
    timeout = f"--timeout={seconds:g}s"
    await kubectl(
        *_in(namespace), "delete", kind, *names, "--ignore-not-found", timeout, seconds=seconds + 10
    )


async def patch(kind: str, name: str, change: Mapping[str, Any], namespace: str | None = None) -> None:
    """A merge patch."""
    await kubectl(*_in(namespace), "patch", kind, name, "--type=merge", "-p", json.dumps(change))


async def execute(pod: str, namespace: str, *command: str, seconds: float = 15.0) -> str:
    return await kubectl("-n", namespace, "exec", pod, "--", *command, seconds=seconds)


async def until_condition(
    kind: str,
    name: str,
    condition: str,
    namespace: str | None = None,
    *,
    status: str = "True",
    seconds: float = 60.0,
) -> Document:
    """The object once its condition has that status."""
    found: Document = {}

    async def holds() -> bool:
        nonlocal found
        found = await get(kind, name, namespace)
        return condition_of(found, condition).get("status") == status

    await until(
        f"{kind} {name}: {condition}={status}", holds, seconds=seconds, tell=lambda: conditions_of(found)
    )
    return found


def condition_of(found: Mapping[str, Any], kind: str) -> Document:
    """Empty if it has none of that type."""
    conditions: Sequence[Document] = found.get("status", {}).get("conditions", ())
    return next((entry for entry in conditions if entry["type"] == kind), {})


def conditions_of(found: Mapping[str, Any]) -> list[str]:
    """For errors."""
    return [
        f"{entry['type']}={entry['status']} {entry.get('reason', '')}: {entry.get('message', '')}"
        for entry in found.get("status", {}).get("conditions", ())
    ]


def is_ready(found: Mapping[str, Any]) -> bool:
    return condition_of(found, "Ready").get("status") == "True"


def name_of(found: Mapping[str, Any]) -> str:
    return str(found["metadata"]["name"])


def node_of(pod: Mapping[str, Any]) -> str:
    return str(pod["spec"].get("nodeName", ""))


async def ready_pods(namespace: str, labels: str) -> list[Document]:
    return [pod for pod in await listing("pods", namespace, labels) if is_ready(pod) and not deleting(pod)]


def deleting(found: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in found["metadata"]


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


__all__ = [
    "CommandFailed",
    "Document",
    "apply",
    "condition_of",
    "conditions_of",
    "delete",
    "deleting",
    "execute",
    "exists",
    "get",
    "is_ready",
    "kubectl",
    "listing",
    "name_of",
    "node_of",
    "patch",
    "ready_pods",
    "until_condition",
]
