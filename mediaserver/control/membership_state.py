"""Which MediaCluster a media server belongs to, and the highest epoch that it has met.

A server belongs to the first MediaCluster UID that greets it and refuses every other one, until it is
started with `--forget`. With a state directory this outlives the process; without one it ends with it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

log = structlog.get_logger(__name__)

STATE_FILE = "membership.json"


class MembershipStateError(Exception):
    """The state directory can't be used; the message names it and the remedy."""


class OtherClusterError(Exception):
    """A MediaCluster greets a server that belongs to another one; the message names both."""


class StaleEpochError(Exception):
    """An operator whose leadership has been taken over; the message names both epochs."""


class Membership(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What is kept. Empty strings and 0: no MediaCluster has greeted yet."""

    cluster_uid: str = ""
    cluster_name: str = ""
    """`namespace/name` of the MediaCluster, for messages to humans."""
    server_name: str = ""
    """`namespace/name` of the MediaServer that the operator knows this process by."""
    highest_epoch: int = 0


class MembershipState:
    """The membership of this process, written to the state directory at each change if there is one."""

    def __init__(self, membership: Membership, path: Path | None) -> None:
        self._membership = self._kept = membership
        self._path = path
        self._writing = asyncio.Lock()

    @classmethod
    def load(cls, state_dir: Path | None, *, forget: bool) -> MembershipState:
        """Read what an earlier process kept, or with `forget` drop it. Makes the directory if need be.

        Raises MembershipStateError for a directory that can't be used and for a file that can't be read.
        """
        if state_dir is None:
            return cls(Membership(), None)
        path = state_dir / STATE_FILE
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            if forget:
                path.unlink(missing_ok=True)
            content = path.read_bytes() if path.exists() else None
            _write(path, content or b"{}")
        except OSError as error:
            raise MembershipStateError(
                f"--state-dir {state_dir} can't be used: {error.strerror or error}; "
                "name a directory that this process may write to"
            ) from error
        if not content:
            return cls(Membership(), path)
        try:
            membership = msgspec.json.decode(content, type=Membership)
        except msgspec.DecodeError as error:
            raise MembershipStateError(
                f"{path} is damaged ({error}); start once with --forget to begin anew"
            ) from error
        log.info("belongs to a MediaCluster", cluster=membership.cluster_name, uid=membership.cluster_uid)
        return cls(membership, path)

    @property
    def current(self) -> Membership:
        return self._membership

    def check_cluster(self, uid: str, name: str) -> None:
        """Raises OtherClusterError if this server belongs to a MediaCluster of another UID."""
        own = self._membership
        if own.cluster_uid and own.cluster_uid != uid:
            raise OtherClusterError(
                f"this media server belongs to MediaCluster {own.cluster_name} (uid {own.cluster_uid}), "
                f"not to {name} (uid {uid}); to move it, restart it with --forget"
            )

    def check_epoch(self, epoch: int) -> None:
        """Raises StaleEpochError if a leader of a higher epoch has been here."""
        highest = self._membership.highest_epoch
        if epoch < highest:
            raise StaleEpochError(
                f"epoch {epoch} is over: a leader of epoch {highest} commands this media server; "
                "take the Lease anew with an epoch above that"
            )

    async def greet(self, *, uid: str, name: str, server_name: str) -> None:
        """Note the MediaCluster that greets, binding the server to it if it is the first.

        Raises OtherClusterError, and MembershipStateError if the binding can't be kept.
        """
        self.check_cluster(uid, name)
        await self._change(
            lambda now: msgspec.structs.replace(
                now, cluster_uid=uid, cluster_name=name, server_name=server_name or now.server_name
            )
        )

    async def meet_epoch(self, epoch: int) -> None:
        """Note an operator's epoch. Raises StaleEpochError and MembershipStateError."""
        self.check_epoch(epoch)
        await self._change(lambda now: msgspec.structs.replace(now, highest_epoch=epoch))

    async def _change(self, change: Callable[[Membership], Membership]) -> None:
        """Apply a change in memory at once; return when it is on disk, if there is one."""
        self._membership = change(self._membership)
        if self._path is None:
            return
        async with self._writing:
            membership = self._membership
            if membership == self._kept:
                return
            try:
                await asyncio.to_thread(_write, self._path, msgspec.json.encode(membership))
            except OSError as error:
                raise MembershipStateError(f"{self._path} can't be written: {error}") from error
            self._kept = membership


def _write(path: Path, content: bytes) -> None:
    """Replace the file's content as a whole, so that a crash leaves the old or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
