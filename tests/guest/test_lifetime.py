# SPDX-License-Identifier: Apache-2.0
"""Domains with several vCPUs that are destroyed at any moment: everything comes back."""

from __future__ import annotations

import gc
import random
import threading
from pathlib import Path

import pytest
from building import build_guests
from descriptors import open_descriptors

from domzero.builder.domain import build_domain
from domzero.builder.image import load_kernel
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.host import Host

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]
PAGES = 16 << 8
VCPUS = 4


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with a guest whose vCPUs come and go, in both widths."""
    out = tmp_path_factory.mktemp("lifetime")
    targets = [str(out / width / "vcpu_ops") for width in ("64", "32")]
    return build_guests(out, *targets)


def start(host: Host, kernel: Path) -> Domain:
    domain = build_domain(host, load_kernel(str(kernel)), pages=PAGES, vcpus=VCPUS).domain
    domain.unpause()
    return domain


@pytest.mark.parametrize("width", ["64", "32"])
@pytest.mark.parametrize("count", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_domains_destroyed_at_any_moment_give_everything_back(kernels: Path, width: str, count: int) -> None:
    choose = random.Random(7)
    threads, files = threading.active_count(), open_descriptors()
    host = Host(32)
    frames = host.machine.free_frames
    try:
        for _ in range(count):
            domain = start(host, kernels / width / "vcpu_ops")
            domain.wait(choose.random() * 0.1)  # any moment will do: nothing that follows depends on which
            assert host.destroy_domain(domain) == 0
            assert domain.bug is None
            assert host.machine.free_frames == frames
        assert host.domains == {}
        assert host.audit() == []
    finally:
        host.close()
    assert threading.active_count() <= threads
    del host, domain
    gc.collect()
    assert open_descriptors() <= files


def test_a_domain_is_paused_and_shut_down_while_its_vcpus_run(kernels: Path) -> None:
    host = Host(32)
    try:
        domain = start(host, kernels / "64" / "vcpu_ops")
        for _ in range(20):
            domain.pause()
            assert not any(vcpu.in_guest for vcpu in domain.vcpus)
            domain.unpause()
        domain.crash("the test says so")
        before = [vcpu.hw.instructions for vcpu in domain.vcpus if not vcpu.in_guest]
        assert before
        assert host.destroy_domain(domain) == 0
    finally:
        host.close()
