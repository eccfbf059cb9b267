"""What a media server says about itself in `hello`: fixed when it has started."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from mediaserver.control.contract import (
    CONTROL_PROTOCOL,
    PIPE_PROTOCOL,
    Address,
    PortRange,
    ServerHello,
    TenantOffer,
    WorkerState,
)
from mediaserver.pool import PoolConfig
from mediaserver.wire.listen import ListenAddress

WILDCARDS = frozenset({"0.0.0.0", "::"})


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """Versions, addresses and ports of this process."""

    version: str
    worker_version: str
    internal: ListenAddress
    participants: ListenAddress
    pool: PoolConfig
    zone: str = ""
    tenants: TenantOffer | None = None
    """What it holds for applications' workers; None: it takes none."""
    instance_id: str = field(default_factory=lambda: secrets.token_hex(8))
    """New at each process start."""

    def hello(
        self,
        *,
        cluster_uid: str,
        highest_epoch: int,
        workers: list[WorkerState],
        nonce: str,
        reached_at: str,
    ) -> ServerHello:
        """The hello without its proof. `reached_at` is the own address that the dialler used.

        It stands in for a listener that is bound to every address, which nobody could dial.
        """
        pool = self.pool
        addresses = [*(pool.announced or pool.client_hosts)]
        internal = _dialable(self.internal, reached_at)
        return ServerHello(
            protocol_version=CONTROL_PROTOCOL,
            cluster_uid=cluster_uid,
            instance_id=self.instance_id,
            highest_epoch=highest_epoch,
            version=self.version,
            worker_version=self.worker_version,
            pipe_protocol=PIPE_PROTOCOL,
            sends_away=True,
            workers=workers,
            control=internal,
            peer=internal,
            participants=_dialable(self.participants, reached_at),
            client=PortRange(
                host=addresses[0],
                port=pool.client_port,
                end_port=pool.client_port + pool.workers - 1,
            ),
            pipe=PortRange(host=pool.pipe_host, port=pool.pipe_port, end_port=pool.pipe_end_port),
            nonce=nonce,
            proof="",
            zone=self.zone,
            tenants=self.tenants,
            client_addresses=addresses,
        )


def _dialable(listen: ListenAddress, reached_at: str) -> Address:
    host = reached_at if listen.host in WILDCARDS else listen.host
    return Address(host=host, port=listen.port)
