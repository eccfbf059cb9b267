"""Whom an end of a link talks to: its router, and the other end, in memory or over a peer connection."""

from __future__ import annotations

import asyncio
from typing import Protocol

from mediaserver.cascade.messages import (
    ClosePipe,
    LinkName,
    OpenPipe,
    PipeCounters,
    PipeOpened,
    ResumePipe,
    RouteMessage,
    RouterName,
    Routes,
    WantPipe,
)
from mediaserver.wire.errors import ConnectionLost, RemoteError
from mediaserver.wire.rpc import RpcFailure

Notice = WantPipe | ClosePipe | PipeCounters | Routes


class NearEnd(Protocol):
    """What a link's end answers to; the far end calls it."""

    @property
    def name(self) -> LinkName: ...

    async def opened(self, request: OpenPipe) -> PipeOpened:
        """Raises RpcFailure."""

    async def resumed(self, request: ResumePipe) -> None:
        """Raises RpcFailure."""

    def noticed(self, notice: Notice) -> None: ...

    def far_up(self, *, same_instance: bool) -> None:
        """The far end can be talked to (again); `same_instance`: it is the process it was before."""

    def far_down(self, reason: str) -> None: ...


class FarEnd(Protocol):
    """The other end of a link as seen from here. Errors are those of mediaserver.wire."""

    @property
    def connected(self) -> bool: ...

    @property
    def problem(self) -> str:
        """Why it is not connected."""

    @property
    def pipe_protocol(self) -> int:
        """Meaningful while connected."""

    async def open(self, request: OpenPipe, timeout: float) -> PipeOpened: ...

    async def resume(self, request: ResumePipe, timeout: float) -> None: ...

    def notice(self, notice: Notice) -> None:
        """In order; lost when not connected."""

    def close(self) -> None:
        """This end is over: nothing more is heard from the far one. Idempotent."""


class LinkOwner(Protocol):
    """The router that the link belongs to."""

    def link_up(self, link: RouterName) -> None:
        """The pair stands and the far end can be talked to (again)."""

    def link_down(self, link: RouterName) -> None:
        """The pair is gone."""

    def router_closing(self) -> None:
        """mediasoup's router has closed; the far end can still be told."""

    def routes_received(self, link: RouterName, messages: list[RouteMessage]) -> None: ...


class LoopbackEnd:
    """A FarEnd in the same process: notices come in order and never within the call that sends them."""

    problem = "the other router's end of the link is closed"

    def __init__(self, pipe_protocol: int) -> None:
        self.pipe_protocol = pipe_protocol
        self._near: NearEnd | None = None

    @property
    def connected(self) -> bool:
        return self._near is not None

    def attach(self, near: NearEnd) -> None:
        """`near` is who answers here."""
        self._near = near

    async def open(self, request: OpenPipe, timeout: float) -> PipeOpened:
        async with asyncio.timeout(timeout):
            try:
                return await self._answering().opened(request)
            except RpcFailure as error:
                raise RemoteError(error.code, error.message, error.data) from error

    async def resume(self, request: ResumePipe, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            try:
                await self._answering().resumed(request)
            except RpcFailure as error:
                raise RemoteError(error.code, error.message, error.data) from error

    def notice(self, notice: Notice) -> None:
        asyncio.get_running_loop().call_soon(self._deliver, notice)

    def close(self) -> None:
        self._near = None

    def _answering(self) -> NearEnd:
        if self._near is None:
            raise ConnectionLost(self.problem)
        return self._near

    def _deliver(self, notice: Notice) -> None:
        if self._near is not None:
            self._near.noticed(notice)
