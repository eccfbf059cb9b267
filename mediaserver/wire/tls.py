"""TLS both ways between the members of MediaClusters: certificates that are read, followed and checked.

Who a process is, is told by the DNS names (SAN) of its certificate, which only members can have, since only
they get certificates of the CA. Both sides of every connection present one.

| role | name |
| --- | --- |
| operator | operator.mafalda.internal |
| gateway | gateway.mafalda.internal |
| media server | CLUSTER.NAMESPACE.media-server.mafalda.internal |

A listener's context stays the same for good; each handshake takes the certificate and the CA that are held at
that moment, and connections that are up are left alone.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import structlog
from aiohttp import ClientError, ServerDisconnectedError

from mediaserver.wire.certificates import (
    Material,
    context_of,
    read_directory,
)
from mediaserver.wire.errors import MembershipError, NoCertificateError
from mediaserver.wire.membership import ClusterKey, Credential, Dial, Statement

DOMAIN = "mafalda.internal"
OPERATOR_NAME = f"operator.{DOMAIN}"
GATEWAY_NAME = f"gateway.{DOMAIN}"
MEDIA_SERVER_SUFFIX = f".media-server.{DOMAIN}"

LOOK_SECONDS = 10.0
"""Between two looks at the files."""
SOON_SECONDS = 7 * 86400.0
"""A certificate that ends in less than this is warned of."""
_TOLD_SECONDS = 60.0
"""A failed handshake for the same reason is logged once in so long."""

TlsRole = Literal["operator", "gateway", "media-server", "observer"]

log = structlog.get_logger(__name__)


def media_server_name(namespace: str, cluster: str) -> str:
    """What the certificates of a MediaCluster's media servers are for."""
    return f"{cluster}.{namespace}{MEDIA_SERVER_SUFFIX}"


