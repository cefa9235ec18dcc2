# SPDX-License-Identifier: Apache-2.0
"""Network interfaces, with Linux's front end: domains that reach each other, and the world through passt."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from building import Run
from guest_shell import GuestShell
from loopback import free_port
from runtime_dir import short_runtime_directory
from waiting import until

from domzero.dom0 import network
from domzero.dom0.backends.net import NetDevice
from domzero.dom0.config import DomainConfig
from domzero.dom0.images.cache import Image
from domzero.dom0.life import EndReason
from domzero.dom0.lifecycle import DomainSession
from domzero.dom0.vifspec import changed
from domzero.errors import ConfigError
from domzero.hypervisor.clock import VirtualClock

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def networks() -> Iterator[Path]:
    """Networks of this test's own; nothing may be left of them."""
    with short_runtime_directory() as directory:
        yield directory / "domzero" / "networks"


class Shell(GuestShell):
    """A domain with network interfaces."""

    @property
    def device(self) -> NetDevice:
        instance = self.session._instance  # its counts are nowhere else yet
        assert instance is not None
        return instance.vifs.devices[0]


@pytest.fixture
def boot(debian: Image) -> Iterator[Callable[..., Shell]]:
    shells: list[Shell] = []

    def boot(*vifs: str, vcpus: int = 1) -> Shell:
        shells.append(Shell(debian, vifs=list(vifs), vcpus=vcpus))
        return shells[-1]

    yield boot
    for shell in shells:
        host = shell.session.host
        assert host is None or host.audit() == []
        shell.session.destroy()


def test_domains_of_a_network_reach_each_other_and_one_elsewhere_sees_nothing(
    boot: Callable[..., Shell], networks: Path
) -> None:
    one, two, other = boot("bridge=lan"), boot("bridge=lan", vcpus=2), boot("bridge=elsewhere")
    for number, shell in enumerate((one, two, other), 1):
        shell.ready()
        shell.do(f"ip addr add 10.0.0.{number}/24 dev eth0")
    assert "100% packet loss" in other.do("ping -c 1 -W 1 10.0.0.1")
    assert " 0% packet loss" in one.do("ping -c 3 -i 0.2 10.0.0.2")
    assert " 0% packet loss" in two.do("ping -c 2 -i 0.2 -s 20000 10.0.0.1")
    assert two.do("ls /sys/class/net/eth0/queues").split() == ["rx-0", "rx-1", "tx-0", "tx-1"], "one for each vCPU"
    # What is sent to all nodes of the link comes to each of its network, and nowhere else.
    local = "ip -6 addr show eth0 | sed -n 's/.*inet6 \\(fe80[^/]*\\).*/\\1/p'"
    assert f"from {two.do(local).strip()}" in one.do("ping -c 2 ff02::1%eth0")
    received = other.do("cat /sys/class/net/eth0/statistics/rx_packets")
    assert received.strip() == "0" and other.device.link.counts.received_frames == 0

    # TCP with large segments, both ways at once; what comes is what was sent.
    for shell in (one, two):
        shell.do("dd if=/dev/urandom of=/tmp/sent bs=1M count=16 2>/dev/null")
    sums = [shell.do("md5sum < /tmp/sent").split()[0] for shell in (one, two)]
    listening = one.start("nc -l -p 9 < /tmp/sent > /tmp/got; md5sum < /tmp/got")
    until(lambda: b"nc -l" in one.session.console.history)
    connected = two.do(
        "for n in 1 2 3 4 5; do nc 10.0.0.1 9 < /tmp/sent > /tmp/got && break; sleep 1; done; md5sum < /tmp/got"
    )
    assert [sums[1], sums[0]] == [listening().split()[0], connected.split()[0]]
    counts = two.device.link.counts
    assert counts.errors == counts.spoofed == 0
    assert counts.sent_bytes / counts.sent_frames > 1514, "large segments are not cut"

    # Another's address is of no use.
    two.do("ip link set eth0 down; ip link set eth0 address 00:16:3e:00:00:01; ip link set eth0 up")
    assert "100% packet loss" in two.do("ping -c 1 -W 1 10.0.0.1")
    assert counts.spoofed == 0 < two.device.link.counts.spoofed

    assert sorted(path.name for path in networks.iterdir()) == [
        "elsewhere.ctl",
        "elsewhere.sock",
        "lan.ctl",
        "lan.sock",
    ]
    for shell in (one, two, other):
        shell.session.destroy()
    until(lambda: list(networks.iterdir()) == [], what="the end of the switches")


