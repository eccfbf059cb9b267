"""The pod of a media server, built from its MediaCluster; and the revision by which builds are told apart."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from mafalda_operator.model import (
    LABEL_CLUSTER,
    LABEL_REVISION,
    LABEL_ROLE,
    LABEL_SERVER,
    ROLE_MEDIA_SERVER,
    MediaCluster,
    ObjectKey,
    PodView,
)
from mafalda_operator.model.pod_inventory import INTERNAL_PORT
from mafalda_operator.model.pods import ZONE_LABEL

PARTICIPANTS_PORT = 4001
HEALTH_PORT = 4002
USER = 65532
"""User and group of the media server."""

GRACE = 30
"""Seconds that Kubernetes lets a pod end in beyond drain.timeout."""

ADDRESSES_DIR = "/etc/mafalda/addresses"
TLS_DIR = "/etc/mafalda/tls"
STATE_DIR = "/var/lib/mafalda"

_CONTAINER = "media-server"
_MOST_HOST_PORTS = 64
"""Client ports that are named as hostPort: enough for two clusters' pods to repel each other on a node."""

Object = dict[str, Any]


def selector_labels(cluster: ObjectKey) -> dict[str, str]:
    """The labels that all pods of a cluster have, and nothing else has."""
    return {LABEL_CLUSTER: cluster.name, LABEL_ROLE: ROLE_MEDIA_SERVER}


def pod_labels(cluster: MediaCluster, name: str, revision: str) -> dict[str, str]:
    own = {**selector_labels(cluster.key), LABEL_SERVER: name, LABEL_REVISION: revision}
    return {**cluster.template.labels, **own}


