"""The demo's ports: those of the example, or free ones."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from mafalda_operator.cli.demo.errors import DemoError
from mafalda_operator.cli.demo.layout import HOST, default_layout, free_layout, parse_documents, rewrite
from mafalda_operator.cli.local import ports

EXAMPLE = (Path(__file__).parents[4] / "examples" / "demo.yaml").read_text()


def test_default_layout_is_what_the_example_names():
    layout = default_layout(parse_documents(EXAMPLE))
    assert layout.gateway == 8080
    assert [server.endpoint for server in layout.servers] == [f"{HOST}:{port}" for port in (4000, 4010, 4020)]


def test_no_two_processes_share_a_port():
    for layout in (
        default_layout(parse_documents(EXAMPLE)),
        free_layout(default_layout(parse_documents(EXAMPLE))),
    ):
        tcp = [layout.gateway, layout.gateway_health, layout.operator_health]
        tcp += [port for server in layout.servers for port in server.tcp()]
        udp = [port for server in layout.servers for port in server.udp()]
        assert len(tcp) == len(set(tcp))
        assert len(udp) == len(set(udp))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_taken_port_is_seen(kind: socket.SocketKind):
    layout = free_layout(default_layout(parse_documents(EXAMPLE)))
    assert layout.is_free()
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((HOST, layout.servers[1].client))
        assert not layout.is_free()


def test_free_ports_are_outside_those_of_applications_workers():
    default = default_layout(parse_documents(EXAMPLE))
    tenants = replace(default.servers[0], tenants=(ports.LOWEST, ports.HIGHEST - 500))
    layout = free_layout(replace(default, servers=(tenants, *default.servers[1:])))
    used = {layout.gateway, *(port for server in layout.servers for port in (*server.tcp(), *server.udp()))}
    assert min(used) > ports.HIGHEST - 500


def test_ports_in_another_network_namespace_are_not_taken_here():
    layout = free_layout(default_layout(parse_documents(EXAMPLE)))
    far = replace(
        layout, servers=tuple(replace(server, network="/proc/1/ns/net") for server in layout.servers)
    )
    with socket.socket() as taken:
        taken.bind((HOST, layout.servers[1].client))
        assert far.is_free()
        assert not layout.is_free()


def test_rewritten_manifest_names_the_free_ports_and_nothing_else_changes():
    layout = free_layout(default_layout(parse_documents(EXAMPLE)))
    rewritten = parse_documents(rewrite(parse_documents(EXAMPLE), layout))
    got = default_layout(rewritten)
    assert got.gateway == layout.gateway
    assert [server.endpoint for server in got.servers] == [server.endpoint for server in layout.servers]
    for before, after in zip(parse_documents(EXAMPLE), rewritten, strict=True):
        for document in (before, after):
            document.get("spec", {}).pop("endpoint", None)
            document.get("spec", {}).pop("publicURL", None)
        assert before == after


def test_public_url_without_a_port_is_refused():
    with pytest.raises(DemoError, match="publicURL"):
        default_layout(parse_documents(EXAMPLE.replace("ws://127.0.0.1:8080", "ws://media.example.com")))
