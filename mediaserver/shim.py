#!/usr/bin/env python3
"""mafalda-worker: a mediasoup worker that runs on a media server instead of this host (docs/remote.md).

    MEDIASOUP_WORKER_BIN=mafalda-worker MAFALDA_URL=wss://media.example.com MAFALDA_TOKEN=T node server.js

mediasoup starts this program for every createWorker(). It carries what goes over the worker's descriptors
(3: requests, 4: answers, 1 and 2: output), signals and the exit to and from a media server that the gateway
at MAFALDA_URL chooses, over one WebSocket. A connection that breaks is dialled again and goes on where it
was, with nothing lost, repeated or reordered.

This is one file, and needs nothing but Python 3.9's standard library, so that it can be copied into an
application's image. The media server imports it for the protocol that both speak:

    settings ─ dial ─▶ Link (socket and Frames) ─┐
    fds, signals ─▶ Relay ◀─▶ Stream (numbered records) ◀┘

No event loop but epoll: the relay adds as little to a request's way as Python can.
"""

from __future__ import annotations

import os
import signal
import sys

# Before anything slow is imported: a worker ignores these from its very start.
IGNORED_SIGNALS = (signal.SIGPIPE, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)
if __name__ == "__main__":
    for _number in IGNORED_SIGNALS:
        signal.signal(_number, signal.SIG_IGN)

import binascii
import collections
import errno
import json
import select
import socket
import struct
import time
from typing import Any, NamedTuple, NoReturn

# -- the protocol -----------------------------------------------------------------------------------------

PROTOCOL = 1
"""Raised when a message changes so that an older side would misread it."""
PATH = "/worker"
PROTOCOL_HEADER = "Mafalda-Worker-Protocol"
VERSION_HEADER = "Mafalda-Worker-Version"
ZONE_HEADER = "Mafalda-Worker-Zone"
TICKET_HEADER = "Mafalda-Worker-Ticket"
FINAL_HEADER = "Mafalda-Worker-Final"
"""In a refusal: dialling again is of no use."""

HEARTBEAT, OUTPUT, ERRORS, REQUESTS, ANSWERS, END, SIGNAL, EXIT = range(8)
"""Kinds of records. OUTPUT and ERRORS are the worker's stdout and stderr; END says that the application has
closed the channel; SIGNAL carries a number (u8); EXIT says how the worker ended: 0 by a code or 1 by a signal
(u8), and which (u8). A heartbeat is not numbered: it is sent where nothing else was, and acknowledges."""

CHUNK = 256 * 1024
"""Most bytes of a stream in one record."""
MESSAGE_LIMIT = CHUNK + 64
HELLO_LIMIT = 64 * 1024
_HEAD = struct.Struct("<BQQ")

