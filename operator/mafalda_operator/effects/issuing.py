"""Making certificates, and reading what Secrets hold of them. Keys are ECDSA P-256."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mafalda_operator.planning.certificates import AUTHORITY_SECONDS, Authority, AuthorityView, LeafView
from mediaserver.wire.certificates import AUTHORITIES, CERTIFICATE, KEY, Material, names_of, read
from mediaserver.wire.errors import MembershipError

NEXT_CERTIFICATE, NEXT_KEY = "next.crt", "next.key"
"""In the CA's Secret: what signs next."""
PROMOTED = "mafalda.io/promoted"
"""Annotation of the CA's Secret: when the CA in it took over, RFC 3339."""

BACKDATED = 300.0
"""Seconds that a certificate is valid before it is made, for clocks that are behind."""

Content = Mapping[str, bytes]
"""Decoded data of a Secret."""


@dataclass(frozen=True)
class CertificateAuthority:
    """The CA as its Secret has it; ``content`` is the Secret's data."""

    view: AuthorityView
    content: Content = field(repr=False)

    @property
    def bundle(self) -> bytes:
        """Every CA that is to be trusted, in PEM."""
        return self.content[AUTHORITIES]


def read_authority(content: Content, promoted: str = "") -> CertificateAuthority:
    """From a Secret's data and its annotation. Raises MembershipError, which says what is wrong with it."""
    signing = _authority(content, CERTIFICATE, KEY)
    following = _authority(content, NEXT_CERTIFICATE, NEXT_KEY) if content.get(NEXT_CERTIFICATE) else None
    own = [certificate for certificate in (signing, following) if certificate is not None]
    try:
        listed = x509.load_pem_x509_certificates(content.get(AUTHORITIES) or b"")
    except ValueError:
        listed = []  # a CA given without it, or spoiled: its own certificates are enough
    trusted = {_ident(certificate): certificate for certificate in [*own, *listed]}
    view = AuthorityView(
        signing=_as_authority(signing),
        next=_as_authority(following) if following is not None else None,
        trusted=tuple(_as_authority(certificate) for certificate in trusted.values()),
        promoted=_seconds(promoted),
    )
    return CertificateAuthority(view, {**content, AUTHORITIES: _bundle(trusted.values())})


def _authority(content: Content, certificate_name: str, key_name: str) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(content[certificate_name])
        key = _private(content[key_name])
    except KeyError as error:
        raise MembershipError(f"the CA's Secret lacks {error}") from error
    except ValueError as error:
        raise MembershipError(f"the CA's {certificate_name} or {key_name} is not PEM") from error
    if _public(key.public_key()) != _public(certificate.public_key()):
        raise MembershipError(f"the CA's {key_name} is not the key of its {certificate_name}")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound as error:
        raise MembershipError(f"the CA's {certificate_name} is not a CA's certificate") from error
    if not constraints.ca:
        raise MembershipError(f"the CA's {certificate_name} is not a CA's certificate")
    return certificate


def first_authority(now: float) -> Content:
    """The data of a Secret with a new CA."""
    certificate, key = _make_authority(now)
    return {CERTIFICATE: certificate, KEY: key, AUTHORITIES: certificate}


def add_next(authority: CertificateAuthority, now: float) -> Content:
    """The same with the next CA, which is trusted already."""
    certificate, key = _make_authority(now)
    bundle = authority.bundle + certificate
    return {**authority.content, NEXT_CERTIFICATE: certificate, NEXT_KEY: key, AUTHORITIES: bundle}


def promote(authority: CertificateAuthority) -> Content:
    """The same with the next CA signing."""
    held = dict(authority.content)
    certificate, key = held.pop(NEXT_CERTIFICATE), held.pop(NEXT_KEY)
    return {**held, CERTIFICATE: certificate, KEY: key}


def drop(authority: CertificateAuthority, keep: Collection[str]) -> Content:
    """The same, trusting only those."""
    held = x509.load_pem_x509_certificates(authority.bundle)
    return {**authority.content, AUTHORITIES: _bundle([one for one in held if _ident(one) in keep])}


