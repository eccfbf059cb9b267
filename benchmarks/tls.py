"""What certificates cost beside a cluster key: dialling, and messages of a control or peer link.

    python -m benchmarks.tls [--dials 200] [--calls 5000] [--json]

Both ends run in this process on uvloop, over loopback, so that a CPU figure is that of both sides together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import aiohttp
import msgspec
import uvloop
from aiohttp import web
from mafalda_operator.effects import issuing

from mediaserver.wire.certificates import read
from mediaserver.wire.errors import ConnectionLost
from mediaserver.wire.listen import ListenAddress, listen
from mediaserver.wire.membership import ClusterKey, Credential
from mediaserver.wire.rpc import Connection, Methods, accept, connect, running
from mediaserver.wire.tls import OPERATOR_NAME, Certificates, media_server_name

SERVER_NAME = media_server_name("media", "main")
_BODY = "x" * 500
"""About as long as a change of a router's state."""


class Text(msgspec.Struct, frozen=True):
    text: str


def certificates(authority: issuing.CertificateAuthority, name: str) -> Certificates:
    now = time.time()
    content = issuing.issue(authority, frozenset({name}), now, now + 3600)
    return Certificates(read(content, where=str, now=now))


async def answer(request: web.Request) -> web.StreamResponse:
    async def echo(text: Text) -> Text:
        return text

    methods = Methods()
    methods.on("echo", Text, echo)
    connection = await accept(request, methods, name="the dialler")
    with suppress(ConnectionLost):  # as every dialler here ends it
        await connection.run()
    return connection.response


@contextmanager
def timed(milliseconds: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    milliseconds.append((time.perf_counter() - began) * 1000)


async def measure(server: Credential, operator: Credential, dials: int, calls: int) -> dict[str, float]:
    """Milliseconds of a dial and of a call (median and 99th percentile), and CPU for each."""
    app = web.Application()
    app.router.add_get("/", answer)
    listener = await listen(app, ListenAddress("127.0.0.1", 0), secured=server.listening())
    dialled: list[float] = []
    called: list[float] = []
    async with aiohttp.ClientSession() as session:

        async def dial() -> Connection:
            how = operator.dial(SERVER_NAME)
            where = how.url(str(listener.address), "/")
            return await connect(session, where, Methods(), name="the server", dial=how)

        cpu = time.process_time()
        for _ in range(dials):
            with timed(dialled):
                connection = await dial()
            async with running(connection):
                pass
        dial_cpu = (time.process_time() - cpu) / dials * 1000
        async with running(await dial()) as connection:
            cpu = time.process_time()
            for _ in range(calls):
                with timed(called):
                    await connection.call("echo", Text(_BODY), Text)
            call_cpu = (time.process_time() - cpu) / calls * 1000
    await listener.close()
    return {
        "dial_p50_ms": statistics.median(dialled),
        "dial_p99_ms": statistics.quantiles(dialled, n=100)[98],
        "dial_cpu_ms": dial_cpu,
        "call_p50_ms": statistics.median(called),
        "call_p99_ms": statistics.quantiles(called, n=100)[98],
        "call_cpu_ms": call_cpu,
    }


async def compare(dials: int, calls: int) -> dict[str, dict[str, float]]:
    key = ClusterKey(bytes(32))
    authority = issuing.read_authority(issuing.first_authority(time.time()))
    server, operator = certificates(authority, SERVER_NAME), certificates(authority, OPERATOR_NAME)
    await measure(server, operator, 10, 100)  # what is loaded and made only once
    return {
        "key": await measure(key, key, dials, calls),
        "tls": await measure(server, operator, dials, calls),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dials", type=int, default=200)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = uvloop.run(compare(arguments.dials, arguments.calls))
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{'':14}{'cluster key':>14}{'certificates':>14}")
    for name in found["key"]:
        print(f"{name:14}{found['key'][name]:14.3f}{found['tls'][name]:14.3f}")


if __name__ == "__main__":
    main()