def revision_of(cluster: MediaCluster, image: str) -> str:
    """Ten characters that change with whatever a running pod would have to be replaced for.

    That is the image, the server's flags, ports, resources and the template; not the number of replicas.
    """
    built = [build_pod_spec(cluster, image), cluster.template.labels, cluster.template.annotations]
    text = json.dumps(built, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def build_pod(cluster: MediaCluster, key: ObjectKey, image: str) -> Object:
    """The whole Pod, controlled by its MediaCluster."""
    owner = {
        "apiVersion": "mafalda.io/v1alpha1",
        "kind": "MediaCluster",
        "name": cluster.key.name,
        "uid": cluster.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata = {
        "name": key.name,
        "namespace": key.namespace,
        "labels": pod_labels(cluster, key.name, revision_of(cluster, image)),
        "annotations": dict(cluster.template.annotations),
        "ownerReferences": [owner],
    }
    return {"metadata": metadata, "spec": build_pod_spec(cluster, image)}


def build_server(cluster: MediaCluster, pod: PodView, zone: str) -> Object:
    """The MediaServer that stands for a pod and goes with it; its address is the pod's."""
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod.key.name,
        "uid": pod.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    metadata = {
        "name": pod.key.name,
        "namespace": pod.key.namespace,
        "labels": {
            **selector_labels(cluster.key),
            LABEL_SERVER: pod.key.name,
            LABEL_REVISION: pod.revision,
        },
        "ownerReferences": [owner],
    }
    spec: Object = {"clusterRef": {"name": cluster.key.name}}
    if zone:
        spec["zone"] = zone
    return {"metadata": metadata, "spec": spec}


def build_pod_spec(cluster: MediaCluster, image: str) -> Object:
    """The same for every pod of the cluster: what differs comes from the pod's own fields."""
    template = cluster.template
    spec: Object = {
        "containers": [_container(cluster, image)],
        "volumes": _volumes(cluster),
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": math.ceil(cluster.drain_timeout) + GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": _spread(cluster),
    }
    if cluster.network.host:  # its ports keep another one off the node, of this cluster or of any
        spec["hostNetwork"] = True
        spec["dnsPolicy"] = "ClusterFirstWithHostNet"
    optional = {
        "affinity": {name: dict(part) for name, part in template.affinity.items() if _is_map(part)},
        "nodeSelector": dict(template.node_selector),
        "tolerations": [dict(one) for one in template.tolerations],
        "priorityClassName": template.priority_class,
        "imagePullSecrets": [{"name": name} for name in template.image_pull_secrets],
    }
    spec.update((name, value) for name, value in optional.items() if value)
    return spec


def arguments(cluster: MediaCluster) -> list[str]:
    """The flags of mafalda-mediaserver; $(NAME) is filled in by the kubelet."""
    network = cluster.network
    found = [
        *("--internal-listen", f":{INTERNAL_PORT}"),
        *("--participants-listen", f":{PARTICIPANTS_PORT}"),
        *("--health-listen", f":{HEALTH_PORT}"),
        *("--listen-address", "$(POD_IP)"),
        *("--client-address", "$(POD_IPS)" if network.ip_families else "$(POD_IP)"),
        *(part for family in network.ip_families for part in ("--ip-family", family)),
        *("--client-port", str(network.client_ports.port)),
        *("--pipe-address", "$(POD_IP)"),
        *("--pipe-ports", f"{network.pipe_ports.port}-{network.pipe_ports.end_port}"),
    ]
    if cluster.workers_per_server is not None:
        found += ["--workers", str(cluster.workers_per_server)]
    for one in network.announce:
        found += ["--announce", one.address] if one.type == "Address" else ["--announce-from", one.type]
    return [
        *found,
        *("--addresses-dir", ADDRESSES_DIR),
        *("--node", "$(NODE_NAME)"),
        *("--server-name", "$(POD_NAME)"),
        *("--tls-dir", TLS_DIR),
        *("--state-dir", STATE_DIR),
        *("--drain-timeout", f"{round(cluster.drain_timeout * 1000)}ms"),
    ]


def worker_count(cluster: MediaCluster) -> int | None:
    """Workers of each pod, as far as spec tells; None: one for each core of the node."""
    if cluster.workers_per_server is not None:
        return cluster.workers_per_server
    cores = _cores(cluster.resources.limits.get("cpu"))
    return None if cores is None else max(1, math.ceil(cores))


def client_ports(cluster: MediaCluster) -> list[int]:
    """Ports that workers listen on for participants; all of the range while the workers can't be told."""
    ports = cluster.network.client_ports
    every = range(ports.port, ports.end_port + 1)
    return list(every[: worker_count(cluster)])


def _cores(quantity: Any) -> float | None:
    """A CPU quantity, such as 4, "2.5" or "500m", in cores; None when it is absent or of another form."""
    match = re.fullmatch(r"[+]?(\d+(?:[.]\d*)?|[.]\d+)(m?)", str(quantity))
    if match is None:
        return None
    return float(match[1]) / (1000 if match[2] else 1)


def _container(cluster: MediaCluster, image: str) -> Object:
    container: Object = {
        "name": _CONTAINER,
        "image": image,
        # See mediaserver.wire.stop_signals: a SIGTERM that comes while it starts waits, rather than be lost.
        "command": ["env", "--block-signal=TERM", "mafalda-mediaserver"],
        "args": arguments(cluster),
        "env": [
            _field("POD_IP", "status.podIP"),
            _field("POD_IPS", "status.podIPs"),
            _field("POD_NAME", "metadata.name"),
            _field("NODE_NAME", "spec.nodeName"),
        ],
        "ports": _ports(cluster),
        "readinessProbe": _probe("/readyz", period=2, failures=3),
        "livenessProbe": _probe("/healthz", period=10, failures=6),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "addresses", "mountPath": ADDRESSES_DIR, "readOnly": True},
            {"name": "tls", "mountPath": TLS_DIR, "readOnly": True},
            {"name": "state", "mountPath": STATE_DIR},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    resources = {
        name: {key: str(quantity) for key, quantity in quantities.items()}
        for name, quantities in (
            ("requests", cluster.resources.requests),
            ("limits", cluster.resources.limits),
        )
        if quantities
    }
    if resources:
        container["resources"] = resources
    return container


def _field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _probe(path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _ports(cluster: MediaCluster) -> list[Object]:
    """On HostNetwork as hostPort too, so that the scheduler keeps pods of the same ports apart."""
    named = {"internal": INTERNAL_PORT, "participants": PARTICIPANTS_PORT, "health": HEALTH_PORT}
    ports: list[Object] = [{"name": name, "containerPort": port} for name, port in named.items()]
    if not cluster.network.host:
        return ports
    for port in client_ports(cluster)[:_MOST_HOST_PORTS]:
        ports += [{"containerPort": port, "protocol": "UDP"}, {"containerPort": port}]
    return [{"protocol": "TCP", **port, "hostPort": port["containerPort"]} for port in ports]


def _volumes(cluster: MediaCluster) -> list[Object]:
    return [
        {"name": "addresses", "configMap": {"name": addresses_name(cluster.key), "optional": True}},
        {"name": "tls", "secret": {"secretName": cluster.tls_secret, "defaultMode": 0o440}},
        {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
    ]


def addresses_name(cluster: ObjectKey) -> str:
    """Name of the ConfigMap with the addresses of nodes and load balancers."""
    return f"{cluster.name}-addresses"


def _spread(cluster: MediaCluster) -> list[Object]:
    own = {"labelSelector": {"matchLabels": selector_labels(cluster.key)}}
    if cluster.template.topology_spread is not None:
        return [{**own, **one} for one in cluster.template.topology_spread]
    return [{"maxSkew": 1, "topologyKey": ZONE_LABEL, "whenUnsatisfiable": "ScheduleAnyway", **own}]


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)
