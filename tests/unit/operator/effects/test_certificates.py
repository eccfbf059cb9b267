"""The operator's certificates in Secrets: made, renewed, restored, and left alone when they are others'."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from doubles.secrets import SecretApi
from mafalda_operator.effects import issuing
from mafalda_operator.effects.api import KubeApi
from mafalda_operator.effects.certificates import CertificateKeeper, Issuing
from mafalda_operator.effects.errors import Forbidden
from mafalda_operator.model import MediaCluster, ObjectKey, TlsSecret
from mafalda_operator.planning.actions import EventNote
from mafalda_operator.planning.certificates import AUTHORITY_SECONDS, DAY, RENEW_AT
from structlog.testing import capture_logs
from support.certificates import GATEWAY, OPERATOR, SERVER, Authority

from mediaserver.wire.certificates import Material, read
from mediaserver.wire.tls import Certificates

CA, GATEWAYS = ObjectKey("system", "mafalda-ca"), ObjectKey("system", "mafalda-gateway-tls")
MAIN = ObjectKey("media", "main-tls")


def cluster(name: str = "main", **spec: Any) -> MediaCluster:
    metadata = {"namespace": "media", "name": name, "uid": f"uid-{name}"}
    return MediaCluster.parse({"metadata": metadata, "spec": {"replicas": 1, **spec}})


class Keeper:
    """One operator's keeper; ``now`` is its clock."""

    def __init__(self, api: SecretApi, *, leading: bool = True, issue: bool = True, tls: bool = True) -> None:
        self.api, self.leading = api, leading
        self.now = time.time()
        self.own = Certificates(lacking="nothing yet")
        self.states: dict[ObjectKey, TlsSecret | None] = {}
        self.notes: list[EventNote] = []
        self.keeper = CertificateKeeper(
            cast(KubeApi, api),
            Issuing(CA, GATEWAYS, self.own) if issue else None,
            tls=tls,
            leading=lambda: self.leading,
            on_state=self.states.__setitem__,
            note=self.notes.append,
            wall=lambda: self.now,
        )

    async def __aenter__(self) -> Keeper:
        self._running = asyncio.create_task(self.keeper.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                assert not self._running.done(), self._running.exception()
                await asyncio.sleep(0.005)

    async def settled(self) -> None:
        """Nothing more is written."""
        while True:
            before = len(self.api.writes)
            self.keeper.wake()
            await asyncio.sleep(0.1)
            if len(self.api.writes) == before:
                return

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.keeper.wake()

    def material(self, secret: ObjectKey) -> Material:
        """Raises MembershipError unless it can be used now."""
        content = issuing.decoded(self.api.objects[secret])
        return read(content, where=lambda name: f"{secret} {name}", now=self.now)

    @property
    def authority(self) -> issuing.CertificateAuthority:
        return issuing.read_authority(issuing.decoded(self.api.objects[CA]))


@pytest.fixture
def api() -> SecretApi:
    return SecretApi()


@pytest.fixture
async def keeper(api: SecretApi) -> AsyncIterator[Keeper]:
    async with Keeper(api) as keeper:
        keeper.keeper.follow([cluster()])
        await keeper.until(lambda: MAIN in api.objects and GATEWAYS in api.objects)
        await keeper.settled()
        yield keeper


async def test_all_is_made_from_nothing(keeper: Keeper, api: SecretApi) -> None:
    assert sorted(api.writes) == [f"create {key}" for key in sorted((CA, GATEWAYS, MAIN))]
    assert keeper.material(MAIN).names == {SERVER}
    assert keeper.material(GATEWAYS).names == {GATEWAY}
    assert keeper.own.material is not None
    assert keeper.own.material.names == {OPERATOR}
    made = api.objects[MAIN]
    assert made["type"] == "kubernetes.io/tls"
    assert made["metadata"]["labels"]["mafalda.io/cluster"] == "main"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "uid-main"
    assert (
        "ownerReferences" not in api.objects[CA]["metadata"]
        or not (api.objects[CA]["metadata"]["ownerReferences"])
    )
    state = keeper.states[ObjectKey("media", "main")]
    assert state is not None
    assert (state.state, state.not_after) == ("Good", keeper.material(MAIN).not_after)
    assert [(note.reason, note.type) for note in keeper.notes] == [("CertificateMissing", "Normal")]
    left = keeper.keeper.expiries()
    assert 89 * DAY < left[MAIN] <= 90 * DAY
    assert 3649 * DAY < left[CA] <= 3650 * DAY


async def test_a_certificate_is_renewed_at_two_thirds(keeper: Keeper, api: SecretApi) -> None:
    before, own, writes = keeper.material(MAIN), keeper.own.material, len(api.writes)
    keeper.pass_time(59 * DAY)
    await keeper.settled()
    assert len(api.writes) == writes
    keeper.pass_time(1 * DAY)
    await keeper.until(lambda: keeper.material(MAIN).serial != before.serial)
    await keeper.settled()
    assert keeper.own.material is not own
    assert keeper.material(MAIN).not_after - keeper.now > 89 * DAY
    assert keeper.notes[-1].reason == "CertificateRenewal"


async def test_the_ca_is_exchanged_with_both_in_between(keeper: Keeper) -> None:
    first = keeper.authority.view.signing.ident
    keeper.pass_time(RENEW_AT * AUTHORITY_SECONDS)
    await keeper.settled()
    both = keeper.authority.view
    assert (both.signing.ident, both.next is not None, len(both.trusted)) == (first, True, 2)
    for material in (keeper.material(MAIN), keeper.material(GATEWAYS), keeper.own.material):
        assert material is not None
        assert material.authorities.count(b"BEGIN CERTIFICATE") == 2
    assert both.next is not None
    keeper.pass_time(1.1 * DAY)
    await keeper.settled()
    after = keeper.authority.view
    assert (after.signing.ident, after.next) == (both.next.ident, None)
    assert keeper.material(MAIN).authorities.count(b"BEGIN CERTIFICATE") == 2
    keeper.pass_time(92 * DAY)
    await keeper.settled()
    assert [one.ident for one in keeper.authority.view.trusted] == [both.next.ident]
    assert keeper.material(MAIN).authorities.count(b"BEGIN CERTIFICATE") == 1
    assert set(issuing.decoded(keeper.api.objects[CA])) == {"tls.crt", "tls.key", "ca.crt"}


@pytest.mark.parametrize(
    ("change", "reason", "kind"),
    [
        (lambda data: {}, "CertificateBroken", "Warning"),
        (lambda data: {**data, "tls.key": data["ca.crt"]}, "CertificateBroken", "Warning"),
        (lambda data: {**data, "ca.crt": issuing.encoded(Authority().content("x"))["ca.crt"]}, "", "Normal"),
    ],
)
async def test_a_spoiled_secret_is_made_anew_and_why_is_told(
    keeper: Keeper, api: SecretApi, change: Callable[[dict[str, str]], Any], reason: str, kind: str
) -> None:
    obj = api.objects[MAIN]
    api.put("media", "main-tls", metadata=obj["metadata"], data=change(obj["data"]))
    writes = len(api.writes)
    await keeper.until(lambda: len(api.writes) > writes)
    await keeper.settled()
    assert keeper.material(MAIN).names == {SERVER}
    assert keeper.notes[-1].reason in (reason, "AuthorityChanged")
    assert keeper.notes[-1].type == kind
    assert not reason or "tls." in keeper.notes[-1].message


async def test_a_deleted_secret_is_made_anew(keeper: Keeper, api: SecretApi) -> None:
    api.delete("media", "main-tls")
    await keeper.until(lambda: MAIN in api.objects)
    assert keeper.notes[-1].reason == "CertificateMissing"


@pytest.mark.parametrize("spoil", ["deleted", "spoiled"])
async def test_a_ca_that_is_lost_from_its_secret_goes_on(keeper: Keeper, api: SecretApi, spoil: str) -> None:
    """Nobody has to be given another certificate."""
    ident, serial = keeper.authority.view.signing.ident, keeper.material(MAIN).serial
    with capture_logs() as logs:
        if spoil == "deleted":
            api.delete(*CA)
        else:
            api.put(*CA, data={"tls.crt": "AAAA"})
        await keeper.until(lambda: len((api.objects.get(CA) or {}).get("data") or {}) == 3)
        await keeper.settled()
    assert keeper.authority.view.signing.ident == ident
    assert keeper.material(MAIN).serial == serial
    told = [entry for entry in logs if entry["event"].startswith("certificate authority written: ")]
    assert [entry["reason"] for entry in told] == [
        "AuthorityMissing" if spoil == "deleted" else "AuthorityBroken"
    ]


async def test_a_standby_writes_nothing_and_can_dial(api: SecretApi) -> None:
    async with Keeper(api, leading=False) as standby:
        await standby.settled()
        assert api.writes == []
        assert standby.own.material is None
        async with Keeper(api) as leader:
            await leader.until(lambda: leader.own.material is not None)
        await standby.until(lambda: standby.own.material is not None)
        assert [write for write in api.writes if "mafalda-ca" in write] == ["create system/mafalda-ca"]


async def test_two_that_make_a_ca_at_once_agree_on_one(api: SecretApi) -> None:
    """Only one leads; but the other may not have noticed yet."""
    async with Keeper(api) as one, Keeper(api) as other:
        await one.until(lambda: one.own.material and other.own.material)
        await one.settled()
        assert one.own.material is not None
        assert other.own.material is not None
        assert one.own.material.authorities == other.own.material.authorities


async def test_somebody_elses_secret_is_not_overwritten(api: SecretApi) -> None:
    api.put("media", "main-tls", data={"tls.crt": "AAAA"})
    async with Keeper(api) as keeper:
        keeper.keeper.follow([cluster()])
        await keeper.until(lambda: (state := keeper.states.get(KEY)) and state.state == "Taken")
    assert api.objects[MAIN]["data"] == {"tls.crt": "AAAA"}


KEY = ObjectKey("media", "main")


async def test_a_secret_that_may_not_be_written_is_told(api: SecretApi) -> None:
    async with Keeper(api) as keeper:
        await keeper.until(lambda: GATEWAYS in api.objects)
        api.fault = Forbidden(403, "Forbidden", "not in this namespace")
        keeper.keeper.follow([cluster()])
        await keeper.until(lambda: (state := keeper.states.get(KEY)) and state.state == "Failed")
        state = keeper.states[KEY]
        assert state is not None
        assert "not in this namespace" in state.detail
        api.fault = None
        await keeper.until(lambda: (state := keeper.states.get(KEY)) and state.state == "Good")


async def test_a_given_secret_is_only_looked_at(api: SecretApi) -> None:
    async with Keeper(api) as keeper:
        given = cluster(tls={"secretRef": {"name": "given"}})
        keeper.keeper.follow([given])

        async def told(state: str) -> TlsSecret:
            await keeper.until(lambda: (known := keeper.states.get(KEY)) and known.state == state)
            known = keeper.states[KEY]
            assert known is not None
            assert known.given
            return known

        assert (await told("Missing")).detail == SERVER
        api.put("media", "given", data=issuing.encoded(Authority().content(GATEWAY)))
        assert SERVER in (await told("Invalid")).detail
        content = Authority().content(SERVER, lasts=6 * DAY)
        api.put("media", "given", data=issuing.encoded(content))
        assert (await told("Good")).not_after < keeper.now + 6 * DAY
        assert MAIN not in api.objects
        assert not any("given" in write for write in api.writes)
        keeper.keeper.follow([])
        assert keeper.states[KEY] is None


async def test_without_issuing_a_missing_secret_is_told(api: SecretApi) -> None:
    async with Keeper(api, issue=False) as keeper:
        keeper.keeper.follow([cluster()])
        await keeper.until(lambda: (state := keeper.states.get(KEY)) and state.state == "Missing")
    assert api.writes == []


async def test_an_operator_without_tls_says_so(api: SecretApi) -> None:
    async with Keeper(api, issue=False, tls=False) as keeper:
        keeper.keeper.follow([cluster()])
        await keeper.until(lambda: (state := keeper.states.get(KEY)) and state.state == "Off")


async def test_a_cluster_without_pods_needs_none(api: SecretApi) -> None:
    async with Keeper(api) as keeper:
        keeper.keeper.follow([cluster(replicas=0)])
        await keeper.until(lambda: GATEWAYS in api.objects)
        await keeper.settled()
    assert MAIN not in api.objects
    assert keeper.states == {}


async def test_a_given_ca_signs(api: SecretApi) -> None:
    """As cert-manager makes one, without a bundle of its own."""
    given = Authority()
    content = {name: given.ca.content[name] for name in ("tls.crt", "tls.key")}
    api.put(*CA, data=issuing.encoded(content))
    async with Keeper(api) as keeper:
        await keeper.until(lambda: keeper.own.material)
        assert keeper.own.material is not None
        assert keeper.own.material.authorities == given.ca.content["tls.crt"]
    assert "patch system/mafalda-ca" not in api.writes


async def test_no_key_is_logged(api: SecretApi) -> None:
    with capture_logs() as logs:
        async with Keeper(api) as keeper:
            keeper.keeper.follow([cluster()])
            await keeper.until(lambda: MAIN in api.objects)
            await keeper.settled()
    assert logs
    assert "PRIVATE" not in str(logs)
    assert "BEGIN" not in str(logs)


async def test_what_others_did_before_our_writes_answer_came_is_not_forgotten(
    keeper: Keeper, api: SecretApi
) -> None:
    """The watch tells of it first; the answer is older news then."""
    answer = copy.deepcopy(api.objects[MAIN])
    api.put(*MAIN, metadata=answer["metadata"], data={**answer["data"], "tls.key": "AAAA"})
    keeper.leading = False
    await asyncio.sleep(0.05)
    keeper.keeper._secrets.put(MAIN, answer)
    keeper.leading = True
    keeper.keeper.wake()
    await keeper.until(lambda: api.objects[MAIN]["data"]["tls.key"] != "AAAA")
