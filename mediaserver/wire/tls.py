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

from mediaserver.wire.certificates import (
    Material,
    context_of,
    read_directory,
)
from mediaserver.wire.errors import MembershipError, NoCertificateError
from mediaserver.wire.handshakes import TellingHandshake
from mediaserver.wire.membership import ClusterKey, Credential, Dial, Statement

DOMAIN = "mafalda.internal"
OPERATOR_NAME = f"operator.{DOMAIN}"
GATEWAY_NAME = f"gateway.{DOMAIN}"
MEDIA_SERVER_SUFFIX = f".media-server.{DOMAIN}"

LOOK_SECONDS = 10.0
"""Between two looks at the files."""
SOON_SECONDS = 7 * 86400.0
"""A certificate that ends in less than this is warned of."""

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
        accepting.sslobject_class = TellingHandshake
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
            listening.sslobject_class = TellingHandshake
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
