"""Which pods come and go: scaling by victim, rolling updates, replacement, uncertain creates, deletion."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mafalda_operator.model import DRAIN_FINALIZER, ObjectKey, ObjectRef, PodView
from mafalda_operator.planning.actions import (
    Action,
    ApplyObject,
    CreatePod,
    CreateServer,
    DeletePod,
    SetFinalizer,
)
from mafalda_operator.planning.memory import Memory
from unit.planning.podworld import KEY, NAMESPACE, PodWorld

POD_MODE = {"type": "Pod"}


def running(replicas: int = 3, **spec: object) -> PodWorld:
    world = PodWorld({"replicas": replicas, **spec}, nodes=8)
    world.run()
    assert len([pod for pod in world.live if pod.ready]) == replicas
    return world


def turn(world: PodWorld) -> list[Action]:
    """What is done about pods."""
    return [action for action in world.turn() if not isinstance(action, ApplyObject)]


def test_pods_are_made_after_the_finalizer_and_the_addresses() -> None:
    world = PodWorld({"replicas": 2})
    first = world.turn()
    assert {type(action) for action in first} == {ApplyObject, SetFinalizer}
    assert world.finalizers == [DRAIN_FINALIZER]
    second = world.turn()
    assert [type(action) for action in second] == [CreatePod, CreatePod]
    assert world.turn() == []
    assert all(key.namespace == NAMESPACE and key.name.startswith("main-") for key in world.made)


def test_a_media_server_is_made_once_the_pod_has_a_node() -> None:
    world = PodWorld({"replicas": 1})
    world.turn()
    world.turn()
    assert world.turn() == []
    world.schedule()
    (action,) = world.turn()
    assert isinstance(action, CreateServer)
    assert action.body["spec"] == {"clusterRef": {"name": "main"}, "zone": "a"}
    owner = action.body["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"]) == ("Pod", world.pods[0].uid)


def test_nothing_is_made_while_the_pods_are_not_known() -> None:
    world = PodWorld({"replicas": 2})
    world.inventory.put_followed(NAMESPACE, None)
    assert world.turn() == []
    world.inventory.put_followed(NAMESPACE, "may not list pods")
    assert world.turn() == []


def test_nothing_is_made_without_an_image() -> None:
    world = PodWorld({"replicas": 1}, default_image="")
    world.turn()
    assert not any(isinstance(action, CreatePod) for action in world.turn())
    world.change(image="given:1")
    assert any(isinstance(action, CreatePod) for action in world.turn())


def test_nothing_is_made_in_a_namespace_that_ends() -> None:
    world = PodWorld({"replicas": 1})
    namespace = world.inventory.namespaces[NAMESPACE]
    world.inventory.put_namespace(NAMESPACE, replace(namespace, terminating=True))
    assert world.turn() == []


@pytest.mark.parametrize("followed", ["", "may not list pods", None])
def test_a_namespace_that_ends_is_not_held_up(followed: str | None) -> None:
    """Whatever is known of the pods: with the namespace goes the right to see them."""
    world = running(2)
    world.connect(world.pods[0].key, 3)
    namespace = world.inventory.namespaces[NAMESPACE]
    scope = world.inventory.put_namespace(NAMESPACE, replace(namespace, terminating=True))
    assert KEY in scope.clusters
    world.inventory.put_followed(NAMESPACE, followed)
    world.deleting = True
    world.put_cluster()
    (action,) = world.turn()
    assert isinstance(action, SetFinalizer)
    assert (action.present, action.reason) == (False, "NamespaceTerminating")
    assert KEY not in world.inventory.clusters


def test_scale_down_takes_the_emptiest_and_waits_for_its_drain() -> None:
    world = running(3)
    keys = [pod.key for pod in world.pods]
    for key, participants in zip(keys, (5, 2, 7), strict=True):
        world.connect(key, participants)
    world.change(replicas=2)
    assert turn(world) == []
    assert world.judged is not None
    assert world.judged.wishes == {keys[1]: "ScaleDown"}
    world.connect(keys[1], 9)  # chosen victims stay chosen
    assert turn(world) == []
    assert world.judged.wishes == {keys[1]: "ScaleDown"}
    world.participants.pop(keys[1])
    (action,) = turn(world)
    assert isinstance(action, DeletePod)
    assert (action.key, action.reason) == (keys[1], "ScaleDown")
    assert turn(world) == []


def test_a_new_leader_keeps_to_the_victim_by_its_status() -> None:
    world = running(3)
    keys = [pod.key for pod in world.pods]
    for key, participants in zip(keys, (5, 9, 7), strict=True):
        world.connect(key, participants)
    server = world.inventory.servers[keys[1]]
    status = {"drain": {"reason": "ScaleDown", "startTime": world.wall_time}}
    world.inventory.put(replace(server, status=status))
    world.change(replicas=2)
    world.memory = Memory()
    world.plan()
    assert world.judged is not None
    assert world.judged.wishes == {keys[1]: "ScaleDown"}


def test_a_new_leader_that_does_not_know_the_pods_yet_keeps_what_was_chosen() -> None:
    world = running(2)
    key = world.pods[0].key
    status = {"drain": {"reason": "Update", "startTime": world.wall_time}}
    world.inventory.put(replace(world.inventory.servers[key], status=status))
    world.inventory.put_followed(NAMESPACE, None)
    world.memory = Memory()
    assert world.plan() == []
    assert world.judged is not None
    assert world.judged.wishes == {key: "Update"}


def test_scaling_up_again_calls_the_drain_off() -> None:
    world = running(3)
    for pod in world.pods:
        world.connect(pod.key, 1)
    world.change(replicas=2)
    turn(world)
    world.change(replicas=3)
    assert turn(world) == []
    assert world.judged is not None
    assert world.judged.wishes == {}


def test_pods_that_do_not_run_go_first_and_at_once() -> None:
    world = PodWorld({"replicas": 4}, nodes=3)
    world.run()
    (pending,) = [pod for pod in world.pods if not pod.node]
    world.change(replicas=3)
    (action,) = turn(world)
    assert isinstance(action, DeletePod)
    assert action.key == pending.key


def test_a_pod_that_is_being_deleted_is_replaced_at_once() -> None:
    world = running(3)
    gone = world.pods[0].key
    world.delete(gone)
    (action,) = world.turn()
    assert isinstance(action, CreatePod)
    assert action.key != gone


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_pod_that_has_ended_is_deleted_and_replaced(phase: str) -> None:
    world = running(3)
    ended = world.put(world.pods[0], phase=phase, ready=False, reason="Evicted", message="no memory left")
    actions = world.turn()
    (deletion,) = [action for action in actions if isinstance(action, DeletePod)]
    assert (deletion.key, deletion.reason, deletion.message) == (ended.key, "Evicted", "no memory left")
    assert len([action for action in actions if isinstance(action, CreatePod)]) == 1


def test_a_crash_looping_pod_stays() -> None:
    world = running(2)
    world.put(world.pods[0], ready=False, waiting="CrashLoopBackOff", restarts=9, exit_code=1)
    assert world.turn() == []


def test_on_host_network_one_pod_at_a_time_makes_way_for_the_new_one() -> None:
    world = running(3)
    world.change(image="image:2")
    world.turn()
    assert [reason for _, reason in world.deleted] == ["Update"]
    world.turn()  # its replacement is made at once, and waits for the node
    assert len(world.live) == 3
    for _ in range(3):
        assert world.turn() == []  # no other goes before that one is ready
    world.gone()
    world.run(20)
    assert {pod.revision for pod in world.live} == {world.judged.revision if world.judged else ""}
    assert len(world.live) == 3


def test_in_pod_mode_the_new_pod_comes_first() -> None:
    world = running(2, network=POD_MODE)
    world.change(image="image:2")
    (action,) = world.turn()
    assert isinstance(action, CreatePod)
    assert world.turn() == []
    world.schedule()
    world.turn()
    world.start()
    (action,) = world.turn()
    assert isinstance(action, DeletePod)
    world.run(20)
    assert len(world.live) == 2
    assert len({pod.revision for pod in world.live}) == 1


def test_pods_leave_the_hosts_network_though_every_node_has_one() -> None:
    world = PodWorld({"replicas": 3}, nodes=3)
    world.run()
    world.change(network=POD_MODE)
    (action,) = [action for action in turn(world) if isinstance(action, CreatePod)]
    assert "hostNetwork" not in action.body["spec"]
    world.run(40)
    assert len(world.live) == 3
    assert {pod.revision for pod in world.live} == {world.judged.revision if world.judged else ""}


def test_an_update_waits_for_the_drain_and_goes_back_when_it_is_taken_back() -> None:
    world = running(3)
    for pod in world.pods:
        world.connect(pod.key, 1)
    world.change(image="image:2")
    assert world.turn() == []
    assert world.judged is not None
    assert list(world.judged.wishes.values()) == ["Update"]
    world.change(image=None)
    assert world.turn() == []
    assert world.judged.wishes == {}


def test_a_bad_image_is_replaced_at_once_by_the_next_one() -> None:
    world = running(3)
    world.change(image="bad")
    world.turn()
    world.gone()
    world.turn()
    world.schedule()
    world.turn()
    bad = [pod for pod in world.live if not pod.ready]
    assert len(bad) == 1
    world.change(image="image:3")
    (action,) = world.turn()
    assert isinstance(action, DeletePod)
    assert action.key == bad[0].key


def test_on_delete_waits_for_the_user() -> None:
    world = running(2, update={"type": "OnDelete"})
    world.change(image="image:2")
    assert world.turn() == []
    old = world.pods[0]
    world.delete(old.key)
    (action,) = world.turn()
    assert isinstance(action, CreatePod)
    assert action.body["metadata"]["labels"]["mafalda.io/revision"] != old.revision


def test_nothing_is_updated_while_the_servers_are_frozen() -> None:
    world = running(3)
    for pod in world.pods:
        world.views[pod.key] = replace(world.views[pod.key], connected=False)
        world.put(pod, ready=False)
        status = {"version": "1"}
        world.inventory.put(replace(world.inventory.servers[pod.key], status=status))
    world.change(image="image:2")
    assert world.turn() == []


def test_pods_that_ended_as_they_should_hold_up_no_update() -> None:
    world = running(4, update={"maxUnavailable": 3})
    for pod in world.pods:
        world.inventory.put(replace(world.inventory.servers[pod.key], status={"version": "1"}))
    world.change(image="image:2")
    assert len([action for action in world.turn() if isinstance(action, DeletePod)]) == 3
    world.run(20)
    assert world.judged is not None
    assert {pod.revision for pod in world.live} == {world.judged.revision}


def test_an_uncertain_create_is_asked_for_again_by_the_same_name() -> None:
    world = PodWorld({"replicas": 2})
    world.turn()
    world.lose_answers = True
    world.turn()
    assert len(world.unanswered) == 2
    world.lose_answers = False
    world.turn()
    world.turn()
    assert len(world.made) == 2
    assert {pod.key for pod in world.pods} == set(world.made)


def test_an_uncertain_name_is_not_forgotten_by_scaling_down_and_up() -> None:
    world = PodWorld({"replicas": 1})
    world.turn()
    world.lose_answers = True
    world.turn()
    world.change(replicas=0)
    world.turn()
    world.change(replicas=1)
    world.turn()
    world.turn()
    assert len(world.made) == 1


def test_a_refused_create_waits_for_its_time() -> None:
    world = PodWorld({"replicas": 2})
    world.turn()
    world.refuse = ("QuotaExceeded", "exceeded quota: pods=2")
    names = {action.key for action in world.turn() if isinstance(action, CreatePod)}
    assert world.turn() == []
    world.now += 10
    world.refuse = None
    again = {action.key for action in world.turn() if isinstance(action, CreatePod)}
    assert again == names
    assert len(world.pods) == 2


def test_a_name_that_something_else_has_is_given_up() -> None:
    world = PodWorld({"replicas": 1})
    world.turn()
    world.refuse = ("AlreadyExists", "Pod exists and does not belong to this MediaCluster")
    (first,) = [action.key for action in world.turn() if isinstance(action, CreatePod)]
    world.refuse = None
    (second,) = [action.key for action in world.turn() if isinstance(action, CreatePod)]
    assert first != second


def test_deleting_the_cluster_drains_all_and_then_lets_it_go() -> None:
    world = running(2)
    keys = [pod.key for pod in world.pods]
    for key in keys:
        world.connect(key, 1)
    world.deleting = True
    world.put_cluster()
    assert world.turn() == []
    assert world.judged is not None
    assert world.judged.wishes == dict.fromkeys(keys, "ClusterDeleting")
    world.participants.clear()
    assert [type(action) for action in world.turn()] == [DeletePod, DeletePod]
    assert world.turn() == []
    world.gone()
    (action,) = world.turn()
    assert isinstance(action, SetFinalizer)
    assert not action.present
    assert KEY not in world.inventory.clusters


def test_pods_of_an_earlier_cluster_of_that_name_are_not_its_own() -> None:
    world = running(1)
    world.put(world.pods[0], owner_uid="another")
    assert any(isinstance(action, CreatePod) for action in world.turn())


def test_owned_objects_are_made_and_put_right() -> None:
    world = running(1, network={"announce": [{"type": "NodeExternalIP"}]})
    refs = {
        ObjectRef("ConfigMap", ObjectKey(NAMESPACE, "main-addresses")),
        ObjectRef("PodDisruptionBudget", KEY),
        ObjectRef("Service", ObjectKey(NAMESPACE, "main-media")),
    }
    assert world.inventory.owned.keys() == refs
    for ref in refs:
        owned = world.inventory.owned[ref]
        broken = (
            {**owned.content, "spec": {}}
            if "spec" in owned.content
            else {"data": {"node.n0": "[]", "x": "y"}}
        )
        world.inventory.put_owned(ref, replace(owned, content={**broken, "metadata": {"labels": {}}}))
    actions = world.turn()
    assert {action.ref for action in actions if isinstance(action, ApplyObject)} == refs
    (addresses,) = [a for a in actions if isinstance(a, ApplyObject) and a.ref.kind == "ConfigMap"]
    assert addresses.body["data"]["x"] is None
    assert addresses.uid
    world.inventory.put_owned(next(iter(refs)), None)
    (action,) = [action for action in world.plan() if isinstance(action, ApplyObject) and not action.uid]
    assert action.reason == "ObjectMissing"


def test_all_pods_but_one_are_to_stay_when_pods_are_evicted() -> None:
    world = running(3)
    budget = ObjectRef("PodDisruptionBudget", KEY)
    assert world.inventory.owned[budget].content["spec"]["minAvailable"] == 2
    world.change(replicas=5)
    world.turn()
    assert world.inventory.owned[budget].content["spec"]["minAvailable"] == 4
    held = world.inventory.owned[budget]
    world.inventory.put_owned(budget, replace(held, content={"spec": {"maxUnavailable": 1}}))
    (action,) = [action for action in world.turn() if isinstance(action, ApplyObject)]
    assert action.body["spec"]["maxUnavailable"] is None
    assert action.body["spec"]["minAvailable"] == 4


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("scale"), st.integers(0, 6)),
        st.tuples(st.just("image"), st.integers(1, 3)),
        st.tuples(st.just("kill"), st.integers(0, 9)),
        st.tuples(st.just("fail"), st.integers(0, 9)),
        st.tuples(st.just("join"), st.integers(0, 9)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("lose"), st.booleans()),
        st.tuples(st.just("leader"), st.just(0)),
        st.tuples(st.just("work"), st.integers(1, 3)),
    ),
    max_size=25,
)


def happen_to_pod(world: PodWorld, event: str, pod: PodView, value: int) -> None:
    match event:
        case "kill" if not pod.deleting:
            world.delete(pod.key)
        case "fail" if not pod.deleting:
            world.put(pod, phase="Failed", ready=False)
        case "join" if pod.key in world.views:
            world.connect(pod.key, value)
        case "leave" if pod.key in world.views:
            world.connect(pod.key, 0)


def happen(world: PodWorld, event: str, value: int) -> None:
    if world.pods:
        happen_to_pod(world, event, world.pods[value % len(world.pods)], value)
    match event:
        case "scale":
            world.change(replicas=value)
        case "image":
            world.change(image=f"image:{value}")
        case "lose":
            world.lose_answers = bool(value)
        case "leader" if not world.unanswered:
            world.memory = Memory()
        case "work":
            for _ in range(value):
                world.turn()
                world.schedule()
                world.start()
                world.gone()


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.sampled_from(["HostNetwork", "Pod"]), st.integers(0, 2))
def test_whatever_happens_pods_stay_within_bounds_and_converge(
    events: list[tuple[str, int]], network: str, unavailable: int
) -> None:
    update: dict[str, object] = {"maxUnavailable": max(1, unavailable)} if network == "HostNetwork" else {}
    spec = {"replicas": 3, "network": {"type": network}, "update": update}
    world = PodWorld(spec, nodes=8)
    for event, value in events:
        happen(world, event, value)
        before = {pod.key for pod in world.live if pod.ready and pod.key in world.views}
        replicas, policy = world.cluster.replicas, world.cluster.update
        living = len(world.live) + len(world.unanswered)
        world.turn()
        most = replicas + policy.max_surge
        assert len(world.live) + len(world.unanswered) <= max(most, living)
        assert world.judged is not None
        updating = [key for key, wish in world.judged.wishes.items() if wish == "Update" and key in before]
        if len(before) >= replicas:
            victims = sum(
                1 for key, wish in world.judged.wishes.items() if wish == "ScaleDown" and key in before
            )
            staying = len(before) - len(updating) - victims
            assert staying >= min(replicas, len(before) - victims) - policy.max_unavailable - policy.max_surge
    world.lose_answers = False
    for pod in list(world.unanswered):
        world.deliver(pod)
    world.participants.clear()
    for key in list(world.views):
        world.connect(key, 0)
    world.run(80)
    assert len(world.live) == world.cluster.replicas
    assert all(pod.ready for pod in world.live)
    assert world.judged is not None
    assert {pod.revision for pod in world.live} <= {world.judged.revision}
    assert world.turn() == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=6), st.integers(0, 6))
def test_victims_are_the_emptiest(participants: list[int], left: int) -> None:
    world = running(len(participants))
    for pod, count in zip(world.pods, participants, strict=True):
        world.connect(pod.key, count)
    left = min(left, len(participants))
    world.change(replicas=left)
    world.plan()
    assert world.judged is not None
    going = [world.participants[key] for key in world.judged.wishes]
    staying = [world.participants[pod.key] for pod in world.live if pod.key not in world.judged.wishes]
    assert len(going) == len(participants) - left
    assert not going or not staying or max(going) <= min(staying)


def test_equal_snapshots_give_equal_plans() -> None:
    plans = []
    for _ in range(2):
        world = PodWorld({"replicas": 3})
        world.turn()
        plans.append(world.plan())
    assert plans[0] == plans[1]
