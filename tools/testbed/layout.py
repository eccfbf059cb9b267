"""Names, addresses and files of the testbed, as plain data.

mafalda-cp   10.77.0.1        etcd, API server, controllers, scheduler, CoreDNS; bridge br0
mafalda-nN   10.77.0.(10+N)   containerd, kubelet, kube-proxy, kube-router; pods 10.244.N.0/24
"""

from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.77.0"
GATEWAY = f"{NETWORK}.1"
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/16"
NAME = "mafalda"
"""Of a testbed, if it is not given another to stand beside one."""
BRIDGE = "br0"
API_URL = f"https://{GATEWAY}:6443"
DOMAIN = "cluster.local"
MAX_NODES = 9
PAUSE = "localhost/pause:1"


@dataclass(frozen=True)
class Node:
    """One node; its network namespace has its name."""

    number: int
    """From 1."""
    testbed: str = NAME

    @property
    def name(self) -> str:
        return f"{self.testbed}-n{self.number}"

    @property
    def control_plane(self) -> str:
        """The namespace that its cable leads to."""
        return control_plane(self.testbed)

    @property
    def address(self) -> str:
        return f"{NETWORK}.{10 + self.number}"

    @property
    def pods(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def zone(self) -> str:
        return chr(ord("a") + self.number - 1)

    @property
    def link(self) -> str:
        """The bridge's end of the node's cable, in the control plane's namespace."""
        return f"mafalda-v{self.number}"

    @property
    def user(self) -> str:
        return f"system:node:{self.name}"


def nodes(count: int, testbed: str = NAME) -> tuple[Node, ...]:
    return tuple(Node(number, testbed) for number in range(1, count + 1))


def control_plane(testbed: str = NAME) -> str:
    """The network namespace of the control plane."""
    return f"{testbed}-cp"


@dataclass(frozen=True)
class NodePaths:
    """What lies where in a node's directory."""

    directory: Path

    @property
    def socket(self) -> Path:
        return self.directory / "containerd.sock"

    @property
    def containerd(self) -> Path:
        return self.directory / "containerd"

    @property
    def containerd_config(self) -> Path:
        return self.directory / "containerd.toml"

    @property
    def network_config(self) -> Path:
        return self.directory / "cni"

    @property
    def kubelet(self) -> Path:
        return self.directory / "kubelet"

    @property
    def kubelet_config(self) -> Path:
        return self.directory / "kubelet.yaml"

    @property
    def pod_logs(self) -> Path:
        return self.directory / "pod-logs"

    @property
    def system(self) -> Path:
        """Backs /var/lib and /var/log as the node's daemons see them."""
        return self.directory / "system"


@dataclass(frozen=True)
class Paths:
    """What lies where in the testbed's directory."""

    directory: Path

    @property
    def state(self) -> Path:
        return self.directory / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.kubeconfig_of("admin")

    def kubeconfig_of(self, user: str) -> Path:
        return self.directory / "kubeconfigs" / f"{user}.yaml"

    @property
    def tokens(self) -> Path:
        return self.directory / "tokens.csv"

    @property
    def certificates(self) -> Path:
        return self.directory / "certificates"

    @property
    def certificate(self) -> Path:
        return self.certificates / "apiserver.crt"

    @property
    def key(self) -> Path:
        return self.certificates / "apiserver.key"

    @property
    def etcd(self) -> Path:
        return self.directory / "etcd"

    @property
    def audit_policy(self) -> Path:
        return self.directory / "audit-policy.yaml"

    @property
    def audit_log(self) -> Path:
        return self.directory / "audit.log"

    @property
    def corefile(self) -> Path:
        return self.directory / "Corefile"

    @property
    def resolv_conf(self) -> Path:
        return self.directory / "resolv.conf"

    @property
    def images(self) -> Path:
        """Which image each node has, as JSON."""
        return self.directory / "images.json"

    @property
    def cut(self) -> Path:
        """Has an empty file for each node that is cut off."""
        return self.directory / "cut"

    def node(self, node: Node) -> NodePaths:
        return NodePaths(self.directory / node.name)
