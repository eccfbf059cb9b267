"""A container's first process can be ended from its first moments on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BUSY = """
import sys, types
slow = types.ModuleType("mediaserver.__main__")
def main():
    print("loading", flush=True)
    while True:
        pass
slow.main = main
sys.modules["mediaserver.__main__"] = slow
from mediaserver import entry
entry.main()
"""


def first_process(parent: int) -> int:
    """Of the namespace that `unshare` made."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    deadline = time.monotonic() + 10
    while not (found := children.read_text().split()):
        assert time.monotonic() < deadline
    return int(found[0])


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a process namespace")
def test_sigterm_is_heard_while_the_program_is_loaded() -> None:
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", BUSY],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        os.kill(first_process(process.pid), signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
