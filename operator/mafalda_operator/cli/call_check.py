"""One check of a MediaCluster: a session of its own, a call of two with real media, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from mafalda_operator.cli.demo.call import Call
from mafalda_operator.cli.demo.errors import DemoError
from mafalda_operator.cli.demo.report import FirstFrame, Frames
from mafalda_operator.cli.participant import ParticipantError
from mafalda_operator.cli.participant.reachability import describe
from mafalda_operator.cli.token_keys import NoTokenKey, SigningKey, key_of_session
from mafalda_operator.effects.api import SESSIONS, KubeApi, Object
from mafalda_operator.effects.errors import ApiUnavailable, NotFound
from mafalda_operator.model import ObjectKey
from mediaserver.wire.errors import TokenError

NAMES = ("alice", "bob")
POLL_SECONDS = 0.1
STEADY_SECONDS = 3.0
STEADY_RATE = 5.0
"""Frames a second of every flow that count as media that flows."""
CLEAN_SECONDS = 10.0
"""What the end may take beyond the deadline."""

Say = Callable[[str], object]


class CheckError(Exception):
    """What did not work, and why."""


class CheckReport(msgspec.Struct):
    """What was measured; times are milliseconds, but for ``total_s``. None: it did not come to that."""

    cluster: str
    session: str
    url: str | None = None
    available_ms: int | None = None
    """From the session's creation to Available."""
    servers: list[str] = []
    joined_ms: dict[str, int] = {}
    """By participant: from its dial to its join."""
    first_frames: list[FirstFrame] = []
    frames: list[Frames] = []
    deleted_ms: int | None = None
    total_s: float | None = None
    error: str | None = None


async def run_check(
    api: KubeApi,
    report: CheckReport,
    cluster: ObjectKey,
    session: ObjectKey,
    *,
    url: str | None,
    routers: int | None,
    seconds: float,
    kubeconfig: Path | None,
    say: Say,
) -> None:
    """Fills ``report``; the session is deleted whatever happens. Raises CheckError and KubeError."""
    step = "starting"
    try:
        async with asyncio.timeout(seconds), _session(api, report, cluster, session, routers, say):
            step = f"waiting for MediaSession {session} to be Available"
            status = await _until_available(api, report, session)
            say(f"session {session} Available after {report.available_ms} ms on {', '.join(report.servers)}")
            report.url = _dialled(url, status, session)
            step = f"making a call at {report.url}"
            await _call(report, await _key(session, kubeconfig), session, report.url, seconds, say)
            step = f"deleting MediaSession {session}"
    except TimeoutError as error:
        raise CheckError(f"{step}: not done within {seconds:g} s") from error


@asynccontextmanager
async def _session(
    api: KubeApi, report: CheckReport, cluster: ObjectKey, session: ObjectKey, routers: int | None, say: Say
) -> AsyncIterator[None]:
    spec: Object = {"clusterRef": {"name": cluster.name, "namespace": cluster.namespace}}
    if routers is not None:
        spec["routers"] = {"min": routers}
    body: Object = {"metadata": {"name": session.name, "namespace": session.namespace}, "spec": spec}
    made = await api.create(SESSIONS, session.namespace, body)
    try:
        yield
    finally:
        await asyncio.shield(_delete(api, report, session, made["metadata"]["uid"], say))


async def _delete(api: KubeApi, report: CheckReport, session: ObjectKey, uid: str, say: Say) -> None:
    started = time.monotonic()
    with contextlib.suppress(NotFound):
        async with asyncio.timeout(CLEAN_SECONDS):
            await api.delete(SESSIONS, *session, uid=uid)
            while True:
                await api.get(SESSIONS, *session)
                await asyncio.sleep(POLL_SECONDS)
    report.deleted_ms = _since(started)
    say(f"session {session} deleted in {report.deleted_ms} ms")


async def _until_available(api: KubeApi, report: CheckReport, session: ObjectKey) -> Object:
    """Its status. Raises CheckError with the conditions' words when it cannot be, or the time is over."""
    started = time.monotonic()
    conditions: dict[str, Object] = {}
    try:
        while True:
            with contextlib.suppress(ApiUnavailable):
                status: Object = (await api.get(SESSIONS, *session)).get("status") or {}
                conditions = {found["type"]: found for found in status.get("conditions") or []}
                if _holds(conditions, "Available") and status.get("routers"):
                    report.available_ms = _since(started)
                    report.servers = sorted({router["serverName"] for router in status["routers"]})
                    return status
            await asyncio.sleep(POLL_SECONDS)
    except asyncio.CancelledError:
        words = "; ".join(
            f"{kind}={found['status']} {found['reason']}: {found['message']}"
            for kind, found in conditions.items()
            if found["status"] != "True"
        )
        raise CheckError(
            f"MediaSession {session} is not Available after {_since(started)} ms:"
            f" {words or 'the operator has written no status; does it run?'}"
        ) from None


def _holds(conditions: dict[str, Object], kind: str) -> bool:
    return kind in conditions and conditions[kind]["status"] == "True"


def _dialled(url: str | None, status: Object, session: ObjectKey) -> str:
    found = url or status.get("url")
    if not found:
        raise CheckError(
            f"MediaSession {session} has no status.url: set spec.publicURL of its MediaCluster, or --url"
        )
    return str(found)


async def _key(session: ObjectKey, kubeconfig: Path | None) -> SigningKey:
    try:
        return await key_of_session(session, kubeconfig)
    except NoTokenKey as error:
        raise CheckError(str(error)) from error


async def _call(
    report: CheckReport, key: SigningKey, session: ObjectKey, url: str, seconds: float, say: Say
) -> None:
    """Two participants that see and hear each other. Raises CheckError."""
    try:
        async with Call() as call:
            for name in NAMES:
                started = time.monotonic()
                await call.join(url, key.sign(session, name, seconds=seconds + 60), publish=True)
                report.joined_ms[name] = _since(started)
                say(f"{name} joined in {report.joined_ms[name]} ms, router {call.routers()[name]}")
            try:
                await call.until("media flows both ways", call.all_flowing, seconds=seconds)
                await asyncio.sleep(STEADY_SECONDS)
                await call.until(
                    "media keeps flowing", lambda: call.all_flowing(rate=STEADY_RATE), seconds=STEADY_SECONDS
                )
            except (asyncio.CancelledError, DemoError):
                raise CheckError(await describe_silence(call)) from None
            finally:
                report.first_frames, report.frames = call.first_frames(), call.frames()
            for flow in report.frames:
                say(
                    f"{flow.receiver} receives {flow.source} of {flow.peer}:"
                    f" {flow.decoded} frames, {flow.lost} packets lost"
                )
            say(f"slowest first frame {max(found.ms for found in report.first_frames)} ms")
    except (DemoError, ParticipantError, TokenError) as error:
        raise CheckError(f"{error} (gateway {url})") from error


async def describe_silence(call: Call) -> str:
    """What is known of the addresses that did not answer."""
    silent = {address for one in call.participants.values() for address in one.reachability.silent}
    unreachable = await describe(silent)
    if unreachable:
        return (
            "no media: the participants joined, so signalling works, but these addresses of media servers"
            f" cannot be reached from here: {unreachable}. Open these ports to participants, UDP and TCP, in"
            " the firewall of the servers' nodes, or have spec.network.announce of the MediaCluster name"
            f" addresses that lead there. {call.describe()}"
        )
    return (
        f"no media, though the servers' addresses answer: {call.describe()}. See the conditions and logs of"
        " the media servers"
    )


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


__all__ = ["CheckError", "CheckReport", "Say", "describe_silence", "run_check"]
