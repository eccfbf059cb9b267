"""Processes inside pods, found and ended from outside: their containers have no tools to do so."""

import os
import signal
from pathlib import Path

from e2e.support.kubernetes import Document, get, node_of


async def kill(pod: str, namespace: str, command: str, *, number: signal.Signals = signal.SIGKILL) -> None:
    """A signal to the first process of the pod's container, which must run that command."""
    os.kill(first_process(await get("pod", pod, namespace), command), number)


def first_process(pod: Document, command: str) -> int:
    """As the container runtime of the pod's node has it. Fails if it runs something else."""
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    state = Path(os.environ["MAFALDA_CLUSTER"]) / node_of(pod) / "containerd" / "state"
    pid = int((state / "io.containerd.runtime.v2.task" / "k8s.io" / container / "init.pid").read_text())
    running = command_of(pid)
    assert command in running, f"process {pid} of pod {pod['metadata']['name']} is another: {running}"
    return pid


def command_of(pid: int) -> str:
    """Empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
