"""What the testbed's programs are told."""

import json
import tomllib
from pathlib import Path

import yaml
from testbed import control_plane, node_files
from testbed.layout import PAUSE, Paths, nodes
from testbed.programs import Programs

PATHS = Paths(Path("/state"))
PROGRAMS = Programs(Path("/embedded"), Path("/testbed"))
NODES = nodes(3)
NODE = NODES[1]


def test_every_user_has_a_token_and_nodes_are_no_administrators():
    groups = control_plane.users(NODES)
    tokens = {user: f"token-of-{user}" for user in groups}
    lines = control_plane.tokens_csv(tokens, groups).splitlines()
    assert len(lines) == len(groups)
    assert (
        'token-of-system:node:mafalda-n2,system:node:mafalda-n2,system:node:mafalda-n2,"system:nodes"'
        in lines
    )
    assert 'token-of-admin,admin,admin,"system:masters"' in lines


def test_audit_log_leaves_out_the_testbeds_own_programs_and_nobody_else():
    rules = control_plane.audit_policy()["rules"]
    assert rules[-1] == {"level": "Metadata"}
    hidden = {user for rule in rules[:-1] for user in rule.get("users", ())}
    assert hidden >= set(control_plane.COMPONENTS)
    assert control_plane.ADMIN not in hidden


def test_kubeconfig_stands_alone():
    found = yaml.safe_load(control_plane.kubeconfig(b"certificate", "admin", "secret"))
    assert found["current-context"] == found["contexts"][0]["name"]
    assert found["clusters"][0]["cluster"]["server"] == "https://10.77.0.1:6443"
    assert found["users"][0]["user"] == {"token": "secret"}


def test_containerd_config_is_toml_with_the_nodes_own_folders():
    text = node_files.containerd_config(PATHS.node(NODE), Path("/plugins"))
    config = tomllib.loads(text)
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == PAUSE
    assert cri["cni"]["bin_dir"] == "/plugins"
    for folder in (config["root"], config["state"], config["grpc"]["address"], cri["cni"]["conf_dir"]):
        assert folder.startswith("/state/mafalda-n2/")


def test_pods_get_addresses_of_their_node():
    config = node_files.network_config(NODE, PATHS.node(NODE))
    assert json.loads(json.dumps(config)) == config
    assert config["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.2.0/24"}]]
    assert node_files.kubelet_config(NODE, PATHS.node(NODE))["podCIDR"] == "10.244.2.0/24"


def test_programs_come_from_where_they_were_built():
    assert node_files.kubelet_command(PROGRAMS, PATHS, NODE)[0] == "/testbed/kubelet"
    assert control_plane.etcd_command(PROGRAMS, PATHS)[0] == "/embedded/etcd"
    assert control_plane.scheduler_command(PROGRAMS, PATHS)[0] == "/testbed/kube-scheduler"


def test_node_is_reported_as_a_cloud_would():
    assert node_files.addresses(NODE) == [
        {"type": "InternalIP", "address": "10.77.0.12"},
        {"type": "ExternalIP", "address": "10.77.0.12"},
        {"type": "Hostname", "address": "mafalda-n2"},
    ]
