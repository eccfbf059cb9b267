"""The rights that the chart grants, and what needs them: one list for the tests of chart and cluster.

A line: role, namespace (`*`: everywhere; `media-b`: each of mediaNamespaces; `mafalda-system`: the
release's), kind with its group, `:NAME` for one object alone, verbs. It comes in with the code that needs it.
"""

from __future__ import annotations

EVERYWHERE = "*"
MEDIA = "media-b"
"""One of mediaNamespaces, which are not the release's here."""

RIGHTS = """
operator  *               mafalda.io/mediaclusters                get list watch patch
operator  *               mafalda.io/mediaservers                 list watch
operator  *               mafalda.io/mediasessions                get list watch
operator  *               mafalda.io/mediarouters                 get list watch create patch delete
operator  *               mafalda.io/mediaclusters/status         patch
operator  *               mafalda.io/mediaservers/status          patch
operator  *               mafalda.io/mediasessions/status         patch
operator  *               mafalda.io/mediarouters/status          patch
operator  *               namespaces                              list watch
operator  *               nodes                                   list watch
operator  *               events                                  create
operator  *               authorization.k8s.io/selfsubjectaccessreviews  create
operator  mafalda-system  coordination.k8s.io/leases              create
operator  mafalda-system  coordination.k8s.io/leases:mafalda-operator  get update
operator  mafalda-system  secrets                                 create
operator  mafalda-system  secrets:mafalda-ca                      get list watch patch
operator  mafalda-system  secrets:mafalda-gateway-tls             get list watch patch
operator  media-b         pods                                    get list watch create delete
operator  media-b         secrets                                 get list watch create patch
operator  media-b         configmaps                              get list watch create patch
operator  media-b         services                                get list watch create patch
operator  media-b         policy/poddisruptionbudgets             get list watch create patch
operator  media-b         mafalda.io/mediaservers                 get create
operator  media-b         mafalda.io/mediaclusters/finalizers     update
gateway   *               mafalda.io/mediaclusters                list watch
gateway   *               mafalda.io/mediaservers                 list watch
gateway   *               mafalda.io/mediasessions                list watch
gateway   *               namespaces                              get
gateway   media-b         secrets                                 get
hooks     media-b         mafalda.io/mediaclusters                get list create patch delete
hooks     media-b         pods                                    list
sweep     mafalda-system  secrets:mafalda-ca                      get delete
sweep     mafalda-system  secrets:mafalda-gateway-tls             get delete
sweep     mafalda-system  coordination.k8s.io/leases:mafalda-operator  get delete
sweep     mafalda-system  batch/jobs:mafalda-apply-cluster        get delete
sweep     mafalda-system  batch/jobs:mafalda-delete-clusters      get delete
sweep     mafalda-system  pods:mafalda-check                      get delete
check     media-b         mafalda.io/mediasessions                create get delete
check     media-b         mafalda.io/mediaclusters                get
check     media-b         secrets:main-token-keys                 get
"""

Granted = dict[tuple[str, str, str], set[str]]


def wanted() -> Granted:
    """Verbs by role, namespace and resource."""
    lines = [line.split() for line in RIGHTS.strip().splitlines()]
    return {(role, where, what): set(verbs) for role, where, what, *verbs in lines}
