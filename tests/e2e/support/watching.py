"""Every state that objects were in, so that a test can say what never was."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from e2e.support.kubernetes import Document, deleting, is_ready, name_of

_CHUNK = 1 << 16


@dataclass
class Watched:
    """`states`: all objects of the kind by name, after each change, oldest first."""

    states: list[dict[str, Document]] = field(default_factory=lambda: [{}])

    def take(self, event: Document) -> None:
        found, now = event["object"], dict(self.states[-1])
        if event["type"] == "DELETED":
            now.pop(name_of(found), None)
        else:
            now[name_of(found)] = found
        self.states.append(now)

    def fewest_ready(self) -> int:
        """Pods that were Ready and not being deleted, at the worst moment since most were."""
        counts = [
            sum(is_ready(found) and not deleting(found) for found in state.values()) for state in self.states
        ]
        return min(counts[counts.index(max(counts)) :])


@contextlib.asynccontextmanager
async def watching(kind: str, namespace: str, labels: str = "") -> AsyncIterator[Watched]:
    """Watches for the length of the block; what is there at the beginning is seen first."""
    process = await asyncio.create_subprocess_exec(
        "kubectl", "-n", namespace, "get", kind, "-l", labels, "--watch", "--output-watch-events",
        "-o", "json", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    watched = Watched()
    reading = asyncio.create_task(_read(process, watched))
    try:
        yield watched
        assert not reading.done(), "the watch ended early"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await reading
        await process.wait()


async def _read(process: asyncio.subprocess.Process, watched: Watched) -> None:
    assert process.stdout is not None
    decoder, text = json.JSONDecoder(), b""
    while chunk := await process.stdout.read(_CHUNK):
        text += chunk
        while text.strip():
            try:
                event, end = decoder.raw_decode(text.decode().lstrip())
            except ValueError:  # the rest of it is still to come
                break
            text = text.decode().lstrip()[end:].encode()
            watched.take(event)


def placed_twice(watched: Watched, *, most: int) -> list[str]:
    """Moments at which one session's routers were in one place, or more than `most` of them took
    participants, or two of them of one index did: what must never be. `watched` are MediaRouters.
    """
    wrong = []
    for state in watched.states:
        routers = [found for found in state.values() if not deleting(found)]
        open_ones = [found for found in routers if is_ready(found)]
        places = Counter(_place(found) for found in routers)
        wrong += [f"twice at {place}" for place, count in places.items() if count > 1]
        indexes = Counter(_index(found) for found in open_ones)
        wrong += [f"index {index} ready {count} times" for index, count in indexes.items() if count > 1]
        sessions = Counter(str(found["spec"]["sessionName"]) for found in open_ones)
        wrong += [f"{name} has {count} ready" for name, count in sessions.items() if count > most]
    return wrong


def _place(router: Document) -> tuple[str, str, str]:
    spec = router["spec"]
    return str(spec["sessionName"]), str(spec.get("serverName")), str(spec.get("workerSlot"))


def _index(router: Document) -> tuple[str, str]:
    annotations = router["metadata"].get("annotations", {})
    return str(router["spec"]["sessionName"]), str(annotations.get("mafalda.io/index"))
