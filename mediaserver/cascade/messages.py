"""What two media servers say to each other on `/peer` (JSON-RPC 2.0 over WebSocket, mediaserver.wire.rpc).

The server whose `namespace/name` is the smaller one dials. The acceptor opens with a ``challenge``
notification, the dialler answers with a ``hello`` request that proves membership of the MediaCluster.

| method | direction | params | result |
| --- | --- | --- | --- |
| challenge | acceptor to dialler, notification | Challenge (of the control contract) | |
| hello | dialler to acceptor | PeerHello | PeerWelcome |
| pipe.open | owner of the smaller router name to the other | OpenPipe | PipeOpened |
| pipe.resume | the same | ResumePipe | Empty; error ERROR_NO_SUCH_PIPE when the far end has no such pair |
| pipe.wanted | the other to the initiator, notification: its end of the link is there now | WantPipe | |
| pipe.close | either, notification | ClosePipe | |
| pipe.counters | either, notification, every second while the pair stands | PipeCounters | |
| routes | either, notification | Routes: messages of the two routers' route tables, in order | |

Names of routers are those of their MediaRouter objects; a link joins two of one namespace. Field names
are camelCase on the wire and unknown fields are ignored.
"""

from __future__ import annotations

from typing import Any, Literal, NewType

from mediaserver.control.contract import WireStruct
from mediaserver.mediasoup import RtpParameters, SrtpParameters

PEER_PROTOCOL = 1
"""Raised when a message here changes so that an older server would misread it."""

ERROR_NOT_READY = 4503
"""The router, or this server's membership, is not there (yet): worth another try."""
ERROR_NO_SUCH_PIPE = 4404
"""The far end does not have the pipe pair that was named (any more)."""
ERROR_WRONG_SERVER = 4421
"""The dialler meant another server than the one it reached."""
ERROR_NO_PORTS = 4507
"""No free port in the far end's pipe range."""
ERROR_PIPE_PROTOCOL = 4508
"""The far end's pipe protocol number differs."""
ERROR_PIPE_FAILED = 4500
"""The far end could not create or connect its pipe transport; the message says why."""

RouterName = NewType("RouterName", str)
"""Name of a MediaRouter; unique among the routers of its session (and namespace)."""
Path = tuple[RouterName, ...]
"""Routers from the next one to the origin, both included; empty at the origin itself."""


# -- greeting -------------------------------------------------------------------------------------------


class PeerHello(WireStruct, frozen=True):
    protocol_version: int
    pipe_protocol: int
    cluster_uid: str
    from_server: str
    """`namespace/name` of the dialling MediaServer."""
    to_server: str
    """`namespace/name` of the MediaServer that it means to reach."""
    instance_id: str
    nonce: str
    proof: str


class PeerWelcome(WireStruct, frozen=True):
    protocol_version: int
    pipe_protocol: int
    instance_id: str
    proof: str


# -- pipe pairs -----------------------------------------------------------------------------------------


class LinkName(WireStruct, frozen=True):
    """The unordered pair of routers that a link joins: `first` < `second`."""

    namespace: str
    first: RouterName
    second: RouterName


class PipeRef(WireStruct, frozen=True):
    """One pipe pair of a link. A later attempt of the same opener supersedes an earlier one."""

    opener: str
    """mediasoup's id of the initiator's router: new whenever that router is made anew."""
    attempt: int


class PipeAddress(WireStruct, frozen=True):
    ip: str
    port: int
    srtp_parameters: SrtpParameters | None = None
    """With a 44-byte key of AEAD_AES_256_GCM; never logged."""


class OpenPipe(WireStruct, frozen=True):
    link: LinkName
    pipe: PipeRef
    address: PipeAddress
    srtp: bool
    rtx: bool


class PipeOpened(WireStruct, frozen=True):
    address: PipeAddress


class ResumePipe(WireStruct, frozen=True):
    link: LinkName
    pipe: PipeRef


class WantPipe(WireStruct, frozen=True):
    link: LinkName


class ClosePipe(WireStruct, frozen=True):
    link: LinkName
    pipe: PipeRef
    reason: str


class PipeCounters(WireStruct, frozen=True):
    """RTP bytes since the pair was made, as the sender's own transport counts them."""

    link: LinkName
    pipe: PipeRef
    sent: int
    received: int


# -- what a session's routers know ----------------------------------------------------------------------


