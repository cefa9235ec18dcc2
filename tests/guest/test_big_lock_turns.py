# SPDX-License-Identifier: Apache-2.0
"""Guests that keep the hypervisor busy without end: whoever else wants its lock has it after a few of their turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from building import build_guests
from waiting import until

from domzero.builder.domain import build_domain
from domzero.builder.image import load_kernel
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.host import Host

pytestmark = pytest.mark.guest
VCPUS = 4
TURNS = 2 * VCPUS
"""Each vCPU may be in the middle of one, and have asked for another before us."""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with guests/suite/hog.c in both widths."""
    out = tmp_path_factory.mktemp("hog")
    return build_guests(out, *(str(out / width / "hog") for width in ("64", "32")))


@pytest.fixture(params=["forever-64", "forever-32", "mixed-64", "mixed-32"])
def hog(kernels: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Host, Domain]]:
    how, width = request.param.split("-")
    host = Host(64)
    image = load_kernel(str(kernels / width / "hog"))
    domain = build_domain(host, image, pages=48 << 8, vcpus=VCPUS, cmdline=how).domain
    domain.unpause()
    until(lambda: turns(domain) > 200)
    yield host, domain
    host.close()


def turns(domain: Domain) -> int:
    """Hypercalls that were begun, or begun again to go on, with the big lock held."""
    return sum(domain.hypercall_counts[name] for name in ("multicall", "vcpu_op", "memory_op"))


def test_everybody_has_the_big_lock_after_a_few_turns_of_the_vcpus(hog: tuple[Host, Domain]) -> None:
    host, domain = hog
    for _ in range(30):
        before = turns(domain)
        with host.lock:
            assert turns(domain) - before <= TURNS
        before = turns(domain)
        domain.pause()
        assert turns(domain) - before <= TURNS
        assert host.audit() == []
        domain.unpause()
    assert domain.shutdown_code is None
    before = turns(domain)
    assert host.destroy_domain(domain) == 0
    assert turns(domain) - before <= TURNS
