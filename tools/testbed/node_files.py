"""A node's files and command lines, as plain functions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.layout import DOMAIN, GATEWAY, PAUSE, Node, NodePaths, Paths
from testbed.programs import Programs

RUNTIME = "k8s.io"
"""containerd's namespace for the kubelet's images and containers."""


def network_config(node: Node, paths: NodePaths) -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(paths.directory / "addresses"),
            "ranges": [[{"subnet": node.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}  # makes hostPort work
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, portmap]}


def containerd_config(paths: NodePaths, plugins: Path) -> str:
    return f"""\
version = 2
root = "{paths.containerd}/root"
state = "{paths.containerd}/state"
[grpc]
  address = "{paths.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # A machine without CAP_SYS_RESOURCE lets nobody lower an oom_score_adj; runc then fails without saying why.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{paths.network_config}"
"""


def kubelet_config(node: Node, paths: NodePaths) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "failCgroupV1": False,
        "containerRuntimeEndpoint": f"unix://{paths.socket}",
        "podCIDR": node.pods,
        "resolvConf": "",
        "clusterDNS": [GATEWAY],
        "clusterDomain": DOMAIN,
        # The machine's disk and memory are not the node's to judge.
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "imagefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
        "podLogsDir": str(paths.pod_logs),
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 10,
        "shutdownGracePeriod": "0s",
        "serializeImagePulls": False,
        "syncFrequency": "10s",
    }


def kubelet_command(programs: Programs, paths: Paths, node: Node) -> list[str]:
    own = paths.node(node)
    return [
        programs["kubelet"],
        f"--config={own.kubelet_config}",
        f"--kubeconfig={paths.kubeconfig_of(node.user)}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels=topology.kubernetes.io/zone={node.zone}",
        # Without it the kubelet takes away every address it does not know itself, such as an ExternalIP.
        "--cloud-provider=external",
        f"--root-dir={own.kubelet}",
        f"--cert-dir={own.directory / 'pki'}",
    ]


def router_command(programs: Programs, paths: Paths, node: Node) -> list[str]:
    """Enforces NetworkPolicy, and nothing else."""
    return [
        programs["kube-router"],
        f"--kubeconfig={paths.kubeconfig_of('kube-router')}",
        f"--hostname-override={node.name}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--enable-cni=false",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--iptables-sync-period=1m",
        "--health-port=0",
        "--metrics-port=0",
    ]


def addresses(node: Node) -> list[Mapping[str, str]]:
    """A node's addresses, as a cloud would report them: its address is reached from everywhere."""
    return [
        {"type": kind, "address": value}
        for kind, value in (
            ("InternalIP", node.address),
            ("ExternalIP", node.address),
            ("Hostname", node.name),
        )
    ]


def anchor_script(paths: NodePaths, *, in_memory: bool) -> str:
    """Makes the node's own /run, /var/lib and /var/log in a new mount namespace, then holds that.

    So the kubelets do not meet in /var/lib/kubelet, iptables not at its lock, and all mounts of pods are gone
    with the last process. The name of the first mount tells such processes from all others (`stopping`).
    With `in_memory` images and containers never touch the disk: to unpack and to delete them is most of the
    work of `up` and `down` else.
    """
    store = f"mount -t tmpfs -o mode=711 containerd '{paths.containerd}'" if in_memory else "true"
    return f"""\
mount --make-rshared /
mount -t tmpfs -o mode=755 '{paths.directory}' /run
mount --bind '{paths.system}/lib' /var/lib
mount --bind '{paths.system}/log' /var/log
{store}
touch '{paths.system}/ready'
exec sleep infinity
"""
