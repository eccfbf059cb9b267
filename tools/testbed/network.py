"""The testbed's network: a bridge in the control plane's namespace, and a cable to each node's.

Every function may be called again: it makes only what is not there.
"""

from collections.abc import Sequence

from testbed.errors import CommandError, NotRunningError
from testbed.layout import BRIDGE, GATEWAY, SERVICES, Node
from testbed.running import NAMESPACES, entered, run, succeeds


def exists(namespace: str) -> bool:
    return (NAMESPACES / namespace).exists()


def make_control_plane(namespace: str) -> None:
    _make_namespace(namespace)
    if not succeeds("ip", "-n", namespace, "link", "show", BRIDGE):
        _ip(namespace, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
    _ip(namespace, "addr", "replace", f"{GATEWAY}/24", "dev", BRIDGE)
    _ip(namespace, "link", "set", BRIDGE, "up")
    # Any way out will do: kube-proxy turns a service's address into a pod's after this choice.
    _ip(namespace, "route", "replace", SERVICES, "dev", BRIDGE)
    _sysctl(namespace, "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=0")


def make_node(node: Node) -> None:
    _make_namespace(node.name)
    if not succeeds("ip", "-n", node.name, "link", "show", "eth0"):
        _ip(
            node.control_plane,
            "link",
            "add",
            node.link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            node.name,
        )
        _ip(node.control_plane, "link", "set", node.link, "master", BRIDGE, "up")
    # Without the second, packets between pods of one node pass over its bridge unseen by NetworkPolicy.
    _sysctl(node.name, "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")


def route(nodes: Sequence[Node]) -> None:
    """Gives every node its address and the ways to all pods."""
    for node in nodes:
        _ip(node.name, "addr", "replace", f"{node.address}/24", "dev", "eth0")
        _ip(node.name, "link", "set", "eth0", "up")
        _ip(node.name, "route", "replace", "default", "via", GATEWAY)
        for other in nodes:
            if other != node:
                _ip(node.name, "route", "replace", other.pods, "via", other.address)
        _ip(node.control_plane, "route", "replace", node.pods, "via", node.address)


def cut(node: Node) -> None:
    """Pulls the node's cable out of the bridge: nothing comes or goes, and what runs on the node runs on."""
    _require(node)
    _ip(node.control_plane, "link", "set", node.link, "down")


def join(node: Node, nodes: Sequence[Node]) -> None:
    """Puts the cable in again."""
    _require(node)
    _ip(node.control_plane, "link", "set", node.link, "up")
    route(nodes)


def is_cut(node: Node) -> bool:
    """Also of a node that is half made: no, then."""
    try:
        return "state DOWN" in run("ip", "-o", "-n", node.control_plane, "link", "show", node.link)
    except CommandError:
        return False


def remove(namespace: str) -> None:
    if exists(namespace):
        run("ip", "netns", "del", namespace)


def _require(node: Node) -> None:
    if not exists(node.name):
        raise NotRunningError(f"there is no node {node.name}; `tools/cluster status` lists them")


def _make_namespace(name: str) -> None:
    if not exists(name):
        run("ip", "netns", "add", name)
    _ip(name, "link", "set", "lo", "up")


def _ip(namespace: str, *arguments: str) -> None:
    run("ip", "-n", namespace, *arguments)


def _sysctl(namespace: str, *settings: str) -> None:
    run(*entered(namespace), "sysctl", "-qw", *settings)
