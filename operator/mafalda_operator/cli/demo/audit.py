"""What really exists in the media servers, read from their workers' own dumps over an observer link."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aiohttp

from mafalda_operator.cli.demo.layout import ServerLayout
from mafalda_operator.cli.observing import observing
from mafalda_operator.model import ObjectKey
from mediaserver.control.contract import Dump, Empty
from mediaserver.wire.membership import ClusterKey

DUMP_SECONDS = 5.0


async def dump(server: ServerLayout, key: ClusterKey, *, cluster_uid: str, cluster_name: str) -> Dump:
    """One server's dump. Raises WireError (mediaserver.wire.errors) when the server cannot be asked."""
    namespace, _, name = cluster_name.partition("/")
    async with (
        aiohttp.ClientSession() as session,
        observing(
            session,
            server.endpoint,
            key,
            server=ObjectKey(namespace, server.name),
            cluster=ObjectKey(namespace, name),
            cluster_uid=cluster_uid,
        ) as connection,
    ):
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
