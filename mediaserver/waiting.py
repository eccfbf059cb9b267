"""Before a media server knows its addresses: it tells its health, and looks again each second."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from mediaserver.addresses import AddressQuery, Resolution, families, family, is_local, read_files, resolve
from mediaserver.config import ServerConfig
from mediaserver.health import health_app
from mediaserver.wire.listen import listen

log = structlog.get_logger(__name__)

LOOK_AGAIN = 1.0
"""Seconds between two looks."""


async def with_addresses(config: ServerConfig, *, pause: float = LOOK_AGAIN) -> ServerConfig:
    """The settings with all addresses that are to be announced; waits for those that are not there yet.

    Meanwhile the health listener answers, and `/readyz` says what is missing. Raises ListenError.
    """
    query = config.addresses
    if query is None:
        return config
    found = _look(query)
    if found.missing:
        found = await _wait(config, query, found, pause)
    log.info(
        "addresses are known",
        announced=[f"{announced.type} {announced.address}" for announced in found.announced],
        listening=found.hosts,
    )
    for version in sorted(families(query.hosts) - {family(address) for address in found.addresses}):
        if all(family(address) is not None for address in found.addresses):
            log.warning("nothing is announced for an IP family that is listened on", family=f"IPv{version}")
    return complete(config, found)


async def _wait(config: ServerConfig, query: AddressQuery, found: Resolution, pause: float) -> Resolution:
    health = await listen(health_app(lambda: [*found.missing], lambda: ()), config.health)
    try:
        told: tuple[str, ...] = ()
        while found.missing:
            if found.missing != told:
                log.warning("waiting for addresses", missing=found.missing)
                told = found.missing
            await asyncio.sleep(pause)
            found = _look(query)
    finally:
        await health.close()
    return found


def _look(query: AddressQuery) -> Resolution:
    files = {} if query.directory is None else read_files(query.directory, query.files)
    return resolve(query, files, is_local=is_local)


def complete(config: ServerConfig, found: Resolution) -> ServerConfig:
    """The settings with what was found."""
    pool = replace(
        config.pool,
        more_client_hosts=found.hosts[1:],
        announced=found.addresses,
    )
    tenants = config.tenants
    if tenants is not None:
        policy = replace(tenants.policy, announced_address=pool.announced_address)
        tenants = replace(tenants, policy=policy)
    return replace(config, pool=pool, tenants=tenants, addresses=None)
