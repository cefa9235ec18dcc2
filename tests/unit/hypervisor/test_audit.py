# SPDX-License-Identifier: Apache-2.0
"""`Host.audit`: finds wrong references, and nothing where there is nothing. Wrong ports: crates/machine/src/evtchn."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from ports import Ports
from real_host import make_domain

from domzero.abi.xen import Virq
from domzero.hypervisor.grant import map_backend


@pytest.fixture
def busy(host: Any, domain: Any) -> Any:
    """Two domains with channels of every kind, FIFO in one, a mapped grant and a backend."""
    other = make_domain(host)
    control, page, frame = domain.hw.alloc(3)
    Ports(domain).init_control(0, control, 0)
    Ports(domain).expand_array(page)
    Ports(domain).bind_virq(Virq.VIRQ_TIMER, 1)
    Ports(domain).send(Ports(domain).bind_ipi(1))
    Ports(domain).send(Ports(domain).bind_ipi(0))
    Ports(domain).bind_interdomain(other.domid, Ports(other).alloc_unbound(domain.domid))
    host.machine.write(domain.grants.hw.entry_maddr(9), struct.pack("<HHI", 1, 0, frame))
    map_backend(domain, 9, writable=True)
    return other


def test_nothing_is_wrong_with_busy_domains(host: Any, busy: Any) -> None:
    assert host.audit() == []


def _reference_leaked(domain: Any) -> None:
    domain.hw.get_ref(domain.grants.active[9].mfn, writable=False)


def _reference_lost(domain: Any) -> None:
    domain.hw.put_ref(domain.evtchn.frames[0], writable=True)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (_reference_leaked, "references are held"),
        (_reference_lost, "references are held"),
    ],
)
def test_a_wrong_book_is_found(host: Any, domain: Any, busy: Any, damage: Callable[[Any], None], word: str) -> None:
    damage(domain)
    found = host.audit()
    assert found
    assert word in "\n".join(found)
