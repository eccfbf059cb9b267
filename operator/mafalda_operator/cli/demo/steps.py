"""The demo's four steps, each of which must hold."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from mafalda_operator.cli.demo import audit, table
from mafalda_operator.cli.demo.call import Call, Flow
from mafalda_operator.cli.demo.errors import DemoError
from mafalda_operator.cli.demo.layout import Document
from mafalda_operator.cli.demo.report import Edge, Placed, Report
from mafalda_operator.cli.demo.stack import Stack
from mafalda_operator.cli.participant import CallEnded, Participant
from mafalda_operator.cli.token_keys import key_of_session
from mafalda_operator.effects.api import CLUSTERS, ROUTERS, SESSIONS, KubeApi, Object
from mafalda_operator.model import ObjectKey
from mediaserver.wire.close_codes import ENDED
from mediaserver.wire.membership import ClusterKey

NAMES = ("alice", "bob", "carol")
READY_SECONDS = 30.0
MEDIA_SECONDS = 30.0
STEADY_SECONDS = 4.0
RECOVERY_SECONDS = 40.0
GONE_SECONDS = 20.0
LONGEST_GAP = 2.0
"""Seconds without a frame after which a participant that stayed counts as stopped."""
STEADY_VIDEO_RATE = 5.0
POLL_SECONDS = 0.02
TOKEN_SECONDS = 3600


@dataclass
class Demo:
    """One run: the processes, the objects that the manifest names, and what was measured."""

    stack: Stack
    manifest: Path
    objects: list[Document]
    console: Console
    report: Report
    api: KubeApi
    _servers: dict[str, str] = field(default_factory=dict)
    """Router (`namespace/name`) to MediaServer."""

    def __post_init__(self) -> None:
        self.session = self._name_of("MediaSession")
        self.cluster = self._name_of("MediaCluster")

    def _name_of(self, kind: str) -> tuple[str, str]:
        metadata = next(found["metadata"] for found in self.objects if found["kind"] == kind)
        return metadata["namespace"], metadata["name"]

    # -- 1 ----------------------------------------------------------------------------------------------

    async def session_ready(self) -> None:
        """Apply the manifest; Ready with three routers on three servers, a link between each two."""
        self._say(f"1. kubectl apply -f {self.manifest}")
        started = time.monotonic()
        applying = asyncio.create_task(asyncio.to_thread(self.stack.apply, self.manifest))
        status = await self._until_ready(since=None, seconds=READY_SECONDS)
        self.report.session_ready_ms = round((time.monotonic() - started) * 1000)
        self.console.print((await applying).rstrip(), highlight=False)
        await self._show_objects()
        self._say(f"   Ready {self.report.session_ready_ms} ms after the start of kubectl apply")
        self._check_placement(status)

    async def _until_ready(self, *, since: str | None, seconds: float) -> Object:
        """The session's status once Ready; ``since``: on other servers than that one. Raises DemoError."""
        deadline = time.monotonic() + seconds
        seen: Object = {}
        while time.monotonic() < deadline:
            listing = await self.api.list(SESSIONS, self.session[0])
            for item in listing.items:
                seen = item.get("status") or {}
                if _is_ready(item) and since not in {r["serverName"] for r in seen["routers"]}:
                    self._remember(seen)
                    return seen
            await asyncio.sleep(POLL_SECONDS)
        raise DemoError(f"MediaSession {'/'.join(self.session)} is not Ready after {seconds:g} s: {seen}")

    def _check_placement(self, status: Object) -> None:
        servers = {router["serverName"] for router in status["routers"]}
        if len(status["routers"]) != len(NAMES) or len(servers) != len(NAMES):
            raise DemoError(f"expected three routers on three servers: {status['routers']}")
        if len(status["links"]) != len(NAMES):
            raise DemoError(f"expected a link between each two routers: {status['links']}")

    def _remember(self, status: Object) -> None:
        namespace = self.session[0]
        self._servers.update({f"{namespace}/{r['name']}": r["serverName"] for r in status["routers"]})
        self.report.routers = [
            Placed(router["name"], router["serverName"], router["workerSlot"]) for router in status["routers"]
        ]
        self.report.links = [Edge(link["from"], link["to"], link["ready"]) for link in status["links"]]

    # -- 2 ----------------------------------------------------------------------------------------------

    async def everybody_receives(self, call: Call) -> None:
        """One publishes and two receive through the pipes; then all three publish and receive."""
        self._say("2. three participants join with real media, each on another media server")
        url = (await self._session())["status"]["url"]
        session = ObjectKey(*self.session)
        signing = await key_of_session(session, self.stack.cluster.kubeconfig)
        async with table.live(self.console, call, self.server_of):
            for index, name in enumerate(NAMES):
                await call.join(url, signing.sign(session, name, seconds=TOKEN_SECONDS), publish=index == 0)
            servers = {self.server_of(router) for router in call.routers().values()}
            if len(servers) != len(NAMES):
                raise DemoError(f"the participants sit on {len(servers)} servers: {call.routers()}")
            await call.until("two receive what the first publishes", call.all_flowing, seconds=MEDIA_SECONDS)
            for participant in list(call.participants.values())[1:]:
                await call.publish(participant)
            await call.until("all three receive each other", call.all_flowing, seconds=MEDIA_SECONDS)
            await asyncio.sleep(STEADY_SECONDS)
            self._check_steady(call)
        self.report.first_frames = call.first_frames()
        self.report.first_frame_ms = [frame.ms for frame in self.report.first_frames]
        slowest = max(self.report.first_frame_ms)
        self._say(f"   every source is decoded everywhere; slowest first frame {slowest} ms")

    def _check_steady(self, call: Call) -> None:
        now = time.monotonic()
        slow = [flow for flow in call.flows() if flow.received.rate(now) < STEADY_VIDEO_RATE]
        if slow:
            raise DemoError(f"less than {STEADY_VIDEO_RATE:g} frames/s: {', '.join(map(str, slow))}")

    # -- 3 ----------------------------------------------------------------------------------------------

    async def lose_a_server(self, call: Call) -> None:
        """SIGKILL one media server; its router is replaced, its participant receives again."""
        moved = call.participants[NAMES[-1]]
        lost = self.server_of(moved.router)
        self._say(f"3. kill -9 {lost}, where {moved.peer_id} sits")
        staying = [flow.received for flow in call.flows() if moved.peer_id not in _ends(flow)]
        async with table.live(self.console, call, self.server_of):
            joins = moved.joins
            for received in staying:
                received.reset_gap()
            killed = time.monotonic()
            await asyncio.to_thread(self.stack.kill, lost)
            await call.until(
                f"{moved.peer_id} joins again", lambda: moved.joins > joins, seconds=RECOVERY_SECONDS
            )
            again = moved.joined_at or killed
            self.report.recovery_ms = round((await self._recovered(call, moved, again) - killed) * 1000)
            status = await self._until_ready(since=lost, seconds=RECOVERY_SECONDS)
            await call.until(
                "all three receive each other again",
                lambda: call.all_flowing(since=again, rate=STEADY_VIDEO_RATE),
                seconds=RECOVERY_SECONDS,
            )
        gap = max(received.gap(time.monotonic()) for received in staying)
        self.report.longest_gap_ms = round(gap * 1000)
        await self._show_objects()
        self._say(
            f"   {moved.peer_id} was without media for {self.report.recovery_ms} ms and sits on "
            f"{self.server_of(moved.router)} now; the others' longest gap was {self.report.longest_gap_ms} ms"
        )
        if len(status["routers"]) != len(NAMES):
            raise DemoError(f"the lost router was not replaced: {status['routers']}")
        if gap > LONGEST_GAP:
            raise DemoError(f"the two others stopped for {gap:.1f} s")

    async def _recovered(self, call: Call, moved: Participant, since: float) -> float:
        """When the slowest of the moved participant's sources decoded its first frame after ``since``."""
        mine = [flow.received for flow in call.flows() if flow.receiver is moved]
        first: dict[str, float] = {}

        def all_again() -> bool:
            for received in mine:
                if received.last_frame_at is not None and received.last_frame_at > since:
                    first.setdefault(f"{received.peer}/{received.source}", received.last_frame_at)
            return len(first) == len(mine)

        await call.until(f"{moved.peer_id} decodes again", all_again, seconds=RECOVERY_SECONDS)
        return max(first.values())

    # -- 4 ----------------------------------------------------------------------------------------------

    async def delete(self, call: Call) -> None:
        """Delete the session; nothing of it is left in the API or in any worker."""
        namespace, name = self.session
        self._say(f"4. kubectl -n {namespace} delete mediasession {name}")
        self.report.frames = call.frames()
        await asyncio.to_thread(
            self.stack.cluster.kubectl, "-n", namespace, "delete", "mediasession", name, "--wait=false"
        )
        for participant in call.participants.values():
            await self._ended(participant)
        cluster = await self.api.get(CLUSTERS, *self.cluster)
        key = ClusterKey.load(self.stack.key_file)
        running = [s for s in self.stack.layout.servers if self.stack.cluster.processes.running(s.name)]
        deadline = time.monotonic() + GONE_SECONDS
        while True:
            left = [
                f"{resource.kind} {item['metadata']['name']}"
                for resource in (SESSIONS, ROUTERS)
                for item in (await self.api.list(resource, namespace)).items
            ]
            left += await audit.leftovers(
                running, key, cluster_uid=cluster["metadata"]["uid"], cluster_name="/".join(self.cluster)
            )
            if not left or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        self.report.leftovers += left
        if left:
            raise DemoError(f"left after {GONE_SECONDS:g} s: {', '.join(left)}")
        self._say(
            f"   no router is left in the API, nor in any worker of the {len(running)} servers (dumped)"
        )

    async def _ended(self, participant: Participant) -> None:
        try:
            async with asyncio.timeout(GONE_SECONDS):
                await participant.wait()
        except CallEnded as ended:
            self.console.print(
                f"   {participant.peer_id} was told: {ended.reason} ({ENDED})", highlight=False
            )
            return
        except TimeoutError as error:
            raise DemoError(f"{participant.peer_id} was not told that the session ended") from error
        raise DemoError(f"{participant.peer_id} left before the session ended")

    # -- common -----------------------------------------------------------------------------------------

    def server_of(self, router: str) -> str:
        """The MediaServer of a router (`namespace/name`); `?` before its placement was seen."""
        return self._servers.get(router, "?")

    async def _session(self) -> Object:
        return await self.api.get(SESSIONS, *self.session)

    async def _show_objects(self) -> None:
        text = await asyncio.to_thread(self.stack.cluster.kubectl, "get", "mafalda", "-A", "-o", "wide")
        self.console.print(text.rstrip(), highlight=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        self.console.print(text, style="bold", highlight=False)


def _is_ready(item: Object) -> bool:
    status = item.get("status") or {}
    if status.get("observedGeneration") != item["metadata"]["generation"]:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))


def _ends(flow: Flow) -> tuple[str, str]:
    return flow.receiver.peer_id, flow.received.peer
