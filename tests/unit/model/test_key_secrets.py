"""What the Secret of a key set says: keys by id, and the tokens that count no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mafalda_operator.model import KeySecret, MediaCluster

KEY = b"k" * 32
IDS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=",\ufeff"), min_size=1)
GAPS = st.text(" \t\r\n,", min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("content", "revoked"),
    [
        (b"", set()),
        (b" \n,\n ", set()),
        (b"one", {"one"}),
        (b"one\ntwo\n", {"one", "two"}),
        (b"one,two, three\tfour\r\nfive", {"one", "two", "three", "four", "five"}),
        (b"one one\none", {"one"}),
        ("\ufeffone\nzwölf".encode(), {"one", "zwölf"}),
    ],
)
def test_revoked_lists_tokens_and_is_no_key(content: bytes, revoked: set[str]) -> None:
    secret = KeySecret.read({"k1": KEY, "revoked": content})
    assert secret == KeySecret({"k1": KEY}, revoked=frozenset(revoked))


def test_without_a_list_nothing_is_revoked() -> None:
    assert KeySecret.read({"k1": KEY}) == KeySecret({"k1": KEY})


@pytest.mark.parametrize("broken", [b"\xff\xfe", "one".encode("utf-16"), b"caf\xe9"])
def test_what_is_no_text_takes_nothing_of_the_rest_along(broken: bytes) -> None:
    secret = KeySecret.read({"revoked": b"one\n" + broken + b"\ntwo"})
    assert not secret.revoked_readable
    assert {"one", "two"} <= secret.revoked


@given(ids=st.lists(IDS), gap=GAPS, around=GAPS)
def test_every_way_to_separate_them_gives_the_same(ids: list[str], gap: str, around: str) -> None:
    content = (around + gap.join(ids) + around).encode()
    assert KeySecret.read({"revoked": content}).revoked == frozenset(ids)


@given(content=st.binary(max_size=200))
def test_whatever_stands_there_can_be_read(content: bytes) -> None:
    secret = KeySecret.read({"revoked": content})
    assert secret.keys == {}
    assert all(jti and not set(jti) & set(" ,\n\t\r") for jti in secret.revoked)


def test_keys_show_in_no_repr() -> None:
    assert "k" * 8 not in repr(KeySecret({"k1": KEY}))


def test_key_sets_are_for_workers_only_when_they_say_so() -> None:
    sets = [
        {"name": "own", "secretRef": {"name": "a"}},
        {"name": "apps", "secretRef": {"name": "b"}, "workers": True},
        {"name": "no", "secretRef": {"name": "c"}, "workers": False},
        {"name": "bad", "secretRef": {"name": "d"}, "workers": "yes"},
    ]
    metadata = {"namespace": "media", "name": "main", "uid": "u"}
    cluster = MediaCluster.parse({"metadata": metadata, "spec": {"tokens": {"keySets": sets}}})
    assert [one.name for one in cluster.key_sets if one.workers] == ["apps"]
    assert [problem.field for problem in cluster.problems] == ["spec.tokens.keySets[3].workers"]
    assert not MediaCluster.parse({"metadata": metadata, "spec": {}}).key_sets[0].workers
