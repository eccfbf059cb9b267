"""Channels with a fake worker at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from unit.mediasoup.fake_peer import FakePeer, OpenChannel

from mediaserver.mediasoup.channel import Channel


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
