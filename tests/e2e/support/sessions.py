"""MediaSessions, and tokens for them."""

import itertools
from typing import Any

from e2e.support.chart import CLUSTER, NAMESPACE
from e2e.support.kubernetes import Document, apply, conditions_of, get, is_ready
from e2e.support.running import until
from mafalda_operator.cli.token_keys import key_of_session
from mafalda_operator.model import ObjectKey

READY_SECONDS = 30.0
TOKEN_SECONDS = 900.0
_numbers = itertools.count(1)


def manifest(name: str, *, routers: int = 1, **spec: Any) -> Document:
    return {
        "apiVersion": "mafalda.io/v1alpha1",
        "kind": "MediaSession",
        "metadata": {"name": name},
        "spec": {
            "clusterRef": {"name": CLUSTER, "namespace": NAMESPACE},
            "routers": {"min": routers},
            **spec,
        },
    }


async def create(namespace: str, *, routers: int = 1, name: str = "", **spec: Any) -> ObjectKey:
    """A new session that is Ready."""
    key = ObjectKey(namespace, name or f"call-{next(_numbers)}")
    await apply(manifest(key.name, routers=routers, **spec), namespace=namespace)
    await until_ready(key)
    return key


async def status_of(session: ObjectKey) -> Document:
    found: Document = (await get("mediasession", session.name, session.namespace)).get("status", {})
    return found


async def until_ready(
    session: ObjectKey, *, without: str | None = None, seconds: float = READY_SECONDS
) -> Document:
    """Its status once Ready, with no router on the MediaServer ``without``."""
    seen: Document = {}

    async def ready() -> bool:
        nonlocal seen
        seen = await get("mediasession", session.name, session.namespace)
        return is_ready(seen) and without not in servers_of(seen.get("status", {}))

    await until(f"{session} is Ready", ready, seconds=seconds, tell=lambda: conditions_of(seen))
    status: Document = seen["status"]
    return status


def servers_of(status: Document) -> list[str]:
    """MediaServer of each router."""
    return [str(router["serverName"]) for router in status.get("routers", ())]


def server_of(status: Document, router: str) -> str:
    """MediaServer of the router `namespace/name`, by the session's status."""
    name = router.rpartition("/")[2]
    return str(next(found["serverName"] for found in status["routers"] if found["name"] == name))


async def url_and_token(session: ObjectKey, participant: str) -> tuple[str, str]:
    """Where a participant dials, and what lets it in."""
    signing = await key_of_session(session, None)
    url = str((await status_of(session))["url"])
    return url, signing.sign(session, participant, seconds=TOKEN_SECONDS)
