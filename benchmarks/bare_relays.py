"""A side of benchmarks.remote: an echo behind so many relays, each a blocking Python process that only passes
bytes on over TCP. What the relays add is what the machine charges for so many processes in the way, whatever
they do.

    python -m benchmarks.bare_relays RELAYS SCENARIO
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

PERCENTS: Final = (10, 50, 90, 99)
_MESSAGE: Final = bytes(100)
"""About as long as a request without a body."""
_MOST: Final = 64 * 1024


@contextlib.contextmanager
def chain(relays: int) -> Iterator[socket.socket]:
    """A socket whose bytes come back through so many relays. Forks; all ends with the socket."""
    near, far = _pair()
    pids = []
    try:
        for _ in range(relays):
            pids.append(_grow(near, far, onward := _pair()))
            far = onward[1]
        pids.append(_fork(lambda: _echo(near, far)))
        far.close()
        yield near
    finally:
        near.close()
        far.close()
        for pid in pids:
            os.waitpid(pid, 0)


def _grow(near: socket.socket, far: socket.socket, onward: tuple[socket.socket, socket.socket]) -> int:
    """One relay more; returns its process id. Only the further end of `onward` stays open here."""

    def work() -> None:
        near.close()
        onward[1].close()
        _relay(far, onward[0])

    pid = _fork(work)
    far.close()
    onward[0].close()
    return pid


def _fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for end in (one, other):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other


def _relay(one: socket.socket, other: socket.socket) -> None:
    ways = {one.fileno(): (one, other), other.fileno(): (other, one)}
    poll = select.epoll()
    for descriptor in ways:
        poll.register(descriptor, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            source, sink = ways[descriptor]
            received = source.recv(_MOST)
            if not received:
                return
            sink.sendall(received)


def _echo(near: socket.socket, far: socket.socket) -> None:
    near.close()
    while received := far.recv(_MOST):
        far.sendall(received)


def latency(there: socket.socket, messages: int) -> dict[str, float]:
    """Round trips of single messages, in milliseconds."""
    times = []
    for _ in range(messages):
        started = time.perf_counter()
        there.sendall(_MESSAGE)
        missing = len(_MESSAGE)
        while missing:
            received = there.recv(_MOST)
            if not received:
                raise ConnectionError("a relay has ended")
            missing -= len(received)
        times.append((time.perf_counter() - started) * 1000)
    return percentiles(times)


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """As channel_node.js tells them."""
    ordered = sorted(times)
    return {f"p{percent}": ordered[len(ordered) * percent // 100] for percent in PERCENTS}


def main() -> None:
    messages = json.loads(Path(sys.argv[2]).read_text())["requests"]
    with chain(int(sys.argv[1])) as there:
        print(json.dumps({"version": platform.python_version()}), flush=True)
        for step in sys.stdin:
            if step.strip() != "latency":
                raise ValueError(f"no step {step!r}")
            print(json.dumps(latency(there, messages)), flush=True)


if __name__ == "__main__":
    main()
