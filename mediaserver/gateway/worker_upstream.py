"""Dialling a media server for an application: raw, since what follows the upgrade is only relayed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

from mediaserver import shim
from mediaserver.control.contract import Address
from mediaserver.gateway.errors import UpstreamError
from mediaserver.wire.handshakes import dial_problem
from mediaserver.wire.membership import IN_THE_CLEAR, Dial
from mediaserver.wire.upgrade import set_no_delay

DIAL_SECONDS = 2.0
"""For the connection and the answer to the handshake."""
MAX_HEAD = 16 * 1024
MAX_BODY = 4 * 1024
_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Upstream:
    """A media server that took the worker. It is not read from until the transport gets another protocol."""

    transport: asyncio.Transport
    head: bytes
    """The answer that accepts the handshake, as it came."""
    rest: bytes
    """What came with it, and belongs to the stream already."""


@dataclass(frozen=True)
class Answer:
    """A media server that did not take it."""

    status: int
    text: str
    """Empty: none that could be passed on."""
    final: bool


def host_of(address: Address) -> str:
    """As a Host header has it."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


async def dial(
    address: Address, request: bytes, seconds: float = DIAL_SECONDS, *, how: Dial = IN_THE_CLEAR
) -> Upstream | Answer:
    """Connect and send the handshake; what the server says to it.

    Raises UpstreamError, which tells nothing of the handshake.
    """
    where = host_of(address)
    answering = _Answering()
    try:
        async with asyncio.timeout(seconds):
            loop = asyncio.get_running_loop()
            await loop.create_connection(
                lambda: answering,
                address.host,
                address.port,
                ssl=how.context,
                server_hostname=how.server_name,
            )
            answering.send(request)
            answer = await answering.done
    except TimeoutError as error:
        raise UpstreamError(f"{where} did not answer within {seconds:g} s") from error
    except (OSError, ValueError, OverflowError) as error:  # the last two: a host or a port that is none
        problem = dial_problem(error, how) or getattr(error, "strerror", None) or error
        raise UpstreamError(f"{where}: {problem}") from error
    finally:
        answering.release()
    if isinstance(answer, Upstream) and answer.transport.is_closing():
        raise UpstreamError(f"{where} took the worker and closed the connection")
    return answer


class _Answering(asyncio.Protocol):
    """Collects the answer to a handshake. Owns the connection until the answer accepts it."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Upstream | Answer] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._answer: Answer | None = None
        """Once its head is there; the text is what follows."""
        self._length = MAX_BODY

    def send(self, request: bytes) -> None:
        if self._transport is not None:
            self._transport.write(request)

    def release(self) -> None:
        """Ends the connection, unless it was handed on."""
        accepted = self.done.done() and not self.done.cancelled() and self.done.exception() is None
        if not (accepted and isinstance(self.done.result(), Upstream)) and self._transport is not None:
            self._transport.abort()
        self.done.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        set_no_delay(transport)

    def data_received(self, data: bytes) -> None:
        if self.done.done():
            return
        self._data += data
        try:
            if self._answer is None:
                self._read_head()
            if self._answer is not None and len(self._data) >= self._length:
                self._finish()
        except UpstreamError as error:
            self._fail(error)

    def eof_received(self) -> None:
        if self._answer is not None:
            self._finish()
        else:
            self._fail(UpstreamError("it closed the connection without an answer"))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(UpstreamError(f"the connection was lost: {error or 'closed'}"))

    def _read_head(self) -> None:
        head, end, rest = self._data.partition(_END)
        if len(head) > MAX_HEAD:
            raise UpstreamError(f"its answer has a head of more than {MAX_HEAD} bytes")
        if not end:
            return
        status, headers = _parse(head)
        if status == 101 and self._transport is not None:
            self._transport.pause_reading()
            self.done.set_result(Upstream(self._transport, head + end, rest))
            return
        if not 400 <= status < 600:
            raise UpstreamError(f"it answers HTTP {status}")
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit():
            self._length = min(int(length), MAX_BODY)
        self._data = rest
        final = headers.get(shim.FINAL_HEADER.lower()) == "true"
        plain = headers.get("content-type", "").startswith("text/plain")
        self._answer = Answer(status, "text" if plain else "", final)

    def _finish(self) -> None:
        answer = self._answer
        if answer is None or self.done.done():
            return
        text = self._data[: self._length].decode(errors="replace") if answer.text else ""
        self.done.set_result(Answer(answer.status, text, answer.final))

    def _fail(self, error: UpstreamError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers, names in lower case. Raises UpstreamError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (status.isascii() and status.isdigit()):
        raise UpstreamError("its answer is not HTTP")
    pairs = (line.partition(":") for line in lines)
    return int(status), {name.strip().lower(): value.strip() for name, _, value in pairs}
