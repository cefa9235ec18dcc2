# SPDX-License-Identifier: Apache-2.0
"""The wiring of a domain: what it is given before it runs, and that a failure leaves nothing of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from ports import Ports

from domzero.abi.event_channel import EvtchnStat
from domzero.builder.domain import SLACK_PAGES, build_domain
from domzero.builder.image import load_kernel
from domzero.errors import ConfigError, ImageError
from domzero.hypervisor.host import Host

pytestmark = pytest.mark.guest
PAGES = 16 << 8


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host(32)
    yield host
    host.close()


def test_a_wired_domain_is_paused_with_rings_ports_and_a_memory_map(host: Host, shell: str) -> None:
    built = build_domain(host, load_kernel(shell), pages=PAGES, max_pages=2 * PAGES, vcpus=2, name="wired", domid=7)
    domain = built.domain
    assert (domain.domid, domain.name, domain.pause_count, len(domain.vcpus)) == (7, "wired", 1, 2)
    assert domain.hw.frames_owned == PAGES
    assert domain.max_pages == 2 * PAGES + SLACK_PAGES
    assert domain.e820 == [(0, 2 * PAGES << 12, 1)]
    assert domain.vcpus[0].is_initialised and not domain.vcpus[1].is_initialised
    assert all(vcpu.thread is None for vcpu in domain.vcpus)
    for ring in (built.store, built.console):
        channel = Ports(domain).channel(ring.port)
        assert (channel.status, channel.remote_domid) == (EvtchnStat.EVTCHNSTAT_unbound, 0)
        assert len(ring.page) == 4096
    assert host.audit() == []


def test_a_domain_beyond_17_gib_is_built(shell: str) -> None:
    mib = 20 << 10
    host = Host(mib)
    try:
        domain = build_domain(host, load_kernel(shell), pages=mib << 8).domain
        assert domain.hw.frames_owned == mib << 8
        assert host.audit() == []
    finally:
        host.close()


def test_events_reach_the_back_end_behind_a_ring(host: Host, shell: str) -> None:
    built = build_domain(host, load_kernel(shell), pages=PAGES)

    class BackEnd:
        def __init__(self) -> None:
            self.pumped = threading.Event()

        def pump(self) -> None:
            self.pumped.set()

    back_end, port = built.console.connect(lambda _page, _notify: BackEnd())
    with host.lock:
        Ports(built.domain).send(built.console.port)
    assert back_end.pumped.wait(60)
    port.close()


def test_what_cannot_be_built_leaves_nothing(host: Host, shell: str) -> None:
    before = host.machine.free_frames
    with pytest.raises(ConfigError):
        build_domain(host, load_kernel(shell), pages=PAGES, cmdline="x" * 5000)
    with pytest.raises(ImageError):
        build_domain(host, load_kernel(shell), pages=PAGES, ramdisk=bytes(64 << 20))
    assert host.domains == {}
    assert host.machine.free_frames == before
