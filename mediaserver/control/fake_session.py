"""One connection to a fake media server's `/control`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from aiohttp import WSMsgType, web

from mediaserver.control.contract import (
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
    Load,
    Report,
    ReportedEntry,
    Role,
    ServerHello,
    TenantWorkers,
)
from mediaserver.control.contract.greeting import prove_acceptor, verify_dialler
from mediaserver.wire import frames, membership
from mediaserver.wire.errors import MembershipError, ResyncNeededError
from mediaserver.wire.replica import Receiver, Sender
from mediaserver.wire.rpc import HEARTBEAT, Connection, Methods, RpcFailure, accept

if TYPE_CHECKING:
    from mediaserver.control.fake import FakeMediaServer

HELLO_DEADLINE = 5.0
_NEVER = 1e9
_GOING_AWAY = 1001
_POLICY_VIOLATION = 1008


class FakeSession:
    """Answers one connection; its server beats the heart, so that it can fall silent."""

    def __init__(self, server: FakeMediaServer, connection: Connection, methods: Methods) -> None:
        self.role: Role | None = None
        self.connection = connection
        self._server = server
        self._nonce = membership.new_nonce()
        self._sender: Sender[ReportedEntry] = Sender()
        self._receiver: Receiver[DesiredEntry] = Receiver(DesiredEntry)
        methods.on("hello", ControlHello, self._hello)
        methods.on("apply", Apply, self._apply)
        methods.on("resync", Empty, self._resync)
        methods.on("dump", Empty, self._dump)
        methods.on("tenants", Empty, self._tenants)

    @classmethod
    async def accept(cls, server: FakeMediaServer, request: web.Request) -> FakeSession:
        methods = Methods()
        connection = await accept(request, methods, name="a dialler", heartbeat=_NEVER)
        return cls(server, connection, methods)

    async def run(self) -> None:
        """Challenge and answer until the connection ends. Raises WireError when the other side ended it."""
        if self._server.faults.garbage:
            await self.connection.socket.send_frame(b"\x16\x03\x01 {garbage", WSMsgType.TEXT)
        elif not self._server.faults.hang:
            self.connection.notify("challenge", Challenge(nonce=self._nonce))
        running = asyncio.create_task(self.connection.run())
        try:
            await asyncio.wait([running], timeout=HELLO_DEADLINE)
            if self.role is None and not self._server.faults.hang and not self._server.faults.silent:
                reason = f"no hello within {HELLO_DEADLINE:g} s"
                await self.connection.close(_POLICY_VIOLATION, reason)
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def cut(self) -> None:
        await self.connection.close(_GOING_AWAY, "the media server stops")

    def report(self, states: Mapping[str, ReportedEntry]) -> None:
        """Tell what changed since the last report of this connection; everything at first."""
        delta = None if self._server.faults.silent else self._sender.update(states)
        if delta is not None:
            self.connection.notify("report", Report(delta=delta))

    def tick(self, load: Load) -> None:
        """Once a second."""
        if not self._server.faults.hang:
            self.connection.notify(HEARTBEAT, Empty())
        if self.role is not None:
            self.report(self._server.reported)
            self.connection.notify("load", load)

    # -- what the other side asks ---------------------------------------------------------------------

    async def _hello(self, hello: ControlHello) -> ServerHello:
        await self._server.awake.wait()
        if self.role is not None:
            raise RpcFailure(ERROR_NOT_ALLOWED, "hello was said already")
        self._check(hello)
        server = self._server
        operator = hello.role == "operator"
        server.bind(hello.cluster_uid, hello.cluster_name, hello.server_name if operator else "")
        self.role = hello.role
        if operator:
            server.highest_epoch = hello.epoch
            before = server.take_operator(self)
            if before is not None:
                reason = "replaced by a newer connection of an operator"
                server.spawn(before.connection.close(_GOING_AWAY, reason))
        answer = server.hello(self._nonce)
        asyncio.get_running_loop().call_soon(self.report, server.reported)
        if server.faults.bad_proof:
            return msgspec.structs.replace(answer, proof="0" * 64)
        return prove_acceptor(server.key, answer, hello.nonce)

    def _check(self, hello: ControlHello) -> None:
        """Raises RpcFailure, which closes the connection too, for whom is not to be answered."""
        server = self._server
        spoken = server.faults.control_protocol
        if hello.protocol_version != spoken:
            message = f"control protocol {hello.protocol_version} is not spoken here, {spoken} is"
            raise RpcFailure(ERROR_VERSION_SKEW, message, {"protocolVersion": spoken}, close=True)
        if hello.role == "peer":
            raise RpcFailure(ERROR_NOT_ALLOWED, "a peer dials /peer, not /control", close=True)
        try:
            verify_dialler(server.key, hello, self._nonce, self.connection.presented)
        except MembershipError as error:
            raise RpcFailure(ERROR_BAD_PROOF, str(error), close=True) from error
        if server.cluster_uid not in ("", hello.cluster_uid):
            data = {"clusterUid": server.cluster_uid, "clusterName": server.cluster_name}
            message = (
                f"this media server belongs to MediaCluster {server.cluster_name} (uid "
                f"{server.cluster_uid}), not to {hello.cluster_name} (uid {hello.cluster_uid}); "
                "to move it, restart it with --forget"
            )
            raise RpcFailure(ERROR_OTHER_CLUSTER, message, data, close=True)
        if hello.role == "operator":
            self._check_epoch(hello.epoch)

    def _check_epoch(self, epoch: int) -> None:
        highest = self._server.highest_epoch
        if epoch < highest:
            message = f"epoch {epoch} is over: a leader of epoch {highest} commands this media server"
            raise RpcFailure(ERROR_STALE_EPOCH, message, {"highestEpoch": highest}, close=True)
        self._server.highest_epoch = epoch

    async def _apply(self, apply: Apply) -> ApplyResult:
        await self._server.awake.wait()
        if self.role != "operator":
            what = "an observer may not apply" if self.role else "say hello first"
            raise RpcFailure(ERROR_NOT_ALLOWED, what)
        self._check_epoch(apply.epoch)
        if not self._server.commanded_by(self):
            message = "a newer connection of an operator has taken this one's place"
            data = {"highestEpoch": self._server.highest_epoch}
            raise RpcFailure(ERROR_STALE_EPOCH, message, data, close=True)
        try:
            self._receiver.apply(apply.delta)
        except ResyncNeededError:
            held = self._receiver
            return ApplyResult(revision=held.revision or 0, digest=held.digest, resync=True)
        except msgspec.DecodeError as error:
            self._receiver = Receiver(DesiredEntry)
            raise RpcFailure(frames.INVALID_PARAMS, f"apply: {error}") from error
        self._server.set_desired(self._receiver.entries)
        return ApplyResult(revision=apply.delta.revision, digest=self._receiver.digest)

    async def _resync(self, _: Empty) -> Empty:
        await self._server.awake.wait()
        self._check_greeted()
        self._sender.update(self._server.reported)
        self.connection.notify("report", Report(delta=self._sender.whole()))
        return Empty()

    async def _dump(self, _: Empty) -> Dump:
        await self._server.awake.wait()
        self._check_greeted()
        return self._server.dump()

    async def _tenants(self, _: Empty) -> TenantWorkers:
        await self._server.awake.wait()
        self._check_greeted()
        return TenantWorkers(workers=self._server.tenant_workers)

    def _check_greeted(self) -> None:
        if self.role is None:
            raise RpcFailure(ERROR_NOT_ALLOWED, "say hello first")
