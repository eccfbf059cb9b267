"""A watch's byte stream on its way to kopf.

Tells when it was heard, and drops the events that say nothing new: most are echoes of our own writes, whose
answers the store has already, and kopf's work on one costs as much as the write did.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec

from mafalda_operator.model import ObjectKey


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    uid: str
    resource_version: str
    namespace: str = ""


class _Object(msgspec.Struct):
    metadata: _Metadata


class _Event(msgspec.Struct):
    type: str
    object: _Object


Known = Callable[[ObjectKey, str, int], bool]
"""Whether the store has this UID at this version or a newer one, or knows that it is gone."""

_decode = msgspec.json.Decoder(_Event).decode


class WatchStream:
    """Stands in for a response's content, of which kopf uses ``iter_chunked``."""

    def __init__(self, stream: aiohttp.StreamReader, heard: Callable[[], None], known: Known) -> None:
        self._stream, self._heard, self._known = stream, heard, known

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines, one event each; what is left at the end as it is."""
        rest = b""
        async for chunk in self._stream.iter_chunked(size):
            self._heard()
            *lines, rest = (rest + chunk).split(b"\n")
            news = [line for line in lines if line and self._is_news(line)]
            if news:
                yield b"\n".join(news) + b"\n"
        if rest:
            yield rest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _is_news(self, line: bytes) -> bool:
        try:
            event = _decode(line)
            version = int(event.object.metadata.resource_version)
        except (msgspec.DecodeError, ValueError):
            return True  # a bookmark or an error, which is for kopf
        if event.type not in ("ADDED", "MODIFIED"):
            return True
        metadata = event.object.metadata
        return not self._known(ObjectKey(metadata.namespace, metadata.name), metadata.uid, version)
