"""When which certificate is made or renewed, and when a CA takes over from the one before.

A CA is exchanged in three steps, so that at no moment one side presents what the other does not know: the
next CA is added to what everybody trusts; a day later, when that has come to all, it signs, and all
certificates are made anew; when none of the old one's can be valid any more, the old CA is trusted no longer.

All times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from mafalda_operator.model import TlsSecret

DAY = 86400.0
LEAF_SECONDS = 90 * DAY
"""How long a certificate is valid."""
AUTHORITY_SECONDS = 3650 * DAY
RENEW_AT = 2 / 3
"""Of its life: then a certificate, or a CA, is renewed."""
SPREAD_SECONDS = DAY
"""How long a new CA is known to all before it signs."""
EXPIRING_SECONDS = 7 * DAY
"""A certificate that ends in less than this is told of."""
LONGEST_LOOK = 3600.0
"""Between two looks, though nothing is due: clocks may be set."""

_PENDING = (
    "has not been read or made yet; if that stays so, allow get, list, watch, create and patch of it to the "
    "operator's account"
)
_WANTED = "create it, of type kubernetes.io/tls, with tls.crt, tls.key and ca.crt for the DNS name {}"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA's certificate."""

    ident: str
    """Fingerprint."""
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class AuthorityView:
    """What the CA's Secret holds."""

    signing: Authority
    next: Authority | None = None
    """Trusted already, signs later."""
    trusted: tuple[Authority, ...] = ()
    """What goes into every ca.crt: the two above, and those before."""
    promoted: float = 0.0
    """When ``signing`` took over; 0: it was the first one."""

    @property
    def idents(self) -> frozenset[str]:
        return frozenset(authority.ident for authority in self.trusted)


@dataclass(frozen=True, slots=True)
class LeafView:
    """What a Secret with a certificate holds. ``problem`` says why it cannot be used, if so."""

    exists: bool = True
    problem: str = ""
    names: frozenset[str] = frozenset()
    issuer: str = ""
    """``ident`` of the CA that made it; empty: none of those in its ca.crt."""
    not_before: float = 0.0
    not_after: float = 0.0
    trusted: frozenset[str] = frozenset()
    """``ident`` of every CA in its ca.crt."""


MISSING = LeafView(exists=False)


@dataclass(frozen=True, slots=True)
class MakeAuthority:
    """A first CA, or one in place of what cannot be used."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class AddAuthority:
    """Make the next CA, and have it trusted."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PromoteAuthority:
    """Let the next CA sign."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DropAuthorities:
    """Trust only ``keep``."""

    keep: frozenset[str]
    reason: str
    message: str


AuthorityStep = MakeAuthority | AddAuthority | PromoteAuthority | DropAuthorities


@dataclass(frozen=True, slots=True)
class Issue:
    """Make a certificate (and key) anew."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Spread:
    """Exchange ca.crt only."""

    reason: str
    message: str


LeafStep = Issue | Spread


def renewal(not_before: float, not_after: float) -> float:
    """When to renew what is valid in that time."""
    return not_before + RENEW_AT * (not_after - not_before)


def authority_step(
    view: AuthorityView | None, leaves: Iterable[LeafView | None], now: float, *, problem: str = ""
) -> AuthorityStep | None:
    """What to do about the CA. ``view`` None: there is none, or none that can be used: ``problem`` says why.

    ``leaves`` are all certificates that the CA is to be trusted by; None among them: not read yet.
    """
    if view is None:
        return MakeAuthority(
            "AuthorityBroken" if problem else "AuthorityMissing", problem or "there is no CA"
        )
    if now >= view.signing.not_after:
        return MakeAuthority("AuthorityExpired", "the CA has expired: every certificate is made anew")
    if view.next is None:
        if now >= renewal(view.signing.not_before, view.signing.not_after):
            return AddAuthority("AuthorityRenewal", "two thirds of the CA's life are over")
    elif _may_sign(view.next, view, leaves, now):
        return PromoteAuthority("AuthoritySpread", "every certificate's ca.crt has had the next CA for a day")
    return _drop(view, now)


def _may_sign(
    following: Authority, view: AuthorityView, leaves: Iterable[LeafView | None], now: float
) -> bool:
    if now < following.not_before + SPREAD_SECONDS:
        return False
    known = all(leaf is None or not leaf.exists or following.ident in leaf.trusted for leaf in leaves)
    # One that cannot be written must not keep the others from being renewed for ever.
    return known or now >= view.signing.not_after - LEAF_SECONDS


