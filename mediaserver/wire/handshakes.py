"""Why TLS does not come about: told to who dials in an error, and by who is dialled in its log."""

from __future__ import annotations

import ssl
import time

import structlog
from aiohttp import ClientError, ServerDisconnectedError

from mediaserver.wire.membership import Dial

_TOLD_SECONDS = 60.0
"""A failed handshake for the same reason is logged once in so long."""

log = structlog.get_logger(__name__)

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


class TellingHandshake(ssl.SSLObject):
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
