"""Certificates as bytes: read, checked for what makes them useless, and made into OpenSSL contexts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from mediaserver.wire.errors import MembershipError

CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
"""The files, and the data keys of a Secret of type kubernetes.io/tls as cert-manager writes it."""

_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Material:
    """A certificate (with its chain, leaf first), its key and the CAs to trust: PEM, checked by ``read``."""

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes
    names: frozenset[str]
    """DNS names of the certificate."""
    not_before: float
    """Seconds since 1970, as ``not_after``."""
    not_after: float
    serial: int
    listens: bool
    """Whether its extended key usage allows to listen, too; to dial each allows."""

    @property
    def until(self) -> str:
        """RFC 3339."""
        return _written(self.not_after)


def read_directory(directory: Path, *, now: float) -> Material:
    """The three files of ``directory``. Raises MembershipError, which names the file and the remedy."""
    # Kubernetes exchanges all files of a volume at once by this link; so they are read of one moment.
    swapped = directory / "..data"
    source = swapped.resolve() if swapped.exists() else directory
    content: dict[str, bytes] = {}
    for name in (CERTIFICATE, KEY, AUTHORITIES):
        try:
            with (source / name).open("rb") as file:
                content[name] = file.read(_MAX_BYTES)
        except OSError as error:
            raise MembershipError(
                f"{directory / name} cannot be read ({error.strerror}): --tls-dir needs {CERTIFICATE}, {KEY} "
                f"and {AUTHORITIES}, as a Secret that cert-manager writes has them"
            ) from error
    return read(content, where=lambda name: str(directory / name), now=now)


def read(content: Mapping[str, bytes], *, where: Callable[[str], str], now: float) -> Material:
    """Check the three files, ``now`` in seconds since 1970; ``where`` says in errors what a file is called.

    Raises MembershipError: missing, not PEM, key of another certificate, not valid now, or not made for
    dialling (client auth).
    """
    for name in (CERTIFICATE, KEY, AUTHORITIES):
        if not content.get(name, b"").strip():
            raise MembershipError(
                f"{where(name)} is missing or empty: {CERTIFICATE}, {KEY} and {AUTHORITIES} are needed"
            )
    leaf = _certificates(content[CERTIFICATE], where(CERTIFICATE))[0]
    authorities = _certificates(content[AUTHORITIES], where(AUTHORITIES))
    _check_key(content[KEY], leaf, where)
    _check_time(leaf, where(CERTIFICATE), now)
    if all(authority.not_valid_after_utc.timestamp() <= now for authority in authorities):
        raise MembershipError(f"{where(AUTHORITIES)}: every CA in it has expired; renew it")
    usages = _usages(leaf)
    if not _allows(usages, ExtendedKeyUsageOID.CLIENT_AUTH):
        raise MembershipError(
            f"{where(CERTIFICATE)} is not made for client auth: have it made for that, too, since whoever "
            "dials shows one"
        )
    return Material(
        certificate=content[CERTIFICATE],
        key=content[KEY],
        authorities=content[AUTHORITIES],
        names=names_of(leaf),
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
        serial=leaf.serial_number,
        listens=_allows(usages, ExtendedKeyUsageOID.SERVER_AUTH),
    )


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """The DNS names (SAN) of a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(names.value.get_values_for_type(x509.DNSName))


def _certificates(content: bytes, file: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise MembershipError(
            f"{file} holds no certificates in PEM (-----BEGIN CERTIFICATE-----): convert or exchange it"
        ) from error


def _check_key(content: bytes, leaf: x509.Certificate, where: Callable[[str], str]) -> None:
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MembershipError(
            f"{where(KEY)} holds no usable private key in PEM, without a password: convert or exchange it"
        ) from error
    if _public(key.public_key()) != _public(leaf.public_key()):
        raise MembershipError(f"{where(KEY)} is not the key of {where(CERTIFICATE)}: exchange both, together")


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _check_time(leaf: x509.Certificate, file: str, now: float) -> None:
    begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    if now >= end:
        raise MembershipError(f"{file} has expired, on {_written(end)}: renew it")
    if now < begin:
        raise MembershipError(f"{file} is not valid before {_written(begin)}: check this machine's clock")


def _usages(leaf: x509.Certificate) -> frozenset[x509.ObjectIdentifier] | None:
    """None: any."""
    try:
        return frozenset(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return None


def _allows(usages: frozenset[x509.ObjectIdentifier] | None, wanted: x509.ObjectIdentifier) -> bool:
    return usages is None or wanted in usages


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def context_of(material: Material, *, server_side: bool) -> ssl.SSLContext:
    """A context that presents ``material``, wants a certificate of its CAs, and resumes no session.

    Raises MembershipError when OpenSSL does not take what was checked here.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    # Whatever is in ca.crt is trusted, also a CA that another one has certified.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if server_side:
        context.num_tickets = 0  # a resumed session would be checked against what was held before
    else:
        context.hostname_checks_common_name = False
    try:
        context.load_verify_locations(cadata=material.authorities.decode("ascii", "ignore"))
        _load_chain(context, material)
    except ssl.SSLError as error:
        raise MembershipError(
            f"OpenSSL does not take the certificate: {error.reason}: exchange it"
        ) from error
    return context


def _load_chain(context: ssl.SSLContext, material: Material) -> None:
    """OpenSSL reads from a file; this one lies in memory, so that no key is written to a disk."""
    handle = os.memfd_create("mafalda-tls", os.MFD_CLOEXEC)
    with os.fdopen(handle, "wb") as file:
        file.write(material.key.rstrip() + b"\n" + material.certificate)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{handle}")
