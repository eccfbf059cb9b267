"""What MediaServers and MediaClusters say of themselves."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from mafalda_operator.model import ObjectKey, Scope

CLUSTER = ObjectKey("media", "main")
ONE = ObjectKey("media", "main-1")


def test_a_connected_server_says_what_it_is(world: Any) -> None:
    status = world.status("MediaServer", ONE)
    assert status["workers"] == [{"slot": 0, "state": "Running"}, {"slot": 1, "state": "Running"}]
    assert (status["version"], status["workerVersion"]) == ("0.1.0", "3.27.1")
    for kind in ("Connected", "Accepting", "Ready"):
        assert world.condition("MediaServer", ONE, kind)[0] == "True"


@pytest.mark.parametrize(
    "reason", ["Refused", "Timeout", "Garbage", "VersionSkew", "OtherCluster", "BadProof"]
)
def test_an_endpoint_that_can_not_be_used_says_why(make_world: Any, reason: str) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1", connect=False)
    world.refuse(ONE, reason, "what is wrong and what to do")
    world.settle()
    for kind in ("Connected", "Ready"):
        assert world.condition("MediaServer", ONE, kind) == ("False", reason, "what is wrong and what to do")
    assert world.condition("MediaServer", ONE, "Accepting")[:2] == ("False", "NotConnected")
    assert world.condition("MediaCluster", CLUSTER, "Available")[:2] == ("False", "NoServerReady")
    world.session(min=1)
    world.settle()
    status, found, message = world.condition("MediaSession", ObjectKey("shop", "standup"), "Scheduled")
    assert (status, found) == ("False", "NoCapacity")
    assert "no server of MediaCluster media/main is ready (main-1 unreachable since" in message


def test_all_addresses_that_participants_are_told(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1")
    told = ["203.0.113.7", "2001:db8::7", "lb.example.com"]
    hello = msgspec.structs.replace(world.views[ONE].hello, client_addresses=told)
    world.views[ONE] = replace(world.views[ONE], hello=hello)
    world.settle()
    addresses = world.status("MediaServer", ONE)["addresses"]
    assert [item for item in addresses if item["type"] == "Client"] == [
        {"type": "Client", "address": "203.0.113.7", "ipFamily": "IPv4"},
        {"type": "Client", "address": "2001:db8::7", "ipFamily": "IPv6"},
        {"type": "Client", "address": "lb.example.com"},
    ]


def test_a_server_without_pipe_ports_says_so(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1", ports=0)
    world.settle()
    assert world.condition("MediaServer", ONE, "Accepting")[:2] == ("False", "NoPipePorts")


def test_the_zone_of_the_object_goes_before_the_server_s(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1", zone="said", spec={"zone": "written"})
    world.settle()
    assert world.status("MediaServer", ONE)["zone"] == "written"


def test_figures_that_were_told_stay_while_a_server_is_away(world: Any) -> None:
    before = world.status("MediaServer", ONE)["workers"]
    world.die(ONE)
    for _ in range(5):
        world.advance(1)
        world.settle()
    assert world.status("MediaServer", ONE)["workers"] == before
    assert world.condition("MediaCluster", CLUSTER, "Ready")[:2] == ("False", "ServersNotReady")
    assert "main-1" in world.condition("MediaCluster", CLUSTER, "Ready")[2]
    assert world.status("MediaCluster", CLUSTER)["readyServers"] == 2


def test_transition_times_stay_while_a_condition_does(world: Any) -> None:
    def since(kind: str) -> str:
        conditions = world.status("MediaServer", ONE)["conditions"]
        return str(next(item["lastTransitionTime"] for item in conditions if item["type"] == kind))

    before = since("Connected")
    world.advance(100)
    world.view(ONE, problem=None)
    world.server("main-1", spec={"zone": "new"}, connect=False)
    world.settle()
    assert world.status("MediaServer", ONE)["observedGeneration"] == 2
    assert since("Connected") == before
    world.die(ONE)
    world.settle()
    assert since("Connected") == world.wall_time


def test_nothing_is_written_when_nothing_changed(world: Any) -> None:
    world.session(min=3)
    world.settle()
    for _ in range(5):
        world.advance(1)
        sessions = frozenset(world.inventory.sessions)
        made = world.plan(Scope(sessions=sessions, servers=frozenset({ONE}), clusters=frozenset({CLUSTER})))
        assert made.statuses == ()
        assert made.notes == ()


def test_a_cluster_s_wrong_fields_are_named(make_world: Any) -> None:
    world = make_world()
    world.cluster(recovery={"silenceTimeout": "soon"})
    world.server("main-1")
    world.settle()
    status, reason, message = world.condition("MediaCluster", CLUSTER, "Ready")
    assert (status, reason) == ("False", "InvalidField")
    assert message.startswith("spec.recovery.silenceTimeout must be a duration")
