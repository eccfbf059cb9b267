from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from contract.control_contract import ControlContract, Subject

from mediaserver.control.contract import CONTROL_PATH
from mediaserver.control.fake import FakeMediaServer
from mediaserver.wire.membership import ClusterKey

KEY = ClusterKey(b"the key of the cluster under test")


class TestFakeServer(ControlContract):
    @pytest.fixture
    async def subject(self) -> AsyncIterator[Subject]:
        async with FakeMediaServer(KEY) as server:
            yield Subject(url=f"http://{server.address}{CONTROL_PATH}", key=KEY)