def _drop(view: AuthorityView, now: float) -> DropAuthorities | None:
    kept = {authority.ident for authority in (view.signing, view.next) if authority is not None}
    over = view.promoted > 0 and now >= view.promoted + LEAF_SECONDS + SPREAD_SECONDS
    if not over:
        kept |= {authority.ident for authority in view.trusted if now < authority.not_after}
    if view.idents <= kept:
        return None
    return DropAuthorities(
        frozenset(kept), "AuthorityOver", "no certificate of an earlier CA can be valid any more"
    )


def leaf_step(
    view: LeafView | None, names: frozenset[str], authority: AuthorityView, now: float
) -> LeafStep | None:
    """What to do about one certificate, which is to be for ``names``. ``view`` None: not read yet."""
    if view is None:
        return None
    if not view.exists:
        return Issue("CertificateMissing", "there is no certificate")
    if now >= view.not_after and not view.problem:
        return Issue("CertificateExpired", "the certificate has expired")
    if view.problem:
        return Issue("CertificateBroken", view.problem)
    if view.names != names:
        return Issue("NamesChanged", f"the certificate is not for exactly {', '.join(sorted(names))}")
    if view.issuer != authority.signing.ident:
        return Issue("AuthorityChanged", "the certificate is of another CA than the one that signs now")
    if now >= _leaf_renewal(view, authority):
        return Issue("CertificateRenewal", "two thirds of the certificate's life are over")
    if view.trusted != authority.idents:
        return Spread("AuthoritiesChanged", "the CAs to trust have changed")
    return None


def _leaf_renewal(view: LeafView, authority: AuthorityView) -> float:
    """A certificate that ends with its CA can't be renewed to any use before the CA is."""
    if view.not_after >= authority.signing.not_after:
        return view.not_after
    return renewal(view.not_before, view.not_after)


def leaf_end(authority: AuthorityView, now: float) -> float:
    """Until when a certificate made now is valid: never longer than its CA."""
    return min(now + LEAF_SECONDS, authority.signing.not_after)


def next_look(view: AuthorityView, leaves: Iterable[LeafView | None], now: float) -> float:
    """When something is due next, if nothing happens before."""
    moments = [now + LONGEST_LOOK]
    signing = view.signing
    moments += [renewal(signing.not_before, signing.not_after), signing.not_after]
    if view.next is not None:
        moments.append(view.next.not_before + SPREAD_SECONDS)
    if view.promoted:
        moments.append(view.promoted + LEAF_SECONDS + SPREAD_SECONDS)
    moments += [_leaf_renewal(leaf, view) for leaf in leaves if leaf is not None and leaf.exists]
    return min(moment for moment in moments if moment > now)


def tls_fault(secret: TlsSecret | None, wall_time: str) -> tuple[str, str] | None:
    """What of its certificate keeps a cluster with pods from being Ready: reason and message.

    ``secret`` None: not looked at (yet); ``wall_time`` is RFC 3339.
    """
    if secret is None:
        return None
    where = f"Secret {secret.secret}" + (" of spec.tls.secretRef" if secret.given else "")
    match secret.state:
        case "Pending":
            return "TLSSecretPending", f"{where} {_PENDING}"
        case "Off":
            return "TLSNotConfigured", (
                "its pods are secured by TLS, but the operator was started with --cluster-key-file: start it "
                "with --tls-issue or --tls-dir"
            )
        case "Missing" if secret.given:
            return "TLSSecretMissing", f"{where} is missing: {_WANTED.format(secret.detail)}"
        case "Missing":
            return "TLSSecretMissing", (
                f"{where} is missing, and this operator makes none (it runs with --tls-dir): name one in"
                f" spec.tls.secretRef; {_WANTED.format(secret.detail)}"
            )
        case "Taken":
            return "TLSSecretTaken", (
                f"{where} was not made by this operator, so it is not overwritten: remove it, or name it in"
                " spec.tls.secretRef if it is meant to be used"
            )
        case "Failed":
            return "TLSSecretFailed", f"{where} cannot be written: {secret.detail}"
        case "Invalid":
            return "TLSSecretInvalid", f"{where} cannot be used: {secret.detail}"
        case "Good":
            return _expiring(secret, where, datetime.fromisoformat(wall_time).timestamp())


def _expiring(secret: TlsSecret, where: str, now: float) -> tuple[str, str] | None:
    if secret.not_after - now >= EXPIRING_SECONDS:
        return None
    until = datetime.fromtimestamp(secret.not_after, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    remedy = "renew it" if secret.given else "see the operator's log for why it is not renewed"
    return (
        "TLSSecretExpiring",
        f"{where}: its certificate ends {until}: {remedy}; pods take it up by themselves",
    )
