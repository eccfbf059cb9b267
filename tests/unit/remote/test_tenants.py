"""Who is admitted, whose worker a ticket leads to, and what is left when something ends in between."""

from __future__ import annotations

import base64
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support.remote import ISSUER, KEYS, tenant_settings, token, worker_tokens
from support.tenants import FakeClock, FakeProcess, bearer

from mediaserver.control.contract import WorkerTokens
from mediaserver.mediasoup.process import ExitStatus
from mediaserver.remote import tenants as tenants_module
from mediaserver.remote.errors import CannotStart, Refused
from mediaserver.remote.process import LONGEST_FILE, DtlsFiles
from mediaserver.remote.tenant import Tenant
from mediaserver.remote.tenants import Hello, Tenants, parse_hello
from mediaserver.remote.tokens import Bearer
from mediaserver.wire import worker_tokens as wire
from mediaserver.wire.worker_tokens import Ticket, mint_ticket

VERSION = "3.27.1"


class World:
    def __init__(self, **changes: Any) -> None:
        self.clock = FakeClock()
        self.settings = tenant_settings(binaries={VERSION: Path("worker")}, **changes)
        self.tenants = Tenants(
            self.settings, instance_id="i1", server_name=lambda: "media/one", clock=self.clock
        )
        self.tenants.set_tokens(worker_tokens())

    def launch(self, who: Bearer | None = None, hello: Hello | None = None) -> Tenant:
        with self.tenants.admit(who or bearer(), VERSION) as admission:
            return self.tenants.launch(admission, hello or Hello(pid=1))

    def refusal(self, who: Bearer | None = None, version: str = VERSION) -> Refused:
        with pytest.raises(Refused) as refused, self.tenants.admit(who or bearer(), version):
            pass
        return refused.value


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


