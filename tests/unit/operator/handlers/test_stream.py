"""Watch streams: everything new passes, in whole lines; echoes of our own writes do not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
from hypothesis import given
from hypothesis import strategies as st
from mafalda_operator.handlers.stream import WatchStream
from mafalda_operator.model import ObjectKey


class Chunks:
    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks
        self.other = "attribute"

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk


def event(kind: str, version: int, **more: Any) -> bytes:
    metadata = {"name": "a", "namespace": "shop", "uid": "u", "resourceVersion": str(version)}
    return json.dumps({"type": kind, "object": {"metadata": metadata, **more}}).encode()


def known(key: ObjectKey, uid: str, version: int) -> bool:
    return (key, uid) == (ObjectKey("shop", "a"), "u") and version <= 5


async def passed(chunks: list[bytes]) -> tuple[bytes, int]:
    heard: list[None] = []
    stream = WatchStream(cast(aiohttp.StreamReader, Chunks(chunks)), lambda: heard.append(None), known)
    parts = [part async for part in stream.iter_chunked(100)]
    return b"".join(parts), len(heard)


async def test_echoes_are_dropped_and_heard() -> None:
    old, new = event("MODIFIED", 5), event("MODIFIED", 6)
    assert await passed([old + b"\n", new + b"\n"]) == (new + b"\n", 2)


async def test_deletions_bookmarks_and_errors_always_pass() -> None:
    lines = [
        event("DELETED", 5),
        b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"3"}}}',
        b'{"type":"ERROR","object":{"code":410}}',
        b"not json",
    ]
    stream = b"\n".join(lines) + b"\n"
    assert await passed([stream]) == (stream, 1)


@given(data=st.data())
async def test_chunks_may_end_anywhere(data: st.DataObject) -> None:
    lines = [event("ADDED", version, text="é") for version in (4, 6, 5, 7)]
    stream = b"\n".join(lines) + b"\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    out, _ = await passed(chunks)
    assert out == b"\n".join([lines[1], lines[3]]) + b"\n"


async def test_a_last_line_without_an_end_passes_as_it_is() -> None:
    assert await passed([event("MODIFIED", 6)[:20]]) == (event("MODIFIED", 6)[:20], 1)


def test_the_rest_is_the_streams() -> None:
    stream = WatchStream(cast(aiohttp.StreamReader, Chunks([])), lambda: None, known)
    assert stream.other == "attribute"
