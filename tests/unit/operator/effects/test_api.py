"""The thin API client against a server that answers as API servers, proxies and strangers do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from mafalda_operator.effects import api as api_module
from mafalda_operator.effects.api import NAMESPACES, ROUTERS, SECRETS, SESSIONS, KubeApi
from mafalda_operator.effects.credentials import Credentials
from mafalda_operator.effects.errors import (
    ApiRefused,
    ApiUnavailable,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    ServerFault,
    Throttled,
    Unauthorized,
)
from mafalda_operator.effects.listing import explain

Answer = Callable[[web.Request], Any]


class Server:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answers: list[Answer] = []
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        self.kubeconfig = self.directory / "kubeconfig"
        self.set_token("one")

    def set_token(self, token: str) -> None:
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        self.kubeconfig.write_text(json.dumps(config))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        result = answer(request)
        if isinstance(result, web.StreamResponse):
            return result
        return web.json_response(result)


def status(code: int, reason: str, **details: Any) -> Answer:
    body = {"kind": "Status", "reason": reason, "message": f"about {reason}", "details": details}
    return lambda _: web.json_response(body, status=code)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path)
    await server.start()
    yield server
    await server.runner.cleanup()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[KubeApi]:
    api = KubeApi(Credentials(server.kubeconfig))
    yield api
    await api.close()


def test_paths() -> None:
    base = "/apis/mafalda.io/v1alpha1"
    assert SESSIONS.path() == f"{base}/mediasessions"
    assert ROUTERS.path("shop", "r", "status") == f"{base}/namespaces/shop/mediarouters/r/status"
    assert NAMESPACES.path(None, "shop") == "/api/v1/namespaces/shop"
    assert SECRETS.path("shop") == "/api/v1/namespaces/shop/secrets"


async def test_a_list_is_read_in_pages(api: KubeApi, server: Server) -> None:
    server.answers = [
        lambda _: {"metadata": {"resourceVersion": "9", "continue": "next"}, "items": [{"n": 1}]},
        lambda _: {"metadata": {"resourceVersion": "9"}, "items": [{"n": 2}]},
    ]
    listing = await api.list(SESSIONS)
    assert (listing.resource_version, listing.items) == (9, [{"n": 1}, {"n": 2}])
    assert server.requests[1].query["continue"] == "next"
    assert server.requests[0].query["limit"] == "500"


async def test_a_list_whose_pages_expired_begins_anew(api: KubeApi, server: Server) -> None:
    server.answers = [
        lambda _: {"metadata": {"resourceVersion": "9", "continue": "next"}, "items": [{"n": 1}]},
        status(410, "Expired"),
        lambda _: {"metadata": {"resourceVersion": "12"}, "items": [{"n": 3}]},
    ]
    listing = await api.list(SESSIONS)
    assert (listing.resource_version, listing.items) == (12, [{"n": 3}])


async def test_a_list_whose_pages_always_expire_gives_up(api: KubeApi, server: Server) -> None:
    server.answers = [status(410, "Expired")]
    with pytest.raises(Gone):
        await api.list(SESSIONS)


async def test_new_credentials_are_read_after_401(api: KubeApi, server: Server) -> None:
    def answer(request: web.Request) -> Any:
        if request.headers["Authorization"] == "Bearer two":
            return {"ok": True}
        server.set_token("two")
        return web.json_response({}, status=401)

    server.answers = [answer]
    assert await api.get(SESSIONS, "shop", "a") == {"ok": True}
    assert len(server.requests) == 2


async def test_credentials_that_stay_refused_are_told(api: KubeApi, server: Server) -> None:
    server.answers = [status(401, "Unauthorized")]
    with pytest.raises(Unauthorized) as caught:
        await api.get(SESSIONS, "shop", "a")
    assert "--kubeconfig" in explain(caught.value)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "AlreadyExists", Conflict),
        (429, "TooManyRequests", Throttled),
        (500, "InternalError", ServerFault),
        (418, "Teapot", ApiRefused),
    ],
)
async def test_errors_have_types(
    api: KubeApi, server: Server, code: int, reason: str, expected: type[ApiRefused]
) -> None:
    server.answers = [status(code, reason, retryAfterSeconds=3)]
    with pytest.raises(expected) as caught:
        await api.get(SESSIONS, "shop", "a")
    assert type(caught.value) is expected
    assert (caught.value.status, caught.value.reason, caught.value.retry_after) == (code, reason, 3)


async def test_a_terminating_namespace_is_known_by_its_cause(api: KubeApi, server: Server) -> None:
    server.answers = [status(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}])]
    with pytest.raises(Forbidden) as caught:
        await api.create(ROUTERS, "shop", {"metadata": {"name": "r"}})
    assert caught.value.namespace_terminating


async def test_retry_after_comes_from_the_header(api: KubeApi, server: Server) -> None:
    server.answers = [lambda _: web.Response(status=503, text="busy", headers={"Retry-After": "4"})]
    with pytest.raises(ServerFault) as caught:
        await api.get(SESSIONS, "shop", "a")
    assert caught.value.retry_after == 4


@pytest.mark.parametrize("text", ["<html>welcome</html>", "[1]"])
async def test_what_is_no_api_server_is_told(api: KubeApi, server: Server, text: str) -> None:
    server.answers = [lambda _: web.Response(text=text)]
    with pytest.raises(ApiUnavailable, match="is this a Kubernetes API"):
        await api.get(SESSIONS, "shop", "a")


async def test_no_answer_in_time(api: KubeApi, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async def stall(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    monkeypatch.setattr(api_module, "REQUEST_DEADLINE", 0.1)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stall)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    server.set_token("one")
    with pytest.raises(ApiUnavailable, match="no answer"):
        await api.get(SESSIONS, "shop", "a")
    await runner.cleanup()


async def test_a_connection_refused(api: KubeApi, server: Server) -> None:
    await server.runner.cleanup()
    with pytest.raises(ApiUnavailable) as caught:
        await api.get(SESSIONS, "shop", "a")
    assert "is the API server running" in explain(caught.value)


async def test_bodies_carry_kind_and_content_type(api: KubeApi, server: Server) -> None:
    server.answers = [lambda _: {}]
    await api.create(ROUTERS, "shop", {"metadata": {"name": "r"}})
    assert json.loads(server.bodies[0]) == {
        "apiVersion": "mafalda.io/v1alpha1",
        "kind": "MediaRouter",
        "metadata": {"name": "r"},
    }
    await api.patch(ROUTERS, "shop", "r", {"status": {}}, subresource="status")
    assert server.requests[1].headers["Content-Type"] == "application/merge-patch+json"
    await api.delete(ROUTERS, "shop", "r", uid="u")
    assert json.loads(server.bodies[2])["preconditions"] == {"uid": "u"}


async def test_a_watch_gives_events_and_tells_when_it_is_too_old(api: KubeApi, server: Server) -> None:
    lines = [
        {"type": "ADDED", "object": {"n": 1}},
        {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}},
    ]
    server.answers = [lambda _: web.Response(text="".join(json.dumps(line) + "\n" for line in lines))]
    events: list[Any] = []

    async def follow() -> None:
        async for event in api.watch(SECRETS, "shop", field_selector="x=y", since=3, seconds=5):
            events.append(event)

    with pytest.raises(Gone):
        await follow()
    assert events == [lines[0]]
    assert server.requests[0].query["resourceVersion"] == "3"


async def test_requests_are_counted_by_what_came_of_them(server: Server) -> None:
    done: list[tuple[str, str, str]] = []
    api = KubeApi(
        Credentials(server.kubeconfig), done=lambda verb, kind, code, _: done.append((verb, kind, code))
    )
    server.answers = [lambda _: {}, status(409, "Conflict")]
    await api.get(SESSIONS, "shop", "a")
    with pytest.raises(Conflict):
        await api.get(SESSIONS, "shop", "a")
    await api.close()
    assert done == [("get", "mediasessions", "200"), ("get", "mediasessions", "409")]
