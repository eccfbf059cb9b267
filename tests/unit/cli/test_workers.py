"""`mafalda workers`, against fake media servers over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from doubles.kube import FakeKube
from mafalda_operator.cli import workers as module
from mafalda_operator.cli.workers import workers
from mafalda_operator.cli.workers_output import age, as_table
from mafalda_operator.effects.errors import ApiUnavailable
from mafalda_operator.model import ObjectKey
from structlog.testing import capture_logs

from mediaserver.control.contract import TenantWorker
from mediaserver.control.fake import FakeMediaServer
from mediaserver.wire.membership import ClusterKey

SECRET = secrets.token_bytes(32)
KEY = ClusterKey(SECRET)


def worker(ident: str, subject: str = "shop", *, attached: bool = True, old: float = 90.0) -> TenantWorker:
    return TenantWorker(
        id=ident,
        subject=subject,
        token=f"token-{subject}",
        version="3.27.1",
        pid=4711,
        attached=attached,
        age=old,
        cpu=0.254,
        memory=50 * 2**20,
        consumers=7,
        transports=3,
    )


class Place:
    """MediaServers `main-1` and `main-2` of MediaCluster `main`, `other-1` of `other`."""

    def __init__(self, kube: FakeKube, key_file: Path, servers: dict[str, FakeMediaServer]) -> None:
        self.kube, self.key_file, self.servers = kube, key_file, servers
        for cluster in ("main", "other"):
            kube.cluster(cluster)
        for name, server in servers.items():
            kube.server(name, server.endpoint, cluster=name.partition("-")[0])

    async def run(self, *arguments: str) -> Result:
        """In a thread, since the command has a loop of its own."""
        full = ["--cluster-key-file", str(self.key_file), *arguments]
        return await asyncio.to_thread(CliRunner().invoke, workers, full)


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    kube, key_file = FakeKube(), tmp_path / "cluster.key"
    key_file.write_text(base64.b64encode(SECRET).decode())
    monkeypatch.setattr(module, "KubeApi", kube)
    async with AsyncExitStack() as stack:
        stack.enter_context(capture_logs())  # the servers', which run in this very process
        names = ("main-1", "main-2", "other-1")
        servers = {name: await stack.enter_async_context(FakeMediaServer(KEY)) for name in names}
        yield Place(kube, key_file, servers)


async def test_a_table_of_all_workers_of_all_clusters(place: Place) -> None:
    place.servers["main-1"].tenant_workers = [worker("w2"), worker("w1", "bank", attached=False, old=7200)]
    place.servers["other-1"].tenant_workers = [worker("w1", old=3 * 86400)]
    result = await place.run()
    assert (result.exit_code, result.stderr) == (0, "")
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "SERVER ID SUBJECT TOKEN VERSION STATE AGE CPU MEMORY TRANSPORTS CONSUMERS",
        "media/main-1 w1 bank token-bank 3.27.1 Detached 2h 0.25 50Mi 3 7",
        "media/main-1 w2 shop token-shop 3.27.1 Attached 90s 0.25 50Mi 3 7",
        "media/other-1 w1 shop token-shop 3.27.1 Attached 3d 0.25 50Mi 3 7",
    ]
    assert len({line.index(" 50Mi ") for line in result.stdout.splitlines()[1:]}) == 1
    assert place.kube.closed == 1


async def test_only_one_cluster_s_as_json(place: Place) -> None:
    place.servers["main-2"].tenant_workers = [worker("w1")]
    place.servers["other-1"].tenant_workers = [worker("w2")]
    result = await place.run("--cluster", "media/main", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "workers": [
            {
                "server": "media/main-2",
                "id": "w1",
                "subject": "shop",
                "token": "token-shop",
                "version": "3.27.1",
                "pid": 4711,
                "attached": True,
                "age": 90.0,
                "cpu": 0.254,
                "memory": 50 * 2**20,
                "consumers": 7,
                "transports": 3,
            }
        ]
    }


async def test_looking_commands_nothing(place: Place) -> None:
    server = place.servers["main-1"]
    before = server.highest_epoch
    assert (await place.run()).exit_code == 0
    assert (server.highest_epoch, server.applies, server.server_name) == (before, 0, "")
    assert server.cluster_uid == "uid-main"


async def test_none_at_all(place: Place) -> None:
    result = await place.run()
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No worker runs for an application.\n"
    result = await place.run("-o", "json")
    assert json.loads(result.stdout) == {"workers": []}
    assert result.stderr == ""


async def test_who_cannot_be_asked_is_told_and_the_rest_is_listed(place: Place) -> None:
    place.servers["main-2"].tenant_workers = [worker("w1")]
    await place.servers["main-1"].kill()
    place.servers["other-1"].faults.bad_proof = True
    place.kube.server("stray-1", "127.0.0.1:1", cluster="stray")
    for output in ("table", "json"):
        result = await place.run("-o", output)
        assert result.exit_code == 1
        assert "w1" in result.stdout
        said = result.stderr.splitlines()
        assert [line.partition(" ")[0] for line in said] == ["media/main-1", "media/other-1", "media/stray-1"]
        assert "can't be asked" in said[0]
        assert place.servers["main-1"].endpoint in said[0]
        assert "names MediaCluster media/stray; there is none" in said[2]


async def test_nothing_is_claimed_of_servers_that_did_not_answer(place: Place) -> None:
    for server in place.servers.values():
        await server.kill()
    result = await place.run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 3


async def test_another_key_is_refused(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_bytes(b"x" * 32)
    result = await place.run("--cluster-key-file", str(other))
    assert result.exit_code == 1
    assert "--cluster-key-file" in result.stderr.splitlines()[0]


async def test_a_server_that_hangs_is_given_up(place: Place) -> None:
    place.servers["main-1"].faults.hang = True
    place.servers["main-2"].tenant_workers = [worker("w1")]
    result = await place.run()
    assert result.exit_code == 1
    assert "media/main-2" in result.stdout
    assert "no answer to challenge within 3 s" in result.stderr


async def test_what_is_wrong_with_the_rest_is_told(place: Place, tmp_path: Path) -> None:
    result = await place.run("--cluster", "media/none")
    assert (result.exit_code, result.stderr) == (1, "Error: there is no MediaCluster media/none\n")
    assert (await place.run("--cluster", "main")).exit_code == 2
    place.kube.fault = ApiUnavailable("no answer from the API server")
    result = await place.run()
    assert (result.exit_code, result.stderr) == (1, "Error: no answer from the API server\n")
    short = tmp_path / "short.key"
    short.write_bytes(b"short")
    result = await place.run("--cluster-key-file", str(short))
    assert result.exit_code == 1
    assert "at least 32 bytes" in result.stderr


def test_nobody_moves_the_cursor_by_what_he_calls_himself() -> None:
    table = as_table([(ObjectKey("media", "main-1"), worker("w1", "\x1b[2Jshop\n"))])
    assert "\x1b" not in table
    assert table.count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0s"), (0.9, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d")],
)
def test_ages(seconds: float, shown: str) -> None:
    assert age(seconds) == shown
