"""Kubeconfigs and service accounts: what works, and errors that name the file and the remedy."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from mafalda_operator.effects.credentials import Credentials
from mafalda_operator.effects.errors import CredentialsError


def config(**user: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "http://api:1"}}],
        "users": [{"name": "u", "user": user}],
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


async def refused(path: Path) -> str:
    with pytest.raises(CredentialsError) as caught:
        await Credentials(path).load()
    return str(caught.value)


async def test_a_token(tmp_path: Path) -> None:
    connection = await Credentials(write(tmp_path / "k", config(token="secret"))).load()
    assert connection.server == "http://api:1"
    assert connection.as_http_headers() == {"Authorization": "Bearer secret"}


async def test_a_token_file_beside_the_kubeconfig_is_read_each_time(tmp_path: Path) -> None:
    credentials = Credentials(write(tmp_path / "k", config(tokenFile="token")))
    for token in ("one", "two"):
        write(tmp_path / "token", f"{token}\n")
        assert (await credentials.load()).token == token


async def test_an_exec_plugin(tmp_path: Path) -> None:
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-plugin"},
    }
    plugin = write(tmp_path / "plugin", f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    plugin.chmod(0o755)
    run = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "interactiveMode": "Never",
    }
    connection = await Credentials(write(tmp_path / "k", config(exec=run))).load()
    assert connection.token == "from-plugin"


async def test_a_failing_exec_plugin_is_told(tmp_path: Path) -> None:
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/absent", "interactiveMode": "Never"}
    assert "credential plugin" in await refused(write(tmp_path / "k", config(exec=run)))


async def test_a_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    write(tmp_path / "token", "t\n")
    connection = await Credentials(None, service_account=tmp_path).load()
    assert (connection.server, connection.token) == ("https://[fd00::1]:6443", "t")


async def test_nothing_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CredentialsError, match="--kubeconfig FILE"):
        await Credentials(None, service_account=tmp_path).load()


async def test_the_environment_names_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "k", config(token="t"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert (await Credentials(None).load()).token == "t"
    monkeypatch.setenv("KUBECONFIG", f"{path}{os.pathsep}{path}")
    with pytest.raises(CredentialsError, match="several files"):
        await Credentials(None).load()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [", "is not YAML"),
        ("just text", "not a mapping"),
        ({}, "kubectl config use-context"),
        ({"current-context": "c"}, "contexts has no entry 'c'"),
        ({**config(), "clusters": []}, "clusters has no entry 'k'"),
        ({**config(), "users": []}, "users has no entry 'u'"),
        ({**config(), "clusters": [{"name": "k", "cluster": {}}]}, "has no server"),
    ],
)
async def test_broken_kubeconfigs_are_told_by_name(tmp_path: Path, content: Any, says: str) -> None:
    path = write(tmp_path / "broken", content)
    message = await refused(path)
    assert says in message
    assert str(path) in message


async def test_unusable_certificates_are_told(tmp_path: Path) -> None:
    broken = config(token="t")
    broken["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(b"nonsense").decode()
    assert "certificates cannot be used" in await refused(write(tmp_path / "k", broken))
    assert "cannot read" in await refused(tmp_path / "absent")
