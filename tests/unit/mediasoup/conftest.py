"""Channels with a fake worker at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop
from unit.mediasoup.fake_peer import FakePeer, OpenChannel

from mediaserver.mediasoup.channel import Channel

BOTH_LOOPS = frozenset({"test_channel", "test_channel_fuzz", "test_process"})
"""Modules whose tests run on asyncio's event loop and on uvloop."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.stem in BOTH_LOOPS:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def open_channel() -> AsyncIterator[OpenChannel]:
    """Makes channels with a fake worker at the other end."""
    with contextlib.ExitStack() as stack:

        async def make(timeout: float = 5) -> tuple[Channel, FakePeer]:
            outgoing, requests = socket.socketpair()
            incoming, answers = socket.socketpair()
            for end in (outgoing, requests, incoming, answers):
                end.setblocking(False)
            channel = Channel(outgoing=outgoing, incoming=incoming, name="worker 1", timeout=timeout)
            peer = FakePeer(requests, answers)
            stack.callback(peer.close)
            stack.callback(channel.close)
            await channel.start()
            return channel, peer

        yield make
    await asyncio.sleep(0)
