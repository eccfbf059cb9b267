"""ChannelTap: reads and puts right what an application and its worker say to each other.

What costs what: a message that is only passed on costs a comparison of the bytes that say what it is about,
and while the worker owes no answer that matters here, its stream is only cut. Requests that make or end
something are read, and those with listen infos written anew.

Watched requests go to the worker under numbers of our own, from FIRST_OWN up, so that their answers are found
whatever numbers an application gives to its own. One of these that is in our range gets another as well.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from mediaserver.mediasoup import messages
from mediaserver.mediasoup._fbs import response
from mediaserver.mediasoup.flatbuffer import READ_ERRORS, U32
from mediaserver.mediasoup.messages import Event, Method
from mediaserver.remote import answers, asks, rewriting
from mediaserver.remote.envelope import (
    LARGEST,
    NOTIFICATION,
    REQUEST,
    RESPONSE,
    SMALLEST,
    Layout,
    Layouts,
    Tail,
    TapError,
    check_size,
    encode,
)
from mediaserver.remote.ledger import Change, Closing, Kind, Ledger
from mediaserver.remote.policy import TenantPolicy
from mediaserver.remote.rewriting import UnacceptableError

FIRST_OWN: Final = 0xFFF0_0000
_OWN: Final = 0x10_0000
MOST_PENDING: Final = 65_536
"""Watched requests that may wait for their answers."""
MOST_THINGS: Final = 262_144
"""Routers, transports, producers and the like that one worker may have."""

_read_u32: Final = U32.unpack_from
_WATCHED: Final = bytes(method == Method.WORKER_DUMP or asks.watched(method) for method in range(256))


class Gate(Protocol):
    """What bounds an application beyond this worker."""

    def may_consume(self) -> str | None:
        """Why it may not have another consumer; None: it may."""

    def may_produce(self) -> str | None:
        """Why it may not have another producer; None: it may."""


class _Pending(NamedTuple):
    """A request under a number of ours."""

    number: int | None
    """The application's; None: it is ours."""
    change: Change | None = None
    dump: bool = False