class Certificates:
    """A Credential: the certificate, key and CA of this process, which ``put`` exchanges."""

    def __init__(self, material: Material | None = None, *, lacking: str = "there is no certificate") -> None:
        """``lacking`` says why there is none yet, and what to do."""
        self._lacking = lacking
        self._material: Material | None = None
        self._accepting: ssl.SSLContext | None = None
        self._dialling: ssl.SSLContext | None = None
        self._listening: ssl.SSLContext | None = None
        if material is not None:
            self.put(material)

    @property
    def material(self) -> Material | None:
        """What is presented now."""
        return self._material

    def put(self, material: Material) -> None:
        """Use this from the next handshake on. Raises MembershipError when OpenSSL does not take it."""
        accepting, dialling = (context_of(material, server_side=side) for side in (True, False))
        accepting.sslobject_class = _Telling
        self._material, self._accepting, self._dialling = material, accepting, dialling

    def lacks(self, why: str) -> None:
        """Why there is still no certificate, for the errors of those who want to dial."""
        self._lacking = why

    # -- as a Credential --------------------------------------------------------------------------------

    @property
    def peer_name(self) -> str:
        held = self._material
        return next((name for name in held.names if name.endswith(MEDIA_SERVER_SUFFIX)), "") if held else ""

    def listening(self) -> ssl.SSLContext:
        if self._accepting is None:
            raise NoCertificateError(self._lacking)
        if self._listening is None:
            listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            listening.minimum_version = ssl.TLSVersion.TLSv1_3
            listening.verify_mode = ssl.CERT_REQUIRED
            listening.num_tickets = 0  # a resumed session would be checked against what was held before
            listening.sslobject_class = _Telling
            # Called for each handshake, also when no server name is asked for.
            listening.sni_callback = self._choose
            self._listening = listening
        return self._listening

    def dial(self, server_name: str) -> Dial:
        if self._dialling is None:
            raise NoCertificateError(self._lacking)
        return Dial(self._dialling, server_name)

    def prove(self, statement: Statement) -> str:
        return ""

    def check(
        self,
        claimed: str,
        statement: Statement,
        presented: Collection[str] | None,
        allowed: Collection[str] | None,
    ) -> None:
        if presented is None:
            raise MembershipError(
                "the other side presents no certificate: give both sides a --tls-dir, or both the same "
                "--cluster-key-file"
            )
        if allowed is not None:
            self.admit(presented, allowed)

    def admit(self, presented: Collection[str] | None, allowed: Collection[str]) -> None:
        names = set(presented or ())
        if not names & set(allowed):
            raise MembershipError(
                f"the certificate is for {_listed(names)}, but only {_listed(allowed, 'or')} may do this: "
                "give each role the certificate that is for it"
            )

    async def follow(self) -> None:
        """Whoever has ``put`` them renews them."""
        await asyncio.get_running_loop().create_future()

    def _choose(self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        if self._accepting is not None:
            handshake.context = self._accepting

    def __repr__(self) -> str:
        return f"Certificates({_listed(self._material.names) if self._material else 'none'})"


class CertificateFiles(Certificates):
    """Certificates of a directory: tls.crt, tls.key and ca.crt, as a Secret of kubernetes.io/tls has them."""

    def __init__(self, directory: Path, role: TlsRole, *, look: float | None = None) -> None:
        """``look``: seconds between two looks. Raises MembershipError: the file and the remedy."""
        self._directory, self._role = directory, role
        self._look = LOOK_SECONDS if look is None else look
        self._stamp = _stamp(directory)
        super().__init__(self._read())

    async def follow(self) -> None:
        """Look at the files every few seconds. What cannot be used is logged, and what was there is kept."""
        reported = ""
        while True:
            await asyncio.sleep(self._look)
            stamp = await asyncio.to_thread(_stamp, self._directory)
            if stamp != self._stamp or reported:
                reported = await self._renew(stamp, reported)
            else:
                self._tell_end()

    async def _renew(self, stamp: object, reported: str) -> str:
        """Take what is in the directory; the problem, logged once, that keeps from it."""
        try:
            material = await asyncio.to_thread(self._read)
            self.put(material)
        except MembershipError as error:
            if str(error) != reported:
                log.error("new certificate not used; the old one stays in use", reason=str(error))
            return str(error)
        self._stamp = stamp
        log.info("certificate read", names=sorted(material.names), until=material.until)
        return ""

    def _read(self) -> Material:
        material = read_directory(self._directory, now=time.time())
        check_role(material, self._role, self._directory / "tls.crt")
        if material.not_after - time.time() < SOON_SECONDS:
            log.warning("certificate ends soon", file=str(self._directory / "tls.crt"), until=material.until)
        return material

    def _tell_end(self) -> None:
        held = self.material
        if held is not None and 0 <= time.time() - held.not_after < self._look:
            log.error("certificate has expired; others refuse it", file=str(self._directory / "tls.crt"))


def load_credential(
    key_file: Path | None, tls_dir: Path | None, role: TlsRole
) -> ClusterKey | CertificateFiles:
    """What --cluster-key-file or --tls-dir names. Raises MembershipError unless it is one of them."""
    if key_file is not None and tls_dir is not None:
        raise MembershipError("--cluster-key-file and --tls-dir exclude each other: give one of them")
    if key_file is not None:
        return ClusterKey.load(key_file)
    if tls_dir is not None:
        return CertificateFiles(tls_dir, role)
    raise MembershipError(
        "give --cluster-key-file FILE (a shared secret), or --tls-dir DIR with tls.crt, tls.key and ca.crt"
    )


def check_role(material: Material, role: TlsRole, file: Path | str) -> None:
    """Raises MembershipError unless the certificate is one for that role."""
    names = material.names
    servers = [name for name in names if name.endswith(MEDIA_SERVER_SUFFIX)]
    if role == "media-server":
        if not servers:
            wanted = media_server_name("NAMESPACE", "CLUSTER")
            raise _not_for(file, names, f"a media server of a MediaCluster needs {wanted}")
        if len(servers) > 1:
            raise _not_for(file, names, "a media server belongs to one MediaCluster only")
        if not material.listens:
            raise MembershipError(
                f"{file} is not made for server auth: have it made for server auth and client auth, since a "
                "media server is dialled and dials"
            )
        return
    allowed = {"operator": [OPERATOR_NAME], "gateway": [GATEWAY_NAME]}.get(
        role, [OPERATOR_NAME, GATEWAY_NAME]
    )
    if not names & set(allowed):
        raise _not_for(file, names, f"this process needs {_listed(allowed, 'or')}")


def _not_for(file: Path | str, names: Collection[str], why: str) -> MembershipError:
    return MembershipError(
        f"{file} is for {_listed(names)}, but {why}: have a certificate made with that DNS name (SAN)"
    )


def _listed(names: Collection[str], joint: str = "and") -> str:
    return f" {joint} ".join(sorted(names)) or "no DNS name"


# -- what the other side presents -------------------------------------------------------------------------


class HasExtraInfo(Protocol):
    """A request, a WebSocket or a transport."""

    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


def presented(connection: HasExtraInfo) -> frozenset[str] | None:
    """The DNS names of the verified certificate of the other side; None on a connection without TLS."""
    secured = connection.get_extra_info("ssl_object")
    if secured is None:
        return None
    certificate = cast(Mapping[str, Any], secured.getpeercert() or {})
    return frozenset(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")


# -- what goes wrong --------------------------------------------------------------------------------------

_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"})
_NOT_YET_VALID, _EXPIRED, _PURPOSE, _HOSTNAME, _ADDRESS = 9, 10, 26, 62, 64
"""X509_V_ERR_… of openssl/x509_vfy.h."""
_UNKNOWN_CA = frozenset({2, 18, 19, 20, 21})


def dial_problem(error: BaseException, dial: Dial) -> str | None:
    """Why a dial failed, when TLS is why or may be: what to do, in words that stay the same each time."""
    cause = _tls_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted here: {_verification(cause, dial.server_name)}"
    if isinstance(error, ServerDisconnectedError) and dial.context is not None:
        return (
            "it closes the connection after the TLS handshake, as one does that does not accept this side's "
            "certificate: is that of a CA in the other's ca.crt, and not expired? The other's log says why"
        )
    if cause is None:
        return None
    if cause.reason in _NOT_TLS:
        return (
            "it does not speak TLS, but this side has a --tls-dir: give both sides a --tls-dir, or both the "
            "same --cluster-key-file"
        )
    return f"TLS fails: {cause.reason or 'the connection was cut'}"


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """OpenSSL's own error; aiohttp's, which are of its kind too, lack its codes."""
    while error is not None and (isinstance(error, ClientError) or not isinstance(error, ssl.SSLError)):
        error = error.__cause__
    return error


def _verification(error: ssl.SSLCertVerificationError, server_name: str | None = None) -> str:
    code = error.verify_code
    if code in (_HOSTNAME, _ADDRESS):
        return (
            f"it is not for {server_name}: is this the right address, and is that the name (or the one in "
            "spec.endpoint.serverName) that its certificate has?"
        )
    if code in _UNKNOWN_CA:
        return "it is of a CA that is not in this side's ca.crt: give both sides certificates of one CA"
    if code == _EXPIRED:
        return "it, or its CA's, has expired: renew it (and check both clocks)"
    if code == _NOT_YET_VALID:
        return "it is not valid yet: check the clocks of both sides"
    if code == _PURPOSE:
        return "its extended key usage does not allow this: make it for server auth and client auth"
    return error.verify_message


class _Telling(ssl.SSLObject):
    """A handshake that says why it fails: asyncio only tells that when it debugs."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            refused(_refusal(error))
            raise


def _refusal(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the dialler's certificate is not accepted: {_verification(error)}"
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the dialler presents no certificate: give it a --tls-dir"
    if error.reason in _NOT_TLS:
        return (
            "the dialler does not speak TLS, but this side has a --tls-dir: give both sides a --tls-dir, or "
            "both the same --cluster-key-file"
        )
    reason = error.reason or "the connection was cut"
    if reason.endswith("ALERT_UNKNOWN_CA"):
        return "the dialler's ca.crt lacks the CA of this side's certificate: have both made by one CA"
    if "ALERT" in reason:
        return f"the dialler does not accept this side's certificate ({reason}); its log says why"
    return f"TLS fails: {reason}"


class _Refusals:
    """Logs each reason once in a while, so that a stranger who dials on and on fills no disk."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def tell(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._told.get(reason, -_TOLD_SECONDS) < _TOLD_SECONDS:
            return
        if len(self._told) > 100:
            self._told.clear()
        self._told[reason] = now
        log.warning("a connection was refused by TLS", reason=reason)


_refusals = _Refusals()


def refused(reason: str) -> None:
    """Log that a connection to this side did not come about, for a reason of TLS."""
    _refusals.tell(reason)


def _stamp(directory: Path) -> object:
    """What changes when a file does, also by exchange of a link, as Kubernetes does it."""
    found: list[tuple[int, int, int] | None] = []
    for name in ("tls.crt", "tls.key", "ca.crt"):
        try:
            status = (directory / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


__all__ = [
    "GATEWAY_NAME",
    "OPERATOR_NAME",
    "CertificateFiles",
    "Certificates",
    "Credential",
    "load_credential",
    "media_server_name",
    "presented",
]
