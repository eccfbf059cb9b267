"""Runs mediasoup's own suite, as its npm package has it, by jest on Node 22."""

from __future__ import annotations

import datetime
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mafalda_operator.cli.local.processes import ProcessGroup, wait
from remote_suite.results import Results, ResultsError, read_results

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
TESTS = MODULES / "mediasoup" / "node" / "lib" / "test"
_ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_NAME = "jest"
_POLL = 0.2


class JestError(Exception):
    """The suite cannot be run, or did not come to an end; the message says what to do."""


def find_node() -> Path:
    """Node 22, which the package of this platform has. Raises JestError."""
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    node = MODULES / f"node-linux-{architecture}" / "bin" / "node"
    if not node.is_file():
        raise JestError(
            f"{node} is not there: run `make remote-suite`, which installs it (Linux, x64 or arm64)"
        )
    return node


def write_certificate(folder: Path = TESTS / "data") -> None:
    """The pair of files that the suite reads and its package lacks: a key and what certifies it."""
    certificate, key = folder / "dtls-cert.pem", folder / "dtls-key.pem"
    if certificate.exists() and key.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "remote-suite")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(private, hashes.SHA256())
    )
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def run_suite(
    processes: ProcessGroup,
    environment: Mapping[str, str],
    *,
    only: str | None,
    timeout: float,
    say: Callable[[str], None],
) -> Results:
    """Runs it to its end as the process "jest" of the group, and tells of every file that is through.

    ``only`` is a pattern that a file's path must match. Raises JestError.
    """
    node = find_node()
    write_certificate()
    log = processes.log(_NAME)
    report = log.with_suffix(".json")
    # One file after the other, since they measure time; and no handle that a case left open keeps it.
    command = [
        *(str(node), str(MODULES / "jest" / "bin" / "jest.js"), "--projects", str(HERE)),
        *("--runInBand", "--forceExit", "--ci", "--json", "--outputFile", str(report)),
        *([only] if only else []),
    ]
    record = processes.spawn(_NAME, command, environment=environment)
    deadline = time.monotonic() + timeout
    told = 0
    ended = False
    while not ended:
        ended = wait(record, _POLL)
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[told : None if ended else -1]:
            if line.startswith(("PASS ", "FAIL ")):
                say(f"{line[:4]} {Path(line[5:].split(' (')[0]).stem}")
        told = len(lines) if ended else max(told, len(lines) - 1)
        if not ended and time.monotonic() > deadline:
            processes.stop([_NAME], grace=0)
            raise JestError(
                f"the suite is not through after {timeout:g} s; its log ends:\n{_tail(processes)}"
            )
    processes.stop([_NAME], grace=0)
    try:
        return read_results(json.loads(report.read_text()))
    except (OSError, ValueError, ResultsError) as error:
        raise JestError(f"jest left no result ({error}); its log ends:\n{_tail(processes)}") from error


def _tail(processes: ProcessGroup) -> str:
    return processes.log_tail(_NAME, 25)
