# SPDX-License-Identifier: Apache-2.0
"""What of vcpu_op the machine does, and set_timer_op: as a guest sees them."""

import struct
from typing import Any

import pytest
from fakes import hypercall
from ports import Ports

from domzero.abi.errno import Errno
from domzero.abi.vcpu import VcpuOp
from domzero.abi.xen import Hypercall, Virq

SECOND = 10**9
NOWHERE = 0x7000_0000_0000


def vcpu_op(v: Any, command: VcpuOp, vcpu_id: int, arg: bytes | None = None) -> int:
    va = v.hw.place(arg) if arg is not None else 0
    return hypercall(v, Hypercall.HYPERVISOR_vcpu_op, command, vcpu_id, va)


def set_timer_op(v: Any, when_ns: int) -> int:
    return hypercall(v, Hypercall.HYPERVISOR_set_timer_op, when_ns)


@pytest.fixture
def timer_port(domain: Any) -> int:
    return int(Ports(domain).bind_virq(Virq.VIRQ_TIMER, 0))


def test_set_timer_op_raises_the_timer_virq_when_its_time_has_come(
    host: Any, domain: Any, vcpu: Any, timer_port: int
) -> None:
    when = host.now_ns() + SECOND
    assert set_timer_op(vcpu, when) == 0
    vcpu.timers.fire(when - 1)
    assert not Ports(domain).is_pending(timer_port)
    vcpu.timers.fire(when)
    assert Ports(domain).is_pending(timer_port)
    assert vcpu.timers.next_ns is None


def test_set_timer_op_zero_stops_and_nonsense_means_soon(host: Any, vcpu: Any) -> None:
    set_timer_op(vcpu, host.now_ns() + 5)
    assert vcpu.timers.next_ns == host.now_ns() + 5
    set_timer_op(vcpu, 0)
    assert vcpu.timers.next_ns is None
    for nonsense in (2**64 - 1, host.now_ns() + (1 << 51)):
        set_timer_op(vcpu, nonsense)
        assert vcpu.timers.next_ns == host.now_ns() + SECOND // 10


def test_singleshot_timers_are_each_vcpus_own(host: Any, vcpu: Any) -> None:
    when = host.now_ns() + 100
    timer = struct.pack("<QII", when, 0, 0)
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_set_singleshot_timer, 0, timer) == 0
    assert vcpu.timers.next_ns == when
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_set_singleshot_timer, 1, timer) == -Errno.EINVAL
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_stop_singleshot_timer, 1) == -Errno.EINVAL
    assert hypercall(vcpu, Hypercall.HYPERVISOR_vcpu_op, VcpuOp.VCPUOP_set_singleshot_timer, 0, NOWHERE) == -14
    assert vcpu.timers.next_ns == when
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_stop_singleshot_timer, 0) == 0
    assert vcpu.timers.next_ns is None


@pytest.mark.parametrize("flags", [0, 1])
def test_a_timer_in_the_past_gives_its_event_at_once(
    host: Any, domain: Any, vcpu: Any, timer_port: int, flags: int
) -> None:
    host.machine.advance_to(SECOND)
    past = struct.pack("<QII", host.now_ns() - 1, flags, 0)
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_set_singleshot_timer, 0, past) == 0
    vcpu.timers.fire(host.now_ns())
    assert Ports(domain).is_pending(timer_port)


FOREVER, NEGATIVE = 2**63 - 1, 2**64 - 1


@pytest.mark.parametrize(("when", "expires"), [(FOREVER, None), (1 << 62, None), (NEGATIVE, 0), (1 << 63, 0)])
def test_singleshot_times_beyond_the_clock_never_come_and_negative_ones_have_passed(
    vcpu: Any, when: int, expires: int | None
) -> None:
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_set_singleshot_timer, 0, struct.pack("<QII", when, 0, 0)) == 0
    assert vcpu.timers.next_ns == expires


def test_is_up_tells_online_vcpus_from_others(vcpu: Any) -> None:
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_is_up, 0) == 1
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_is_up, 1) == 0
    vcpu.domain.vcpus[1].is_down = False
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_is_up, 1) == 1


@pytest.mark.parametrize(
    "command",
    [VcpuOp.VCPUOP_is_up, VcpuOp.VCPUOP_set_singleshot_timer, VcpuOp.VCPUOP_stop_singleshot_timer],
)
def test_what_the_machine_does_with_a_vcpu_that_does_not_exist_is_enoent(vcpu: Any, command: VcpuOp) -> None:
    for vcpu_id in (2, 2**32 - 1):
        assert vcpu_op(vcpu, command, vcpu_id, bytes(16)) == -Errno.ENOENT
