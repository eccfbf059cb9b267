"""Every account of the chart's uses what it was granted, and asks for nothing else."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from e2e.support import chart, sessions
from e2e.support.calls import gathered
from e2e.support.kubernetes import CommandFailed, delete, kubectl
from e2e.support.measured import Measured
from e2e.support.testbed import audited
from support.rights import EVERYWHERE, wanted

ACCOUNT = f"system:serviceaccount:{chart.NAMESPACE}:{chart.RELEASE}-"
SELDOM = {
    ("gateway", "namespaces", "get"),  # key sets by namespace label
    ("hooks", "mafalda.io/mediaclusters", "create"),  # asked for beside patch when it is made by apply
    ("operator", "authorization.k8s.io/selfsubjectaccessreviews", "create"),  # a router is forbidden
    ("operator", "mafalda.io/mediaclusters/finalizers", "update"),  # no request of its own
}
"""Granted for what seldom happens."""

Used = dict[tuple[str, str], set[str]]


async def test_rights_that_are_used_are_those_that_are_granted(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    session = await sessions.create(namespace, routers=2)
    async with gathered(session, ("alice", "bob")):
        pass
    await delete("mediasession", session.name, namespace=namespace)
    used, refused = split(await audited())
    granted: Used = defaultdict(set)
    for (role, _, what), verbs in wanted().items():
        granted[role, what.partition(":")[0]] |= verbs
    for of_whom, verbs in used.items():
        assert verbs <= granted[of_whom], f"{of_whom} used {verbs - granted[of_whom]}"
    for (
        of_whom,
        verbs,
    ) in refused.items():  # what is granted is refused in namespaces that end, and after uninstall
        assert verbs <= granted[of_whom], f"{of_whom} was refused {verbs - granted[of_whom]}"
    must = {("operator", "mafalda.io/mediarouters"): {"create", "delete"}, ("operator", "pods"): {"create"}}
    for of_whom, verbs in must.items():
        assert verbs <= used[of_whom]
    unused = sorted(
        f"{role} {verb} {what}"
        for (role, what), verbs in granted.items()
        for verb in verbs - used.get((role, what), set())
        if (role, what, verb) not in SELDOM
    )
    measured(used=sum(map(len, used.values())), unused=unused)


async def test_the_operator_asks_for_no_other_pods_and_secrets(mafalda: chart.Mafalda):
    """Each list is of a namespace with MediaClusters, pods by label, Secrets by name, whatever it may do."""
    media = {chart.NAMESPACE} | await with_media_clusters()
    for event in await audited(f"{ACCOUNT}operator"):
        if event["verb"] not in ("list", "watch"):
            continue
        what, uri = event["objectRef"]["resource"], event["requestURI"]
        if what in ("pods", "secrets", "configmaps", "services"):
            assert event["objectRef"].get("namespace", EVERYWHERE) in media, uri
        if what == "pods":
            assert "labelSelector=mafalda.io" in uri, uri
        if what == "secrets":
            assert "fieldSelector=metadata.name" in uri, uri


async def with_media_clusters() -> set[str]:
    """Namespaces where somebody, another test say, has made one."""
    return {
        str(event["objectRef"]["namespace"])
        for event in await audited()
        if event["objectRef"]["resource"] == "mediaclusters" and event["verb"] in ("create", "patch")
    }


async def test_the_gateway_cannot_read_the_cas_key(mafalda: chart.Mafalda):
    async def may_read(name: str) -> bool:
        try:
            told = await kubectl(
                *("auth", "can-i", "get", f"secret/{name}", "-n", chart.NAMESPACE),
                f"--as={ACCOUNT}gateway",
            )
        except CommandFailed as error:
            if error.said.split()[-1:] != ["no"]:
                raise
            return False
        return told.strip() == "yes"

    assert await may_read(f"{chart.CLUSTER}-token-keys")
    assert not await may_read(f"{chart.RELEASE}-ca")


def split(events: list[dict[str, Any]]) -> tuple[Used, Used]:
    """Verbs by account and resource: those that were let through, and those that were forbidden."""
    used: Used = defaultdict(set)
    refused: Used = defaultdict(set)
    for event in events:
        user, about = event["user"].get("username", ""), event["objectRef"]
        if not user.startswith(ACCOUNT):
            continue
        parts = [about.get("apiGroup"), about["resource"], about.get("subresource")]
        what = "/".join(part for part in parts if part)
        code = event.get("responseStatus", {}).get("code")
        into = refused if code == 403 else used
        into[user.removeprefix(ACCOUNT), what].add(event["verb"])
    return used, refused
