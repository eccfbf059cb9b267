"""Certificates for tests, by the operator's own hand: a CA, what it issues, and directories of it."""

from __future__ import annotations

import time
from pathlib import Path

from mafalda_operator.effects import issuing
from mafalda_operator.effects.issuing import CertificateAuthority, Content

from mediaserver.wire.certificates import Material, read
from mediaserver.wire.tls import GATEWAY_NAME, OPERATOR_NAME, Certificates, media_server_name

OPERATOR, GATEWAY = OPERATOR_NAME, GATEWAY_NAME
SERVER = media_server_name("media", "main")
OTHER_SERVER = media_server_name("media", "other")


class Authority:
    """A CA. ``add_next`` and ``promote`` exchange it as the operator does."""

    def __init__(self) -> None:
        self.ca: CertificateAuthority = issuing.read_authority(issuing.first_authority(time.time()))

    def content(self, *names: str, since: float = 0.0, lasts: float = 3600.0) -> Content:
        """A certificate that has been valid for ``since`` seconds, and ``lasts`` that long from then on."""
        now = time.time() - since
        return issuing.issue(self.ca, frozenset(names), now, now + lasts)

    def material(self, *names: str) -> Material:
        return read(self.content(*names), where=str, now=time.time())

    def certificates(self, *names: str) -> Certificates:
        return Certificates(self.material(*names))

    def directory(self, path: Path, *names: str, since: float = 0.0, lasts: float = 3600.0) -> Path:
        """The three files in ``path``."""
        return write(path, self.content(*names, since=since, lasts=lasts))

    def add_next(self) -> None:
        self.ca = issuing.read_authority(issuing.add_next(self.ca, time.time()))

    def promote(self) -> None:
        self.ca = issuing.read_authority(issuing.promote(self.ca))

    def drop_others(self) -> None:
        self.ca = issuing.read_authority(issuing.drop(self.ca, {self.ca.view.signing.ident}))


def write(path: Path, content: Content) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        (path / name).write_bytes(value)
    return path
