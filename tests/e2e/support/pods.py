"""Manifests of small pods to try things with."""

from collections.abc import Mapping
from typing import Any

from e2e.support.images import BUSYBOX
from e2e.support.kubernetes import Document

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What the strictest Pod Security level asks for, and a read-only root file system."""

PORT = 8080
SERVE = """\
echo "$POD_NAME" > /www/index.html
cat /config/greeting /secret/word; echo
exec httpd -f -p 8080 -h /www
"""
"""Answers with the pod's name; logs what was mounted."""


def pod(
    name: str,
    *,
    node: str | None = None,
    labels: Mapping[str, str] | None = None,
    command: str = "exec sleep infinity",
    ports: tuple[Mapping[str, Any], ...] = (),
    **spec: Any,
) -> Document:
    """One busybox that runs a shell command, as restricted as can be, with memory at /www."""
    container = {
        "name": "main",
        "image": BUSYBOX,
        "command": ["sh", "-c", command],
        "securityContext": RESTRICTED,
        "ports": list(ports),
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": [{"name": "memory", "mountPath": "/www"}],
    }
    memory = {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": {
            "containers": [container],
            "volumes": [memory],
            "terminationGracePeriodSeconds": 0,
            **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
            **spec,
        },
    }


def server(name: str, *, node: str, host_port: int | None = None) -> Document:
    """A web server that answers with its name on 8080, labelled `app: web`; it mounts ConfigMap and Secret
    `web`.
    """
    port = {"containerPort": PORT, **({"hostPort": host_port} if host_port else {})}
    found = pod(name, node=node, labels={"app": "web"}, command=SERVE, ports=(port,))
    container = found["spec"]["containers"][0]
    container["readinessProbe"] = {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1}
    container["volumeMounts"] += [
        {"name": "config", "mountPath": "/config"},
        {"name": "secret", "mountPath": "/secret"},
    ]
    found["spec"]["volumes"] += [
        {"name": "config", "configMap": {"name": "web"}},
        {"name": "secret", "secret": {"secretName": "web"}},
    ]
    return found


def web_objects() -> list[Document]:
    """What `server` pods need, and the Service in front of them."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "web"},
            "data": {"greeting": "hello "},
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web"}, "stringData": {"word": "world"}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": PORT}]},
        },
    ]