class ChannelTap:
    """Of one worker. After a TapError there is no going on."""

    def __init__(self, policy: TenantPolicy, *, application_pid: int, worker_pid: int, gate: Gate) -> None:
        self.running = False
        """Whether the worker has said that it runs."""
        self.bitrate = 0
        """Bits a second of all its transports, sent and received, as last told."""
        self._policy = policy
        self._application_pid = application_pid
        self._worker_pid = worker_pid
        self._gate = gate
        self._ledger = Ledger()
        self._requests = Tail()
        self._answers = Tail()
        self._request_layouts = Layouts()
        self._answer_layouts = Layouts()
        self._pending: dict[int, _Pending] = {}
        self._dumps: set[int] = set()
        """Numbers under which the application has asked for the worker's dump."""
        self._last_own = 0
        self._figures_due = 0
        self._figures_sum = 0

    @property
    def consumers(self) -> int:
        """Open ones and those that the worker has been asked for."""
        return self._ledger.consumers

    @property
    def transports(self) -> int:
        return self._ledger.transports

    @property
    def pipes(self) -> int:
        return self._ledger.pipes

    # -- to the worker --------------------------------------------------------------------------------

    def to_worker(self, data: bytes) -> tuple[bytes, bytes]:  # noqa: C901  a call costs as much as a message
        """What of this goes on to the worker, and what the application is answered at once.

        Whole messages only, so that others may be sent in between. Raises TapError.
        """
        data = self._requests.join(data)
        out: list[bytes] = []
        refusals: list[bytes] = []
        layouts = self._request_layouts
        end = len(data)
        position = copied = 0
        while end - position >= 4:
            size = _read_u32(data, position)[0]
            if not SMALLEST <= size <= LARGEST:
                check_size(size)
            stop = position + 4 + size
            if stop > end:
                break
            layout = layouts.get(data[position + 4 : position + 40])
            if (
                layout is None
                or size < layout.extent
                or (layout.read is not None and layout.read(data, position) != layout.expected)
            ):
                layout = layouts.learn(data, position, stop)
            if layout.kind == REQUEST:
                if not layout.first_at:
                    raise TapError("a request without a number")
                number = _read_u32(data, position + layout.first_at)[0]
                method = data[position + layout.second_at] if layout.second_at else 0
                if _WATCHED[method] or number >= FIRST_OWN:
                    if method == Method.WORKER_DUMP and number < FIRST_OWN:
                        self._dumps.add(number)
                    else:
                        out.append(data[copied:position])
                        copied = stop
                        self._watch(data[position:stop], layout.first_at, method, out, refusals)
            elif layout.kind != NOTIFICATION:
                raise TapError(f"a message of kind {layout.kind} to the worker")
            position = stop
        if position < end:
            self._requests.keep(data[position:])
        if not copied and position == end:
            return data, b""
        out.append(data[copied:position])
        return b"".join(out), b"".join(refusals)

    def _watch(
        self, message: bytes, number_at: int, method: int, out: list[bytes], refusals: list[bytes]
    ) -> None:
        """A request that gets a number of ours, or a refusal."""
        number = int(_read_u32(message, number_at)[0])
        try:
            out.append(self._take(message, number, number_at, method))
        except UnacceptableError as refusal:
            refusals.append(encode(response.Response(id=number, error=refusal.error, reason=refusal.reason)))
        except READ_ERRORS as error:
            raise TapError(f"a malformed request ({_name(method)}): {error}") from error

    def _take(self, message: bytes, number: int, number_at: int, method: int) -> bytes:
        if len(self._pending) >= MOST_PENDING:
            problem = f"{MOST_PENDING} requests wait for the worker's answers; ask for less at once"
            raise UnacceptableError(problem, error="Error")
        own = self._own_number()
        patched = bytearray(message)
        U32.pack_into(patched, number_at, own)
        # Only now it is looked at: in an odd layout the number may be part of anything.
        message = bytes(patched)
        layout = Layout(message)
        if layout.kind != REQUEST or layout.first_at != number_at or _method(message, layout) != method:
            raise ValueError("its number overlaps with its offsets")
        if not asks.watched(method):
            self._pending[own] = _Pending(number, dump=method == Method.WORKER_DUMP)
            return message
        ask = asks.read(message, layout, method)
        self._check_bounds(ask.change)
        if ask.body is not None and rewriting.rewrites(self._policy, type(ask.body)):
            rewriting.rewrite(self._policy, ask.body)
            message = messages.encode_request(own, method, ask.handler_id, ask.body)
        self._pending[own] = _Pending(number, ask.change)
        self._ledger.ask(ask.change)
        return message

    def _check_bounds(self, change: Change) -> None:
        if isinstance(change, Closing):
            return
        if len(self._ledger) >= MOST_THINGS:
            problem = f"the worker has {MOST_THINGS} routers, transports, producers and consumers; close some"
            raise UnacceptableError(problem, error="Error")
        reason = None
        if change.kind is Kind.CONSUMER:
            reason = self._gate.may_consume()
        elif change.kind is Kind.PRODUCER:
            reason = self._gate.may_produce()
        if reason is not None:
            raise UnacceptableError(reason, error="Error")

    def _own_number(self) -> int:
        while True:
            self._last_own = (self._last_own + 1) % _OWN
            number = FIRST_OWN + self._last_own
            if number not in self._pending:
                return number

    def stats_requests(self) -> bytes:
        """Requests of our own that ask what the transports carry; `bitrate` is what the answers say.

        Empty while the last ones have not all been answered.
        """
        if self._figures_due:
            return b""
        requests = []
        for transport in self._ledger.network_transports():
            number = self._own_number()
            self._pending[number] = _Pending(None)
            requests.append(messages.encode_request(number, Method.TRANSPORT_GET_STATS, transport, None))
        self._figures_due = len(requests)
        self._figures_sum = 0
        if not requests:
            self.bitrate = 0
        return b"".join(requests)

    # -- to the application ---------------------------------------------------------------------------

    def to_application(self, data: bytes) -> bytes:
        """What the application is to read of this: whole messages only. Raises TapError."""
        data = self._answers.join(data)
        if not self.running or self._pending or self._dumps:
            return self._look(data)
        end = len(data)
        position = 0
        while end - position >= 4:
            size = _read_u32(data, position)[0]
            if not SMALLEST <= size <= LARGEST:
                check_size(size)
            stop = position + 4 + size
            if stop > end:
                break
            position = stop
        if position < end:
            self._answers.keep(data[position:])
            return data[:position]
        return data

    def _look(self, data: bytes) -> bytes:  # noqa: C901  as above
        """The same while something in it matters here."""
        source: bytes | bytearray = data
        out: list[bytes | bytearray] = []
        layouts = self._answer_layouts
        dumps = self._dumps
        end = len(data)
        position = copied = 0
        while end - position >= 4:
            size = _read_u32(data, position)[0]
            if not SMALLEST <= size <= LARGEST:
                check_size(size)
            stop = position + 4 + size
            if stop > end:
                break
            layout = layouts.get(data[position + 4 : position + 40])
            if (
                layout is None
                or size < layout.extent
                or (layout.read is not None and layout.read(data, position) != layout.expected)
            ):
                layout = layouts.learn(data, position, stop)
            if layout.kind == RESPONSE:
                number = _read_u32(data, position + layout.first_at)[0] if layout.first_at else 0
                if number >= FIRST_OWN or number in dumps:
                    changes = self._answer(data[position:stop], layout, number)
                    if changes is None:
                        out.append(source[copied:position])
                        copied = stop
                    elif source is data:
                        source = bytearray(data)
                    for at, value in changes or ():
                        U32.pack_into(source, position + at, value)
            elif not self.running and layout.kind == NOTIFICATION and _runs(data, position, layout):
                out += source[copied:position], self._now_runs()
                copied = stop
            position = stop
        if position < end:
            self._answers.keep(data[position:])
        if not copied and position == end:
            return bytes(source)
        out.append(source[copied:position])
        return b"".join(out)

    def _answer(self, message: bytes, layout: Layout, number: int) -> list[tuple[int, int]] | None:
        """Takes an answer that was waited for: what is to be changed in it, where; None: it was for us."""
        try:
            if number in self._dumps:
                self._dumps.discard(number)
                return self._hide_pid(message, layout)
            pending = self._pending.pop(number, None)
            if pending is None:
                raise TapError(f"an answer to request {number}, which was never sent")
            if pending.number is None:
                self._add_figure(answers.bitrate(message, layout))
                return None
            changes = self._hide_pid(message, layout) if pending.dump else []
        except READ_ERRORS as error:
            raise TapError(f"a malformed answer: {error}") from error
        if pending.change is not None:
            self._ledger.answer(pending.change, answers.accepted(message, layout))
        changes.append((layout.first_at, pending.number))
        return changes

    def _hide_pid(self, message: bytes, layout: Layout) -> list[tuple[int, int]]:
        at = answers.pid_at(message, layout)
        if at and _read_u32(message, at)[0] == self._worker_pid:
            return [(at, self._application_pid)]
        return []

    def _add_figure(self, bitrate: int) -> None:
        self._figures_sum += bitrate
        self._figures_due -= 1
        if not self._figures_due:
            self.bitrate = self._figures_sum

    def _now_runs(self) -> bytes:
        """The application knows the worker by the process that it has started itself."""
        self.running = True
        return messages.encode_notification(Event.WORKER_RUNNING, str(self._application_pid), None)


def _runs(data: bytes, position: int, layout: Layout) -> bool:
    """Whether a notification says that the worker runs."""
    return bool(layout.second_at) and data[position + layout.second_at] == Event.WORKER_RUNNING


def _method(message: bytes, layout: Layout) -> int:
    return message[layout.second_at] if layout.second_at else 0


def _name(method: int) -> str:
    return Method(method).name if method in _METHODS else f"method {method}"


_METHODS: Final = frozenset(Method)


__all__ = ["ChannelTap", "Gate", "TapError"]
