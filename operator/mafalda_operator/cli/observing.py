"""Asking a media server something as an observer, who may look and commands nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession

from mafalda_operator.model import ObjectKey
from mediaserver.control.contract import CONTROL_PATH
from mediaserver.control.contract.greeting import Greeter
from mediaserver.wire.membership import Credential
from mediaserver.wire.rpc import Connection, Methods, connect, running
from mediaserver.wire.tls import media_server_name


@asynccontextmanager
async def observing(
    session: ClientSession,
    address: str,
    credential: Credential,
    *,
    server: ObjectKey,
    cluster: ObjectKey,
    cluster_uid: str,
    server_name: str = "",
) -> AsyncIterator[Connection]:
    """A greeted control link to the server at ``address``, while the block runs.

    ``server_name`` is what its certificate must have; empty: that of the MediaCluster's media servers.

    Raises WireError (mediaserver.wire.errors) when the server cannot be asked.
    """
    methods = Methods()
    greeter = Greeter(methods)
    dial = credential.dial(server_name or media_server_name(*cluster))
    dialled = await connect(session, dial.url(address, CONTROL_PATH), methods, name=str(server), dial=dial)
    async with running(dialled) as connection:
        await greeter.greet(
            connection,
            credential,
            role="observer",
            cluster_uid=cluster_uid,
            cluster_name=str(cluster),
            server_name=str(server),
        )
        yield connection
