"""Asking for a page, from this process or from inside a pod."""

import asyncio
import urllib.error
import urllib.request

from e2e.support.kubernetes import execute
from e2e.support.running import CommandFailed


async def fetch(url: str, *, seconds: float = 2.0) -> str | None:
    """The page as this process gets it; None if it gets none."""

    def ask() -> str | None:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as answer:
                return str(answer.read().decode().strip())
        except (urllib.error.URLError, OSError):
            return None

    return await asyncio.to_thread(ask)


async def fetch_from(pod: str, namespace: str, url: str, *, seconds: float = 2.0) -> str | None:
    """The page as a busybox pod gets it; None if it gets none."""
    try:
        told = await execute(
            pod, namespace, "timeout", f"{seconds:g}", "wget", "-qO-", url, seconds=seconds + 15
        )
    except CommandFailed as error:
        if error.code is None:
            raise
        return None
    return told.strip()
