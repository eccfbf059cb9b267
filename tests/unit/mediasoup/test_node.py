"""The object tree: the close cascade, requests on what closes, and making children."""

from __future__ import annotations

import asyncio

import pytest
from unit.mediasoup.fake_peer import OpenChannel

from mediaserver.mediasoup import ClosedError, CloseReason, RequestTimeoutError
from mediaserver.mediasoup._fbs import router as fbs_router
from mediaserver.mediasoup._fbs import worker as fbs_worker
from mediaserver.mediasoup.messages import Method
from mediaserver.mediasoup.node import Node


class Parent(Node):
    KIND = "Parent"
    CHILDREN_REASON = CloseReason.ROUTER_CLOSED

    def _tell_worker(self) -> None:
        self._channel.post(Method.WORKER_CLOSE_ROUTER, "", fbs_worker.CloseRouterRequest(router_id=self._id))


class Child(Node):
    KIND = "Child"
    CHILDREN_REASON = CloseReason.TRANSPORT_CLOSED

    def _tell_worker(self) -> None:
        request = fbs_router.CloseTransportRequest(transport_id=self._id)
        self._channel.post(Method.ROUTER_CLOSE_TRANSPORT, self._parents[0]._id, request)


def hook(_: str, error: BaseException) -> None:
    raise error


async def test_closing_a_parent_closes_children_once_and_tells_the_worker_once(
    open_channel: OpenChannel,
) -> None:
    channel, peer = await open_channel()
    parent = Parent(id="p", channel=channel, hook=hook)
    child = Child(id="c", channel=channel, hook=hook, parents=(parent,))
    grandchild = Child(id="g", channel=channel, hook=hook, parents=(child,))
    seen: list[tuple[str, CloseReason]] = []
    for name, node in (("parent", parent), ("child", child), ("grandchild", grandchild)):
        node.on_close.subscribe(lambda reason, name=name: seen.append((name, reason)))  # type: ignore[misc]
    parent.close()
    parent.close()
    child.close()
    assert seen == [
        ("grandchild", CloseReason.ROUTER_CLOSED),
        ("child", CloseReason.ROUTER_CLOSED),
        ("parent", CloseReason.CLOSED),
    ]
    assert (await peer.receive_request()).method == Method.WORKER_CLOSE_ROUTER
    channel.close()
    with pytest.raises(EOFError):
        await peer.receive()


async def test_a_child_of_two_parents_closes_with_either_and_leaves_both(open_channel: OpenChannel) -> None:
    channel, _ = await open_channel()
    router, server = (Parent(id=name, channel=channel, hook=hook) for name in "rs")
    first, second = (Child(id=name, channel=channel, hook=hook, parents=(router, server)) for name in "12")
    server.close()
    assert first.close_reason is CloseReason.ROUTER_CLOSED
    assert second.closed
    assert router._children == {}
    assert not router.closed


async def test_a_handler_may_close_other_objects(open_channel: OpenChannel) -> None:
    channel, _ = await open_channel()
    parent = Parent(id="p", channel=channel, hook=hook)
    children = [Child(id=str(i), channel=channel, hook=hook, parents=(parent,)) for i in range(3)]
    children[0].on_close.subscribe(lambda _: children[2].close())
    children[0].on_close.subscribe(lambda _: parent.close())
    parent.close()
    assert [child.close_reason for child in children] == [
        CloseReason.ROUTER_CLOSED,
        CloseReason.ROUTER_CLOSED,
        CloseReason.CLOSED,
    ]


async def test_awaiting_calls_fail_at_once_with_the_reason(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel(timeout=60)
    parent = Parent(id="p", channel=channel, hook=hook)
    child = Child(id="c", channel=channel, hook=hook, parents=(parent,))
    call: asyncio.Task[None] = asyncio.create_task(child._request(Method.TRANSPORT_DUMP))
    await peer.receive_request()
    parent.close()
    with pytest.raises(ClosedError, match="Child c is closed \\(router closed\\)") as caught:
        await call
    assert caught.value.reason is CloseReason.ROUTER_CLOSED
    with pytest.raises(ClosedError):
        await child._request(Method.TRANSPORT_DUMP)


async def make_child(parent: Parent) -> Child:
    return await parent._create(
        Method.ROUTER_CREATE_PIPETRANSPORT,
        fbs_router.CloseTransportRequest(transport_id="c"),
        lambda _: Child(id="c", channel=parent._channel, hook=hook, parents=(parent,)),
        child_id="c",
        undo=(Method.ROUTER_CLOSE_TRANSPORT, fbs_router.CloseTransportRequest(transport_id="c")),
    )


async def test_a_child_exists_from_the_moment_that_the_answer_arrives(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel()
    parent = Parent(id="p", channel=channel, hook=hook)
    task = asyncio.create_task(make_child(parent))
    await peer.accept((await peer.receive_request()).id)
    child = await task
    assert parent._children == {"c": child}


@pytest.mark.parametrize("answered", [False, True])
async def test_a_child_that_nobody_waits_for_any_more_is_closed_in_the_worker(
    open_channel: OpenChannel, answered: bool
) -> None:
    channel, peer = await open_channel()
    parent = Parent(id="p", channel=channel, hook=hook)
    task = asyncio.create_task(make_child(parent))
    request = await peer.receive_request()
    if answered:
        await peer.accept(request.id)
        for _ in range(1000):  # built by the reader, before the task wakes
            if parent._children:
                break
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    undo = await peer.receive_request()
    assert undo.method == Method.ROUTER_CLOSE_TRANSPORT
    assert undo.body == fbs_router.CloseTransportRequest(transport_id="c")
    assert parent._children == {}


async def test_a_child_whose_answer_is_late_is_closed_in_the_worker(open_channel: OpenChannel) -> None:
    channel, peer = await open_channel(timeout=0.05)
    parent = Parent(id="p", channel=channel, hook=hook)
    with pytest.raises(RequestTimeoutError):
        await make_child(parent)
    await peer.receive_request()
    assert (await peer.receive_request()).method == Method.ROUTER_CLOSE_TRANSPORT
