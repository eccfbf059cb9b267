"""How the operator proves itself to the API server: a kubeconfig, or the pod's service account.

Both become a ``kopf.ConnectionInfo``, which makes the TLS context and the headers for kopf's session and
for ours. Credentials are read anew whenever the API server answers 401, since tokens rotate.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import kopf
import yaml

from mafalda_operator.effects.errors import CredentialsError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PLUGIN_DEADLINE = 30.0


class Credentials:
    """Where credentials come from; ``load`` reads them each time.

    ``kubeconfig`` names a file; None means ``$KUBECONFIG``, then the pod's service account, then
    ``~/.kube/config``, as kubectl does.
    """

    def __init__(self, kubeconfig: Path | None, *, service_account: Path = SERVICE_ACCOUNT) -> None:
        self._kubeconfig = kubeconfig
        self._service_account = service_account

    async def load(self) -> kopf.ConnectionInfo:
        """Raises CredentialsError, naming the file and what is wrong with it."""
        path = self._kubeconfig or _kubeconfig_of_environment()
        if path is not None:
            return await _from_kubeconfig(path)
        if (self._service_account / "token").exists():
            return self._from_service_account()
        default = _default_kubeconfig()
        if default is not None:
            return await _from_kubeconfig(default)
        raise CredentialsError(
            "no way to reach a Kubernetes API server: pass --kubeconfig FILE, set KUBECONFIG, or run in a pod"
            " with a service account"
        )

    def _from_service_account(self) -> kopf.ConnectionInfo:
        host, port = (
            os.environ.get("KUBERNETES_SERVICE_HOST"),
            os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
        )
        authority = f"[{host}]:{port}" if host and ":" in host else f"{host}:{port}"
        ca = self._service_account / "ca.crt"
        return kopf.ConnectionInfo(
            server=f"https://{authority}" if host else "https://kubernetes.default.svc",
            ca_path=str(ca) if ca.exists() else None,
            token=_read(self._service_account / "token").strip(),
        )


def _default_kubeconfig() -> Path | None:
    try:
        path = Path.home() / ".kube" / "config"
    except RuntimeError:  # no HOME, and a user without an entry
        return None
    return path if path.exists() else None


def _kubeconfig_of_environment() -> Path | None:
    value = os.environ.get("KUBECONFIG", "")
    if os.pathsep in value:
        raise CredentialsError(f"KUBECONFIG names several files ({value}); pass one with --kubeconfig FILE")
    return Path(value) if value else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(
            f"cannot read {path}: {error}; check --kubeconfig and the file's permissions"
        ) from error


async def _from_kubeconfig(path: Path) -> kopf.ConnectionInfo:
    path = _expanded(path)
    try:
        config = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise CredentialsError(f"kubeconfig {path} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise CredentialsError(f"kubeconfig {path} is not a kubeconfig: its top level is not a mapping")
    cluster, user = _current(config, path)
    if not cluster.get("server"):
        raise CredentialsError(f"kubeconfig {path}: the current context's cluster has no server")
    token = user.get("token")
    if user.get("tokenFile"):
        token = _read(_beside(path, user["tokenFile"])).strip()
    if "exec" in user or "auth-provider" in user:
        token = await _token_of_plugin(path)
    return _connection(path, cluster, user, token)


def _connection(
    path: Path, cluster: dict[str, Any], user: dict[str, Any], token: str | None
) -> kopf.ConnectionInfo:
    try:
        connection = kopf.ConnectionInfo(
            server=cluster["server"],
            ca_path=_beside_or_none(path, cluster.get("certificate-authority")),
            ca_data=cluster.get("certificate-authority-data"),
            insecure=cluster.get("insecure-skip-tls-verify"),
            certificate_path=_beside_or_none(path, user.get("client-certificate")),
            certificate_data=user.get("client-certificate-data"),
            private_key_path=_beside_or_none(path, user.get("client-key")),
            private_key_data=user.get("client-key-data"),
            username=user.get("username"),
            password=user.get("password"),
            token=token,
            proxy_url=cluster.get("proxy-url"),
        )
        connection.as_ssl_context()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError, bad base64 a ValueError
        raise CredentialsError(f"kubeconfig {path}: its certificates cannot be used: {error}") from error
    return connection


def _current(config: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    name = config.get("current-context")
    if not name:
        raise CredentialsError(f"kubeconfig {path} has no current-context: kubectl config use-context NAME")
    context = _named(config, "contexts", "context", name, path)
    cluster = _named(config, "clusters", "cluster", context.get("cluster"), path)
    user = _named(config, "users", "user", context["user"], path) if context.get("user") else {}
    return cluster, user


def _named(config: dict[str, Any], section: str, field: str, name: Any, path: Path) -> dict[str, Any]:
    for item in config.get(section) or ():
        if isinstance(item, dict) and item.get("name") == name:
            value = item.get(field) or {}
            if isinstance(value, dict):
                return value
    raise CredentialsError(
        f"kubeconfig {path}: {section} has no entry {name!r}, which the current context needs"
    )


def _expanded(path: Path) -> Path:
    return path.expanduser()


def _beside(path: Path, file: str) -> Path:
    return path.parent / Path(file).expanduser()


def _beside_or_none(path: Path, file: str | None) -> str | None:
    return str(_beside(path, file)) if file else None


async def _token_of_plugin(path: Path) -> str:
    """A token from an exec plugin or auth provider, by way of the official client, loaded only for this."""
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    try:
        async with asyncio.timeout(_PLUGIN_DEADLINE):
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(path), client_configuration=configuration, persist_config=False
            )
    except TimeoutError as error:
        raise CredentialsError(
            f"kubeconfig {path}: its credential plugin gave no answer in {_PLUGIN_DEADLINE:.0f} s"
        ) from error
    except (config.ConfigException, OSError, ValueError) as error:
        raise CredentialsError(f"kubeconfig {path}: its credential plugin failed: {error}") from error
    token = configuration.api_key.get("BearerToken")
    if not token:
        raise CredentialsError(f"kubeconfig {path}: its credential plugin gave no bearer token")
    return str(token).removeprefix("Bearer ")