def test_a_cable_is_pulled_out_and_put_in_again_a_rate_holds_and_addresses_are_kept(boot: Callable[..., Shell]) -> None:
    one, two = boot("bridge=lan,rate=8Mb/s,ip=10.0.0.1"), boot("bridge=lan")
    for number, shell in enumerate((one, two), 1):
        shell.ready()
        shell.do(f"ip addr add 10.0.0.{number}/24 dev eth0")
    assert " 0% packet loss" in one.do("ping -c 1 10.0.0.2")
    instance = two.session._instance
    assert instance is not None
    instance.vifs.set(changed(two.device.spec, link="down"))
    assert "100% packet loss" in one.do("ping -c 2 -W 1 10.0.0.2")
    assert two.device.link.counts.dropped > 0
    instance.vifs.set(changed(two.device.spec, link="up"))
    assert " 0% packet loss" in one.do("ping -c 1 10.0.0.2")

    # 3 MiB take 3 s at 1 MB/s, less what an interval gives at once; the other way nothing holds them up.
    listening = two.start("nc -l -p 9 > /tmp/got; wc -c < /tmp/got")
    until(lambda: b"nc -l" in two.session.console.history)
    took = one.do(
        "dd if=/dev/zero of=/tmp/sent bs=1M count=3 2>/dev/null; start=$(cut -d. -f1 /proc/uptime); "
        "for n in 1 2 3 4 5; do nc 10.0.0.2 9 < /tmp/sent && break; sleep 1; done; "
        "echo $(($(cut -d. -f1 /proc/uptime) - start))"
    )
    assert listening().strip() == str(3 << 20) and int(took) >= 2

    # Another's IP address is of no use, and IPv6 has its own of the link.
    assert one.device.link.counts.spoofed == 0
    one.do("ip addr add 10.0.0.3/24 dev eth0")
    assert "100% packet loss" in one.do("ping -c 1 -W 1 -I 10.0.0.3 10.0.0.2")
    assert one.device.link.counts.spoofed > 0
    local = one.do("ip -6 addr show eth0 | sed -n 's/.*inet6 \\(fe80[^/]*\\).*/\\1/p'").strip()
    assert " 0% packet loss" in two.do(f"ping -c 1 {local}%eth0")


@pytest.fixture(params=[network.PASST, network.OWN])
def user_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of what the network `user` may be."""
    if request.param == network.PASST and shutil.which(network.PASST) is None:
        pytest.skip("passt is not here: apt-get install passt")
    monkeypatch.setenv(network.CHOICE, request.param)
    return str(request.param)


def test_the_user_network_gives_an_address_names_and_forwards_of_ports(
    boot: Callable[..., Shell], user_network: str
) -> None:
    port = free_port()
    shell = boot(f"bridge=user,mac=00:16:3e:11:22:33,ip=10.1.2.3,hostfwd=tcp:127.0.0.1:{port}-:22")
    shell.ready()
    until(lambda: "10.1.2.3/" in shell.do("ip -4 addr show eth0"), what="an address")
    assert "00:16:3e:11:22:33" in shell.do("ip link show eth0")
    assert "default via" in shell.do("ip route")
    data = random.Random(1).randbytes(8 << 20)
    served = shell.start("nc -l -p 22 > /tmp/got; md5sum < /tmp/got; nc -l -p 22 < /tmp/got")
    until(lambda: b"nc -l" in shell.session.console.history)

    def sent() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                return client.recv(1) == b""
        except ConnectionError:
            return False  # nobody listens in the guest yet

    until(sent)
    until(lambda: hashlib.md5(data).hexdigest().encode() in shell.session.console.history)
    got = bytearray()

    def received() -> bool:
        got.clear()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                client.sendall(b"?")  # passt of 2023 lets the client speak first
                while part := client.recv(1 << 16):
                    got.extend(part)
        except ConnectionError:
            pass
        return len(got) > 0

    until(received)
    assert bytes(got) == data
    served()
    if user_network == network.OWN:  # with passt of 2023, no answer comes after the guest has ended its half
        reaches_out(shell)


def reaches_out(shell: Shell) -> None:
    """Connects and sends to an address of the host's that is not loopback, which nothing of a guest's reaches."""
    own = own_address()
    if own is None:
        return
    with socket.create_server((own, 0)) as server:
        port = server.getsockname()[1]
        asked = shell.start(f"echo question | nc {own} {port}")
        server.settimeout(60)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(60)
            question = b""
            while part := connection.recv(100):  # to its end: the guest's half is closed
                question += part
            assert question == b"question\n"
            connection.sendall(b"answer\n")
        assert "answer" in asked()
    assert "refused" in shell.do(f"nc {own} {port} </dev/null"), "nobody listens any more"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((own, 0))
        port = server.getsockname()[1]
        asked = shell.start(f"tftp -g -r question -l /tmp/got {own} {port}; cat /tmp/got")
        server.settimeout(60)
        question, source = server.recvfrom(100)
        assert question.startswith(b"\0\1question\0")  # RRQ of RFC 1350
        server.sendto(b"\0\3\0\1answer\n", source)  # DATA, the first and last block
        assert "answer" in asked()


def own_address() -> str | None:
    """An address of the host's that leads elsewhere; None: it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return None
        return str(probe.getsockname()[0])


