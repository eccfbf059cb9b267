"""Asking a media server something as an observer, who may look and commands nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession

from mafalda_operator.model import ObjectKey
from mediaserver.control.contract import CONTROL_PATH
from mediaserver.control.contract.greeting import Greeter
from mediaserver.wire.membership import ClusterKey
from mediaserver.wire.rpc import Connection, Methods, connect, running


@asynccontextmanager
async def observing(
    session: ClientSession,
    address: str,
    key: ClusterKey,
    *,
    server: ObjectKey,
    cluster: ObjectKey,
    cluster_uid: str,
) -> AsyncIterator[Connection]:
    """A greeted control link to the server at ``address``, while the block runs.

    Raises WireError (mediaserver.wire.errors) when the server cannot be asked.
    """
    methods = Methods()
    greeter = Greeter(methods)
    dialled = await connect(session, f"http://{address}{CONTROL_PATH}", methods, name=str(server))
    async with running(dialled) as connection:
        await greeter.greet(
            connection,
            key,
            role="observer",
            cluster_uid=cluster_uid,
            cluster_name=str(cluster),
            server_name=str(server),
        )
        yield connection