EXIT_UNAVAILABLE = 1
EXIT_NO_VERSION = 41
EXIT_WRONG_SETTINGS = 42
"""mediasoup rejects createWorker() with `wrong settings` for this code, and tells any other code."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_CONTINUATION = 0


class TunnelError(Exception):
    """The other side sends what cannot be read."""


class Record(NamedTuple):
    kind: int
    payload: bytes


class Stream:
    """The records of both directions: numbered, kept until acknowledged, taken exactly once."""

    def __init__(self) -> None:
        self.sent = 0
        """Number of the last record made here."""
        self.received = 0
        """Number of the last record taken from the other side."""
        self.waiting = 0
        """Bytes that are not acknowledged."""
        self.unacknowledged = 0
        """Bytes taken since the other side was last told."""
        self._kept: collections.deque[bytes] = collections.deque()

    def send(self, kind: int, payload: bytes) -> bytes:
        """A new record; it is kept until acknowledged."""
        self.sent += 1
        self.unacknowledged = 0
        record = _HEAD.pack(kind, self.sent, self.received) + payload
        self._kept.append(record)
        self.waiting += len(record)
        return record

    def heartbeat(self) -> bytes:
        """Says that this side lives and what it has received."""
        self.unacknowledged = 0
        return _HEAD.pack(HEARTBEAT, 0, self.received)

    def receive(self, message: bytes) -> Record | None:
        """The record in a message; None for a heartbeat and for what was taken before.

        Raises TunnelError for what is no record, leaves a gap, or acknowledges what was never sent.
        """
        if len(message) < _HEAD.size:
            raise TunnelError(f"a record of {len(message)} bytes")
        kind, number, received = _HEAD.unpack_from(message)
        self.acknowledge(received)
        if kind == HEARTBEAT:
            return None
        if kind > EXIT:
            raise TunnelError(f"a record of kind {kind}")
        if number <= self.received:
            return None
        if number != self.received + 1:
            raise TunnelError(f"record {number} follows on {self.received}")
        self.received = number
        self.unacknowledged += len(message)
        return Record(kind, message[_HEAD.size :])

    def look(self, message: bytes) -> bool:
        """Takes nothing but what a message acknowledges; whether there is more to it, which is for `receive`.

        What is not received is not acknowledged, so the other side holds back once enough of it waits here.
        """
        if len(message) < _HEAD.size:
            return True
        kind, _, received = _HEAD.unpack_from(message)
        self.acknowledge(received)
        return bool(kind != HEARTBEAT)

    def acknowledge(self, received: int) -> None:
        """The other side has everything up to `received`. Raises TunnelError if that was never sent."""
        if received > self.sent:
            raise TunnelError(f"record {received} is acknowledged, {self.sent} were sent")
        kept = self._kept
        for _ in range(received - self.sent + len(kept)):
            self.waiting -= len(kept.popleft())

    def resume(self, received: int) -> list[bytes]:
        """What to send again to another side that has everything up to `received`. Raises TunnelError."""
        if received < self.sent - len(self._kept):
            raise TunnelError(f"records after {received} are wanted again, but were acknowledged")
        self.acknowledge(received)
        return list(self._kept)


def _mask(key: bytes, data: bytes) -> bytes:
    size = len(data)
    pattern = (key * (size // 4 + 1))[:size]
    mixed = int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")
    return mixed.to_bytes(size, "little")


class Frames:
    """WebSocket frames (RFC 6455 section 5) of one side: a client masks what it sends, a server does not."""

    def __init__(self, *, client: bool, limit: int = MESSAGE_LIMIT) -> None:
        self._client = client
        self._limit = limit
        self._rest = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._opcode = 0

    def encode(self, opcode: int, payload: bytes) -> bytes:
        """One message in one frame."""
        size = len(payload)
        bit = 0x80 if self._client else 0
        if size < 126:
            head = bytes((0x80 | opcode, bit | size))
        elif size < 65536:
            head = struct.pack(">BBH", 0x80 | opcode, bit | 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, bit | 127, size)
        if not self._client:
            return head + payload
        key = os.urandom(4)
        return b"".join((head, key, _mask(key, payload)))

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The messages that are complete now: opcode and payload. Raises TunnelError."""
        if self._rest:
            data = self._rest + data
        messages: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while end - at >= 2:
            first, second = data[at], data[at + 1]
            size, body = second & 0x7F, at + 2
            if size == 126:
                body += 2
                size = int.from_bytes(data[at + 2 : body], "big") if body <= end else 0
            elif size == 127:
                body += 8
                size = int.from_bytes(data[at + 2 : body], "big") if body <= end else 0
            self._check(first, second, size)
            if second & 0x80:
                body += 4
            if body + size > end:
                break
            at = body + size
            payload = data[body:at]
            if second & 0x80 and size:
                payload = _mask(data[body - 4 : body], payload)
            self._take(first, payload, messages)
        self._rest = data[at:]
        return messages

    def _check(self, first: int, second: int, size: int) -> None:
        opcode = first & 0x0F
        if first & 0x70:
            raise TunnelError("a WebSocket frame uses an extension that was not agreed upon")
        if opcode not in (_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise TunnelError(f"a WebSocket frame has opcode {opcode}")
        if bool(second & 0x80) == self._client:
            raise TunnelError("a WebSocket frame is masked by the wrong side")
        if opcode >= CLOSE and (size > 125 or not first & 0x80):
            raise TunnelError("a WebSocket control frame is too large or not whole")
        if size + self._size > self._limit:
            raise TunnelError(f"a WebSocket message has more than {self._limit} bytes")

    def _take(self, first: int, payload: bytes, messages: list[tuple[int, bytes]]) -> None:
        opcode, whole = first & 0x0F, first & 0x80
        if opcode >= CLOSE or (whole and opcode and not self._parts):
            messages.append((opcode, payload))
            return
        if bool(opcode) == bool(self._parts):
            raise TunnelError("a WebSocket message begins within another, or goes on without a beginning")
        self._opcode = opcode or self._opcode
        self._parts.append(payload)
        self._size += len(payload)
        if len(self._parts) > 1024:
            raise TunnelError("a WebSocket message has more than 1024 frames")
        if whole:
            messages.append((self._opcode, b"".join(self._parts)))
            self._parts, self._size = [], 0


# -- dialling ---------------------------------------------------------------------------------------------

FIRST_DIAL = 5.0
"""Seconds in which a new worker must have reached a gateway; MAFALDA_CONNECT_TIMEOUT."""
DIAL_DEADLINE = 5.0
"""Seconds that one dial may take, the media server's answer included."""
START_DEADLINE = 20.0
"""Seconds that a media server has to start a worker."""
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Failure(Exception):  # noqa: N818  named for what happened
    """No worker; the message says why and what to do, `final` that another dial would not help."""

    def __init__(self, message: str, *, final: bool = False, code: int = EXIT_UNAVAILABLE) -> None:
        super().__init__(message)
        self.final = final
        self.code = code


class Settings(NamedTuple):
    """What the environment and mediasoup say."""

    secure: bool
    host: str
    port: int
    path: str
    token: str
    version: str
    zone: str
    ca_file: str
    proxy: str
    first_dial: float
    arguments: list[str]
    files: dict[str, str]

    @property
    def place(self) -> str:
        """The gateway, as messages name it."""
        return f"{self.host}:{self.port}"


def read_settings(environment: dict[str, str], arguments: list[str]) -> Settings:
    """Raises Failure, with mediasoup's exit code, naming the variable and the remedy."""

    def wrong(message: str) -> NoReturn:
        raise Failure(message, final=True, code=EXIT_WRONG_SETTINGS)

    version = environment.get("MEDIASOUP_VERSION", "")
    if not version:
        message = "MEDIASOUP_VERSION is not set: mediasoup starts this program, by MEDIASOUP_WORKER_BIN"
        raise Failure(message, final=True, code=EXIT_NO_VERSION)
    url = environment.get("MAFALDA_URL", "")
    scheme, _, rest = url.partition("://")
    if scheme not in ("ws", "wss", "http", "https") or not rest:
        wrong(f"MAFALDA_URL is {url!r}: set it to the gateway's URL, such as wss://media.example.com")
    authority, _, path = rest.partition("/")
    secure = scheme in ("wss", "https")
    host, port = _split_authority(authority, 443 if secure else 80)
    if not host or port is None:
        wrong(f"MAFALDA_URL is {url!r}: {authority!r} is no HOST or HOST:PORT")
    token = environment.get("MAFALDA_TOKEN", "").strip() or _token_of_file(environment, wrong)
    if not token.isascii() or not token.isprintable() or " " in token:
        wrong("MAFALDA_TOKEN is no token: it has blanks or characters that no token has")
    zone = environment.get("MAFALDA_ZONE", "")
    if not zone.isascii() or not zone.isprintable():
        wrong(f"MAFALDA_ZONE is {zone!r}: a zone has printable ASCII characters only")
    seconds = environment.get("MAFALDA_CONNECT_TIMEOUT", str(FIRST_DIAL))
    try:
        first_dial = float(seconds)
    except ValueError:
        wrong(f"MAFALDA_CONNECT_TIMEOUT is {seconds!r}: give seconds")
    others, files = _read_files(arguments, wrong)
    return Settings(
        secure=secure,
        host=host,
        port=port or 0,
        path="/" + "/".join(part for part in (path.strip("/"), PATH.strip("/")) if part),
        token=token,
        version=version,
        zone=zone,
        ca_file=environment.get("MAFALDA_CA_FILE", ""),
        proxy=_proxy(environment, secure, host),
        first_dial=first_dial,
        arguments=others,
        files=files,
    )


def _split_authority(text: str, default: int) -> tuple[str, int | None]:
    """Host and port; None for a port that is none."""
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, str(default)
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    usable = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    return host, int(port) if usable else None


def _token_of_file(environment: dict[str, str], wrong: Any) -> str:
    path = environment.get("MAFALDA_TOKEN_FILE", "")
    if not path:
        wrong("MAFALDA_TOKEN is not set: make one with `mafalda worker-token`")
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError) as error:
        wrong(f"MAFALDA_TOKEN_FILE {path} cannot be read: {error}")
    raise AssertionError


