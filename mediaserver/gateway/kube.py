"""The Kubernetes API, read only: custom resources, key Secrets, labels of namespaces.

The one place that knows the client library; everything it raises becomes ApiError.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Generic, TypeVar

import aiohttp
import msgspec

from mediaserver.gateway.errors import ApiError
from mediaserver.gateway.resources import GROUP, VERSION, ListMetadata, Resource, ResourceStruct

os.environ.setdefault("HOME", "/")  # asked for as the client is imported; a pod's user may have no other
from kubernetes.aio import client, config

ObjectT = TypeVar("ObjectT", bound=Resource)
ResultT = TypeVar("ResultT")

REQUEST_SECONDS = 10.0
WATCH_SECONDS = 60
"""How long one watch lasts; the next goes on where it ended."""
PAGE = 500
_MAX_LINE = 8 * 1024 * 1024
_FAULTS = (aiohttp.ClientError, OSError, TimeoutError, config.ConfigException, ValueError)


class Page(ResourceStruct, Generic[ObjectT], frozen=True):
    metadata: ListMetadata
    items: list[ObjectT]


class Listing(msgspec.Struct, Generic[ObjectT], frozen=True):
    """Every object of a kind as of one resource version."""

    resource_version: str
    items: list[ObjectT]


class KubeReader:
    """A connection to one API server."""

    def __init__(self, api_client: Any) -> None:
        self._client = api_client
        self._custom = client.CustomObjectsApi(api_client)
        self._core = client.CoreV1Api(api_client)

    @classmethod
    async def load(cls, kubeconfig: Path | None) -> KubeReader:
        """With that kubeconfig, or without one as a pod, or as kubectl would. Raises ApiError."""
        settings = client.Configuration()
        try:
            if kubeconfig is not None:
                path = str(kubeconfig)
                await config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=path, client_configuration=settings
                )
            else:
                await _load_ambient(settings)
        except (*_FAULTS, KeyError, TypeError) as error:
            where = kubeconfig or "neither a pod's service account nor a kubeconfig"
            raise ApiError(f"{where} can't be used: {error}; name one with --kubeconfig") from error
        return cls(client.ApiClient(settings))

    async def close(self) -> None:
        await self._client.close()

    async def list(self, plural: str, kind: type[ObjectT]) -> Listing[ObjectT]:
        """All objects of all namespaces. Raises ApiError."""
        decoder = msgspec.json.Decoder(Page[kind])  # type: ignore[valid-type]
        items: list[ObjectT] = []
        position = None
        while True:
            answer = self._custom.list_cluster_custom_object_without_preload_content(
                GROUP, VERSION, plural, limit=PAGE, _continue=position
            )
            page = decoder.decode(await _body(f"list {plural}", answer))
            items += page.items
            position = page.metadata.continue_
            if not position:
                return Listing(page.metadata.resource_version, items)

    async def watch(self, plural: str, resource_version: str) -> AsyncGenerator[bytes, None]:
        """The lines of one watch, which ends after WATCH_SECONDS. Raises ApiError."""
        what = f"watch {plural}"
        answer = self._custom.list_cluster_custom_object_without_preload_content(
            GROUP,
            VERSION,
            plural,
            watch=True,
            allow_watch_bookmarks=True,
            resource_version=resource_version,
            timeout_seconds=WATCH_SECONDS,
        )
        response = await _answered(what, answer)
        try:
            async with aclosing(_lines(what, response)) as lines:
                async for line in lines:
                    yield line
        finally:
            response.close()

    async def secret(self, namespace: str, name: str) -> dict[str, bytes]:
        """The Secret's data, decoded. Raises ApiError, with status 404 when there is none."""
        what = f"read Secret {namespace}/{name}"
        answer = self._core.read_namespaced_secret_without_preload_content(name, namespace)
        found = msgspec.json.decode(await _body(what, answer), type=dict[str, Any])
        try:
            data = found.get("data") or {}
            return {kid: base64.b64decode(value, validate=True) for kid, value in data.items()}
        except (binascii.Error, TypeError) as error:
            raise ApiError(f"{what}: its data cannot be decoded") from error

    async def namespace_labels(self, name: str) -> dict[str, str]:
        """Labels of a Namespace. Raises ApiError."""
        answer = self._core.read_namespace_without_preload_content(name)
        found = msgspec.json.decode(await _body(f"read Namespace {name}", answer), type=dict[str, Any])
        labels = found.get("metadata", {}).get("labels") or {}
        return {str(key): str(value) for key, value in labels.items()}


async def _load_ambient(settings: Any) -> None:
    try:
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        await config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]


async def _guarded(what: str, work: Awaitable[ResultT], seconds: float) -> ResultT:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise ApiError(f"{what}: no answer within {seconds:g} s") from error
    except client.ApiException as error:
        raise ApiError(f"{what}: {error.status} {error.reason}", error.status) from error
    except _FAULTS as error:
        raise ApiError(f"{what}: {str(error) or type(error).__name__}") from error


async def _answered(what: str, answer: Awaitable[Any]) -> aiohttp.ClientResponse:
    response: aiohttp.ClientResponse = await _guarded(what, answer, REQUEST_SECONDS)
    if response.status != 200:
        status = response.status
        response.close()
        raise ApiError(f"{what}: {status} {response.reason}", status)
    return response


async def _body(what: str, answer: Awaitable[Any]) -> bytes:
    response = await _answered(what, answer)
    try:
        return await _guarded(what, response.read(), REQUEST_SECONDS)
    finally:
        response.close()


async def _lines(what: str, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    pending = b""
    while True:
        chunk = await _guarded(what, response.content.readany(), WATCH_SECONDS + REQUEST_SECONDS)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(pending) > _MAX_LINE:
            raise ApiError(f"{what}: an event of more than {_MAX_LINE} bytes")
