"""The watches: kopf's `on.event` handlers put what they hear into the store, and do nothing else.

kopf runs standalone inside the operator's own event loop: no peering, no finalizers, no annotations, no
events of its own. It comes with its own HTTP session, through which we also learn when a watch was last
heard (bookmarks included) and when one began anew with a list, of which kopf tells its handlers nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import aiohttp
import kopf
import structlog

from mafalda_operator.effects.api import OBSERVED, Object, Resource
from mafalda_operator.effects.backoff import Backoff
from mafalda_operator.effects.credentials import Credentials
from mafalda_operator.effects.errors import CredentialsError
from mafalda_operator.handlers.calm import calm
from mafalda_operator.handlers.stream import WatchStream
from mafalda_operator.model import ObjectKey

WATCH_SECONDS = 300
"""The API server ends each watch after so long; kopf resumes it where it was."""
_INACTIVITY_SECONDS = 70.0
"""Bookmarks come every minute; a watch that is silent longer is frozen and begun anew."""
_STOP_SECONDS = 10.0

EventSink = Callable[[str, str | None, Object], None]
"""Kind, Kubernetes' event type (None: listed), the object."""

log = structlog.get_logger(__name__)


class WatchClock:
    """When each kind's watch was last heard, by ``clock``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._heard: dict[str, float] = {}

    def heard(self, kind: str) -> None:
        self._heard[kind] = self._clock()

    def ages(self) -> dict[str, float]:
        """Seconds since each kind's watch was heard, or since the start."""
        now = self._clock()
        return {resource.kind: now - self._heard.get(resource.kind, self._started) for resource in OBSERVED}


_IDENTITY: Any = "mafalda-operator"
"""kopf's own would be made of the user's name, which a pod's user need not have. Only its peering uses it."""


class Watches:
    """``run`` must be awaited by somebody; it begins kopf anew whenever kopf gives up."""

    def __init__(
        self,
        credentials: Credentials,
        sink: EventSink,
        watch_clock: WatchClock,
        *,
        namespaces: Sequence[str] = (),
        known: Callable[[str, ObjectKey, str, int], bool],
        on_restart: Callable[[str], None],
        after_start: Callable[[], None] = lambda: None,
    ) -> None:
        self._credentials, self._sink, self._watch_clock = credentials, sink, watch_clock
        self._namespaces, self._known = tuple(namespaces), known
        self._on_restart, self._after_start = on_restart, after_start
        self._listed: set[str] = set()
        self._sessions: list[aiohttp.ClientSession] = []

    async def run(self) -> None:
        """Until cancelled. ``on_restart`` is told, with the reason, whenever events may have been missed."""
        backoff = Backoff()
        logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))
        calm()
        while True:
            failure = await self._run_kopf()
            log.error("the watches ended and are begun anew", error=repr(failure))
            self._on_restart("the watches ended")
            await asyncio.sleep(backoff.next())

    async def _run_kopf(self) -> BaseException | None:
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            identity=_IDENTITY,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )
        self._after_start()  # kopf has put in its own signal handlers
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next((task.exception() for task in done if not task.cancelled()), None)
        finally:
            await self._stop(tasks)

    async def _stop(self, tasks: Any) -> None:
        for task in tasks:
            task.cancel()
        _, left = await asyncio.wait(tasks, timeout=_STOP_SECONDS)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_STOP_SECONDS)
        while self._sessions:
            await self._sessions.pop().close()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)(self._log_in)
        for resource in OBSERVED:
            handler = _handler(resource.kind, self._sink)
            kopf.on.event(
                resource.group, resource.version, resource.plural, id=resource.plural, registry=registry
            )(handler)
        return registry

    async def _log_in(self, **_: Any) -> kopf.AiohttpSession | None:
        try:
            connection = await self._credentials.load()
        except CredentialsError as error:
            log.error("cannot log in to the API server", error=str(error))
            raise kopf.LoginError(str(error)) from error
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=connection.as_ssl_context()),
            headers=connection.as_http_headers(),
            proxy=connection.proxy_url,
            response_class=self._response_class(),
        )
        self._sessions.append(session)
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=session)

    def _response_class(self) -> type[aiohttp.ClientResponse]:
        begun = self._begun

        class Observed(aiohttp.ClientResponse):
            async def start(self, connection: Any) -> aiohttp.ClientResponse:
                await super().start(connection)
                begun(self)
                return self

        return Observed

    def _begun(self, response: aiohttp.ClientResponse) -> None:
        """A request of kopf's was answered: a watch, or the list from which a watch begins."""
        resource = _resource_of(response)
        if resource is None or response.status != 200:
            return
        kind = resource.kind
        if "watch" in response.url.query:
            self._watch_clock.heard(kind)
            stream = WatchStream(
                response.content,
                lambda: self._watch_clock.heard(kind),
                lambda key, uid, version: self._known(kind, key, uid, version),
            )
            response.content = cast(aiohttp.StreamReader, stream)
        elif kind in self._listed:
            self._on_restart(f"the watch of {resource.plural} began anew")
        else:
            self._listed.add(kind)


class _Pauses:
    """Between attempts of kopf's requests, for ever: a watch must outlive the API server's restarts."""

    def __iter__(self) -> Iterator[float]:
        backoff = Backoff(rng=random.Random())
        while True:
            yield backoff.next()


class _NoDiffBase(kopf.DiffBaseStorage):
    """kopf would copy every object to compare it with the last one handled; nobody here asks for that."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> None:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """No handler of ours has progress to keep: nothing is ever written to an object."""

    def fetch(self, *, key: Any, body: Any) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        pass

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        pass

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        pass

    def clear(self, *, essence: Any) -> Any:
        return essence


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.queueing.idle_timeout = 1.0
    settings.watching.server_timeout = WATCH_SECONDS
    settings.watching.client_timeout = WATCH_SECONDS + 30
    settings.watching.inactivity_timeout = _INACTIVITY_SECONDS
    settings.watching.connect_timeout = 5.0
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = _Pauses()
    return settings


def _handler(kind: str, sink: EventSink) -> Callable[..., Any]:
    async def take(event: Any, **_: Any) -> None:
        sink(kind, event["type"], event["object"])

    return take


def _resource_of(response: aiohttp.ClientResponse) -> Resource | None:
    last = response.url.path.rsplit("/", 1)[-1]
    return next((resource for resource in OBSERVED if resource.plural == last), None)
