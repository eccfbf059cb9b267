"""Which MediaCluster a server belongs to, with and without a state directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from mediaserver.control.membership_state import (
    STATE_FILE,
    MembershipState,
    MembershipStateError,
    OtherClusterError,
    StaleEpochError,
)


async def greet(state: MembershipState, uid: str = "u1", name: str = "media/main") -> None:
    await state.greet(uid=uid, name=name, server_name="media/s1")


async def test_the_first_cluster_binds_and_another_is_refused_naming_both() -> None:
    state = MembershipState.load(None, forget=False)
    await greet(state)
    await greet(state)
    with pytest.raises(OtherClusterError) as refused:
        await greet(state, "u2", "media/other")
    for word in ("media/main", "u1", "media/other", "u2", "--forget"):
        assert word in str(refused.value)
    assert state.current.cluster_uid == "u1"


async def test_the_binding_outlives_the_process_in_a_state_directory(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"
    first = MembershipState.load(directory, forget=False)
    await greet(first)
    await first.meet_epoch(7)

    second = MembershipState.load(directory, forget=False)
    assert second.current == first.current
    assert second.current.highest_epoch == 7
    with pytest.raises(OtherClusterError):
        await greet(second, "u2")


async def test_without_a_directory_the_binding_ends_with_the_process() -> None:
    await greet(MembershipState.load(None, forget=False))
    await greet(MembershipState.load(None, forget=False), "u2")


async def test_forget_drops_what_was_kept(tmp_path: Path) -> None:
    await greet(MembershipState.load(tmp_path, forget=False))
    anew = MembershipState.load(tmp_path, forget=True)
    await greet(anew, "u2")
    assert MembershipState.load(tmp_path, forget=False).current.cluster_uid == "u2"


async def test_epochs_only_rise() -> None:
    state = MembershipState.load(None, forget=False)
    await state.meet_epoch(3)
    await state.meet_epoch(3)
    with pytest.raises(StaleEpochError, match="epoch 2 is over: a leader of epoch 3"):
        await state.meet_epoch(2)
    await state.meet_epoch(9)
    assert state.current.highest_epoch == 9


async def test_an_observer_does_not_rename_the_server() -> None:
    state = MembershipState.load(None, forget=False)
    await greet(state)
    await state.greet(uid="u1", name="media/main", server_name="")
    assert state.current.server_name == "media/s1"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"highestEpoch": "x"}', b"\xff"])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    with pytest.raises(MembershipStateError, match="--forget"):
        MembershipState.load(tmp_path, forget=False)
    assert MembershipState.load(tmp_path, forget=True).current.cluster_uid == ""


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MembershipStateError, match="--state-dir"):
        MembershipState.load(tmp_path / "file" / "state", forget=False)


async def test_a_binding_that_could_not_be_kept_is_told_and_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    state = MembershipState.load(directory, forget=False)
    (directory / STATE_FILE).unlink()
    directory.rmdir()
    with pytest.raises(MembershipStateError, match="can't be written"):
        await greet(state)
    directory.mkdir()
    await greet(state)
    assert MembershipState.load(directory, forget=False).current.cluster_uid == "u1"


async def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    state = MembershipState.load(tmp_path, forget=False)
    await greet(state)
    assert _names(tmp_path) == [STATE_FILE]


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]
