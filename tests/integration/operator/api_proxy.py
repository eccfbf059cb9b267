"""A proxy before the API server that does to requests what networks and busy servers do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from mafalda_operator.effects.credentials import Credentials

Match = Callable[[web.BaseRequest], bool]


@dataclass
class Fault:
    """What happens to requests that match: no answer, or an error Status, ``times`` times (None: always)."""

    match: Match
    status: int | None = None
    """None: no answer at all."""
    retry_after: int | None = None
    times: int | None = None
    met: int = 0
    mended: asyncio.Event = field(default_factory=asyncio.Event)

    def applies(self, request: web.BaseRequest) -> bool:
        if self.times is not None and self.met >= self.times:
            return False
        if not self.match(request):
            return False
        self.met += 1
        return True


@dataclass
class Requested:
    method: str
    path: str
    watch: bool


@dataclass
class ApiProxy:
    """Listens on loopback without TLS and adds the credentials of ``kubeconfig``."""

    kubeconfig: Path
    faults: list[Fault] = field(default_factory=list)
    requests: list[Requested] = field(default_factory=list)
    port: int = 0
    token: str | None = None
    """The bearer token that counts now; None: none is asked for."""
    _session: aiohttp.ClientSession | None = None
    _runner: web.ServerRunner | None = None
    _server: str = ""
    _watches: dict[asyncio.Task[Any], str] = field(default_factory=dict)

    async def __aenter__(self) -> ApiProxy:
        connection = await Credentials(self.kubeconfig).load()
        self._server = connection.server
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=connection.as_ssl_context(), limit=0),
            headers=connection.as_http_headers(),
            auto_decompress=False,
        )
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        assert self._session is not None
        for fault in self.faults:
            fault.mended.set()
        for task in self._watches:
            task.cancel()
        await self._runner.cleanup()
        await self._session.close()

    def write_kubeconfig(self, path: Path, *, token_file: Path | None = None) -> Path:
        user = {"tokenFile": str(token_file)} if token_file is not None else {}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "proxy", "user": user}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        }
        path.write_text(json.dumps(config))
        return path

    def fail(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def mend(self, fault: Fault) -> None:
        self.faults.remove(fault)
        fault.mended.set()

    def cut_watches(self, plural: str) -> int:
        """Break the watches of a kind; how many there were."""
        tasks = [task for task, path in self._watches.items() if path.endswith(f"/{plural}")]
        for task in tasks:
            task.cancel()
        return len(tasks)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        watch = "watch" in request.query
        self.requests.append(Requested(request.method, request.path, watch))
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self._status(401)
        for fault in self.faults:
            if fault.applies(request):
                return await self._fail(fault)
        return await self._forward(request, watch=watch)

    async def _fail(self, fault: Fault) -> web.StreamResponse:
        if fault.status is None:
            await fault.mended.wait()
            raise web.HTTPServiceUnavailable
        return self._status(fault.status, fault.retry_after)

    def _status(self, status: int, retry_after: int | None = None) -> web.StreamResponse:
        reasons = {
            401: "Unauthorized",
            403: "Forbidden",
            404: "NotFound",
            410: "Expired",
            429: "TooManyRequests",
        }
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": reasons.get(status, "InternalError"),
            "message": "injected",
            "code": status,
        }
        headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
        return web.json_response(body, status=status, headers=headers)

    async def _forward(self, request: web.BaseRequest, *, watch: bool) -> web.StreamResponse:
        assert self._session is not None
        headers = {
            key: value
            for key, value in request.headers.items()
            if key.lower() in ("accept", "content-type", "accept-encoding")
        }
        task = asyncio.current_task()
        assert task is not None
        if watch:
            self._watches[task] = request.path
        try:
            async with self._session.request(
                request.method,
                self._server + request.path_qs,
                headers=headers,
                data=await request.read() or None,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as answer:
                kept = {
                    key: value
                    for key, value in answer.headers.items()
                    if key.lower() in ("content-type", "content-encoding", "retry-after")
                }
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except aiohttp.ClientError as error:
            raise web.HTTPBadGateway(text=str(error)) from error
        finally:
            self._watches.pop(task, None)
