"""Asking an API server whether it is ready, without a Kubernetes client."""

import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_PROBE_TIMEOUT = 2.0


@dataclass(frozen=True)
class Probe:
    """How to ask: the server's certificate, which it may not have written yet, and an administrator's
    token.
    """

    url: str
    certificate: Path
    token: str

    def ready(self) -> bool:
        """Whether /readyz says ok and the default namespace exists, so that objects can be made in it."""
        return all(self._answers_ok(path) for path in ("/readyz", "/api/v1/namespaces/default"))

    def _answers_ok(self, path: str) -> bool:
        address = urlsplit(self.url)
        try:
            context = ssl.create_default_context(cafile=str(self.certificate))
            connection = http.client.HTTPSConnection(address.netloc, timeout=_PROBE_TIMEOUT, context=context)
        except OSError:  # no certificate yet, or half of one
            return False
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
