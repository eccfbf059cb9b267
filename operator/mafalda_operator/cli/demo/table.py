"""The live table: who sits where, and what each receives from whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mafalda_operator.cli.demo.call import Call

REFRESH_SECONDS = 0.25
PLAIN_SECONDS = 3.0
"""Between two tables where the output is no terminal."""


def render(call: Call, server_of: Callable[[str], str]) -> Table:
    """One row a flow; ``server_of`` tells the MediaServer of a router (`namespace/name`)."""
    table = Table("participant", "server", "receives", "frames/s", "frames", "lost", "first frame")
    now = time.monotonic()
    first = {(frame.receiver, frame.peer, frame.source): frame.ms for frame in call.first_frames()}
    for participant in call.participants.values():
        server = server_of(participant.router) if participant.attached else "(dialling)"
        flows = [flow.received for flow in call.flows() if flow.receiver is participant]
        if not flows:
            table.add_row(participant.peer_id, server, "-", "", "", "", "")
        for received in flows:
            ms = first.get((participant.peer_id, received.peer, received.source))
            table.add_row(
                participant.peer_id,
                server,
                f"{received.peer} {received.source}",
                f"{received.rate(now):.0f}",
                str(received.frames),
                str(received.lost),
                "" if ms is None else f"{ms} ms",
            )
    return table


@asynccontextmanager
async def live(console: Console, call: Call, server_of: Callable[[str], str]) -> AsyncIterator[None]:
    """Show the table while the block runs, and its last state afterwards."""
    display = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
    if display is not None:
        display.start()
    task = asyncio.create_task(_refresh(console, display, call, server_of))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
        table = render(call, server_of)
        if display is None:
            console.print(table)
        else:
            display.update(table, refresh=True)
            display.stop()


async def _refresh(
    console: Console, display: Live | None, call: Call, server_of: Callable[[str], str]
) -> None:
    while True:
        await asyncio.sleep(PLAIN_SECONDS if display is None else REFRESH_SECONDS)
        if display is None:
            console.print(render(call, server_of))
        else:
            display.update(render(call, server_of), refresh=True)