def _make_authority(now: float) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    # The name tells CAs apart in what others print of a chain; what counts is the key.
    name = _name(f"Mafalda CA {datetime.fromtimestamp(now, UTC):%Y-%m-%d}")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, key, now, now + AUTHORITY_SECONDS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
    )
    return _pem(builder.sign(key, hashes.SHA256())), _key_pem(key)


def issue(authority: CertificateAuthority, names: frozenset[str], now: float, until: float) -> Content:
    """The data of a Secret of type kubernetes.io/tls: a new key and its certificate for ``names``."""
    signer = x509.load_pem_x509_certificate(authority.content[CERTIFICATE])
    signing_key = _private(authority.content[KEY])
    key = ec.generate_private_key(ec.SECP256R1())
    signer_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key())
    alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in sorted(names)])
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    # A common name has 64 characters at most; the names that count are the alternative ones.
    builder = (
        _builder(_name(min(names)[:64]), signer.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(alternative, critical=False)
        .add_extension(usages, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signer_identifier, critical=False)
    )
    certificate = _pem(builder.sign(signing_key, _hash(signing_key)))
    return {CERTIFICATE: certificate, KEY: _key_pem(key), AUTHORITIES: authority.bundle}


def respread(material: Material, authority: CertificateAuthority) -> Content:
    """The same certificate and key, with the CAs that are to be trusted now."""
    return {CERTIFICATE: material.certificate, KEY: material.key, AUTHORITIES: authority.bundle}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float, until: float
) -> x509.CertificateBuilder:
    begin = datetime.fromtimestamp(now, UTC) - timedelta(seconds=BACKDATED)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(datetime.fromtimestamp(until, UTC))
    )


# -- reading ----------------------------------------------------------------------------------------------


def read_leaf(content: Content, now: float) -> tuple[LeafView, Material | None]:
    """What a Secret's certificate is; the second is None when it can't be used."""
    try:
        material = read(content, where=lambda name: name, now=now)
    except MembershipError as error:
        return LeafView(problem=str(error)), None
    leaf = x509.load_pem_x509_certificates(content[CERTIFICATE])[0]
    trusted = {_ident(one): one for one in x509.load_pem_x509_certificates(content[AUTHORITIES])}
    view = LeafView(
        names=names_of(leaf),
        issuer=next((ident for ident, one in trusted.items() if _issued(leaf, one)), ""),
        not_before=material.not_before,
        not_after=material.not_after,
        trusted=frozenset(trusted),
    )
    return view, material


def decoded(obj: Mapping[str, Any]) -> dict[str, bytes]:
    """The data of a Secret. What is not base64 is left out, as the API server would have refused it."""
    data: dict[str, bytes] = {}
    for name, encoded in (obj.get("data") or {}).items():
        try:
            data[name] = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            continue
    return data


def encoded(content: Content) -> dict[str, str]:
    """For the ``data`` of a Secret."""
    return {name: base64.b64encode(value).decode() for name, value in content.items()}


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _private(content: bytes) -> CertificateIssuerPrivateKeyTypes:
    """Raises ValueError."""
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("the key has a password, or is of an unknown kind") from error
    if not hasattr(key, "sign"):
        raise ValueError("the key is of a kind that does not sign")
    return key  # type: ignore[return-value]


def _hash(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    """What to sign with; Edwards curves bring their own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def _as_authority(certificate: x509.Certificate) -> Authority:
    return Authority(
        _ident(certificate),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _ident(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def _public(key: Any) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    written: bytes = key.public_bytes(encoding, form)
    return written


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _bundle(certificates: Collection[x509.Certificate] | Any) -> bytes:
    return b"".join(_pem(certificate) for certificate in certificates)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _seconds(written: str) -> float:
    try:
        return datetime.fromisoformat(written).timestamp() if written else 0.0
    except ValueError:
        return 0.0