@pytest_asyncio.fixture
async def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Callable[..., World]]:
    monkeypatch.setattr(tenants_module, "spawn", lambda *_: FakeProcess())
    monkeypatch.setattr(tenants_module, "FAREWELL", 0.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    worlds: list[World] = []

    def one(**changes: Any) -> World:
        worlds.append(World(**changes))
        return worlds[-1]

    yield one
    for world in worlds:
        await world.tenants.close()
        assert not world.tenants._held
        assert not world.tenants._uses
        assert not world.tenants._starting
    assert is_empty(tmp_path)


Make = Callable[..., World]


# -- admission ----------------------------------------------------------------------------------------------


async def test_a_version_that_no_worker_serves(make: Make) -> None:
    refused = make().refusal(version="3.14.0\udcff" + "9" * 1000)
    assert (refused.status, refused.final) == (409, True)
    assert "3.14.0" in str(refused)
    assert VERSION in str(refused)
    assert "--worker" in str(refused)
    assert len(str(refused).encode()) < 300


async def test_room_by_workers_counts_those_being_started(make: Make) -> None:
    world = make(most_workers=2)
    world.launch(bearer(jti="a"))
    with world.tenants.admit(bearer(jti="b"), VERSION):
        assert world.tenants.free() == 0
        refused = world.refusal(bearer(jti="c"))
        assert (refused.status, refused.final) == (503, False)
        assert "all 2 places" in str(refused)
    assert world.tenants.free() == 1


async def test_room_by_cores(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(most_cores=1.5)
    world.launch()
    seconds = 0.0
    monkeypatch.setattr(tenants_module, "cpu_seconds", lambda _: seconds)
    for cores, free in ((1.0, 31), (1.5, 0), (0.25, 31)):
        world.clock.now += 2
        seconds += 2 * cores
        load = world.tenants.load()
        assert (load.cpu, load.free) == (pytest.approx(cores), free)
        if not free:
            assert "use 1.5 of the 1.5 cores" in str(world.refusal(bearer(jti="other")))


async def test_a_tokens_workers_count_while_others_are_started_and_not_once_they_ended(make: Make) -> None:
    world = make()
    mine = bearer(workers=2)
    first = world.launch(mine)
    with world.tenants.admit(mine, VERSION):
        refused = world.refusal(mine)
        assert (refused.status, refused.final) == (403, True)
        assert "bound of 2 workers" in str(refused)
        with world.tenants.admit(bearer(jti="other"), VERSION):
            assert world.tenants.load().by_token == {"other": 1, "t1": 2}
    world.launch(mine)
    assert world.refusal(mine).status == 403
    first.process.kill()  # its end may be told later: its place is free
    world.launch(mine)


async def test_a_place_is_given_back_when_the_start_fails(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(most_workers=1)

    def fail(*_: object) -> FakeProcess:
        raise CannotStart("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(tenants_module, "spawn", fail)
        with pytest.raises(CannotStart, match="no memory"):
            world.launch(hello=Hello(pid=1, files={"dtlsCertificateFile": "AAAA"}))
    assert world.tenants.free() == 1
    world.launch()


@pytest.mark.parametrize("closed", [False, True])
async def test_none_are_taken_when_it_stops(make: Make, closed: bool) -> None:
    world = make()
    running = world.launch()
    with world.tenants.admit(bearer(jti="late"), VERSION) as admission:
        if closed:
            await world.tenants.close()
        else:
            world.tenants.refuse_new()
        with pytest.raises(CannotStart, match="stops"):
            world.tenants.launch(admission, Hello(pid=1))
    refused = world.refusal()
    assert (refused.status, refused.final, world.tenants.free()) == (503, False, 0)
    assert running.alive is not closed


# -- tokens -------------------------------------------------------------------------------------------------

OTHER_KEY = WorkerTokens(issuers=[ISSUER], keys={"1": base64.b64encode(b"x" * 32).decode()}, revoked=[])
CHANGES = [
    (worker_tokens(), None),
    (worker_tokens(kids=("1",)), None),
    (worker_tokens(revoked=("other",)), None),
    (worker_tokens(revoked=("t1",)), "revoked"),
    (worker_tokens(kids=("2",)), "key '1'"),
    (OTHER_KEY, "key '1'"),
    (None, "key '1'"),
]


@pytest.mark.parametrize(("tokens", "reason"), CHANGES)
async def test_a_token_that_counts_no_more_ends_its_workers(
    make: Make, tokens: WorkerTokens | None, reason: str | None
) -> None:
    world = make()
    tenant = world.launch()
    world.tenants.set_tokens(tokens)
    assert tenant.alive is (reason is None)
    assert reason is None or reason in str(tenant._verdict)


@pytest.mark.parametrize(("tokens", "reason"), CHANGES)
async def test_a_token_that_counts_no_more_while_its_worker_is_started(
    make: Make, tokens: WorkerTokens | None, reason: str | None
) -> None:
    world = make()
    with world.tenants.admit(bearer(), VERSION) as admission:
        world.tenants.set_tokens(tokens)
        if reason is None:
            world.tenants.launch(admission, Hello(pid=1))
        else:
            with pytest.raises(CannotStart, match=reason):
                world.tenants.launch(admission, Hello(pid=1))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "malformed"),
        ("\udcff.\udcff.\udcff", "malformed"),
        ("x" * 9000, "malformed"),
        (token(exp=1, nbf=0), "expired"),
        (token(nbf=2**40, exp=2**41), "notYetValid"),
        (token(iss="other"), "wrongIssuer"),
        (token(jti="gone"), "revoked"),
        (token()[:-6] + "AAAAAA", "forged"),
        (wire.mint(bearer().claims, "3", b"z" * 32), "unknownKey"),
    ],
)
async def test_tokens_that_are_refused(make: Make, text: str, told: str) -> None:
    world = make()
    world.tenants.set_tokens(worker_tokens(revoked=("gone",)))
    with pytest.raises(Refused, match=told) as refused:
        world.tenants.verify(text)
    assert (refused.value.status, refused.value.final) == (401, True)
    world.tenants.set_tokens(None)
    with pytest.raises(Refused, match="workers: true"):
        world.tenants.verify(token())


async def test_a_tokens_key_is_not_shown(make: Make) -> None:
    assert "kkkk" not in repr(make().tenants.verify(token()))


# -- tickets ------------------------------------------------------------------------------------------------


def ticket(worker: str, kid: str = "1", key: bytes | None = None, **changes: str) -> str:
    told = {"iss": ISSUER, "sub": "app", "server": "media/one", "instance": "i1", "token": "t1", **changes}
    return mint_ticket(Ticket(worker=worker, **told), kid, key or KEYS[kid])


async def test_a_ticket_leads_to_its_worker_only(make: Make) -> None:
    world = make()
    one, other = world.launch(), world.launch(bearer("2", jti="t2"))
    assert world.tenants.find(one.origin.ticket) is one
    assert world.tenants.find(other.origin.ticket) is other
    for wrong, status in (
        (ticket("nobody"), 410),
        (ticket(one.origin.id, instance="i0"), 410),
        (ticket(other.origin.id), 410),  # by the key of another team
        (ticket(other.origin.id, token="t2"), 410),
        (ticket(other.origin.id, "2"), 410),  # by another token
        (ticket(one.origin.id, key=b"z" * 32), 401),
        (ticket(one.origin.id, iss="other"), 401),
        (token(), 401),
        ("\udcff", 401),
    ):
        with pytest.raises(Refused) as refused:
            world.tenants.find(wrong)
        assert (refused.value.status, refused.value.final) == (status, True)
    with pytest.raises(Refused, match="wrongAudience"):
        world.tenants.verify(one.origin.ticket)


async def test_a_ticket_outlives_its_token_but_no_revocation(make: Make) -> None:
    world = make()
    tenant = world.launch(bearer(exp=time.time() - 3600))
    assert world.tenants.find(tenant.origin.ticket) is tenant
    world.tenants.set_tokens(worker_tokens(revoked=("t1",)))
    with pytest.raises(Refused, match="revoked"):
        world.tenants.find(tenant.origin.ticket)


# -- hellos and files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"pid": "1"},
        {"pid": -1},
        {"pid": 2**32},
        {"pid": 1.5},
        {"pid": 1, "arguments": "--logLevel=warn"},
        {"pid": 1, "arguments": [1]},
        {"pid": 1, "files": ["/etc/passwd"]},
        {"pid": 1, "files": {"dtlsCertificateFile": None}},
    ],
)
def test_hellos_that_are_none(message: dict[str, Any]) -> None:
    with pytest.raises(CannotStart, match="the hello cannot be read") as refused:
        parse_hello(message)
    assert refused.value.exit_code == 42