class EntryKey(WireStruct, frozen=True):
    """Identity of something announced; never used again once it has ended."""

    kind: Literal["producer", "participant"]
    id: str
    """The producer's id, or the participant's attachment."""


class ParticipantInfo(WireStruct, frozen=True, tag="participant"):
    """One attachment of a participant to a router of the session."""

    peer_id: str
    attachment: str
    """New for each join, unique in the session."""
    joined_at: int
    """Wall time in ms; the newest attachment of a peer is the one that counts."""
    server: str
    """`namespace/name` of the MediaServer."""
    router: str
    display_name: str = ""
    device: dict[str, Any] = {}
    moved: bool = False
    """It takes the place of an older attachment that was asked to move and goes on for a moment."""
    version: int = 0

    @property
    def key(self) -> EntryKey:
        return EntryKey(kind="participant", id=self.attachment)


class ProducerInfo(WireStruct, frozen=True, tag="producer"):
    """A producer of the session, as its origin describes it."""

    id: str
    kind: Literal["audio", "video"]
    peer_id: str
    source: str
    """Stable name of what is produced, such as `camera`; survives a new attachment of its owner."""
    router: str
    """The origin: the router that its owner sends to."""
    app_data: dict[str, Any] = {}
    paused: bool = False
    score: list[int] = []
    """0 to 10 for each stream that the origin receives."""
    version: int = 0

    @property
    def key(self) -> EntryKey:
        return EntryKey(kind="producer", id=self.id)


Entry = ParticipantInfo | ProducerInfo


# -- route messages -------------------------------------------------------------------------------------


class StandingJoin(WireStruct, frozen=True):
    producer: str
    join: int
    serve: int
    """The serve that the sender produces from; 0 when there is none."""


class RefreshStart(WireStruct, frozen=True, tag="refreshStart"):
    """The sender's whole table follows, ended by RefreshEnd: what is not in it is withdrawn.

    ``joins`` are the producers that the sender has joined over this link and still wants.
    """

    joins: list[StandingJoin] = []


class RefreshEnd(WireStruct, frozen=True, tag="refreshEnd"):
    pass


class Announce(WireStruct, frozen=True, tag="announce"):
    """The sender knows ``entry`` by ``path``, which begins with the sender and ends with the origin."""

    entry: Entry
    path: list[RouterName]


class Update(WireStruct, frozen=True, tag="update"):
    """``entry`` in a newer version."""

    entry: Entry


class Withdraw(WireStruct, frozen=True, tag="withdraw"):
    """The sender has no path for this receiver any more; another neighbour may."""

    key: EntryKey


class Ended(WireStruct, frozen=True, tag="ended"):
    """The origin ended it: no path to it is true any more, and none will be again."""

    key: EntryKey


class Join(WireStruct, frozen=True, tag="join"):
    """The sender wants the producer over this link until it says Leave with the same number."""

    producer: str
    join: int


class Leave(WireStruct, frozen=True, tag="leave"):
    producer: str
    join: int


class Piped(WireStruct, frozen=True, tag="piped"):
    """The sender consumes the producer on its pipe transport: produce it with the same id."""

    producer: str
    join: int
    serve: int
    kind: Literal["audio", "video"]
    rtp_parameters: RtpParameters
    paused: bool


class Produced(WireStruct, frozen=True, tag="produced"):
    """The receiver of Piped produces it now; packets may come."""

    producer: str
    join: int
    serve: int


class Unpiped(WireStruct, frozen=True, tag="unpiped"):
    """The sender's pipe consumer is gone; the join stays and is served again when possible."""

    producer: str
    join: int
    serve: int


class Paused(WireStruct, frozen=True, tag="paused"):
    producer: str
    join: int
    serve: int
    paused: bool


class Refused(WireStruct, frozen=True, tag="refused"):
    """The join could not be served and is forgotten; try again later."""

    producer: str
    join: int
    reason: str


RouteMessage = (
    RefreshStart
    | RefreshEnd
    | Announce
    | Update
    | Withdraw
    | Ended
    | Join
    | Leave
    | Piped
    | Produced
    | Unpiped
    | Paused
    | Refused
)


class Routes(WireStruct, frozen=True):
    """Valid only while both ends have the pair ``pipe``; for any other the receiver ignores it."""

    link: LinkName
    pipe: PipeRef
    messages: list[RouteMessage]
