# SPDX-License-Identifier: Apache-2.0
"""What the network `user` tells a guest where there is no passt."""

import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from domzero.dom0.usernet import Addresses, addresses, main, name_servers


@pytest.mark.parametrize(
    ("given", "guest", "gateway", "dns"),
    [
        ([], "10.0.2.15", "10.0.2.2", "10.0.2.3"),
        (["192.168.7.9"], "192.168.7.9", "192.168.7.2", "192.168.7.3"),
        (["10.1.2.2"], "10.1.2.2", "10.1.2.3", "10.1.2.4"),
        (["10.1.2.3"], "10.1.2.3", "10.1.2.2", "10.1.2.4"),
    ],
)
def test_router_and_name_server_are_beside_the_guest(given: list[str], guest: str, gateway: str, dns: str) -> None:
    told = addresses([IPv4Address(each) for each in given], ipv6=False)
    assert told == Addresses(IPv4Address(guest), IPv4Address(gateway), IPv4Address(dns), None)


def test_a_guest_has_ipv6_where_the_host_has_and_the_prefix_of_its_address() -> None:
    assert str(addresses([], ipv6=True).ipv6_prefix) == "fd64:6f6d:7a65::"
    given = [IPv6Address("2001:db8:1:2:3:4:5:6")]
    assert str(addresses(list(given), ipv6=True).ipv6_prefix) == "2001:db8:1:2::"
    assert addresses(list(given), ipv6=False).ipv6_prefix is None


def test_name_servers_are_those_of_resolv_conf(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# nameserver 1.2.3.4\nsearch a\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver x\n")
    assert list(map(str, name_servers(path))) == ["127.0.0.53", "fe80::1"]
    assert list(name_servers(tmp_path / "none")) == []


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"127.0.0.1 port {port}: Address already in use"):
            main(["--fd", "0", "--mtu", "1500", "--tcp-ports", f"127.0.0.1/{port}:22", "--udp-ports", "none"])
