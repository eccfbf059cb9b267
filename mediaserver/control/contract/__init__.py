"""The contract between the operator (and observers) and a media server: `/control`.

JSON-RPC 2.0 over WebSocket. The server opens with a ``challenge`` notification; the dialling side answers
with a ``hello`` request that proves membership of the MediaCluster. Then an operator sends ``apply``
requests, the server sends ``report`` and ``load`` notifications to whoever is connected.

| method | direction | params | result |
| --- | --- | --- | --- |
| challenge | server to dialler, notification | Challenge | |
| hello | dialler to server | ControlHello | ServerHello |
| apply | operator to server | Apply | ApplyResult |
| resync | either to the other | Empty | Empty; the whole map follows (`apply` with base null, or `report`) |
| report | server to dialler, notification | Report | |
| load | server to dialler, notification, every second | Load | |
| dump | either role to server | Empty | Dump: every worker object that exists, from the workers themselves |
| tenants | either role to server | Empty | TenantWorkers: the workers that run here for applications |

Both sides of the greeting are in ``contract.greeting``. Field names are camelCase on the wire. Unknown
fields are ignored. Durations are seconds (float).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mediaserver.wire.replica import Delta

CONTROL_PROTOCOL = 1
"""Raised when a message changes so that an older side would misread it."""

PIPE_PROTOCOL = 1
"""Raised only when pipes between worker versions stop to interwork (pipes.md in docs/)."""

CONTROL_PATH = "/control"
PEER_PATH = "/peer"

Role = Literal["operator", "observer", "peer"]


class WireStruct(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Base of every message here."""


class Empty(WireStruct, frozen=True):
    """No parameters, or no result."""


# -- greeting -------------------------------------------------------------------------------------------


class Challenge(WireStruct, frozen=True):
    nonce: str
    """Random, 32 bytes as hexadecimal; proofs are made over it (mediaserver.wire.membership)."""


class ControlHello(WireStruct, frozen=True):
    protocol_version: int
    role: Role
    cluster_uid: str
    cluster_name: str
    """`namespace/name` of the MediaCluster, for messages to humans."""
    server_name: str
    """`namespace/name` of the MediaServer that the dialler believes it talks to."""
    nonce: str
    proof: str
    epoch: int = 0
    """Of the leadership; 0 for an observer."""


class Address(WireStruct, frozen=True):
    host: str
    port: int


class PortRange(WireStruct, frozen=True):
    host: str
    port: int
    end_port: int


CANNOT_LISTEN = "cannot listen on"
"""In the reason of a worker whose port for participants' media is taken."""


class WorkerState(WireStruct, frozen=True, tag="worker"):
    slot: int
    state: Literal["Running", "Starting", "Failing"]
    restarts: int = 0
    reason: str = ""


class TenantOffer(WireStruct, frozen=True):
    """What a server that runs workers for applications (Remote Mediasoup) holds for them."""

    versions: list[str]
    """Versions of mediasoup whose workers it has."""
    cores: int
    """Cores of the server, which sessions and tenants share."""


class ServerHello(WireStruct, frozen=True):
    protocol_version: int
    cluster_uid: str
    instance_id: str
    """New at each process start."""
    highest_epoch: int
    version: str
    worker_version: str
    pipe_protocol: int
    workers: list[WorkerState]
    control: Address
    peer: Address
    participants: Address
    client: PortRange
    """Where participants' media arrives: first announced address; slot n listens on UDP and TCP port + n."""
    pipe: PortRange
    nonce: str
    proof: str
    zone: str = ""
    sends_away: bool = False
    """It does as ``RouterEntry.leaving`` says; older servers don't know it."""
    tenants: TenantOffer | None = None
    """None: it runs no workers for applications."""
    client_addresses: list[str] = []
    """All addresses that participants are told, in order; the first is `client.host`."""


# -- desired state --------------------------------------------------------------------------------------


class WorkerTokens(WireStruct, frozen=True):
    """Whose tokens admit applications' workers: those of the key sets with ``workers: true``."""

    issuers: list[str]
    """Accepted `iss` claims: the MediaCluster's UID and names."""
    keys: dict[str, str]
    """kid to key, base64. Kept in memory; never logged, never reported."""
    revoked: list[str] = []
    """`jti` of tokens that count no more, sorted."""


class SettingsEntry(WireStruct, frozen=True, tag="settings"):
    """What holds for the whole server. Key: ``settings``."""

    prune_delay: float = 10.0
    silence_timeout: float = 3.0
    worker_tokens: WorkerTokens | None = None
    """None: no application is admitted."""


class SessionEntry(WireStruct, frozen=True, tag="session"):
    """Key: ``session/<namespace>/<name>``."""

    namespace: str
    name: str
    uid: str
    issuers: list[str]
    """Accepted `iss` claims: the MediaCluster's UID and name."""
    token_keys: dict[str, str]
    """kid to key, base64. Kept in memory; never logged, never reported."""


class RouterEntry(WireStruct, frozen=True, tag="router"):
    """Key: ``router/<namespace>/<name>``."""

    namespace: str
    name: str
    uid: str
    session: str
    """Name of the MediaSession, in the same namespace."""
    session_uid: str
    worker_slot: int
    media_codecs: list[dict[str, Any]]
    """RtpCodecCapability objects as mediasoup takes them, the same for every router of the session."""
    leaving: bool = False
    """The session has a ready router elsewhere: its participants here are asked to attach there."""


