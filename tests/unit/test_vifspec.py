# SPDX-License-Identifier: Apache-2.0
"""Network interface specifications: what xl-network-configuration(5) says, and what is refused."""

from __future__ import annotations

from ipaddress import ip_address
from uuid import UUID

import pytest

from domzero.dom0.vifrate import Rate, parse_rate
from domzero.dom0.vifspec import MTU, MTU_MAX, USER, Forward, VifSpec, changed, mac_text, parse_vif, parse_vifs
from domzero.errors import ConfigError

MAC = bytes.fromhex("00163e010203")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", VifSpec(0)),
        ("bridge=user", VifSpec(0, network=USER)),
        ("bridge=xenbr0", VifSpec(0, network="xenbr0")),
        ("mac=00:16:3e:01:02:03, bridge=lan", VifSpec(0, mac=MAC, network="lan")),
        ("mac=0:16:3E:1:2:3", VifSpec(0, mac=MAC)),
        ("type=vif,model=e1000,vifname=guest0", VifSpec(0, vifname="guest0", model="e1000")),
        ("type=ioemu", VifSpec(0)),
        ("mtu=9000,bridge=lan", VifSpec(0, network="lan", mtu=9000)),
        ("ip=10.0.0.5", VifSpec(0, ip=(ip_address("10.0.0.5"),))),
        ("ip=10.0.0.5 fd00::5", VifSpec(0, ip=(ip_address("10.0.0.5"), ip_address("fd00::5")))),
        (
            "bridge=user,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::53-:5353",
            VifSpec(0, forwards=(Forward("tcp", "127.0.0.1", 2222, 22), Forward("udp", "127.0.0.1", 53, 5353))),
        ),
        ("hostfwd=tcp:[::1]:80-:80", VifSpec(0, forwards=(Forward("tcp", "::1", 80, 80),))),
        ("mac=00:16:3e:01:02:03,mac=00:16:3e:01:02:03,", VifSpec(0, mac=MAC)),
        ("devid=3,bridge=lan", VifSpec(3, network="lan")),
        ("rate=10Mb/s", VifSpec(0, rate=Rate("10Mb/s", 62_500, 50_000))),
        ("rate=250KB/s@20ms,link=down", VifSpec(0, rate=Rate("250KB/s@20ms", 5000, 20_000), is_up=False)),
        ("link=up", VifSpec(0)),
        (
            "bridge=lan,ip=10.0.0.5 10.0.0.6 fd00::5",
            VifSpec(0, network="lan", ip=tuple(map(ip_address, ("10.0.0.5", "10.0.0.6", "fd00::5")))),
        ),
        ("bridge=lan,antispoof=no", VifSpec(0, network="lan", antispoof=False)),
        ("bridge=lan,antispoof=yes", VifSpec(0, network="lan")),
    ],
)
def test_a_specification_is_understood(text: str, expected: VifSpec) -> None:
    assert parse_vif(text) == expected
    assert parse_vif(expected.text(), 60) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mac=00:16:3e:01:02", "no MAC"),
        ("mac=00:16:3e:01:02:0g", "no MAC"),
        ("mac=01:16:3e:01:02:03", "no address of one station"),
        ("mac=0:0:0:0:0:0", "no address of one station"),
        ("mac=00:16:3e:01:02:03,mac=00:16:3e:01:02:04", "given twice"),
        ("script=vif-route", "script is not supported"),
        ("backend=net", "backend is not supported"),
        ("rate=1Mb", "no rate"),
        ("rate=1.5Mb/s", "no rate"),
        ("rate=1Tb/s", "no rate"),
        ("rate=10Mb/s@", "no rate"),
        ("rate=10Mb/s@5h", "no rate"),
        ("rate=0Mb/s", "less than a byte"),
        ("rate=8b/s@1ms", "less than a byte"),
        ("rate=1b/s@0us", "no interval"),
        ("rate=1b/s@4295s", "no interval"),
        ("rate=9999999999999999999GB/s", "too much"),
        ("rate=1Mb/s,rate=2Mb/s", "given twice"),
        ("link=on", "no state of a link"),
        ("link=", "no state of a link"),
        ("devid=64", "no number of an interface"),
        ("devid=x", "no number of an interface"),
        ("type=tap", "no such type"),
        ("bridge=../x", "no name of a network"),
        ("bridge=" + "n" * 33, "no name of a network"),
        ("bridge", "what is 'bridge'"),
        ("speed=1", "what is 'speed=1'"),
        ("mtu=67", "no MTU"),
        ("mtu=65517", "no MTU"),
        ("mtu=1e3", "no MTU"),
        ("ip=10.0.0.300", "no IP address"),
        ("ip=10.0.0.1 10.0.0.2", "one address of IPv4"),
        (f"bridge=lan,ip={'10.0.0.1 ' * 33}", "33 addresses: 32"),
        ("antispoof=no", "antispoof is for networks of domains"),
        ("antispoof=on,bridge=lan", "antispoof is yes or no"),
        ("hostfwd=tcp:127.0.0.1:1-:1,bridge=lan", "only for bridge=user"),
        ("hostfwd=tcp:127.0.0.1:0-:1", "no port"),
        ("hostfwd=tcp:127.0.0.1:65536-:1", "no port"),
        ("hostfwd=tcp:127.0.0:1-:1", "no IP address"),
        ("hostfwd=icmp::1-:1", "no forward"),
        ("hostfwd=tcp::1-10.0.0.1:1", "guest's address"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        parse_vif(text)
    assert caught.value.key == "vif"


@pytest.mark.parametrize(
    ("text", "size", "interval_us"),
    [
        ("8b/s@1s", 1, 1_000_000),
        ("1B/s@1", 1, 1_000_000),
        ("1KB/s", 50, 50_000),
        ("1MB/s@20ms", 20_000, 20_000),
        ("1GB/s@100us", 100_000, 100),
        ("10Mb/s@50m", 62_500, 50_000),
        ("10Mb/s@5000u", 6250, 5000),
    ],
)
def test_rates_are_those_of_xl(text: str, size: int, interval_us: int) -> None:
    rate = parse_rate(text)
    assert (rate.bytes, rate.interval_us, rate.node) == (size, interval_us, f"{size},{interval_us}")


def test_settings_change_alone() -> None:
    spec = parse_vif("mac=00:16:3e:01:02:03,bridge=lan,rate=1Mb/s")
    down = changed(spec, link="down")
    assert down.rate == spec.rate and not down.is_up and changed(down, link="up") == spec
    assert changed(down, rate="").rate is None and not changed(down, rate="2Mb/s").is_up
    with pytest.raises(ConfigError, match="no rate"):
        changed(spec, rate="fast")


def test_addresses_are_xens_and_stay_with_the_uuid_and_the_index() -> None:
    uuid, other = UUID(int=1), UUID(int=2)
    macs = [parse_vif("", index).mac_of(each) for each in (uuid, other) for index in (0, 1)]
    assert len(set(macs)) == 4
    assert all(mac[:3] == bytes((0, 0x16, 0x3E)) and mac[3] < 0x80 for mac in macs)
    assert parse_vif("", 1).mac_of(uuid) == macs[1]
    assert mac_text(macs[0]) == "00:16:3e:31:73:6a"
    assert parse_vif(f"mac={mac_text(MAC)}").mac_of(uuid) == MAC


def test_the_mtu_is_large_where_nobody_else_has_to_understand_it() -> None:
    assert parse_vif("").effective_mtu == MTU_MAX
    assert parse_vif("bridge=lan").effective_mtu == MTU
    assert parse_vif("bridge=lan,mtu=9000").effective_mtu == 9000


def test_two_interfaces_have_two_addresses_and_there_is_an_end_to_their_number() -> None:
    first, second, third = parse_vifs(["mac=00:16:3e:01:02:03", "mac=00:16:3E:1:2:3", "bridge=lan"])
    assert isinstance(first, VifSpec) and first.devid == 0
    assert isinstance(second, ConfigError) and "is taken by" in str(second)
    assert isinstance(third, VifSpec) and third.devid == 2
    (fault,) = parse_vifs([""] * 65)
    assert isinstance(fault, ConfigError) and "64" in str(fault)
