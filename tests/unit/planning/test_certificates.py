"""When certificates are made and CAs exchanged: over years, whatever the operator sleeps through."""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mafalda_operator.model import ObjectKey, TlsSecret
from mafalda_operator.planning import certificates
from mafalda_operator.planning.certificates import (
    AUTHORITY_SECONDS,
    DAY,
    LEAF_SECONDS,
    MISSING,
    SPREAD_SECONDS,
    AddAuthority,
    Authority,
    AuthorityView,
    DropAuthorities,
    Issue,
    LeafView,
    MakeAuthority,
    PromoteAuthority,
    Spread,
    authority_step,
    leaf_end,
    leaf_step,
    next_look,
    tls_fault,
)

NAMES = frozenset({"main.media.media-server.mafalda.internal"})
NOW = 1_800_000_000.0
FIRST = Authority("first", NOW, NOW + AUTHORITY_SECONDS)
VIEW = AuthorityView(FIRST, trusted=(FIRST,))
LEAF = LeafView(
    names=NAMES, issuer="first", not_before=NOW, not_after=NOW + LEAF_SECONDS, trusted=frozenset({"first"})
)


@pytest.mark.parametrize(
    ("leaf", "later", "step", "reason"),
    [
        (None, 0, None, ""),
        (MISSING, 0, Issue, "CertificateMissing"),
        (LEAF, 0, None, ""),
        (LEAF, 59 * DAY, None, ""),
        (LEAF, 60 * DAY, Issue, "CertificateRenewal"),
        (LEAF, 91 * DAY, Issue, "CertificateExpired"),
        (replace(LEAF, problem="not PEM"), 0, Issue, "CertificateBroken"),
        (replace(LEAF, names=frozenset({"other"})), 0, Issue, "NamesChanged"),
        (replace(LEAF, issuer="other"), 0, Issue, "AuthorityChanged"),
        (replace(LEAF, trusted=frozenset({"first", "old"})), 0, Spread, "AuthoritiesChanged"),
    ],
)
def test_a_certificate(leaf: LeafView | None, later: float, step: type | None, reason: str) -> None:
    due = leaf_step(leaf, NAMES, VIEW, NOW + later)
    assert (type(due) if due is not None else None) is step
    assert due is None or due.reason == reason


def test_a_broken_ca_is_told_with_its_problem() -> None:
    assert authority_step(None, [], NOW) == MakeAuthority("AuthorityMissing", "there is no CA")
    assert authority_step(None, [], NOW, problem="no PEM") == MakeAuthority("AuthorityBroken", "no PEM")


def test_a_certificate_does_not_outlive_its_ca() -> None:
    assert leaf_end(VIEW, NOW) == NOW + LEAF_SECONDS
    assert leaf_end(VIEW, FIRST.not_after - DAY) == FIRST.not_after


def test_a_ca_does_not_sign_before_all_know_it() -> None:
    late = NOW + 0.7 * AUTHORITY_SECONDS
    following = Authority("next", late, late + AUTHORITY_SECONDS)
    view = AuthorityView(FIRST, following, (FIRST, following))
    knows = replace(LEAF, trusted=frozenset({"first", "next"}))
    soon, later = late + SPREAD_SECONDS - 1, late + SPREAD_SECONDS
    assert authority_step(view, [knows], soon) is None
    assert isinstance(authority_step(view, [knows, None, MISSING], later), PromoteAuthority)
    assert authority_step(view, [knows, LEAF], later) is None
    # What cannot be written does not stop it for ever.
    assert isinstance(authority_step(view, [LEAF], FIRST.not_after - LEAF_SECONDS), PromoteAuthority)


