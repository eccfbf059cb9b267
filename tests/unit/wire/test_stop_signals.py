"""Signals that come before a program can take them, as in a container whose first process it is."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import asyncio, sys
from mediaserver.wire.stop_signals import take_stop_signals

async def main():
    stopped = asyncio.Event()
    print("starting", flush=True)
    sys.stdin.readline()
    take_stop_signals(lambda number: (print(number.name, flush=True), stopped.set()))
    async with asyncio.timeout(20):
        await stopped.wait()

asyncio.run(main())
"""


def test_a_signal_that_comes_while_the_program_starts_is_not_lost() -> None:
    command = ["env", "--block-signal=TERM", sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "starting\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate("go on\n", timeout=30)
    assert out == "SIGTERM\n"
    assert process.returncode == 0


def test_children_do_not_inherit_what_is_blocked() -> None:
    program = (
        "import asyncio, signal, subprocess, sys\n"
        "from mediaserver.wire.stop_signals import take_stop_signals\n"
        "async def main():\n"
        "    take_stop_signals(lambda _: None)\n"
        "    child = subprocess.Popen(['sleep', '20'])\n"
        "    child.terminate()\n"
        "    print(child.wait(timeout=10), flush=True)\n"
        "asyncio.run(main())\n"
    )
    command = ["env", "--block-signal=TERM", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == str(-signal.SIGTERM)
