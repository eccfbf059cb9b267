"""What each value does, and what is said of wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from support.chart import CHART, MONITORING, NAMESPACE, VALUE_SETS, HelmFailedError, Render, Rendered

IMAGE = "ghcr.io/mafalda-sfu/mafalda-operator:0.1.0"
KEEP = "helm.sh/resource-policy"


def flags(rendered: Rendered, role: str) -> list[str]:
    container = rendered.pod_specs()[f"mafalda-{role}"]["containers"][0]
    assert container["command"] == ["env", "--block-signal=TERM", f"mafalda-{role}"]
    found: list[str] = container["args"]
    return found


def mounts(rendered: Rendered, role: str) -> dict[str, Any]:
    volumes = rendered.pod_specs()[f"mafalda-{role}"]["volumes"]
    return {volume["name"]: volume.get("secret", {}).get("secretName") for volume in volumes}


def test_lint(helm: Any) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART))


# -- control plane --------------------------------------------------------------------------------------


def test_two_of_each_role_that_prefer_to_stand_apart(render: Render) -> None:
    rendered = render()
    for role in ("operator", "gateway"):
        deployment = rendered.one("Deployment", f"mafalda-{role}", NAMESPACE)
        assert deployment["spec"]["replicas"] == 2
        spec = deployment["spec"]["template"]["spec"]
        assert "preferredDuringSchedulingIgnoredDuringExecution" in spec["affinity"]["podAntiAffinity"]
        assert {one["whenUnsatisfiable"] for one in spec["topologySpreadConstraints"]} == {"ScheduleAnyway"}
        selector = deployment["spec"]["selector"]["matchLabels"]
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        budget = rendered.one("PodDisruptionBudget", f"mafalda-{role}")["spec"]
        assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": selector}}


def test_flags_of_the_roles(render: Render) -> None:
    rendered = render()
    operator = flags(rendered, "operator")
    for flag in (
        f"--lease-namespace={NAMESPACE}",
        "--lease-name=mafalda-operator",
        "--metrics-listen=0.0.0.0:8081",
        f"--default-image={IMAGE}",
        "--tls-issue",
        "--tls-ca-secret=mafalda-ca",
        "--tls-gateway-secret=mafalda-gateway-tls",
    ):
        assert flag in operator
    gateway = flags(rendered, "gateway")
    for flag in ("--listen=0.0.0.0:8080", "--health-listen=0.0.0.0:8082", "--tls-dir=/etc/mafalda/tls"):
        assert flag in gateway
    assert mounts(rendered, "gateway")["tls"] == "mafalda-gateway-tls"


def test_one_image_for_every_role(render: Render) -> None:
    for values, image in (
        ({}, IMAGE),
        ({"image": {"repository": "example.com/m", "tag": "7"}}, "example.com/m:7"),
        (
            {"image": {"tag": "7", "digest": "sha256:" + "a" * 64}},
            IMAGE.partition(":")[0] + "@sha256:" + "a" * 64,
        ),
    ):
        rendered = render(values)
        images = {spec["containers"][0]["image"] for spec in rendered.pod_specs().values()}
        assert images == {image}
        assert f"--default-image={image}" in flags(rendered, "operator")


def test_given_certificates(render: Render) -> None:
    rendered = render(VALUE_SETS["given-certificates"])
    assert "--tls-dir=/etc/mafalda/tls" in flags(rendered, "operator")
    assert "--tls-issue" not in flags(rendered, "operator")
    assert mounts(rendered, "operator")["tls"] == "operator-tls"
    assert mounts(rendered, "gateway")["tls"] == "gateway-tls"
    assert rendered.cluster["spec"]["tls"] == {"secretRef": {"name": "main-tls-given"}}


def test_autoscaling_takes_the_place_of_replicas(render: Render) -> None:
    rendered = render({"gateway": {"autoscaling": {"enabled": True, "maxReplicas": 5}}})
    assert "replicas" not in rendered.one("Deployment", "mafalda-gateway")["spec"]
    assert rendered.one("HorizontalPodAutoscaler", "mafalda-gateway")["spec"]["maxReplicas"] == 5


def test_names_are_made_of_the_release(helm: Any) -> None:
    text = helm.run("template", "calls", str(CHART), "-n", "x", "--show-only", "templates/operator.yaml")
    found = {manifest["metadata"]["name"] for manifest in yaml.safe_load_all(text)}
    assert found == {"calls-mafalda-operator"}


# -- the way in -----------------------------------------------------------------------------------------


def test_ingress(render: Render) -> None:
    rendered = render(VALUE_SETS["ingress"])
    spec = rendered.one("Ingress", "mafalda-gateway")["spec"]
    assert spec["tls"] == [{"hosts": ["media.example.com"], "secretName": "media-tls"}]
    backend = spec["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "mafalda-gateway", "port": {"name": "signalling"}}
    assert rendered.cluster["spec"]["publicURL"] == "wss://media.example.com"


def test_http_route(render: Render) -> None:
    rendered = render(VALUE_SETS["http-route"])
    spec = rendered.one("HTTPRoute", "mafalda-gateway")["spec"]
    assert spec["parentRefs"] == [{"name": "public", "namespace": "gateways"}]
    assert spec["hostnames"] == ["media.example.com"]
    assert spec["rules"][0]["backendRefs"] == [{"name": "mafalda-gateway", "port": 8080}]
    assert rendered.cluster["spec"]["publicURL"] == "wss://media.example.com"


def test_without_a_way_in_the_url_is_that_of_the_service(render: Render) -> None:
    assert render().cluster["spec"]["publicURL"] == f"ws://mafalda-gateway.{NAMESPACE}.svc:8080"
    given = render({"cluster": {"publicURL": "wss://a.example"}, **VALUE_SETS["ingress"]})
    assert given.cluster["spec"]["publicURL"] == "wss://a.example"


# -- definitions and the first cluster ------------------------------------------------------------------


def test_definitions_are_kept_unless_asked_otherwise(render: Render) -> None:
    for keep in (True, False):
        definitions = render({"crds": {"keep": keep}}).all("CustomResourceDefinition")
        assert len(definitions) == 4
        for found in definitions:
            assert (found["metadata"].get("annotations", {}).get(KEEP) == "keep") is keep
    assert not render(VALUE_SETS["no-definitions"]).all("CustomResourceDefinition")


def test_the_first_cluster(render: Render) -> None:
    rendered = render()
    assert rendered.cluster["metadata"]["namespace"] == NAMESPACE
    assert rendered.cluster["spec"] == {
        "replicas": 2,
        "network": {"type": "HostNetwork", "announce": [{"type": "NodeExternalIP"}]},
        "publicURL": f"ws://mafalda-gateway.{NAMESPACE}.svc:8080",
        "allowedSessions": {"namespaces": {"from": "All"}},
        "tokens": {
            "keySets": [
                {
                    "name": "default",
                    "secretRef": {"name": "main-token-keys"},
                    "namespaces": {"from": "All"},
                }
            ]
        },
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}},
    }
    hook = rendered.one("Job", "mafalda-apply-cluster")["metadata"]["annotations"]["helm.sh/hook"]
    assert hook == "post-install,post-upgrade,post-rollback"


def test_more_of_its_spec(render: Render) -> None:
    spec = render(VALUE_SETS["pod"]).cluster["spec"]
    assert spec["network"] == {"type": "Pod", "announce": [{"type": "PodIP"}]}
    assert spec["workersPerServer"] == 2
    assert spec["drain"] == {"timeout": "1m"}
    left = render({"cluster": {"replicas": None, "spec": {"publicURL": "ws://x"}}}).cluster["spec"]
    assert "replicas" not in left
    assert left["publicURL"] == "ws://x"


# -- policies, monitoring -------------------------------------------------------------------------------


def test_policies_of_media_pods(render: Render) -> None:
    rendered = render(VALUE_SETS["several-namespaces"])
    assert [found["metadata"]["namespace"] for found in rendered.all("NetworkPolicy")] == [
        NAMESPACE,
        NAMESPACE,
        "media-a",
        "media-b",
    ]
    spec = rendered.one("NetworkPolicy", "mafalda-media", "media-b")["spec"]
    assert spec["podSelector"] == {"matchLabels": {"mafalda.io/role": "media-server"}}
    rules = {rule["ports"][0]["port"]: rule for rule in spec["ingress"]}
    assert set(rules) == {4000, 4001, 4002, 10000, 20000}
    who = {port: [_who(peer) for peer in rule.get("from", ())] for port, rule in rules.items()}
    assert who == {
        4000: ["operator", "gateway", "media"],
        4001: ["gateway"],
        4002: ["elsewhere"],
        10000: [],
        20000: ["media"],
    }
    assert {port["protocol"] for port in rules[10000]["ports"]} == {"UDP", "TCP"}
    assert rules[20000]["ports"] == [{"protocol": "UDP", "port": 20000, "endPort": 20999}]


def test_policies_follow_the_clusters_ports(render: Render) -> None:
    network = {"clientPorts": {"port": 11000, "endPort": 11015}}
    policy = render({"cluster": {"spec": {"network": network}}}).one("NetworkPolicy", "mafalda-media")
    rules = [rule["ports"][0] for rule in policy["spec"]["ingress"]]
    assert {"protocol": "UDP", "port": 11000, "endPort": 11015} in rules
    assert {"protocol": "UDP", "port": 20000, "endPort": 20999} in rules


def test_the_check_may_dial_a_gateway_that_is_closed_to_others(render: Render) -> None:
    given = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    policy = render({"networkPolicy": {"gatewayFrom": [given]}}).one("NetworkPolicy", "mafalda-gateway")
    peers = policy["spec"]["ingress"][0]["from"]
    assert peers[0] == given
    assert peers[1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "check"


def test_pull_secrets_reach_media_pods(render: Render) -> None:
    spec = render({"imagePullSecrets": ["registry"]}).cluster["spec"]
    assert spec["template"] == {"spec": {"imagePullSecrets": [{"name": "registry"}]}}


def _who(peer: dict[str, Any]) -> str:
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    if labels == {"mafalda.io/role": "media-server"}:
        assert namespace is None
        return "media"
    if "app.kubernetes.io/component" not in labels:
        return "elsewhere"
    assert namespace == NAMESPACE
    return str(labels["app.kubernetes.io/component"])


def test_monitoring_is_off_until_asked_for(render: Render) -> None:
    kinds = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert not kinds & {found["kind"] for found in render().manifests}
    rendered = render(MONITORING)
    for kind in kinds:
        (found,) = rendered.all(kind)
        assert found["metadata"]["labels"]["release"] == "prometheus"
    rules = rendered.all("PrometheusRule")[0]["spec"]["groups"][0]["rules"]
    assert "{{ $value }}" in str(rules)
    assert "mafalda.json" in rendered.one("ConfigMap", "mafalda-dashboard")["data"]


def test_scraped_ports_are_there(render: Render) -> None:
    rendered = render(MONITORING)
    endpoint = rendered.all("ServiceMonitor")[0]["spec"]["endpoints"][0]["port"]
    for service in ("mafalda-operator", "mafalda-gateway-metrics"):
        assert endpoint in {port["name"] for port in rendered.one("Service", service)["spec"]["ports"]}


# -- wrong values ---------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"operator": {"replica": 3}}, "at '/operator': additional properties 'replica' not allowed"),
    ({"gateways": {}}, "additional properties 'gateways' not allowed"),
    ({"gateway": {"ingress": {"hosts": ["a"]}}}, "at '/gateway/ingress': additional properties 'hosts'"),
    ({"operator": {"replicas": "two"}}, "at '/operator/replicas': got string, want integer"),
    ({"crds": {"keep": "yes"}}, "at '/crds/keep': got string, want boolean"),
    ({"image": {"tag": 1.5}}, "at '/image/tag': got number, want string"),
    ({"cluster": {"networkType": "Host"}}, "at '/cluster/networkType'"),
    ({"cluster": {"publicURL": "https://a"}}, "at '/cluster/publicURL'"),
    ({"cluster": {"name": "Main"}}, "at '/cluster/name'"),
    ({"cluster": {"announce": [{"type": "Public"}]}}, "at '/cluster/announce/0/type'"),
    ({"cluster": {"announce": [{"type": "Address"}]}}, "missing property 'address'"),
    ({"uninstall": {"drainTimeout": "soon"}}, "at '/uninstall/drainTimeout'"),
    ({"cluster": {"namespace": "elsewhere"}}, "which mediaNamespaces does not name"),
    ({"tls": {"issue": False, "operatorSecret": "a"}, "cluster": {"tlsSecret": "c"}}, "tls.gatewaySecret"),
    ({"tls": {"issue": False, "gatewaySecret": "b"}, "cluster": {"tlsSecret": "c"}}, "tls.operatorSecret"),
    ({"tls": {"issue": False, "gatewaySecret": "a", "operatorSecret": "b"}}, "cluster.tlsSecret"),
    ({"gateway": {"ingress": {"enabled": True}}}, "gateway.ingress.host"),
    ({"gateway": {"httpRoute": {"enabled": True}}}, "gateway.httpRoute.parentRefs"),
    ({"crds": {"keep": False}, "cluster": {"keep": True}}, "cluster.keep needs crds.keep"),
]


@pytest.mark.parametrize(("values", "said"), WRONG)
def test_wrong_values_are_named(values: dict[str, Any], said: str, render: Render) -> None:
    with pytest.raises(HelmFailedError) as caught:
        render(values)
    assert said in str(caught.value)
