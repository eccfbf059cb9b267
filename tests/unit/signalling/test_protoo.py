import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.signalling import protoo
from mediaserver.signalling.errors import FrameError


def test_requests_keep_their_data_as_it_came() -> None:
    frame = protoo.decode('{"request": true, "id": 7, "method": "join", "data": {"a": [1, null]}}')
    assert frame == protoo.Request(7, "join", frame.data)
    assert json.loads(bytes(frame.data)) == {"a": [1, None]}


def test_data_may_be_absent() -> None:
    frame = protoo.decode('{"notification": true, "method": "x"}')
    assert isinstance(frame, protoo.Notification)
    assert bytes(frame.data) == b"{}"


def test_answers_say_whether_they_are_good() -> None:
    good = protoo.decode('{"response": true, "id": 1, "ok": true, "data": {}}')
    bad = protoo.decode('{"response": true, "id": 1, "ok": false, "errorCode": 403, "errorReason": "no"}')
    assert isinstance(good, protoo.Response)
    assert good.ok
    assert isinstance(bad, protoo.Response)
    assert (bad.ok, bad.error_code, bad.error_reason) == (False, 403, "no")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "truncated"),
        ("nonsense", "JSON"),
        ("[]", "object"),
        ('{"method": "join"}', "exactly one"),
        ('{"request": true, "response": true, "id": 1, "method": "x"}', "exactly one"),
        ('{"request": true, "method": "x"}', "`id`"),
        ('{"request": true, "id": -1, "method": "x"}', "`id`"),
        ('{"request": true, "id": 9007199254740992, "method": "x"}', "`id`"),
        ('{"request": true, "id": "1", "method": "x"}', r"\$.id"),
        ('{"request": true, "id": 1}', "`method`"),
        ('{"request": true, "id": 1, "method": ""}', "`method`"),
        ('{"request": 1, "id": 1, "method": "x"}', r"\$.request"),
        ("[" * 50_000, "frame"),
        ('{"request": true, "id": 1, "method": "\ud800"}', "frame"),
    ],
)
def test_what_is_no_frame_is_named(text: str, named: str) -> None:
    with pytest.raises(FrameError, match=named):
        protoo.decode(text)


@given(
    st.one_of(
        st.text(), st.binary(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
    )
)
def test_anything_is_a_frame_or_a_frame_error(message: Any) -> None:
    with contextlib.suppress(FrameError):
        protoo.decode(message)


def test_what_is_encoded_can_be_decoded() -> None:
    assert protoo.decode(protoo.encode_request(3, "newConsumer", {"a": 1})) == protoo.Request(
        3, "newConsumer", protoo.decode(protoo.encode_request(3, "newConsumer", {"a": 1})).data
    )
    failure = protoo.decode(protoo.encode_failure(4, 404, "gone"))
    assert isinstance(failure, protoo.Response)
    assert (failure.id, failure.ok, failure.error_code, failure.error_reason) == (4, False, 404, "gone")
    success = protoo.decode(protoo.encode_success(5, None))
    assert isinstance(success, protoo.Response)
    assert (success.ok, bytes(success.data)) == (True, b"{}")
    assert isinstance(
        protoo.decode(protoo.encode_notification("peerClosed", {"peerId": "a"})), protoo.Notification
    )
