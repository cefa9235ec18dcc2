# SPDX-License-Identifier: Apache-2.0
"""Two guests in one host that share memory by grants and send each other events, in both widths."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from building import build_guests

from domzero.abi.sched import ShutdownReason
from domzero.builder.domain import build_domain
from domzero.builder.image import load_kernel
from domzero.dom0.console import Console, ConsoleRing
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.host import Host
from domzero.hypervisor.vcpu import Vcpu

pytestmark = [pytest.mark.guest, pytest.mark.timeout(240)]
PAGES = 16 << 8


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the guest in both widths."""
    return build_guests(tmp_path_factory.mktemp("pair"), "pair")


def start(host: Host, kernel: Path, role: str, peer: int) -> tuple[Domain, Console]:
    """A domain with a console; it does not run yet."""
    built = build_domain(host, load_kernel(str(kernel)), pages=PAGES, name=role, cmdline=f"{role} {peer}")
    console = Console()
    built.console.connect(lambda page, notify: ConsoleRing(page, console, notify))
    return built.domain, console


@pytest.mark.parametrize("granter", ["64", "32"])
@pytest.mark.parametrize("mapper", ["64", "32"])
def test_a_guest_maps_what_another_grants_and_both_send_events(peers: Path, granter: str, mapper: str) -> None:
    host = Host(40)
    try:
        frames = host.machine.free_frames
        one, its_console = start(host, peers / granter / "pair_peers", "granter", 2)
        two, other_console = start(host, peers / mapper / "pair_peers", "mapper", 1)
        one.unpause()
        two.unpause()
        ends = [domain.wait(120) for domain in (one, two)]
        for domain in (one, two):
            domain.back_ends.settle()
        said = its_console.history.decode() + other_console.history.decode()
        assert ends == [ShutdownReason.SHUTDOWN_poweroff] * 2, said
        assert said.count("PASS peers") == 2
        assert host.audit() == []
        assert host.destroy_domain(two) == host.destroy_domain(one) == 0
        assert host.audit() == []
        assert host.machine.free_frames == frames
    finally:
        host.close()


def test_a_domain_may_end_while_another_maps_its_frames(peers: Path) -> None:
    host = Host(40)
    try:
        frames = host.machine.free_frames
        one, _ = start(host, peers / "64" / "pair_peers", "granter", 2)
        two, _ = start(host, peers / "64" / "pair_peers", "mapper", 1)
        mapped = threading.Event()

        def stop_when_mapped(_vcpu: Vcpu, _name: str, _args: tuple[int, ...], _rc: int) -> None:
            if two.grants.mappings and not mapped.is_set():
                two.pause()  # in its own thread: it goes no further
                mapped.set()

        two.set_trace(stop_when_mapped)
        two.unpause()
        one.unpause()
        assert mapped.wait(60)
        host.destroy_domain(one)
        assert host.audit() == []
        assert host.destroy_domain(two) == 0
        assert host.audit() == []
        assert host.machine.free_frames == frames
    finally:
        host.close()
