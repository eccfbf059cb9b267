"""The control plane's files and command lines, as plain functions."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from testbed.layout import API_URL, DOMAIN, GATEWAY, NETWORK, PODS, SERVICES, Node, Paths
from testbed.programs import Programs

ADMIN = "admin"
COMPONENTS = ("kube-controller-manager", "kube-scheduler", "coredns", "kube-proxy", "kube-router")
"""Users of the testbed's own programs. All are administrators, and left out of the audit log."""

ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns", "kube-proxy")
"""The control plane's processes, in the order in which they are started."""

RESTARTABLE = {"etcd": "etcd", "apiserver": "kube-apiserver"}


def users(nodes: Sequence[Node]) -> dict[str, str]:
    """Group of every user that needs a token."""
    groups = dict.fromkeys((ADMIN, *COMPONENTS), "system:masters")
    return {**groups, **{node.user: "system:nodes" for node in nodes}}


def tokens_csv(tokens: Mapping[str, str], groups: Mapping[str, str]) -> str:
    return "".join(f'{token},{user},{user},"{groups[user]}"\n' for user, token in tokens.items())


def audit_policy() -> dict[str, Any]:
    """Who asked for what: everything but what the testbed's own programs ask, which is most of it."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": list(COMPONENTS)},
            {"level": "None", "users": ["system:apiserver", "system:anonymous"]},
            {"level": "None", "userGroups": ["system:nodes"]},
            {"level": "Metadata"},
        ],
    }


def kubeconfig(certificate: bytes, user: str, token: str) -> str:
    cluster = {"server": API_URL, "certificate-authority-data": base64.b64encode(certificate).decode()}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "mafalda", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "mafalda", "context": {"cluster": "mafalda", "user": user}}],
            "current-context": "mafalda",
        },
        sort_keys=False,
    )


def etcd_command(programs: Programs, paths: Paths) -> list[str]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        programs["etcd"],
        f"--data-dir={paths.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # the data is thrown away with the directory
        "--log-level=warn",
    ]


def apiserver_command(programs: Programs, paths: Paths) -> list[str]:
    return [
        programs["kube-apiserver"],
        "--etcd-servers=http://127.0.0.1:2379",
        f"--cert-dir={paths.certificates}",
        f"--bind-address={GATEWAY}",
        f"--advertise-address={GATEWAY}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        # Made by kube-apiserver itself for its certificate; signs service accounts' tokens too.
        f"--service-account-key-file={paths.key}",
        f"--service-account-signing-key-file={paths.key}",
        f"--token-auth-file={paths.tokens}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        "--kubelet-preferred-address-types=InternalIP",  # for logs, exec and port-forward
        f"--audit-policy-file={paths.audit_policy}",
        f"--audit-log-path={paths.audit_log}",
        "--audit-log-mode=blocking",  # a request that was answered is in the log
        "--profiling=false",
    ]


def controller_manager_command(programs: Programs, paths: Paths) -> list[str]:
    return [
        programs["kube-controller-manager"],
        f"--kubeconfig={paths.kubeconfig_of('kube-controller-manager')}",
        f"--service-account-private-key-file={paths.key}",
        f"--root-ca-file={paths.certificate}",
        "--controllers=*",
        "--use-service-account-credentials=false",
        "--leader-elect=false",
        "--allocate-node-cidrs=false",  # each kubelet is told its own
        f"--cluster-cidr={PODS}",
        "--bind-address=127.0.0.1",
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=16s",
        "--profiling=false",
    ]


def scheduler_command(programs: Programs, paths: Paths) -> list[str]:
    return [
        programs["kube-scheduler"],
        f"--kubeconfig={paths.kubeconfig_of('kube-scheduler')}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--profiling=false",
    ]


def coredns_command(programs: Programs, paths: Paths) -> list[str]:
    return [programs["coredns"], f"-conf={paths.corefile}"]


def corefile(paths: Paths) -> str:
    """Names of services and pods, from the API; others do not exist. Answers are kept for a second only, so
    that a test sees what changed.
    """
    return f"""\
{DOMAIN}:53 in-addr.arpa:53 {{
    bind {GATEWAY}
    errors
    kubernetes {{
        kubeconfig {paths.kubeconfig_of("coredns")} mafalda
        pods verified
        ttl 1
    }}
}}
.:53 {{
    bind {GATEWAY}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def resolv_conf(namespace: str = "default") -> str:
    return f"nameserver {GATEWAY}\nsearch {namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\noptions ndots:5\n"


def proxy_command(programs: Programs, paths: Paths, name: str) -> list[str]:
    """Services' addresses, for the programs of one namespace."""
    return [
        programs["kube-proxy"],
        f"--kubeconfig={paths.kubeconfig_of('kube-proxy')}",
        f"--hostname-override={name}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={PODS}",
        # These are the machine's, not the namespace's.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
        "--iptables-min-sync-period=100ms",
    ]


def dns_service() -> list[dict[str, Any]]:
    """`kube-dns`, as programs look for it, in front of CoreDNS, which is no pod here."""
    meta = {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
    ports = [
        {"name": f"dns-{protocol}".lower(), "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")
    ]
    labels = {**meta["labels"], "kubernetes.io/service-name": "kube-dns"}  # type: ignore[dict-item]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"clusterIP": "10.96.0.10", "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**meta, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [f"{NETWORK}.1"]}],
            "ports": ports,
        },
    ]


def as_list(objects: Sequence[Mapping[str, Any]]) -> str:
    """Objects as one document that kubectl reads."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
