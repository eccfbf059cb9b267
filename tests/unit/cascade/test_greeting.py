"""Who is let in on `/peer`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mediaserver.cascade.greeting import Accepting, Identity, Process, _dialler_words
from mediaserver.cascade.messages import (
    ERROR_NOT_READY,
    ERROR_WRONG_SERVER,
    PEER_PROTOCOL,
    PeerHello,
)
from mediaserver.control.contract import (
    ERROR_BAD_PROOF,
    ERROR_OTHER_CLUSTER,
    ERROR_VERSION_SKEW,
    PEER_PATH,
)
from mediaserver.wire import membership
from mediaserver.wire.membership import ClusterKey
from mediaserver.wire.rpc import RpcFailure

KEY = ClusterKey(b"k" * 32)
OWN = Identity("uid-1", "media/b")
PROCESS = Process("instance-b", 1)


def hello(accepting: Accepting, key: ClusterKey = KEY, **changes: Any) -> PeerHello:
    said = PeerHello(
        protocol_version=PEER_PROTOCOL,
        pipe_protocol=1,
        cluster_uid="uid-1",
        from_server="media/a",
        to_server="media/b",
        instance_id="instance-a",
        nonce=membership.new_nonce(),
        proof="",
    )
    said = msgspec.structs.replace(said, **changes)
    proof = membership.proof(key, "dialler", PEER_PATH, said.nonce, accepting.nonce, _dialler_words(said))
    return msgspec.structs.replace(said, proof=proof)


def test_a_member_is_let_in() -> None:
    accepting = Accepting(KEY, OWN, PROCESS)
    other, welcome = accepting.answer(hello(accepting))
    assert (other.server, other.instance_id, other.pipe_protocol) == ("media/a", "instance-a", 1)
    assert welcome.instance_id == "instance-b"


@pytest.mark.parametrize(
    ("own", "changes", "code"),
    [
        (None, {}, ERROR_NOT_READY),
        (OWN, {"cluster_uid": "uid-2"}, ERROR_OTHER_CLUSTER),
        (OWN, {"to_server": "media/c"}, ERROR_WRONG_SERVER),
        (OWN, {"from_server": "media/z"}, ERROR_WRONG_SERVER),
        (OWN, {"protocol_version": PEER_PROTOCOL + 1}, ERROR_VERSION_SKEW),
    ],
)
def test_who_is_refused(own: Identity | None, changes: dict[str, Any], code: int) -> None:
    accepting = Accepting(KEY, own, PROCESS)
    with pytest.raises(RpcFailure) as caught:
        accepting.answer(hello(accepting, **changes))
    assert caught.value.code == code
    assert caught.value.close


def test_another_key_is_refused() -> None:
    accepting = Accepting(KEY, OWN, PROCESS)
    with pytest.raises(RpcFailure) as caught:
        accepting.answer(hello(accepting, ClusterKey(b"x" * 32)))
    assert caught.value.code == ERROR_BAD_PROOF


def test_a_hello_answers_one_challenge_only() -> None:
    said = hello(Accepting(KEY, OWN, PROCESS))
    with pytest.raises(RpcFailure) as caught:
        Accepting(KEY, OWN, PROCESS).answer(said)
    assert caught.value.code == ERROR_BAD_PROOF


@pytest.mark.parametrize("field", ["from_server", "instance_id", "cluster_uid"])
def test_what_is_said_is_what_is_proved(field: str) -> None:
    accepting = Accepting(KEY, OWN, PROCESS)
    said = msgspec.structs.replace(hello(accepting), **{field: "media/0"})
    with pytest.raises(RpcFailure) as caught:
        accepting.answer(said)
    assert caught.value.code == ERROR_BAD_PROOF