@pytest.mark.parametrize(
    "files",
    [
        {"shadow": "AAAA"},
        {"../x": "AAAA"},
        {"\ud800": "AAAA"},
        {"dtlsCertificateFile": "AAAA", "dtlsPrivateKeyFile": "no base64"},
        {"dtlsCertificateFile": "AAAA", "dtlsPrivateKeyFile": "é"},
        {"dtlsCertificateFile": "AAAA", "dtlsPrivateKeyFile": "\ud800"},
        {
            "dtlsCertificateFile": "AAAA",
            "dtlsPrivateKeyFile": base64.b64encode(b"x" * (LONGEST_FILE + 1)).decode(),
        },
    ],
)
def test_files_that_are_refused_leave_no_folder(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(CannotStart) as refused:
        DtlsFiles(files)
    assert refused.value.exit_code == 42
    assert len(str(refused.value)) < 200
    assert is_empty(tmp_path)


# -- figures ------------------------------------------------------------------------------------------------


class FakePipes:
    consumers = transports = 0

    def __init__(self, pipes: int) -> None:
        self.pipes = pipes


async def test_pipes_are_those_of_workers_that_run(make: Make) -> None:
    world = make()
    for pipes in (2, 3):
        world.launch(bearer(jti=f"t{pipes}")).tap = FakePipes(pipes)  # type: ignore[assignment]
    assert world.tenants.pipes == 5
    next(iter(world.tenants._held.values())).tenant.process.kill()
    assert world.tenants.pipes == 3
    world.tenants.settings = replace(world.settings, policy=replace(world.settings.policy, addresses="Keep"))
    assert world.tenants.pipes == 0


async def test_a_worker_whose_end_was_not_told_yet_is_in_no_list(make: Make) -> None:
    world = make()
    tenant = world.launch()
    assert [worker.id for worker in world.tenants.workers()] == [tenant.origin.id]
    assert isinstance(tenant.process, FakeProcess)
    tenant.process.end(ExitStatus(code=0))
    assert world.tenants.workers() == []
    assert world.tenants.load().workers == 0
