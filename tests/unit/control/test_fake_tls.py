"""The fake media server with certificates."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from contract.control_tls import Subject, TlsContract
from support.certificates import SERVER, Authority

from mediaserver.control.fake import FakeMediaServer


class TestFakeServer(TlsContract):
    @pytest.fixture
    async def subject(self) -> AsyncIterator[Subject]:
        authority = Authority()
        async with FakeMediaServer(authority.certificates(SERVER)) as server:
            yield Subject(server.endpoint, authority)