def _read_files(
    arguments: list[str],
    wrong: Any,
) -> tuple[list[str], dict[str, str]]:
    """The arguments that name files of this host become their contents, base64."""
    others: list[str] = []
    files: dict[str, str] = {}
    for argument in arguments:
        name, _, path = argument.partition("=")
        if name not in ("--dtlsCertificateFile", "--dtlsPrivateKeyFile"):
            others.append(argument)
            continue
        try:
            with open(path, "rb") as file:
                files[name[2:]] = binascii.b2a_base64(file.read(HELLO_LIMIT // 4), newline=False).decode()
        except OSError as error:
            wrong(f"{name[2:]} {path} cannot be read: {error.strerror}")
    return others, files


def _proxy(environment: dict[str, str], secure: bool, host: str) -> str:
    """HOST:PORT of the HTTP proxy to go through; empty: none. The variables are those that curl reads."""
    direct = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    for name in (part.strip().lstrip(".") for part in direct.split(",")):
        if name and (name == "*" or host == name or host.endswith("." + name)):
            return ""
    names = ("https_proxy", "HTTPS_PROXY") if secure else ("http_proxy",)
    for name in (*names, "all_proxy", "ALL_PROXY"):
        value = environment.get(name, "")
        if value:
            return value.partition("://")[2].rstrip("/") or value
    return ""


class Link:
    """One connection to a media server: its socket, its frames, and what it said first."""

    def __init__(
        self, sock: socket.socket, frames: Frames, welcome: dict[str, Any], early: list[tuple[int, bytes]]
    ) -> None:
        self.socket = sock
        self.frames = frames
        self.welcome = welcome
        self.early = early
        """Messages that came together with the welcome."""


def dial(settings: Settings, hello: dict[str, Any], *, ticket: str = "") -> Link:
    """Connects, upgrades and greets. Raises Failure."""
    try:
        sock = _connect(settings)
        try:
            return _greet(sock, settings, hello, ticket)
        except BaseException:
            sock.close()
            raise
    except (OSError, TunnelError) as error:  # ssl.SSLError is an OSError
        raise Failure(f"the gateway at {settings.place} cannot be reached: {_told(error)}") from error


def _told(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error)


def _connect(settings: Settings) -> socket.socket:
    target = (settings.host, settings.port)
    where = target
    if settings.proxy:
        host, port = _split_authority(settings.proxy.rpartition("@")[2], 3128)
        where = (host, port or 3128)
    sock = socket.create_connection(where, DIAL_DEADLINE)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if settings.proxy:
            _tunnel(sock, settings, target)
        if settings.secure:
            import ssl  # only here: it is slow to import

            try:
                context = ssl.create_default_context(cafile=settings.ca_file or None)
            except OSError as error:  # ssl.SSLError among them
                raise Failure(
                    f"MAFALDA_CA_FILE {settings.ca_file} cannot be used: {_told(error)}",
                    final=True,
                    code=EXIT_WRONG_SETTINGS,
                ) from error
            return context.wrap_socket(sock, server_hostname=settings.host)
        return sock
    except BaseException:
        sock.close()
        raise


def _tunnel(sock: socket.socket, settings: Settings, target: tuple[str, int]) -> None:
    """Asks an HTTP proxy for a connection (RFC 9110 section 9.3.6)."""
    authority = f"[{target[0]}]:{target[1]}" if ":" in target[0] else f"{target[0]}:{target[1]}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    user = settings.proxy.rpartition("@")[0]
    if user:
        encoded = binascii.b2a_base64(user.encode(), newline=False).decode()
        lines.append(f"Proxy-Authorization: Basic {encoded}")
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    status, _, _ = _read_head(sock)
    if status != 200:
        raise Failure(f"the proxy at {settings.proxy.rpartition('@')[2]} answers {status} to CONNECT")


def _greet(sock: socket.socket, settings: Settings, hello: dict[str, Any], ticket: str) -> Link:
    key = binascii.b2a_base64(os.urandom(16), newline=False)
    headers = {
        "Host": settings.place,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key.decode(),
        "Authorization": f"Bearer {settings.token}",
        PROTOCOL_HEADER: str(PROTOCOL),
        VERSION_HEADER: settings.version,
    }
    if settings.zone:
        headers[ZONE_HEADER] = settings.zone
    if ticket:
        headers[TICKET_HEADER] = ticket
    lines = [f"GET {settings.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    sock.settimeout(DIAL_DEADLINE)
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    status, answered, rest = _read_head(sock)
    if status != 101:
        raise _refusal(settings, status, answered, _read_body(sock, answered, rest))
    import hashlib  # only here: a relay that is told --help needs none

    proof = binascii.b2a_base64(hashlib.sha1(key + _ACCEPT_GUID).digest(), newline=False)
    if answered.get("sec-websocket-accept", "").encode() != proof:
        raise Failure(f"{settings.place} does not speak WebSocket: its handshake is wrong", final=True)
    frames = Frames(client=True)
    sock.settimeout(START_DEADLINE)
    sock.sendall(frames.encode(TEXT, json.dumps(hello).encode()))
    welcome, early = _read_welcome(sock, frames, rest)
    if "error" in welcome:
        code = int(welcome.get("exitCode", EXIT_UNAVAILABLE))
        raise Failure(str(welcome["error"]), final=True, code=code)
    return Link(sock, frames, welcome, early)


def _read_head(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and what follows."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > 32 * 1024:
            raise TunnelError("its HTTP answer has no end")
        chunk = sock.recv(4096)
        if not chunk:
            raise TunnelError("it closed the connection without an HTTP answer")
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise TunnelError("its answer is not HTTP/1.1")
    pairs = (line.partition(":") for line in lines)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}, rest


def _read_body(sock: socket.socket, headers: dict[str, str], rest: bytes) -> str:
    """The first line of an answer's text."""
    length = headers.get("content-length", "")
    wanted = min(int(length), 4096) if length.isdigit() else 4096
    try:
        while len(rest) < wanted:
            chunk = sock.recv(4096)
            if not chunk:
                break
            rest += chunk
    except OSError:
        pass  # what there is of it must do
    if not headers.get("content-type", "").startswith("text/plain"):
        return ""
    return rest.decode(errors="replace").strip().partition("\n")[0]


def _refusal(settings: Settings, status: int, headers: dict[str, str], text: str) -> Failure:
    final = headers.get(FINAL_HEADER.lower(), "") == "true" or 300 <= status < 500
    # Other answers are those of whatever stands in the way, or was dialled by mistake.
    ours = status in (400, 401, 403, 409, 410, 426, 503) and text
    told = text if ours else f"{settings.place}{settings.path} answers HTTP {status}; check MAFALDA_URL"
    # What the application is set up with, rather than what the cluster has at the moment.
    code = EXIT_WRONG_SETTINGS if status in (400, 401, 403, 404, 409) else EXIT_UNAVAILABLE
    return Failure(told, final=final, code=code)


def _read_welcome(
    sock: socket.socket, frames: Frames, data: bytes
) -> tuple[dict[str, Any], list[tuple[int, bytes]]]:
    """The media server's first message, and those that came with it."""
    while True:
        messages = frames.feed(data)
        for index, (opcode, payload) in enumerate(messages):
            if opcode == TEXT:
                return _parse_welcome(payload), messages[index + 1 :]
            if opcode == CLOSE:
                raise TunnelError(f"it closed the connection: {payload[2:].decode(errors='replace')}")
        data = sock.recv(CHUNK)
        if not data:
            raise TunnelError("it closed the connection before its first message")


def _parse_welcome(payload: bytes) -> dict[str, Any]:
    try:
        welcome = json.loads(payload)
        if "error" not in welcome:
            for name in ("received", "heartbeat", "silence", "resume", "buffer"):
                welcome[name] = float(welcome[name])
            welcome["ticket"] = str(welcome["ticket"])
        return dict(welcome)
    except (ValueError, KeyError, TypeError) as error:
        raise TunnelError(f"its first message cannot be read: {error!r}") from error


# -- the relay --------------------------------------------------------------------------------------------

ACKNOWLEDGE_EVERY = 512 * 1024
"""Bytes after which the other side is told that they came, if nothing else is sent."""
UNREAD_LIMIT = 8 * 1024 * 1024
"""Bytes that the application may leave unread before nothing more is taken from the media server."""
FLUSH_SECONDS = 2.0
"""How long the application has, once the worker has ended, to read what it said."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_AGAIN = (errno.EAGAIN, errno.EINTR)


class Sink:
    """A descriptor that the application reads; what it does not read at once waits here."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = 0
        self._waiting: collections.deque[bytes] = collections.deque()
        self._closed = False
        os.set_blocking(fd, False)

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        self._waiting.append(data)
        self.size += len(data)
        if len(self._waiting) == 1:
            self.flush()

    def flush(self) -> None:
        """Writes what can be written now."""
        while self._waiting:
            data = self._waiting[0]
            try:
                written = os.write(self.fd, data)
            except BlockingIOError:
                return
            except OSError:  # nobody reads it any more
                self._closed = True
                self._waiting.clear()
                self.size = 0
                return
            self.size -= written
            if written < len(data):
                self._waiting[0] = data[written:]
                return
            self._waiting.popleft()


class Relay:
    """Carries one worker's descriptors and signals over a link, and over those that follow it."""

    def __init__(self, settings: Settings, link: Link) -> None:
        welcome = link.welcome
        self._settings = settings
        self._heartbeat: float = welcome["heartbeat"]
        self._silence: float = welcome["silence"]
        self._resume: float = welcome["resume"]
        self._buffer = int(welcome["buffer"])
        self._ticket: str = welcome["ticket"]
        self._stream = Stream()
        self._sinks = {kind: Sink(fd) for kind, fd in ((ANSWERS, 4), (OUTPUT, 1), (ERRORS, 2))}
        self._exit: tuple[int, int] | None = None
        self._link: Link | None = None
        self._out = bytearray()
        """What the link's socket did not take yet."""
        self._heard = self._said = self._lost_at = 0.0
        self._next_dial: float | None = None
        self._pause = _FIRST_PAUSE
        self._dialled: list[Link | Failure] = []
        self._reading = True
        self._space = memoryview(bytearray(CHUNK))
        """Where reads go: a buffer of that size for each would be mapped and unmapped each time."""
        self._epoll = select.epoll()
        self._interests: dict[int, int] = {}
        self._signals, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._back, self._ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(3, False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._attach(link)

    def run(self) -> tuple[int, int]:
        """Until the worker has ended: 0 and its exit code, or 1 and the signal that ended it."""
        self._watch(3, select.EPOLLIN)
        self._watch(self._signals, select.EPOLLIN)
        self._watch(self._back, select.EPOLLIN)
        while self._exit is None:
            for fd, events in self._epoll.poll(self._wait()):
                self._handle(fd, events)
            self._tick(time.monotonic())
        self._finish()
        return self._exit

    def _handle(self, fd: int, events: int) -> None:
        link = self._link
        if link is not None and fd == link.socket.fileno():
            self._on_link(link, events)
        elif fd == 3:
            self._on_requests()
        elif fd == self._signals:
            for number in os.read(fd, 64):
                self._send(SIGNAL, bytes((number,)))
        elif fd == self._back:
            os.read(fd, 64)
            self._on_dialled()
        else:
            for sink in self._sinks.values():
                sink.flush()
            self._adjust()

    # -- what is watched ------------------------------------------------------------------------------

    def _watch(self, fd: int, events: int) -> None:
        """Sets which events of a descriptor wake the relay; 0: none."""
        before = self._interests.get(fd, 0)
        if events == before:
            return
        if not events:
            self._epoll.unregister(fd)
        elif before:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._interests[fd] = events

    def _adjust(self) -> None:
        """Watches what can go on, and leaves alone what must wait: neither side may run ahead for ever."""
        unread = 0
        for sink in self._sinks.values():
            unread += sink.size
            self._watch(sink.fd, select.EPOLLOUT if sink.size else 0)
        self._reading = unread < UNREAD_LIMIT
        if self._link is not None:
            events = select.EPOLLIN if self._reading else 0
            self._watch(self._link.socket.fileno(), events | (select.EPOLLOUT if self._out else 0))
        if 3 in self._interests:
            full = self._link is not None and self._stream.waiting > self._buffer // 2
            self._watch(3, 0 if full else select.EPOLLIN)

    def _wait(self) -> float:
        now = time.monotonic()
        if self._link is not None:
            due = min(self._said + self._heartbeat, self._heard + self._silence)
        else:
            due = min(self._lost_at + self._resume, self._next_dial or float("inf"))
        return max(0.0, due - now)

    def _tick(self, now: float) -> None:
        if self._link is not None:
            if not self._reading:
                self._heard = now  # it may be talking: it is this side that does not listen
            if now - self._heard >= self._silence:
                self._lose(f"nothing was heard for {self._silence:g} s")
            elif now - self._said >= self._heartbeat:
                self._transmit(self._stream.heartbeat())
        elif now - self._lost_at >= self._resume:
            self._give_up(f"the media server was not reached again within {self._resume:g} s")
        elif self._next_dial is not None and now >= self._next_dial:
            self._dial()

    # -- from the application -------------------------------------------------------------------------

    def _on_requests(self) -> None:
        try:
            size = os.readv(3, (self._space,))
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size:
            self._send(REQUESTS, self._space[:size].tobytes())
            if self._stream.waiting > self._buffer // 2:
                self._adjust()
        else:
            self._watch(3, 0)
            del self._interests[3]
            self._send(END, b"")

    def _send(self, kind: int, payload: bytes) -> None:
        record = self._stream.send(kind, payload)
        if self._link is not None:
            self._transmit(record)
        elif self._stream.waiting > self._buffer:
            self._give_up(f"more than {self._buffer} bytes waited for the connection to come back")

    def _transmit(self, record: bytes) -> None:
        link = self._link
        if link is None:
            return
        frame = link.frames.encode(BINARY, record)
        self._said = time.monotonic()
        if self._out:
            self._out += frame
            return
        sent = _send_some(link.socket, frame)
        if sent < 0:
            self._lose("the connection broke")
        elif sent < len(frame):
            self._out += frame[sent:]
            self._adjust()

    # -- from the media server ------------------------------------------------------------------------

    def _on_link(self, link: Link, events: int) -> None:
        if events & select.EPOLLOUT and self._out:
            sent = _send_some(link.socket, self._out)
            if sent < 0:
                self._lose("the connection broke")
                return
            del self._out[:sent]
            self._adjust()
        if events & ~select.EPOLLOUT:
            self._read(link)

    def _read(self, link: Link) -> None:
        while self._link is link:
            try:
                size = link.socket.recv_into(self._space)
            except OSError as error:
                if not _would_block(error):
                    self._lose(f"the connection broke: {_told(error)}")
                return
            if not size:
                self._lose("the connection was closed")
                return
            self._heard = time.monotonic()
            try:
                self._take(link.frames.feed(self._space[:size].tobytes()))
            except TunnelError as error:
                self._lose(f"the media server is not understood: {error}")
                return
            pending = getattr(link.socket, "pending", None)
            if pending is None or not pending():
                return

    def _take(self, messages: list[tuple[int, bytes]]) -> None:
        for opcode, payload in messages:
            if opcode == BINARY:
                record = self._stream.receive(payload)
                if record is not None:
                    self._take_record(record)
            elif opcode == PING and self._link is not None:
                self._out += self._link.frames.encode(PONG, payload)
            elif opcode == CLOSE:
                told = payload[2:].decode(errors="replace")
                self._lose(f"the connection was closed{': ' if told else ''}{told}")
                return
        if self._stream.unacknowledged > ACKNOWLEDGE_EVERY:
            self._transmit(self._stream.heartbeat())
        if self._out or (3 in self._interests and not self._interests[3]):
            self._adjust()

    def _take_record(self, record: Record) -> None:
        sink = self._sinks.get(record.kind)
        if sink is not None:
            sink.write(record.payload)
            if sink.size:
                self._adjust()
        elif record.kind == EXIT and len(record.payload) == 2:
            self._exit = record.payload[0], record.payload[1]
        else:
            raise TunnelError(f"a record of kind {record.kind} and {len(record.payload)} bytes")

    # -- links ----------------------------------------------------------------------------------------

    def _attach(self, link: Link) -> None:
        """Goes on over a link; what was not acknowledged is sent again. Raises TunnelError."""
        again = self._stream.resume(int(link.welcome["received"]))
        link.socket.setblocking(False)
        self._link, self._next_dial, self._pause = link, None, _FIRST_PAUSE
        self._heard = self._said = time.monotonic()
        for record in (*again, self._stream.heartbeat()):
            self._out += link.frames.encode(BINARY, record)
        self._adjust()
        self._take(link.early)
        if getattr(link.socket, "pending", int)():
            self._read(link)

    def _lose(self, reason: str) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        self._watch(link.socket.fileno(), 0)
        link.socket.close()
        self._out.clear()
        if self._exit is None:
            self._lost_at = self._next_dial = time.monotonic()
            self._say(f"{reason}; dialling again for {self._resume:g} s")
            self._adjust()

    def _dial(self) -> None:
        """In a thread of its own, which ends by itself: the relay goes on meanwhile."""
        import threading

        self._next_dial = None
        hello = {"received": self._stream.received}

        def work() -> None:
            try:
                self._dialled.append(dial(self._settings, hello, ticket=self._ticket))
            except Failure as error:
                self._dialled.append(error)
            os.write(self._ring, b"!")

        threading.Thread(target=work, daemon=True).start()

    def _on_dialled(self) -> None:
        while self._dialled:
            result = self._dialled.pop()
            if isinstance(result, Link):
                try:
                    self._attach(result)
                except TunnelError as error:
                    result.socket.close()
                    self._give_up(f"the media server is not understood: {error}")
                else:
                    self._say(f"connected again after {time.monotonic() - self._lost_at:.1f} s")
            elif result.final:
                self._give_up(str(result))
            else:
                self._next_dial = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    # -- the end --------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self._sinks[ERRORS].write(f"mafalda-worker: {text}\n".encode())
        self._adjust()

    def _give_up(self, reason: str) -> None:
        if self._exit is None:
            self._say(f"the worker is gone: {reason}")
            self._exit = 0, EXIT_UNAVAILABLE

    def _finish(self) -> None:
        """Tells the media server that the end was heard, and lets the application read the last words."""
        link, self._link = self._link, None
        signal.set_wakeup_fd(-1)
        if link is not None:
            frames = link.frames
            farewell = frames.encode(BINARY, self._stream.heartbeat()) + frames.encode(CLOSE, b"\x03\xe8")
            _send_some(link.socket, bytes(self._out) + farewell)
            link.socket.close()
        deadline = time.monotonic() + FLUSH_SECONDS
        while any(sink.size for sink in self._sinks.values()) and time.monotonic() < deadline:
            select.select([], [sink.fd for sink in self._sinks.values() if sink.size], [], 0.1)
            for sink in self._sinks.values():
                sink.flush()


def _send_some(sock: socket.socket, data: bytes | bytearray) -> int:
    """How many bytes the socket took; -1 when it is broken."""
    try:
        return sock.send(data)
    except OSError as error:
        return 0 if _would_block(error) else -1


def _would_block(error: OSError) -> bool:
    # ssl's errors of this kind have numbers of their own (SSL_ERROR_WANT_READ 2, SSL_ERROR_WANT_WRITE 3).
    return error.errno in _AGAIN or type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


# -- the program ------------------------------------------------------------------------------------------

USAGE = """\
Usage: MEDIASOUP_WORKER_BIN=mafalda-worker MAFALDA_URL=wss://HOST MAFALDA_TOKEN=TOKEN <application>

Runs a mediasoup worker on a media server of Mafalda instead of this host. mediasoup starts this program for
every createWorker(); you do not. Environment:

  MAFALDA_URL              the gateway, such as wss://media.example.com
  MAFALDA_TOKEN            a token for workers: mafalda worker-token
  MAFALDA_TOKEN_FILE       a file with it, instead
  MAFALDA_ZONE             the zone of this host: media servers there come first
  MAFALDA_CA_FILE          certificates (PEM) that the gateway's must be signed by, instead of the system's
  MAFALDA_CONNECT_TIMEOUT  seconds in which a new worker must have reached the gateway (5)
  HTTPS_PROXY, NO_PROXY    the proxy to go through, and for which hosts not to

Exit codes: the worker's own; 1 no worker could be had or it was lost, 41 MEDIASOUP_VERSION is missing, 42
wrong settings. What is wrong is told in one line on stderr.
"""


def start(settings: Settings) -> Link:
    """A link to a new worker. Raises Failure; what may pass is tried again for a moment."""
    hello = {"pid": os.getpid(), "arguments": settings.arguments, "files": settings.files}
    deadline = time.monotonic() + settings.first_dial
    pause = _FIRST_PAUSE
    while True:
        try:
            return dial(settings, hello)
        except Failure as error:
            if error.final or time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def check_descriptors() -> None:
    """Raises Failure where mediasoup's channel is not there."""
    for fd in (3, 4):
        try:
            os.fstat(fd)
        except OSError:
            message = (
                f"descriptor {fd} is not open: mediasoup starts this program, by MEDIASOUP_WORKER_BIN "
                "(--help tells more)"
            )
            raise Failure(message, final=True, code=EXIT_WRONG_SETTINGS) from None


def end(how: int, value: int) -> NoReturn:
    """Ends this process as the worker ended: by exit code (0) or signal (1)."""
    if how == 1:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if value not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(value, signal.SIG_DFL)
        os.kill(os.getpid(), value)
        value = 128 + value  # only for a signal that ends nobody
    # Not sys.exit: a thread that dials must not keep the process.
    os._exit(value)


def main() -> None:
    """The program."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        sys.stdout.write(USAGE)
        return
    try:
        settings = read_settings(dict(os.environ), arguments)
        check_descriptors()
        # Until there is a worker that could be told of them, these end this process.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        how, value = Relay(settings, start(settings)).run()
    except (Failure, TunnelError) as error:
        sys.stderr.write(f"mafalda-worker: {error}\n")
        sys.stderr.flush()
        how, value = 0, getattr(error, "code", EXIT_UNAVAILABLE)
    end(how, value)


if __name__ == "__main__":
    main()
