"""The command lines and files of the control plane, as plain functions of its directory, ports and
programs.
"""

import base64
from dataclasses import dataclass

import yaml

from mafalda_operator.cli.local.binaries import Binaries
from mafalda_operator.cli.local.directory import Paths

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    etcd: int
    etcd_peer: int
    apiserver: int

    def all(self) -> tuple[int, int, int]:
        return self.etcd, self.etcd_peer, self.apiserver


def etcd_command(binaries: Binaries, paths: Paths, ports: Ports) -> list[str]:
    client, peer = f"http://{HOST}:{ports.etcd}", f"http://{HOST}:{ports.etcd_peer}"
    return [
        binaries.etcd,
        f"--data-dir={paths.etcd_data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # the data is thrown away with the directory
        "--log-level=warn",
    ]


def apiserver_command(binaries: Binaries, paths: Paths, ports: Ports, prefix: str) -> list[str]:
    """`prefix` keeps the data apart from another cluster's, should that one have taken the etcd port
    first.
    """
    key = (
        paths.certificates / "apiserver.key"
    )  # made by kube-apiserver itself; signs service-account tokens too
    return [
        binaries.kube_apiserver,
        f"--etcd-servers=http://{HOST}:{ports.etcd}",
        f"--etcd-prefix={prefix}",
        f"--bind-address={HOST}",
        f"--advertise-address={HOST}",
        f"--secure-port={ports.apiserver}",
        f"--cert-dir={paths.certificates}",
        f"--token-auth-file={paths.tokens}",
        "--anonymous-auth=false",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--profiling=false",
    ]


APISERVER_ENVIRONMENT = {"GOGC": "300", "GOMEMLIMIT": "1GiB"}
"""In a burst of writes a quarter of its CPU goes into collecting a small heap; this spends memory instead."""


def controller_manager_command(binaries: Binaries, paths: Paths) -> list[str]:
    """Only what deletion needs: without these two, owner references and namespaces do nothing."""
    return [
        binaries.kube_controller_manager,
        f"--kubeconfig={paths.kubeconfig}",
        "--controllers=garbage-collector-controller,namespace-controller",
        "--leader-elect=false",
        "--secure-port=0",
        "--use-service-account-credentials=false",
    ]


def tokens_csv(token: str) -> str:
    return f'{token},admin,admin,"system:masters"\n'


def kubeconfig(url: str, certificate: bytes, token: str) -> str:
    """A kubeconfig that stands alone: the certificate is inside."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(certificate).decode()}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "mafalda-local", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "mafalda-local", "context": {"cluster": "mafalda-local", "user": "admin"}}],
            "current-context": "mafalda-local",
        },
        sort_keys=False,
    )
