"""Real workers, and RTP endpoints on loopback that speak to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop
from integration.mediasoup.rtp import MEDIA_CODECS, RtpEndpoint, rtp_endpoints

from mediaserver.mediasoup import Router, Worker, WorkerStartError, create_worker, find_worker_bin

BOTH_LOOPS = frozenset({"test_worker"})
"""Modules whose tests run on asyncio's event loop and on uvloop."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.stem in BOTH_LOOPS:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture(scope="session", autouse=True)
def _worker_is_built() -> None:
    """Without the worker these tests fail, with the remedy; they are never skipped."""
    try:
        find_worker_bin()
    except WorkerStartError as error:
        pytest.fail(str(error), pytrace=False)


StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def start_worker() -> AsyncIterator[StartWorker]:
    """Starts workers that end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings: object) -> Worker:
            worker = await create_worker(**settings)  # type: ignore[arg-type]
            return await stack.enter_async_context(worker)

        yield start


@pytest.fixture
async def worker(start_worker: StartWorker) -> Worker:
    return await start_worker()


@pytest.fixture
async def router(worker: Worker) -> Router:
    return await worker.create_router(media_codecs=MEDIA_CODECS)


@pytest.fixture
async def open_endpoint() -> AsyncIterator[Callable[[], Awaitable[RtpEndpoint]]]:
    """Opens RTP endpoints that close with the test."""
    async with rtp_endpoints() as open_one:
        yield open_one