class World:
    """A CA's Secret, certificates' Secrets, and processes that take them up late."""

    def __init__(self, leaves: int) -> None:
        self.now = NOW
        self.view: AuthorityView | None = None
        self.leaves: list[LeafView] = [MISSING] * leaves
        self.used: list[LeafView] = [MISSING] * leaves
        """What the processes present and trust: a Secret as it was some time ago."""
        self.made = 0

    def operator(self) -> float:
        """Do what is due, to the end; when the operator wants to look next."""
        for _ in range(20):
            if not self.turn():
                assert self.view is not None
                return next_look(self.view, self.leaves, self.now)
        raise AssertionError("it does not come to rest")

    def turn(self) -> bool:
        step = authority_step(self.view, self.leaves, self.now)
        if step is not None:
            self.carry_out(step)
        assert self.view is not None
        changed = step is not None
        for number, leaf in enumerate(self.leaves):
            due = leaf_step(leaf, NAMES, self.view, self.now)
            changed = changed or due is not None
            if isinstance(due, Issue):
                self.leaves[number] = LeafView(
                    names=NAMES,
                    issuer=self.view.signing.ident,
                    not_before=self.now - 300,
                    not_after=leaf_end(self.view, self.now),
                    trusted=self.view.idents,
                )
            elif isinstance(due, Spread):
                self.leaves[number] = replace(leaf, trusted=self.view.idents)
        return changed

    def carry_out(self, step: certificates.AuthorityStep) -> None:
        self.made += 1
        fresh = Authority(f"ca-{self.made}", self.now - 300, self.now + AUTHORITY_SECONDS)
        match step:
            case MakeAuthority():
                self.view = AuthorityView(fresh, trusted=(fresh,))
            case AddAuthority():
                assert self.view is not None
                self.view = replace(self.view, next=fresh, trusted=(*self.view.trusted, fresh))
            case PromoteAuthority():
                assert self.view is not None
                assert self.view.next is not None
                self.view = replace(self.view, signing=self.view.next, next=None, promoted=self.now)
            case DropAuthorities(keep=keep):
                assert self.view is not None
                trusted = tuple(one for one in self.view.trusted if one.ident in keep)
                self.view = replace(self.view, trusted=trusted)

    def volumes(self, which: set[int]) -> None:
        """These processes take up what their Secrets hold."""
        for number in which:
            self.used[number] = self.leaves[number]

    def check(self) -> None:
        """All can talk to each other: each is trusted by the other, and valid."""
        for one in self.used:
            assert self.now < one.not_after
            for other in self.used:
                assert one.issuer in other.trusted


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.floats(0.3, 25), min_size=1, max_size=20),
    order=st.randoms(use_true_random=False),
)
def test_everybody_can_always_talk_to_everybody(gaps: list[float], order: Random) -> None:
    """While the CA is exchanged, the operator looks every few days (certificates are renewed a month early),
    and the processes take up what it wrote one by one: at each moment between, all of them get on.
    """
    world = World(3)
    world.operator()
    world.now += certificates.RENEW_AT * AUTHORITY_SECONDS - 30 * DAY
    world.operator()
    world.volumes({0, 1, 2})
    end = world.now + 300 * DAY
    for days in itertools.cycle(gaps):
        world.now += days * DAY
        world.operator()
        numbers = [0, 1, 2]
        order.shuffle(numbers)
        for number in numbers:
            world.check()
            world.volumes({number})
        world.check()
        if world.now > end:
            break
    assert world.view is not None
    assert world.view.signing.ident != "ca-1"
    assert len(world.view.trusted) == 1


@settings(max_examples=60, deadline=None)
@given(days=st.floats(0, 20_000))
def test_whatever_the_operator_slept_through_one_look_makes_all_good(days: float) -> None:
    world = World(2)
    world.operator()
    world.now += days * DAY
    due = world.operator()
    world.volumes({0, 1})
    world.check()
    assert world.now < due <= world.now + certificates.LONGEST_LOOK


def test_an_old_ca_is_dropped_when_nothing_of_it_can_be_valid() -> None:
    world = World(1)
    world.operator()
    seen = set()
    while world.now < NOW + 1.2 * AUTHORITY_SECONDS:
        assert world.view is not None
        seen.add(len(world.view.trusted))
        world.now += 5 * DAY
        world.operator()
    assert seen == {1, 2}
    assert world.view is not None
    assert world.view.idents == {world.view.signing.ident}


# -- what a MediaCluster tells ----------------------------------------------------------------------------

SECRET = ObjectKey("media", "main-tls")
WALL = "2027-01-15T08:00:00Z"
AT = NOW  # the same moment


@pytest.mark.parametrize(
    ("secret", "reason", "told"),
    [
        (None, None, ""),
        (TlsSecret(SECRET, given=True, state="Good", not_after=AT + 30 * DAY), None, ""),
        (TlsSecret(SECRET, given=False, state="Off"), "TLSNotConfigured", "--tls-issue"),
        (TlsSecret(SECRET, given=False, state="Pending"), "TLSSecretPending", "allow get"),
        (TlsSecret(SECRET, given=True, state="Missing", detail="a.b"), "TLSSecretMissing", "DNS name a.b"),
        (TlsSecret(SECRET, given=False, state="Missing"), "TLSSecretMissing", "--tls-dir"),
        (TlsSecret(SECRET, given=True, state="Invalid", detail="no PEM"), "TLSSecretInvalid", "no PEM"),
        (TlsSecret(SECRET, given=False, state="Taken"), "TLSSecretTaken", "not overwritten"),
        (TlsSecret(SECRET, given=False, state="Failed", detail="403"), "TLSSecretFailed", "403"),
        (
            TlsSecret(SECRET, given=True, state="Good", not_after=AT + 6 * DAY),
            "TLSSecretExpiring",
            "ends 2027-01-21T08:00:00Z",
        ),
    ],
)
def test_what_keeps_a_cluster_from_being_ready(
    secret: TlsSecret | None, reason: str | None, told: str
) -> None:
    fault = tls_fault(secret, WALL)
    assert (fault[0] if fault else None) == reason
    assert fault is None or told in fault[1]
    assert fault is None or "media/main-tls" in fault[1] or reason == "TLSNotConfigured"
