"""`tools/cluster up`: every step makes what is not there, so that a half-made testbed is completed."""

import json
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from testbed import control_plane, images, network, node_files
from testbed.cluster import DAEMONS, Description, Testbed, is_ready
from testbed.errors import CommandError, NotPossibleError, NotRunningError
from testbed.layout import PAUSE, Node, Paths
from testbed.programs import find_programs, plugin_folder, require_machine
from testbed.running import entered, wait_until
from testbed.stopping import clear

_UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
_HIDDEN = ("/var/lib", "/var/log", "/run")
"""Folders of which each node's programs see their own."""

_ENOUGH_GIB = 10.0
"""Memory from which on nodes keep images and containers there: three nodes take about 2 GiB of it."""

_SOCKET_PATH = 107
"""Letters that Linux allows in the path of a socket."""

Say = Callable[[str], None]


def up(directory: Path, name: str, count: int, wanted: Sequence[str], say: Say) -> Testbed:
    """A running testbed of `count` nodes that have the images `wanted`. The caller holds the lock.

    Raises TestbedError or LocalClusterError; what was started stays then, for its logs, until `down`.
    """
    _check_directory(directory, name)
    require_machine()
    programs = find_programs()
    description = Description(count, str(programs.embedded), str(programs.testbed), name)
    testbed = _existing(directory, description, say) or _new(directory, description)
    images.ensure_pause(say)
    _make_network(testbed)
    _write_files(testbed)
    with ThreadPoolExecutor(count) as pool:
        say("starting etcd and the API server; containerd on the nodes")
        booted = [pool.submit(_start_runtime, testbed, node) for node in testbed.nodes]
        _start_api_server(testbed)
        for future in booted:
            future.result()
        images.load(testbed, [PAUSE], lambda _: None)
        say("starting the controllers, the scheduler, CoreDNS, and the nodes")
        for name in control_plane.ORDER:
            testbed.spawn_control_plane(name)
        for node in testbed.nodes:
            _start_node(testbed, node)
        images.load(testbed, wanted, say)
        _await_nodes(testbed)
        for node in testbed.nodes:  # it ends when its node is not there
            _spawn(testbed, node, "kube-router", node_files.router_command(programs, testbed.paths, node))
        list(pool.map(lambda node: _initialize(testbed, node), testbed.nodes))
    testbed.kubectl("apply", "-f", "-", stdin=control_plane.as_list(control_plane.dns_service()))
    return testbed


def _memory_gib() -> float:
    """What programs may still take without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return kib / 2**20


def _check_directory(directory: Path, name: str) -> None:
    """Raises NotPossibleError where nodes would see something else, or the paths of sockets be too long."""
    longest = len(f"{directory}/{name}-n1/kubelet/pod-resources/4294967295")
    if longest > _SOCKET_PATH:
        spare = longest - _SOCKET_PATH
        raise NotPossibleError(
            f"{directory} is {spare} letters too long for sockets in it: choose another --dir"
        )
    for hidden in _HIDDEN:
        if directory.is_relative_to(hidden):
            raise NotPossibleError(
                f"{directory} is in {hidden}, which nodes see their own of: choose another --dir"
            )


def _existing(directory: Path, wanted: Description, say: Say) -> Testbed | None:
    """What runs in the directory, if that is what is wanted; else it is cleared."""
    try:
        testbed = Testbed.attach(directory)
    except NotRunningError:
        clear(directory, wanted.name)
        return None
    if testbed.description == wanted and all(testbed.control_plane_state().values()):
        return testbed
    if testbed.description != wanted and testbed.answers():
        raise NotPossibleError(
            f"{directory} has a running testbed of {testbed.description.nodes} nodes, "
            "of other programs or another name; `tools/cluster down` first"
        )
    say("clearing what an earlier testbed left")
    clear(directory, wanted.name)
    return None


def _new(directory: Path, description: Description) -> Testbed:
    testbed = Testbed(directory, description)
    testbed.processes.prepare()
    testbed.save()
    return testbed


def _make_network(testbed: Testbed) -> None:
    network.make_control_plane(testbed.namespace)
    for node in testbed.nodes:
        network.make_node(node)
    network.route(testbed.nodes)


def _write_files(testbed: Testbed) -> None:
    paths = testbed.paths
    groups = control_plane.users(testbed.nodes)
    if not paths.tokens.exists():
        paths.tokens.touch(mode=0o600)
        tokens = {user: secrets.token_hex(16) for user in groups}
        paths.tokens.write_text(control_plane.tokens_csv(tokens, groups))
    paths.audit_policy.write_text(yaml.safe_dump(control_plane.audit_policy()))
    paths.corefile.write_text(control_plane.corefile(paths))
    paths.resolv_conf.write_text(control_plane.resolv_conf())
    plugins = plugin_folder()
    if plugins is None:
        raise NotPossibleError("the CNI plugins are gone: install containernetworking-plugins")
    for node in testbed.nodes:
        _write_node_files(paths, node, plugins)


def _write_node_files(paths: Paths, node: Node, plugins: Path) -> None:
    own = paths.node(node)
    for folder in (own.network_config, own.containerd, own.system / "lib", own.system / "log"):
        folder.mkdir(parents=True, exist_ok=True)
    own.containerd_config.write_text(node_files.containerd_config(own, plugins))
    own.kubelet_config.write_text(yaml.safe_dump(node_files.kubelet_config(node, own)))
    conflist = own.network_config / "10-bridge.conflist"
    conflist.write_text(json.dumps(node_files.network_config(node, own)))


def _start_api_server(testbed: Testbed) -> None:
    testbed.spawn_control_plane("etcd")
    testbed.spawn_control_plane("kube-apiserver")
    paths = testbed.paths
    wait_until(
        "the API server has made its certificate",
        lambda: paths.certificate.exists() and paths.key.exists(),
        seconds=30,
        ended=lambda: testbed.ended(["kube-apiserver"]),
        why_not=lambda: testbed.processes.log_tail("kube-apiserver"),
    )
    certificate = paths.certificate.read_bytes()
    paths.kubeconfig.parent.mkdir(mode=0o700, exist_ok=True)
    for line in paths.tokens.read_text().splitlines():
        token, user, *_ = line.split(",")
        paths.kubeconfig_of(user).write_text(control_plane.kubeconfig(certificate, user, token))
    testbed.await_answer()


def _start_runtime(testbed: Testbed, node: Node) -> None:
    """The node's mount namespace, held by its anchor, and containerd in it."""
    own = testbed.paths.node(node)
    anchor, containerd = (testbed.process_name(node, daemon) for daemon in ("anchor", "containerd"))
    if not testbed.processes.running(anchor):
        ready = own.system / "ready"
        ready.unlink(missing_ok=True)
        script = node_files.anchor_script(own, in_memory=_memory_gib() >= _ENOUGH_GIB)
        enter = [*entered(node.name), "unshare", "--mount", "--propagation", "slave"]
        testbed.processes.spawn(anchor, [*enter, "sh", "-euc", script])
        wait_until(
            f"{node.name} has its mounts",
            ready.exists,
            seconds=10,
            ended=lambda: testbed.ended([anchor]),
            why_not=lambda: testbed.processes.log_tail(anchor),
        )
    _spawn(testbed, node, "containerd", ["containerd", "-c", str(own.containerd_config)])
    wait_until(
        f"containerd of {node.name} answers",
        lambda: images.containerd_answers(testbed, node),
        seconds=30,
        ended=lambda: testbed.ended([containerd]),
        why_not=lambda: testbed.processes.log_tail(containerd),
    )


