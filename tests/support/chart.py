"""helm, what it renders of the chart, and the main ways to install it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from mafalda_operator.cli.local.binaries import cache_root

CHART = Path(__file__).parents[2] / "charts/mafalda"
NAMESPACE = "mafalda-system"
ACCOUNT = "some-account"
"""A service account that is there, for pods whose own is not."""

Manifest = dict[str, Any]

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast where there is libyaml: a chart renders into 100 kB."""


class HelmFailedError(Exception):
    """With what helm said."""


class HelmMissingError(Exception):
    """The message says how to get it."""


def find_helm() -> str:
    """As tools/build-cluster built it, else on PATH. Raises HelmMissingError."""
    folders = [str(cache_root() / "testbed/current/bin"), os.environ.get("PATH", os.defpath)]
    program = shutil.which("helm", path=os.pathsep.join(folders))
    if program is None:
        raise HelmMissingError("helm is neither built nor on PATH: run make cluster-binaries")
    return program


class Helm:
    """Runs one helm, which reads no settings of this machine's user."""

    def __init__(self, program: str, home: Path) -> None:
        self._program, self._home = program, home

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._home)}
        done = subprocess.run(
            [self._program, *arguments],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise HelmFailedError(done.stderr)
        return done.stdout

    def render(self, values: Mapping[str, Any] | None = None, *, namespace: str = NAMESPACE) -> Rendered:
        """`helm template` of release mafalda. Raises HelmFailedError."""
        text = self.run(
            *("template", "mafalda", str(CHART), "-n", namespace, "-f", "-"), stdin=json.dumps(values or {})
        )
        return Rendered([found for found in yaml.load_all(text, Loader=LOADER) if found])


class Rendered:
    """Manifests by kind and name."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = manifests

    def all(self, kind: str) -> list[Manifest]:
        return [found for found in self.manifests if found["kind"] == kind]

    def one(self, kind: str, name: str, namespace: str | None = None) -> Manifest:
        found = [
            manifest
            for manifest in self.all(kind)
            if manifest["metadata"]["name"] == name
            and namespace in (None, manifest["metadata"].get("namespace"))
        ]
        assert len(found) == 1, f"{len(found)} {kind} {name}"
        return found[0]

    def names(self, kind: str) -> list[str]:
        return [found["metadata"]["name"] for found in self.all(kind)]

    @property
    def cluster(self) -> Manifest:
        """The MediaCluster that the hook applies."""
        text = self.one("ConfigMap", "mafalda-cluster")["data"]["cluster.yaml"]
        found: Manifest = yaml.safe_load(text)
        return found

    def pod_specs(self) -> dict[str, Manifest]:
        """Every pod that the chart makes, by the name of what makes it."""
        specs = {found["metadata"]["name"]: found["spec"] for found in self.all("Pod")}
        for kind in ("Deployment", "Job"):
            for found in self.all(kind):
                specs[found["metadata"]["name"]] = found["spec"]["template"]["spec"]
        return specs


Render = Callable[..., Rendered]

MONITORING: dict[str, Any] = {
    "monitoring": {
        "labels": {"release": "prometheus"},
        "serviceMonitor": {"enabled": True},
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    }
}

VALUE_SETS: dict[str, dict[str, Any]] = {
    "default": {},
    "host-network": {
        "cluster": {
            "networkType": "HostNetwork",
            "replicas": 3,
            "announce": [{"type": "NodeExternalIP"}, {"type": "NodeInternalIP"}],
        }
    },
    "pod": {
        "cluster": {
            "networkType": "Pod",
            "replicas": 4,
            "publicURL": "wss://media.example.com",
            "spec": {"workersPerServer": 2, "drain": {"timeout": "1m"}},
        }
    },
    "given-certificates": {
        "tls": {"issue": False, "operatorSecret": "operator-tls", "gatewaySecret": "gateway-tls"},
        "cluster": {"tlsSecret": "main-tls-given"},
    },
    "no-definitions": {"crds": {"install": False}},
    "ingress": {
        "gateway": {
            "ingress": {
                "enabled": True,
                "className": "nginx",
                "host": "media.example.com",
                "tls": {"enabled": True, "secretName": "media-tls"},
                "annotations": {"nginx.ingress.kubernetes.io/proxy-read-timeout": "3600"},
            }
        }
    },
    "http-route": {
        "gateway": {
            "httpRoute": {
                "enabled": True,
                "parentRefs": [{"name": "public", "namespace": "gateways"}],
                "hostnames": ["media.example.com"],
            }
        }
    },
    "monitoring": MONITORING,
    "several-namespaces": {
        "mediaNamespaces": ["media-a", "media-b"],
        "cluster": {"namespace": "media-b", "sessionsFrom": "Same"},
        "networkPolicy": {
            "metricsFrom": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "prometheus"}}}
            ]
        },
    },
    "everything-scheduled": {
        "imagePullSecrets": ["registry"],
        "operator": {
            "nodeSelector": {"role": "control"},
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": "system-cluster-critical",
            "extraArgs": ["--log-level=debug"],
            "extraEnv": [{"name": "A", "value": "b"}],
            "podLabels": {"team": "media"},
            "podAnnotations": {"note": "yes"},
            "serviceAccount": {"annotations": {"note": "yes"}},
        },
        "gateway": {
            "autoscaling": {"enabled": True},
            "affinity": {"nodeAffinity": {}},
            "service": {"type": "LoadBalancer", "port": 443, "loadBalancerSourceRanges": ["10.0.0.0/8"]},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
            ],
        },
    },
    "bare": {
        "cluster": {"create": False},
        "uninstall": {"hooks": False},
        "gateway": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "rbac": {"aggregate": False},
        "check": {"enabled": False},
    },
}
