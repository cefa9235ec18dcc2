# SPDX-License-Identifier: Apache-2.0
"""The host's interfaces that networks leave by, as its routes and sysfs say."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from domzero.dom0 import uplinks

HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sysfs and routes of a host's whose one interface that exists is the loopback."""
    if "lo" not in {name for _, name in socket.if_nameindex()}:
        pytest.skip("there is no loopback interface")
    monkeypatch.setattr(uplinks, "_SYS", tmp_path)
    monkeypatch.setattr(uplinks, "_ROUTES", tmp_path / "route")
    return tmp_path


def test_the_default_route_with_the_least_metric_is_that_of_the_user_network(host: Path) -> None:
    lines = [f"{name}\t00000000\t0100000A\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0" for name, metric in
             (("none0", 600), ("lo", 100))]  # fmt: skip
    other = "none1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"
    (host / "route").write_text(HEAD + "\n".join([other, *lines]) + "\n")
    (found,) = uplinks.uplinks([])
    assert (found.name, found.network, found.gateway) == ("lo", "user", "10.0.0.1")
    assert (found.ip, found.netmask, found.mac) == ("127.0.0.1", "255.0.0.0", "00:00:00:00:00:00")
    assert (found.is_up, found.is_physical, found.speed) == (True, False, 0)


@pytest.mark.parametrize("text", ["", HEAD, HEAD + "nonsense\n"])
def test_without_a_default_route_there_is_none(host: Path, text: str) -> None:
    (host / "route").write_text(text)
    assert uplinks.uplinks([]) == []


def test_a_bridges_members_are_its_uplinks_but_for_taps_and_what_is_gone(host: Path) -> None:
    for name in ("lo", "tap0", "gone0"):
        (host / "xenbr0" / "brif" / name).mkdir(parents=True)
        (host / name).mkdir()
    (host / "tap0" / "tun_flags").write_text("0x1002\n")
    (host / "lo" / "speed").write_text("1000\n")
    (host / "lo" / "duplex").write_text("full\n")
    (host / "lo" / "device").mkdir()
    (found,) = uplinks.uplinks(["xenbr0", "none", "..", "", "a/b"])
    assert (found.name, found.network, found.gateway) == ("lo", "xenbr0", "")
    assert (found.speed, found.is_full_duplex, found.is_physical) == (1000, True, True)
