"""The real media server keeps the contract of `/control`, as the fake one does (tests/contract)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract.control_contract import ControlContract, Subject
from mafalda_operator.cli.local.ports import PortPicker

from mediaserver.config import ServerConfig
from mediaserver.control.contract import CONTROL_PATH
from mediaserver.pool import PoolConfig
from mediaserver.server import MediaServer
from mediaserver.wire.listen import ListenAddress
from mediaserver.wire.membership import ClusterKey

HOST = "127.0.0.1"


class TestRealServer(ControlContract):
    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Subject]:
        ports = PortPicker(host=HOST)
        key_file = tmp_path / "key"
        key_file.write_bytes(secrets.token_hex(32).encode())
        pipes = ports.range(10)
        internal, participants, health = (ListenAddress(HOST, ports.port()) for _ in range(3))
        config = ServerConfig(
            internal=internal,
            participants=participants,
            health=health,
            pool=PoolConfig(
                workers=2,
                client_host=HOST,
                client_port=ports.range(2).start,
                pipe_host=HOST,
                pipe_port=pipes.start,
                pipe_end_port=pipes.stop - 1,
            ),
            cluster_key_file=key_file,
        )
        server = MediaServer(config)
        try:
            await server.start()
            yield Subject(url=f"http://{internal}{CONTROL_PATH}", key=ClusterKey.load(key_file))
        finally:
            await server.close()
