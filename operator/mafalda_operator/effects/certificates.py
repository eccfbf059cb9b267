"""The certificates in Secrets: those the operator makes and renews, and those it was given.

Every operator process reads the CA and makes its own certificate by it, in memory, so that a standby can lead
at once; only the leader writes. What is to be done is decided by ``planning.certificates``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from mafalda_operator.effects import issuing
from mafalda_operator.effects.api import KubeApi
from mafalda_operator.effects.backoff import Backoff
from mafalda_operator.effects.certificate_secrets import Held, Wanted, hold, write
from mafalda_operator.effects.errors import Conflict, KubeError
from mafalda_operator.effects.issuing import CertificateAuthority
from mafalda_operator.effects.secrets import WatchedSecrets
from mafalda_operator.model import MediaCluster, ObjectKey, TlsSecret
from mafalda_operator.planning import certificates as planning
from mafalda_operator.planning.actions import EventNote
from mafalda_operator.planning.certificates import MISSING, AuthorityStep, LeafStep, LeafView
from mediaserver.wire.certificates import Material
from mediaserver.wire.errors import MembershipError
from mediaserver.wire.tls import (
    GATEWAY_NAME,
    OPERATOR_NAME,
    Certificates,
    media_server_name,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Issuing:
    """The operator makes certificates: where the CA's and the gateways' are, and where its own goes."""

    authority: ObjectKey
    gateway: ObjectKey
    own: Certificates


class CertificateKeeper:
    """``run`` from the process's start to its end; ``follow`` while leading."""

    def __init__(
        self,
        api: KubeApi,
        issuing: Issuing | None,
        *,
        tls: bool,
        leading: Callable[[], bool],
        on_state: Callable[[ObjectKey, TlsSecret | None], None],
        note: Callable[[EventNote], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``tls``: whether this operator has certificates at all. ``on_state`` hears of clusters' Secrets."""
        self._api, self._issuing, self._tls, self._leading = api, issuing, tls, leading
        self._on_state, self._note, self._wall = on_state, note, wall
        self._secrets = WatchedSecrets(api, hold, self._changed, what="certificates")
        self._woken = asyncio.Event()
        self._backoff = Backoff()
        self._wanted: dict[ObjectKey, Wanted] = {}
        self._clusters: dict[ObjectKey, Wanted] = {}
        self._failed: dict[ObjectKey, str] = {}
        self._views: dict[ObjectKey, tuple[Held, LeafView, Material | None]] = {}
        self._authority: CertificateAuthority | None = None
        """The last one that could be used: written again when its Secret is deleted or spoiled."""
        self._own = MISSING
        self.usable = asyncio.Event()
        """Set once this operator can dial."""
        if issuing is None:
            self.usable.set()

    # -- the owner's side -------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something may have to be done: leadership was taken, or a Secret has changed."""
        self._woken.set()

    def follow(self, clusters: Iterable[MediaCluster]) -> None:
        """These are the MediaClusters that there are."""
        wanted = {cluster.key: self._want(cluster) for cluster in clusters if cluster.replicas > 0}
        for gone in self._clusters.keys() - wanted.keys():
            self._on_state(gone, None)
        if wanted != self._clusters:
            self._clusters = wanted
            self._woken.set()
        self._tell()

    def expiries(self) -> dict[ObjectKey, float]:
        """Seconds from now to the end of each certificate in a Secret, the CA's as well."""
        now = self._wall()
        ends = {secret: view.not_after for secret, (_, view, _) in self._views.items() if view.not_after}
        if self._issuing is not None and self._authority is not None:
            ends[self._issuing.authority] = self._authority.view.signing.not_after
        return {secret: end - now for secret, end in ends.items()}

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._woken.clear()
                self._watch()
                due = await self._turn()
                try:
                    async with asyncio.timeout(max(0.05, due)):
                        await self._woken.wait()
                except TimeoutError:
                    continue
        finally:
            await self._secrets.close()

    # -- what is watched --------------------------------------------------------------------------------

    def _want(self, cluster: MediaCluster) -> Wanted:
        names = frozenset({media_server_name(*cluster.key)})
        secret = ObjectKey(cluster.key.namespace, cluster.tls_secret)
        made = self._issuing is not None and cluster.given_tls_secret is None
        return Wanted(secret, names, cluster, made)

    def _watch(self) -> None:
        wanted: dict[ObjectKey, Wanted] = {}
        watched: set[ObjectKey] = set()
        if self._issuing is not None:
            watched.add(self._issuing.authority)
        if self._leading() and self._tls:
            wanted = {one.secret: one for one in self._clusters.values()}
            if self._issuing is not None:
                gateway = self._issuing.gateway
                wanted[gateway] = Wanted(gateway, frozenset({GATEWAY_NAME}), None, made=True)
        self._wanted = wanted
        for gone in self._views.keys() - wanted.keys():
            del self._views[gone]
        self._secrets.set_wanted(watched | wanted.keys())

    def _changed(self, secret: ObjectKey) -> None:
        self._failed.pop(secret, None)
        self._woken.set()

    def _view(self, wanted: Wanted) -> LeafView | None:
        held = self._secrets.get(wanted.secret)
        if held is None:
            return None
        known = self._views.get(wanted.secret)
        if known is None or known[0] is not held:
            known = self._views[wanted.secret] = (held, *wanted.read(held, self._wall()))
        return known[1]

    # -- a turn -----------------------------------------------------------------------------------------

    async def _turn(self) -> float:
        """Do what is due; the seconds until something is due again."""
        if self._issuing is None:
            self._tell()
            return planning.LONGEST_LOOK
        now = self._wall()
        failed = not await self._keep_authority(self._issuing, now)
        authority = self._authority
        if authority is None:
            self._tell()
            return self._backoff.next() if failed else planning.LONGEST_LOOK
        self._keep_own(self._issuing.own, authority, now)
        for wanted in [one for one in self._wanted.values() if one.made]:
            failed = not await self._keep_leaf(wanted, authority, now) or failed
        self._tell()
        if failed:
            return self._backoff.next()
        self._backoff.reset()
        views = [self._own, *(self._view(one) for one in self._wanted.values() if one.made)]
        return planning.next_look(authority.view, views, now) - now

    async def _keep_authority(self, making: Issuing, now: float) -> bool:
        """Read the CA, and do what is due about it; False when that failed."""
        held = self._secrets.get(making.authority)
        if held is None:
            return True  # it is being read; the watch says why it can't be
        problem = self._take_authority(held, making)
        known = self._authority if not problem and held.obj is not None else None
        leaves = [self._view(one) for one in self._wanted.values() if one.made]
        step = planning.authority_step(known.view if known else None, leaves, now, problem=problem)
        if step is None or not self._leading():
            return True
        content, promoted = self._stepped(step, known, now)
        try:
            obj = await write(self._api, making.authority, held, content, promoted=promoted)
        except KubeError as error:
            self._tell_failure(making.authority, step.reason, error)
            return False
        log.warning(
            f"certificate authority written: {step.message}",
            secret=str(making.authority),
            reason=step.reason,
        )
        self._secrets.put(making.authority, obj)
        self._take_authority(Held(obj), making)
        return True

    def _take_authority(self, held: Held, making: Issuing) -> str:
        """Use the CA of a Secret; why it can't be used, if so."""
        if held.obj is None:
            problem = ""
            if self._authority is None:
                making.own.lacks(f"Secret {making.authority} with the CA is missing: the leader makes it")
        else:
            try:
                self._authority = issuing.read_authority(issuing.decoded(held.obj), held.promoted)
                return ""
            except MembershipError as error:
                problem = str(error)
                making.own.lacks(f"Secret {making.authority}: {problem}")
        return problem

    def _stepped(
        self, step: AuthorityStep, known: CertificateAuthority | None, now: float
    ) -> tuple[issuing.Content, str]:
        """What the CA's Secret is to hold after a step, and when the signing CA took over (RFC 3339)."""
        held = self._authority
        if isinstance(step, planning.MakeAuthority):
            # One that is only gone from its Secret goes on: then nobody notices anything.
            if known is None and held is not None and now < held.view.signing.not_after:
                return held.content, _written(held.view.promoted)
            return issuing.first_authority(now), ""
        if known is None:
            raise RuntimeError(f"{step} without a CA")
        match step:
            case planning.AddAuthority():
                return issuing.add_next(known, now), _written(known.view.promoted)
            case planning.PromoteAuthority():
                return issuing.promote(known), _written(now)
            case planning.DropAuthorities():
                return issuing.drop(known, step.keep), _written(known.view.promoted)

    def _keep_own(self, own: Certificates, authority: CertificateAuthority, now: float) -> None:
        """The operator's own certificate, which is in no Secret."""
        names = frozenset({OPERATOR_NAME})
        step = planning.leaf_step(self._own, names, authority.view, now)
        if step is None:
            return
        content = self._content(step, names, authority, own.material, now)
        self._own, material = issuing.read_leaf(content, now)
        if material is None:
            raise RuntimeError(f"a certificate that was just made is of no use: {self._own.problem}")
        own.put(material)
        self.usable.set()
        log.info("operator's own certificate made", reason=step.reason, until=material.until)

    async def _keep_leaf(self, wanted: Wanted, authority: CertificateAuthority, now: float) -> bool:
        """False when what is due could not be written."""
        view = self._view(wanted)
        held = self._secrets.get(wanted.secret)
        if view is None or held is None or wanted.is_taken(held) or not self._leading():
            return True
        step = planning.leaf_step(view, wanted.names, authority.view, now)
        if step is None:
            return True
        material = self._views[wanted.secret][2]
        content = self._content(step, wanted.names, authority, material, now)
        try:
            obj = await write(self._api, wanted.secret, held, content, owner=wanted.cluster)
        except KubeError as error:
            self._tell_failure(wanted.secret, step.reason, error)
            return False
        self._failed.pop(wanted.secret, None)
        self._secrets.put(wanted.secret, obj)
        self._tell_written(wanted, step)
        return True

    def _content(
        self,
        step: LeafStep,
        names: frozenset[str],
        authority: CertificateAuthority,
        material: Material | None,
        now: float,
    ) -> issuing.Content:
        if isinstance(step, planning.Spread) and material is not None:
            return issuing.respread(material, authority)
        return issuing.issue(authority, names, now, planning.leaf_end(authority.view, now))

    # -- telling ----------------------------------------------------------------------------------------

    def _tell(self) -> None:
        for key, wanted in self._clusters.items():
            secret = wanted.secret
            if self._tls:
                told = wanted.state(self._view(wanted), self._secrets.get(secret), self._failed.get(secret))
            else:
                told = TlsSecret(secret, wanted.given, "Off")
            self._on_state(key, told)

    def _tell_failure(self, secret: ObjectKey, reason: str, error: KubeError) -> None:
        if isinstance(error, Conflict):
            return  # it has changed meanwhile, and is looked at again when the watch has brought it
        if self._failed.get(secret) != str(error):
            log.error("certificate not written", secret=str(secret), reason=reason, error=str(error))
        self._failed[secret] = str(error)

    def _tell_written(self, wanted: Wanted, step: LeafStep) -> None:
        what = "certificate made" if isinstance(step, planning.Issue) else "certificate's CAs exchanged"
        message = f"Secret {wanted.secret}: {what}: {step.message}"
        amiss = step.reason in ("CertificateBroken", "CertificateExpired")
        cluster = wanted.cluster
        names = {"cluster": str(cluster.key)} if cluster is not None else {}
        emit = log.warning if amiss else log.info
        emit(message, secret=str(wanted.secret), reason=step.reason, **names)
        if cluster is None:
            return
        self._note(
            EventNote(
                "MediaCluster",
                cluster.key,
                cluster.uid,
                "Warning" if amiss else "Normal",
                step.reason,
                message,
            )
        )


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""