def test_our_user_network_is_confined_and_ends_with_its_domain(
    boot: Callable[..., Shell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(network.CHOICE, network.OWN)
    port = free_port()
    shell = boot(f"bridge=user,hostfwd=tcp:127.0.0.1:{port}-:22")
    mark = f"127.0.0.1/{port}:22".encode()
    process = next(each for each in Path("/proc").iterdir() if each.name.isdigit() and mark in _command(each))
    status = (process / "status").read_text()
    assert "Seccomp:\t2\n" in status and "NoNewPrivs:\t1\n" in status
    shell.session.destroy()
    until(lambda: not process.exists(), what="its end")


def test_a_network_starts_again_when_its_switch_was_killed(boot: Callable[..., Shell], networks: Path) -> None:
    one = boot("bridge=lan")
    until(lambda: (networks / "lan.sock").is_socket())
    switch = next(
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and str(networks / "lan.sock").encode() in _command(path)
    )
    os.kill(switch, 9)
    until(lambda: any("has gone" in line for line in one.log), what="a line in the log")
    two, three = boot("bridge=lan"), boot("bridge=lan")
    two.ready()
    three.ready()
    two.do("ip addr add 10.0.0.2/24 dev eth0")
    three.do("ip addr add 10.0.0.3/24 dev eth0")
    assert " 0% packet loss" in two.do("ping -c 2 -i 0.2 10.0.0.3")


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_interfaces_and_virtual_time_exclude_each_other(shell: str) -> None:
    session = DomainSession(DomainConfig(kernel=shell, memory_mib=16, vifs=["bridge=lan"]), clock=VirtualClock())
    with pytest.raises(ConfigError, match="not the same with each run"):
        session.start()


def test_a_host_without_passt_says_how_to_get_it_where_it_is_asked_for(
    shell: str, domzero_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert network.user_network() == network.OWN
    monkeypatch.setenv(network.CHOICE, network.PASST)
    result = domzero_run("--kernel", shell, "--vif", "")
    assert result.returncode == 2
    assert b"apt-get install passt" in result.stderr and result.stderr.count(b"\n") <= 2


def test_an_interface_of_the_host_that_is_no_bridge_is_no_network(shell: str, domzero_run: Run) -> None:
    result = domzero_run("--kernel", shell, "--vif", "bridge=lo")
    assert result.returncode == 2 and b"neither a bridge nor a tap" in result.stderr


def test_an_interface_ends_in_order_with_its_domain(boot: Callable[..., Shell]) -> None:
    shell = boot("bridge=lan", "bridge=lan,mtu=9000")
    shell.ready()
    assert "eth1" in shell.do("ls /sys/class/net")
    shell.do("rmmod xen-netfront && modprobe xen-netfront")
    assert (
        shell.do("ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up; cat /sys/class/net/eth0/carrier").strip()
        == "1"
    )
    shell.session.console.send(b"poweroff\n")
    end = shell.session.wait(60)
    assert end is not None and end.reason is EndReason.POWEROFF