def _start_node(testbed: Testbed, node: Node) -> None:
    programs, paths = testbed.programs, testbed.paths
    _spawn(testbed, node, "kubelet", node_files.kubelet_command(programs, paths, node))
    _spawn(testbed, node, "kube-proxy", control_plane.proxy_command(programs, paths, node.name))


def _spawn(testbed: Testbed, node: Node, daemon: str, command: list[str]) -> None:
    """Starts it in the node's namespaces unless it runs."""
    name = testbed.process_name(node, daemon)
    if testbed.processes.running(name):
        return
    anchor = testbed.processes.records()[testbed.process_name(node, "anchor")]
    enter = ["nsenter", f"--target={anchor.pid}", "--mount", "--net"]
    path = {"PATH": testbed.environment()["PATH"]}
    testbed.processes.spawn(name, [*enter, *command], environment=path)


def _await_nodes(testbed: Testbed) -> None:
    def lacking() -> list[str]:
        try:
            items = testbed.kubectl_json("get", "nodes")["items"]
        except CommandError as error:
            return [str(error)]
        ready = {item["metadata"]["name"] for item in items if is_ready(item)}
        return [node.name for node in testbed.nodes if node.name not in ready]

    early = [daemon for daemon in DAEMONS if daemon != "kube-router"]
    daemons = [testbed.process_name(node, daemon) for node in testbed.nodes for daemon in early]
    wait_until(
        "all nodes are Ready",
        lambda: not lacking(),
        seconds=90,
        ended=lambda: testbed.ended([*daemons, *control_plane.ORDER]),
        why_not=lambda: _node_logs(testbed, daemons),
    )


def _node_logs(testbed: Testbed, daemons: Sequence[str]) -> str:
    ended = testbed.ended(daemons) or [name for name in daemons if name.endswith(".kubelet")]
    return "\n".join(f"{name}:\n{testbed.processes.log_tail(name, 5)}" for name in ended)


def _initialize(testbed: Testbed, node: Node) -> None:
    """What a cloud's controller does for a new node: its addresses; only then pods may come."""
    found = testbed.kubectl_json("get", "node", node.name)
    if found["status"].get("addresses") != node_files.addresses(node):
        patch = json.dumps({"status": {"addresses": node_files.addresses(node)}})
        testbed.kubectl("patch", "node", node.name, "--subresource=status", "--type=merge", "-p", patch)
    if any(taint["key"] == _UNINITIALIZED for taint in found["spec"].get("taints", [])):
        testbed.kubectl("taint", "node", node.name, f"{_UNINITIALIZED}-")
