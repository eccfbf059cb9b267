"""Names and addresses of the testbed are apart for every node, and short enough for what carries them."""

import ipaddress

from testbed import layout, network
from testbed.layout import MAX_NODES, nodes


def test_no_two_nodes_share_a_name_an_address_a_zone_or_pods():
    found = nodes(MAX_NODES)
    for what in ("name", "address", "zone", "pods", "link", "user"):
        assert len({getattr(node, what) for node in found}) == MAX_NODES


def test_pods_and_services_overlap_with_nothing():
    networks = [ipaddress.ip_network(layout.SERVICES), ipaddress.ip_network(f"{layout.NETWORK}.0/24")]
    networks += [ipaddress.ip_network(node.pods) for node in nodes(MAX_NODES)]
    for number, first in enumerate(networks):
        assert not any(first.overlaps(second) for second in networks[number + 1 :])
    assert all(found.subnet_of(ipaddress.ip_network(layout.PODS)) for found in networks[2:])


def test_kernel_takes_the_names_of_links():
    assert all(len(node.link) <= 15 for node in nodes(MAX_NODES))


def test_namespace_that_nobody_made_is_not_there():
    assert not network.exists("mafalda-nobody")
