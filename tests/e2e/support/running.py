"""Running programs beside live participants: never blocking the loop, always with a deadline."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]
POLL_SECONDS = 0.2


class CommandFailed(AssertionError):  # noqa: N818  a test that lets it through fails by it
    """`code` is None for one that hung and was ended."""

    def __init__(self, command: tuple[str, ...], code: int | None, said: str) -> None:
        self.code, self.said = code, said
        outcome = "hung and was ended" if code is None else f"ended with code {code}"
        super().__init__(f"{' '.join(command)} {outcome}: {said.strip() or '(it said nothing)'}")


async def run(
    *command: str,
    stdin: str | None = None,
    seconds: float = 30.0,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What it prints on stdout. Raises CommandFailed with what it wrote to stderr."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate((stdin or "").encode()), seconds)
    except TimeoutError as error:
        raise CommandFailed(command, None, f"no end within {seconds:g} s") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode != 0:
        raise CommandFailed(
            command, process.returncode, err.decode(errors="replace") + out.decode(errors="replace")
        )
    return out.decode(errors="replace")


async def until(
    what: str,
    holds: Callable[[], Awaitable[object]],
    *,
    seconds: float,
    tell: Callable[[], object] = str,
    poll: float = POLL_SECONDS,
) -> float:
    """Waits until ``holds`` answers something true; the seconds it took. Fails with what ``tell`` says."""
    began = time.monotonic()
    while not await holds():
        waited = time.monotonic() - began
        assert waited < seconds, f"{what}: not within {seconds:g} s; seen: {tell()}"
        await asyncio.sleep(poll)
    return time.monotonic() - began
