"""Fake media servers in a process of their own, so that their cost is not counted with anybody else's.

Prints their endpoints as one JSON list, then serves until its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from mediaserver.control.fake import FakeMediaServer, FakeNetwork
from mediaserver.wire.membership import ClusterKey


async def serve(key: ClusterKey, servers: int, workers: int) -> None:
    """Run ``servers`` fakes with ``workers`` slots each until standard input ends."""
    network = FakeNetwork()
    async with AsyncExitStack() as stack:
        fakes = [FakeMediaServer(key, workers=workers, network=network) for _ in range(servers)]
        for fake in fakes:
            await stack.enter_async_context(fake)
        print(json.dumps([fake.endpoint for fake in fakes]), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--servers", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(ClusterKey.load(arguments.key_file), arguments.servers, arguments.workers))


if __name__ == "__main__":
    main()
