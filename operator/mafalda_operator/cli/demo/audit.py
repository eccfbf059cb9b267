"""What really exists in the media servers, read from their workers' own dumps over an observer link."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aiohttp

from mafalda_operator.cli.demo.layout import ServerLayout
from mediaserver.control.contract import CONTROL_PATH, Dump, Empty
from mediaserver.control.contract.greeting import Greeter
from mediaserver.wire.membership import ClusterKey
from mediaserver.wire.rpc import Methods, connect, running

DUMP_SECONDS = 5.0


async def dump(server: ServerLayout, key: ClusterKey, *, cluster_uid: str, cluster_name: str) -> Dump:
    """One server's dump. Raises WireError (mediaserver.wire.errors) when the server cannot be asked."""
    methods = Methods()
    greeter = Greeter(methods)
    url = f"ws://{server.endpoint}{CONTROL_PATH}"
    async with (
        aiohttp.ClientSession() as session,
        running(await connect(session, url, methods, name=server.name)) as connection,
    ):
        namespace = cluster_name.partition("/")[0]
        await greeter.greet(
            connection,
            key,
            role="observer",
            cluster_uid=cluster_uid,
            cluster_name=cluster_name,
            server_name=f"{namespace}/{server.name}",
        )
        return await connection.call("dump", Empty(), Dump, timeout=DUMP_SECONDS)


async def leftovers(
    servers: Iterable[ServerLayout], key: ClusterKey, *, cluster_uid: str, cluster_name: str
) -> list[str]:
    """Every router that a worker still has, as `server slot router`. Raises WireError."""
    servers = list(servers)
    dumps = await asyncio.gather(
        *(dump(server, key, cluster_uid=cluster_uid, cluster_name=cluster_name) for server in servers)
    )
    return [
        f"{server.name} slot {worker['slot']} router {router['id']}"
        for server, found in zip(servers, dumps, strict=True)
        for worker in found.workers
        for router in worker["routers"]
    ]