class LinkEntry(WireStruct, frozen=True, tag="link"):
    """One edge, as this server sees it. Key: ``link/<namespace>/<from>/<to>``, names ordered."""

    namespace: str
    session_uid: str
    local_router: str
    remote_router: str
    remote_server: str
    """`namespace/name` of the other router's MediaServer; this server's own for a link inside it."""
    remote_peer: Address | None
    """Where its `/peer` listens; None when both routers are on this server."""
    srtp: bool
    rtx: bool


DesiredEntry = SettingsEntry | SessionEntry | RouterEntry | LinkEntry


def router_key(namespace: str, name: str) -> str:
    return f"router/{namespace}/{name}"


def session_key(namespace: str, name: str) -> str:
    return f"session/{namespace}/{name}"


def link_key(namespace: str, router: str, other: str) -> str:
    first, second = sorted((router, other))
    return f"link/{namespace}/{first}/{second}"


def worker_key(slot: int) -> str:
    return f"worker/{slot}"


LEAVING_KEY = "leaving"

SETTINGS_KEY = "settings"


class Apply(WireStruct, frozen=True):
    epoch: int
    delta: Delta
    """Of DesiredEntry."""


class ApplyResult(WireStruct, frozen=True):
    revision: int
    digest: str
    resync: bool = False
    """The delta did not fit; send the whole map."""


# -- reported state -------------------------------------------------------------------------------------


class RouterState(WireStruct, frozen=True, tag="router"):
    namespace: str
    name: str
    session_uid: str
    worker_slot: int
    ready: bool
    id: str = ""
    """mediasoup's router id, once it exists."""
    reason: str = ""
    message: str = ""
    leaving: bool = False
    """Its participants are being sent elsewhere: no new ones come here while another router is ready."""
    vacant: bool = False
    """It is leaving, and nobody is attached to it any more."""


class LinkState(WireStruct, frozen=True, tag="link"):
    """This server's end of a link."""

    namespace: str
    local_router: str
    remote_router: str
    ready: bool
    reason: str = ""
    """One word when not ready: Opening, PeerUnreachable, PipeProtocol, NoPorts, MediaStalled, Failed."""
    message: str = ""


class LeavingState(WireStruct, frozen=True, tag="leaving"):
    """The server was told to end and does so once it is empty. Key: ``leaving``; absent otherwise."""

    reason: str
    """For people, such as `SIGTERM`."""
    deadline: float
    """Seconds from its beginning after which it ends in any case."""


ReportedEntry = WorkerState | RouterState | LinkState | LeavingState


class Report(WireStruct, frozen=True):
    delta: Delta
    """Of ReportedEntry."""


class WorkerLoad(WireStruct, frozen=True):
    slot: int
    cpu: float
    """Cores used over the last second, 0 to 1."""
    routers: int
    producers: int
    consumers: int


class RouterLoad(WireStruct, frozen=True):
    participants: int
    producers: int
    consumers: int


class PeerAge(WireStruct, frozen=True):
    server: str
    """`namespace/name`."""
    instance_id: str
    age: float
    """Seconds since anything was last heard from it."""


class TenantLoad(WireStruct, frozen=True):
    """The workers that run here for applications, all together."""

    workers: int
    free: int
    """How many more would be taken now."""
    cpu: float
    """Cores used over the last second."""
    by_token: dict[str, int] = {}
    """How many workers each token (by its `jti`) has here."""


class Load(WireStruct, frozen=True):
    """Live figures; they never enter a custom resource."""

    workers: list[WorkerLoad]
    routers: dict[str, RouterLoad]
    """By router key."""
    peers: list[PeerAge]
    free_pipe_ports: int
    tenants: TenantLoad | None = None
    """None: the server runs no workers for applications."""


class Dump(WireStruct, frozen=True):
    """What exists in the workers, read from the workers' own dumps: for audits and leak checks."""

    workers: list[dict[str, Any]]
    """By slot: {slot, pid, routers: [{id, name, transports: [..], producers: [..], consumers: [..]}]}."""


class TenantWorker(WireStruct, frozen=True):
    """One worker that runs for an application."""

    id: str
    subject: str
    """`sub` of the token that it was made with."""
    token: str
    """That token's `jti`."""
    version: str
    """The worker's version of mediasoup."""
    pid: int
    attached: bool
    """Whether its application is connected; False while a lost connection may still come back."""
    age: float
    """Seconds since it was started."""
    cpu: float
    """Cores used over the last second."""
    memory: int
    """Resident bytes."""
    consumers: int
    transports: int


class TenantWorkers(WireStruct, frozen=True):
    workers: list[TenantWorker]


# -- errors (JSON-RPC error codes) ----------------------------------------------------------------------

ERROR_BAD_PROOF = 4401
ERROR_OTHER_CLUSTER = 4403
ERROR_VERSION_SKEW = 4426
ERROR_STALE_EPOCH = 4409
ERROR_NOT_ALLOWED = 4405
"""An observer sent an operator's request."""
