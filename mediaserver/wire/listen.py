"""Listening: `HOST:PORT` flags and aiohttp servers that start, tell their port and end."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Collection
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from mediaserver.wire import tls
from mediaserver.wire.errors import ListenError, MembershipError
from mediaserver.wire.handshakes import refused
from mediaserver.wire.membership import Credential

_SHUTDOWN_SECONDS = 2.0


def _quote_nothing(record: logging.LogRecord) -> bool:
    """Tell of a request that is no HTTP, but not how it reads: it may hold a token."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        if isinstance(error, BadHttpMethod):
            refused(
                "the dialler does not speak HTTP here: if it speaks TLS, give both a --tls-dir, or both "
                "the same --cluster-key-file"
            )
        if record.levelno < logging.INFO and not logging.getLogger().isEnabledFor(record.levelno):
            return False
        if record.levelno > logging.INFO:
            record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = f"malformed request: {type(error).__name__}", None
        record.exc_info = None
    return True


_log = logging.getLogger("mediaserver.http")
_log.addFilter(_quote_nothing)
_log.setLevel(logging.DEBUG)  # as which aiohttp tells of what begins unlike HTTP, such as TLS


@dataclass(frozen=True)
class ListenAddress:
    """Where to listen; port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """Read `HOST:PORT`, an IPv6 host in brackets. Raises ListenError."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ListenError(f"{text!r}: write an IPv6 address in brackets, as in [::1]:4000")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ListenError(f"{text!r} is not HOST:PORT with a port from 0 to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Listener:
    """A running HTTP server. ``address`` has the port that is really listened on."""

    def __init__(self, runner: web.AppRunner, address: ListenAddress) -> None:
        self._runner = runner
        self.address = address

    async def close(self) -> None:
        """Stop listening, then end what is still being handled, within seconds."""
        await self._runner.cleanup()


def only(credential: Credential, names: Collection[str]) -> Middleware:
    """Answers 403, with the reason, to whoever presents a certificate that is for none of ``names``."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            credential.admit(tls.presented(request), names)
        except MembershipError as error:
            _log.warning("refused %s: %s", request.remote, error)
            return web.Response(status=403, text=f"{error}\n")
        return await handler(request)

    return check


async def listen(
    app: web.Application, address: ListenAddress, *, secured: ssl.SSLContext | None = None
) -> Listener:
    """Serve ``app``, by TLS if ``secured`` is given. No access log is written: query strings carry tokens.

    Raises ListenError.
    """
    runner = web.AppRunner(
        app, access_log=None, logger=_log, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS
    )
    await runner.setup()
    site = web.TCPSite(runner, address.host, address.port, ssl_context=secured)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from error
    port = int(runner.addresses[0][1])
    return Listener(runner, ListenAddress(address.host, port))
