"""Which worker serves which mediasoup: a worker of another version misreads the channel silently.

A worker serves the applications of its own version, and those of the versions beside it in `SERVES`. What
stands there was tried: the schemas of the channel (worker/fbs) are the same, and that version's own test
suite passes with this worker (docs/remote.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

SERVES: Final[Mapping[str, frozenset[str]]] = {"3.27.1": frozenset({"3.27.0"})}
"""Worker version to the other mediasoup versions that it serves. Its keys are the versions whose channel the
tunnel can read, which it must in order to put addresses and bounds right."""


def choose(asked: str, held: Collection[str]) -> str | None:
    """The worker version, of those held, for an application of mediasoup ``asked``; None: there is none."""
    if asked in held:
        return asked
    return max((version for version in held if asked in SERVES.get(version, ())), default=None)


def refusal(asked: str, held: Collection[str]) -> str:
    """What an application is told that no worker serves: both versions, and the remedy."""
    have = ", ".join(sorted(held)) or "none"
    # A header's odd bytes could not be sent back.
    shown = asked[:64].encode("ascii", "backslashreplace").decode()
    return (
        f"mediasoup {shown} needs a worker of its version and the media servers have {have}; "
        "install that version of mediasoup, or start media servers with --worker VERSION=PATH"
    )
