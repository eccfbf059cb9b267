"""One connection to `/control`: who is at the other end, and what has been told to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import structlog

from mediaserver.control.contract import (
    CONTROL_PROTOCOL,
    ERROR_BAD_PROOF,
    ERROR_NOT_ALLOWED,
    ERROR_OTHER_CLUSTER,
    ERROR_STALE_EPOCH,
    ERROR_VERSION_SKEW,
    Apply,
    ApplyResult,
    Challenge,
    ControlHello,
    DesiredEntry,
    Dump,
    Empty,
    Report,
    ReportedEntry,
    Role,
    ServerHello,
    TenantWorkers,
)
from mediaserver.control.contract.greeting import prove_acceptor, verify_dialler
from mediaserver.control.membership_state import MembershipStateError, OtherClusterError, StaleEpochError
from mediaserver.control.validate import InvalidEntryError, check_entries
from mediaserver.wire import frames, membership
from mediaserver.wire.errors import MembershipError, ResyncNeededError
from mediaserver.wire.replica import Receiver, Sender
from mediaserver.wire.rpc import Connection, Methods, RpcFailure

if TYPE_CHECKING:
    from mediaserver.control.endpoint import ControlEndpoint

log = structlog.get_logger(__name__)

HELLO_DEADLINE = 5.0
"""Seconds that a dialler has for its hello."""
_POLICY_VIOLATION = 1008
_GOING_AWAY = 1001


class ControlSession:
    """Answers one connection. `role` is None until its hello was accepted."""

    def __init__(
        self, endpoint: ControlEndpoint, connection: Connection, methods: Methods, *, reached_at: str
    ) -> None:
        self.role: Role | None = None
        self.has_load = False
        """Whether figures of load were told; the first go with the first report, the rest every second."""
        self._endpoint = endpoint
        self._connection = connection
        self._reached_at = reached_at
        self._nonce = membership.new_nonce()
        self._sender: Sender[ReportedEntry] = Sender()
        self._receiver: Receiver[DesiredEntry] = Receiver(DesiredEntry)
        self._ordered = asyncio.Lock()
        """Hellos and applies are handled one after another, as they came."""
        self._giving_up: asyncio.Task[None] | None = None
        methods.on("hello", ControlHello, self._hello)
        methods.on("apply", Apply, self._apply)
        methods.on("resync", Empty, self._resync)
        methods.on("dump", Empty, self._dump)
        methods.on("tenants", Empty, self._tenants)

    async def run(self) -> None:
        """Challenge, then answer until the connection ends. Raises WireError when the other side ended it."""
        deadline = asyncio.get_running_loop().call_later(HELLO_DEADLINE, self._give_up)
        try:
            self._connection.notify("challenge", Challenge(nonce=self._nonce))
            await self._connection.run()
        finally:
            deadline.cancel()
            if self._giving_up is not None:
                await self._giving_up

    async def close(self, reason: str) -> None:
        await self._connection.close(_GOING_AWAY, reason)

    def report(self, states: Mapping[str, ReportedEntry]) -> None:
        """Tell what changed since the last report of this connection; everything at first."""
        delta = self._sender.update(states)
        if delta is not None:
            self.tell("report", Report(delta=delta))

    def tell(self, method: str, message: msgspec.Struct) -> None:
        self._connection.notify(method, message)

    def _give_up(self) -> None:
        if self.role is None:
            closing = self._connection.close(_POLICY_VIOLATION, f"no hello within {HELLO_DEADLINE:g} s")
            self._giving_up = asyncio.get_running_loop().create_task(closing)

    # -- what the other side asks ---------------------------------------------------------------------

    async def _hello(self, hello: ControlHello) -> ServerHello:
        async with self._ordered:
            if self.role is not None:
                raise RpcFailure(ERROR_NOT_ALLOWED, "hello was said already")
            try:
                await self._check(hello)
            except RpcFailure as refusal:
                log.warning(
                    "refused",
                    other=self._connection.name,
                    role=hello.role,
                    cluster=hello.cluster_name,
                    reason=refusal.message,
                )
                raise
            self.role = hello.role
            self._endpoint.admit(self, hello)
            answer = self._endpoint.hello(self._nonce, self._reached_at)
            return prove_acceptor(self._endpoint.credential, answer, hello.nonce)

    async def _check(self, hello: ControlHello) -> None:
        """Raises RpcFailure, which also closes the connection, for a dialler that is not to be answered."""
        if hello.protocol_version != CONTROL_PROTOCOL:
            message = (
                f"control protocol {hello.protocol_version} is not spoken here: this media server "
                f"({self._endpoint.facts.version}) speaks {CONTROL_PROTOCOL}; bring both to one release"
            )
            raise RpcFailure(ERROR_VERSION_SKEW, message, {"protocolVersion": CONTROL_PROTOCOL}, close=True)
        if hello.role == "peer":
            raise RpcFailure(ERROR_NOT_ALLOWED, "a peer dials /peer, not /control", close=True)
        kept = self._endpoint.membership
        try:
            verify_dialler(self._endpoint.credential, hello, self._nonce, self._connection.presented)
            if hello.role == "operator":
                kept.check_cluster(hello.cluster_uid, hello.cluster_name)
                await kept.meet_epoch(hello.epoch)
            await kept.greet(
                uid=hello.cluster_uid,
                name=hello.cluster_name,
                server_name=hello.server_name if hello.role == "operator" else "",
            )
        except MembershipError as error:
            raise RpcFailure(ERROR_BAD_PROOF, str(error), close=True) from error
        except OtherClusterError as error:
            data = {"clusterUid": kept.current.cluster_uid, "clusterName": kept.current.cluster_name}
            raise RpcFailure(ERROR_OTHER_CLUSTER, str(error), data, close=True) from error
        except StaleEpochError as error:
            raise self._stale(str(error)) from error
        except MembershipStateError as error:
            raise RpcFailure(frames.INTERNAL_ERROR, str(error), close=True) from error

    async def _apply(self, apply: Apply) -> ApplyResult:
        async with self._ordered:
            await self._check_operator(apply.epoch)
            try:
                self._receiver.apply(apply.delta)
                check_entries(self._receiver.entries)
            except ResyncNeededError as error:
                log.info("asks the operator for everything", reason=str(error))
                return ApplyResult(
                    revision=self._receiver.revision or 0, digest=self._receiver.digest, resync=True
                )
            except (msgspec.DecodeError, InvalidEntryError) as error:
                self._receiver = Receiver(DesiredEntry)
                log.error("refuses an apply", reason=str(error), revision=apply.delta.revision)
                raise RpcFailure(frames.INVALID_PARAMS, f"apply: {error}") from error
            self._endpoint.converger.set_desired(self._receiver.entries)
            return ApplyResult(revision=apply.delta.revision, digest=self._receiver.digest)

    async def _check_operator(self, epoch: int) -> None:
        """Raises RpcFailure for an apply that does not come from the operator that commands."""
        if self.role != "operator":
            what = "an observer may not apply" if self.role else "say hello first"
            raise RpcFailure(ERROR_NOT_ALLOWED, what)
        if not self._endpoint.is_operator(self):
            raise self._stale("a newer connection of an operator has taken this one's place")
        try:
            await self._endpoint.membership.meet_epoch(epoch)
        except StaleEpochError as error:
            raise self._stale(str(error)) from error
        except MembershipStateError as error:
            raise RpcFailure(frames.INTERNAL_ERROR, str(error)) from error

    def _stale(self, message: str) -> RpcFailure:
        highest = self._endpoint.membership.current.highest_epoch
        return RpcFailure(ERROR_STALE_EPOCH, message, {"highestEpoch": highest}, close=True)

    async def _resync(self, _: Empty) -> Empty:
        self._check_greeted()
        self._sender.update(self._endpoint.states())
        self.tell("report", Report(delta=self._sender.whole()))
        return Empty()

    async def _dump(self, _: Empty) -> Dump:
        self._check_greeted()
        return await self._endpoint.dump()

    async def _tenants(self, _: Empty) -> TenantWorkers:
        self._check_greeted()
        return await self._endpoint.tenants()

    def _check_greeted(self) -> None:
        if self.role is None:
            raise RpcFailure(ERROR_NOT_ALLOWED, "say hello first")
