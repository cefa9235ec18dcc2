# SPDX-License-Identifier: Apache-2.0
"""A paused domain: single vCPUs go on for so many instructions, and virtual time stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from domzero.abi.errno import Errno
from domzero.abi.xen import Hypercall
from domzero.builder.domain import build_domain
from domzero.builder.image import load_kernel
from domzero.hypervisor.clock import VirtualClock
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.host import Host
from domzero.hypervisor.hypercalls import table
from domzero.hypervisor.hypercalls.table import Operation, answer
from domzero.hypervisor.vcpu import Vcpu

pytestmark = [pytest.mark.guest, pytest.mark.engines]
PAGES = 16 << 8
LIMIT_S = 60.0


@pytest.fixture
def domain(shell: str) -> Iterator[Domain]:
    host = Host(32, clock=VirtualClock(), seed=1)
    yield build_domain(host, load_kernel(shell), pages=PAGES).domain
    host.close()


def test_a_step_is_so_many_instructions_whatever_comes_between(domain: Domain) -> None:
    vcpu = domain.vcpus[0]
    vcpu.hw.set_fast_hypercalls(False)
    for count in (1, 2, 3, 1000, 17):
        before = vcpu.hw.instructions
        assert domain.step(vcpu, count, LIMIT_S) == count
        assert vcpu.hw.instructions == before + count
    assert domain.pause_count == 1
    assert sum(domain.hypercall_counts.values()) > 0  # among them were hypercalls, which come up


def test_steps_lead_where_running_at_once_leads(shell: str) -> None:
    seen = []
    for steps in ([1] * 300, [150, 150], [300]):
        host = Host(32, clock=VirtualClock(), seed=1)
        domain = build_domain(host, load_kernel(shell), pages=PAGES).domain
        for count in steps:
            assert domain.step(domain.vcpus[0], count, LIMIT_S) == count
        seen.append((domain.vcpus[0].hw.registers(), host.now_ns()))
        host.close()
    assert seen[0] == seen[1] == seen[2]


def test_virtual_time_does_not_pass_while_a_domain_is_paused(domain: Domain) -> None:
    vcpu, host = domain.vcpus[0], domain.host
    domain.step(vcpu, 1, LIMIT_S)  # its thread is there, and sleeps
    with host.lock:
        now = host.now_ns()
        vcpu.hw.timers.set_singleshot(now + 10**9)
        vcpu.timers.changed()
        for _ in range(3):  # it wakes, looks, and sleeps again
            vcpu.poke()
            assert host.quiet.wait(LIMIT_S)
        assert (host.now_ns(), vcpu.timers.next_ns) == (now, now + 10**9)


def test_who_intercepts_answers_hypercalls_himself_or_as_they_are(domain: Domain) -> None:
    seen: list[tuple[str, list[int], int]] = []

    def intercept(vcpu: Vcpu, row: Operation, args: list[int]) -> int:
        rc = 77 if row.nr is Hypercall.HYPERVISOR_xen_version else answer(vcpu, row, list(args))
        seen.append((row.name, args, rc))
        return rc

    domain.intercept = intercept
    with domain.host.lock:
        vcpu = domain.vcpus[0]
        for nr, args in ((Hypercall.HYPERVISOR_xen_version, (0,) * 6), (Hypercall.HYPERVISOR_sched_op, (999,) * 6)):
            vcpu.hw.set_reg("rax", nr)
            table.dispatch(vcpu, nr, args)
            assert vcpu.hw.get_reg("rax") == seen[-1][2] & (2**64 - 1)
    assert seen == [("xen_version", [0, 0], 77), ("sched_op", [999, 999], -Errno.ENOSYS)]
