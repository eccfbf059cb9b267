"""A network namespace for a media server, with a pair of interfaces into it; gone with who made it.

The namespace has no name: a small process holds it until its input ends, which it does however this process
ends. When the last process in it is gone, the kernel removes it, and its interface takes the other end along.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_NETWORK = (198 << 24) | (18 << 16)
"""198.18.0.0/16, set aside for tests between devices (RFC 2544): nobody's real network."""
_PAIRS = 1 << 14
_SECONDS = 10.0
NEEDED = ("ip", "nsenter", "unshare")


class NetworkError(Exception):
    """There is no namespace to be had; the message says why."""


@dataclass(frozen=True)
class Network:
    file: str
    """Of the namespace, while it lasts."""
    address: str
    """Inside it."""


def addresses(number: int) -> tuple[str, str]:
    """Ours and the one inside, for a pair of this number: neighbours in a network of four."""
    first = _NETWORK + 4 * (number % _PAIRS)
    return _dotted(first + 1), _dotted(first + 2)


def _dotted(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


@contextmanager
def network() -> Iterator[Network]:
    """A namespace with a loopback, reached from here by its address. Raises NetworkError."""
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        raise NetworkError(f"{', '.join(missing)} not found: install iproute2 and util-linux")
    if os.geteuid() != 0:
        raise NetworkError("making a network namespace needs root")
    ours, inside = addresses(os.getpid())
    link = f"mafalda{os.getpid()}"
    with subprocess.Popen(
        ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            holder.stdin.write("made\n")
            holder.stdin.flush()
            if not holder.stdout.readline():
                raise NetworkError("unshare cannot make a network namespace on this machine")
            file = f"/proc/{holder.pid}/ns/net"
            _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            try:
                _run("ip", "address", "add", f"{ours}/30", "dev", link)
                _run("ip", "link", "set", link, "up")
                for command in (
                    ("address", "add", f"{inside}/30", "dev", "eth0"),
                    ("link", "set", "eth0", "up"),
                    ("link", "set", "lo", "up"),
                ):
                    _run("nsenter", f"--net={file}", "ip", *command)
                yield Network(file, inside)
            finally:
                _run("ip", "link", "delete", link)
        finally:
            holder.stdin.close()
            holder.wait(_SECONDS)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0:
        raise NetworkError(f"{' '.join(command)} failed: {done.stderr.strip() or done.returncode}")
