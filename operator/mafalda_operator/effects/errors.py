"""What can go wrong between the operator and the Kubernetes API.

KubeError
├── ApiUnavailable          no answer: connection refused or broken, or the deadline passed
│   └── CredentialsError    nothing was asked: the kubeconfig or service account cannot be used now
└── ApiRefused              an answer that is not success
    ├── Unauthorized        401
    ├── Forbidden           403: RBAC, a quota, an admission policy, or a terminating namespace
    ├── NotFound            404
    ├── Conflict            409: exists already, or changed meanwhile
    ├── Gone                410: the resource version or continue token expired
    ├── Invalid             422: the object breaks the schema or a CEL rule
    ├── Throttled           429
    └── ServerFault         5xx

aiohttp's and OS errors become these in ``effects.api`` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class KubeError(Exception):
    """Base of everything here."""


class ApiUnavailable(KubeError):  # noqa: N818  named for what happened
    """The API server did not answer; whether a write happened is unknown."""


class CredentialsError(ApiUnavailable):
    """The message names the file and the remedy."""


class ApiRefused(KubeError):  # noqa: N818  as above
    """The API server answered with an error Status.

    ``reason`` is the Status's one word (``AlreadyExists``, ``Forbidden``, …), ``causes`` the reasons in its
    details, ``about`` the kind that the details name, ``retry_after`` what the server asked to wait, in
    seconds.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        causes: tuple[str, ...] = (),
        about: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.about = about
        self.retry_after = retry_after

    @property
    def transient(self) -> bool:
        """Whether the same request may well succeed later."""
        return False


class Unauthorized(ApiRefused):
    pass


class Forbidden(ApiRefused):
    @property
    def namespace_terminating(self) -> bool:
        return "NamespaceTerminating" in self.causes


class NotFound(ApiRefused):
    pass


class Conflict(ApiRefused):
    @property
    def already_exists(self) -> bool:
        return self.reason == "AlreadyExists"

    @property
    def transient(self) -> bool:
        return not self.already_exists


class Gone(ApiRefused):
    pass


class Invalid(ApiRefused):
    pass


class Throttled(ApiRefused):
    @property
    def transient(self) -> bool:
        return True


class ServerFault(ApiRefused):
    @property
    def transient(self) -> bool:
        return True


_BY_STATUS: Mapping[int, type[ApiRefused]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Throttled,
}


def refused(status: int, body: Any, retry_after: float | None) -> ApiRefused:
    """The exception for an HTTP status of 400 or more; ``body`` is the decoded Status, or anything else."""
    cls = _BY_STATUS.get(status, ServerFault if status >= 500 else ApiRefused)
    if not isinstance(body, dict) or body.get("kind") != "Status":
        return cls(status, "Unknown", "the answer is not a Kubernetes Status", retry_after=retry_after)
    details = body.get("details") or {}
    causes = tuple(str(cause.get("reason", "")) for cause in details.get("causes") or ())
    if retry_after is None and details.get("retryAfterSeconds"):
        retry_after = float(details["retryAfterSeconds"])
    reason, message = str(body.get("reason", "Unknown")), str(body.get("message", ""))
    about = str(details.get("kind", ""))
    return cls(status, reason, message, causes=causes, about=about, retry_after=retry_after)
