# SPDX-License-Identifier: Apache-2.0
"""sched_op, set_timer_op, vcpu_op, and what a vCPU's thread does between two exits."""

import struct
from typing import Any

import fakes
import pytest
from fakes import hypercall, make_domain
from ports import Ports

from domzero._machine import Base, Callback
from domzero.abi import sched, vcpu
from domzero.abi.arch_x86 import Vgcf, vcpu_guest_context
from domzero.abi.errno import Errno
from domzero.abi.sched import SchedOp, ShutdownReason
from domzero.abi.vcpu import RunState, VcpuOp
from domzero.abi.xen import Hypercall, Virq, VmAssistCmd, VmAssistType
from domzero.hypervisor import vcpu_thread

PENDING, MASK = 0, 1
SECOND = 10**9


def sched_op(v: Any, command: SchedOp, arg: Any = None) -> int:
    va = v.hw.place(bytes(arg)) if arg is not None else 0
    return hypercall(v, Hypercall.HYPERVISOR_sched_op, command, va)


def vcpu_op(v: Any, command: VcpuOp, vcpu_id: int, arg: bytes | None = None) -> int:
    va = v.hw.place(arg) if arg is not None else 0
    return hypercall(v, Hypercall.HYPERVISOR_vcpu_op, command, vcpu_id, va)


@pytest.fixture
def timer_port(domain: Any) -> int:
    return int(Ports(domain).bind_virq(Virq.VIRQ_TIMER, 0))


def pending(domain: Any, port: int) -> bool:
    return bool(Ports(domain).is_pending(port))


def test_block_opens_upcalls_and_sleeps(domain: Any, vcpu: Any) -> None:
    assert domain.shared_info[MASK] == 1
    assert sched_op(vcpu, SchedOp.SCHEDOP_block) == 0
    assert domain.shared_info[MASK] == 0
    assert vcpu.is_blocked


def test_block_with_an_upcall_pending_does_not_sleep(domain: Any, vcpu: Any) -> None:
    domain.shared_info[PENDING] = 1
    assert sched_op(vcpu, SchedOp.SCHEDOP_block) == 0
    assert not vcpu.is_blocked


def test_an_event_wakes_a_blocked_vcpu(domain: Any, vcpu: Any, timer_port: int) -> None:
    sched_op(vcpu, SchedOp.SCHEDOP_block)
    domain.evtchn.send_virq(0, Virq.VIRQ_TIMER)
    assert not vcpu.is_blocked


def test_yield_changes_nothing(vcpu: Any) -> None:
    assert sched_op(vcpu, SchedOp.SCHEDOP_yield) == 0
    assert not vcpu.is_blocked


@pytest.mark.parametrize("reason", list(ShutdownReason))
def test_shutdown_stops_the_domain_and_tells_why_once(domain: Any, vcpu: Any, reason: ShutdownReason) -> None:
    seen: list[int] = []
    domain.on_shutdown.append(lambda _domain, why: seen.append(why))
    assert sched_op(vcpu, SchedOp.SCHEDOP_shutdown, sched.sched_shutdown(reason)) == 0
    assert sched_op(vcpu, SchedOp.SCHEDOP_shutdown, sched.sched_shutdown(0)) == 0
    assert seen == [reason]
    assert domain.wait(0) is reason
    assert not vcpu.may_run


@pytest.mark.parametrize(("told", "kept"), [(77, 77), (255, 255), (0x100 + 77, 77), (0xFFFFFF00, 0)])
def test_a_shutdown_reason_without_a_name_is_kept_as_its_number_of_8_bits(
    domain: Any, vcpu: Any, told: int, kept: int
) -> None:
    sched_op(vcpu, SchedOp.SCHEDOP_shutdown, sched.sched_shutdown(told))
    assert domain.wait(0) == kept


def test_a_latched_code_is_what_a_later_shutdown_reports(domain: Any, vcpu: Any) -> None:
    assert sched_op(vcpu, SchedOp.SCHEDOP_shutdown_code, sched.sched_shutdown(1)) == 0
    assert sched_op(vcpu, SchedOp.SCHEDOP_shutdown_code, sched.sched_shutdown(3)) == 0
    sched_op(vcpu, SchedOp.SCHEDOP_shutdown, sched.sched_shutdown(0))
    assert domain.shutdown_code is ShutdownReason.SHUTDOWN_reboot


def test_the_old_sched_op_takes_the_reason_itself(domain: Any, vcpu: Any) -> None:
    old = Hypercall.HYPERVISOR_sched_op_compat
    assert hypercall(vcpu, old, SchedOp.SCHEDOP_yield, 0) == 0
    assert hypercall(vcpu, old, SchedOp.SCHEDOP_poll, 0) == -Errno.ENOSYS
    assert hypercall(vcpu, old, SchedOp.SCHEDOP_shutdown, 1) == 0
    assert domain.shutdown_code is ShutdownReason.SHUTDOWN_reboot


def test_privileged_and_unknown_sched_ops_are_refused(host: Any, vcpu: Any) -> None:
    other = make_domain(host)
    remote = sched.sched_remote_shutdown(other.domid, 0)
    assert sched_op(vcpu, SchedOp.SCHEDOP_remote_shutdown, remote) == -Errno.EPERM
    remote = sched.sched_remote_shutdown(999, 0)
    assert sched_op(vcpu, SchedOp.SCHEDOP_remote_shutdown, remote) == -Errno.ESRCH
    assert sched_op(vcpu, SchedOp.SCHEDOP_pin_override) == -Errno.EPERM
    assert hypercall(vcpu, Hypercall.HYPERVISOR_sched_op, 99, 0) == -Errno.ENOSYS
    assert hypercall(vcpu, Hypercall.HYPERVISOR_sched_op, SchedOp.SCHEDOP_shutdown, 0x123) == -Errno.EFAULT


def poll(v: Any, ports: list[int], timeout: int = 0) -> int:
    va = v.hw.place(struct.pack(f"<{len(ports)}I", *ports))
    return sched_op(v, SchedOp.SCHEDOP_poll, sched.sched_poll(va, len(ports), timeout))


def test_poll_returns_at_once_when_a_port_is_pending(domain: Any, vcpu: Any, timer_port: int) -> None:
    domain.evtchn.send_virq(0, Virq.VIRQ_TIMER)
    assert poll(vcpu, [timer_port]) == 0
    assert not vcpu.is_blocked


def test_poll_sleeps_until_its_port_even_when_that_is_masked(domain: Any, vcpu: Any, timer_port: int) -> None:
    domain.shared_info[2048 + 512] = 1 << timer_port
    assert poll(vcpu, [timer_port]) == 0
    assert vcpu.is_blocked
    domain.evtchn.send_virq(0, Virq.VIRQ_TIMER)
    assert not vcpu.is_blocked


def test_poll_ends_with_its_timeout(host: Any, vcpu: Any, timer_port: int) -> None:
    when = host.machine.now + SECOND
    assert poll(vcpu, [timer_port], when) == 0
    assert vcpu.timers.next_ns == when
    host.machine.now = when
    vcpu_thread.step(vcpu)
    assert not vcpu.is_blocked


FOREVER, NEGATIVE = 2**63 - 1, 2**64 - 1


@pytest.mark.parametrize(("when", "expires"), [(FOREVER, None), (1 << 62, None), (NEGATIVE, 0), (1 << 63, 0)])
def test_times_beyond_the_clock_never_come_and_negative_ones_have_passed(
    host: Any, vcpu: Any, timer_port: int, when: int, expires: int | None
) -> None:
    assert poll(vcpu, [timer_port], when) == 0
    assert vcpu.timers.next_ns == expires


def test_at_the_end_of_virtual_time_no_timer_comes_any_more(host: Any, domain: Any, vcpu: Any) -> None:
    host.machine.now = (1 << 62) - 1
    assert poll(vcpu, [], FOREVER) == 0
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_set_periodic_timer, 0, struct.pack("<Q", 2**62 - 1)) == 0
    assert sched_op(vcpu, SchedOp.SCHEDOP_watchdog, sched.sched_watchdog(0, 2**32 - 1)) == 1
    assert domain.watchdogs.deadlines[0] is not None
    vcpu.unblock()
    vcpu_thread.step(vcpu)
    assert vcpu.timers.next_ns is None


def test_poll_checks_its_ports(vcpu: Any, timer_port: int) -> None:
    assert poll(vcpu, [timer_port] * 129) == -Errno.EINVAL
    assert poll(vcpu, [5000]) == -Errno.EINVAL
    assert sched_op(vcpu, SchedOp.SCHEDOP_poll, sched.sched_poll(0x1000, 1, 0)) == -Errno.EFAULT
    assert not vcpu.is_blocked


def test_watchdogs_are_made_poked_removed_and_shut_the_domain_down(host: Any, domain: Any, vcpu: Any) -> None:
    def watchdog(watchdog_id: int, timeout: int) -> int:
        return sched_op(vcpu, SchedOp.SCHEDOP_watchdog, sched.sched_watchdog(watchdog_id, timeout))

    assert watchdog(1, 5) == -Errno.EINVAL
    assert watchdog(3, 5) == -Errno.EINVAL
    assert watchdog(0, 10) == 1
    assert watchdog(0, 20) == 2
    assert watchdog(0, 20) == -Errno.ENOSPC & 0xFFFFFFFF  # an unsigned int, as on Xen
    assert watchdog(1, 0) == 0
    assert vcpu.timers.next_ns == host.machine.now + 20 * SECOND
    vcpu.timers.fire(host.machine.now + 20 * SECOND)
    assert domain.shutdown_code is ShutdownReason.SHUTDOWN_watchdog


def test_periodic_timers_come_again_without_piling_up(host: Any, domain: Any, vcpu: Any, timer_port: int) -> None:
    start = host.machine.now
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_set_periodic_timer, 0, struct.pack("<Q", 10**7)) == 0
    host.machine.now = start + 35 * 10**6
    vcpu_thread.step(vcpu)
    assert pending(domain, timer_port)
    assert vcpu.timers.next_ns == start + 45 * 10**6
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_stop_periodic_timer, 0) == 0
    assert vcpu.timers.next_ns is None


@pytest.mark.parametrize("period", [0, 999_999, 2**62])
def test_periods_outside_the_limits_are_invalid(vcpu: Any, period: int) -> None:
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_set_periodic_timer, 0, struct.pack("<Q", period)) == -Errno.EINVAL


def test_every_vcpu_op_on_a_vcpu_that_does_not_exist_is_enoent(vcpu: Any) -> None:
    for command in VcpuOp:
        assert vcpu_op(vcpu, command, 2, bytes(6000 if command == 0 else 64)[:4096]) == -Errno.ENOENT
        assert vcpu_op(vcpu, command, 2**32 - 1, bytes(64)) == -Errno.ENOENT
    assert hypercall(vcpu, Hypercall.HYPERVISOR_vcpu_op, 99, 2, 0) == -Errno.ENOENT
    assert hypercall(vcpu, Hypercall.HYPERVISOR_vcpu_op, 99, 0, 0) == -Errno.ENOSYS


def context(**fields: int | list[int]) -> bytes:
    c = vcpu_guest_context()
    c.flags = Vgcf.VGCF_in_kernel
    c.user_regs.rip, c.user_regs.rsp, c.user_regs.cs, c.user_regs.ss = 0xFFFFFFFF81000000, 0x7000, 0xE030, 0xE02B
    c.user_regs.rdi, c.user_regs.rflags = 42, 0x1000
    c.ctrlreg[3] = 0x123000
    c.gdt_frames[0], c.gdt_ents = 0x55, 16
    c.event_callback_eip = 0xFFFFFFFF81000100
    c.kernel_ss, c.kernel_sp = 0xE02B, 0x8000
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(c, name)[:] = value
        else:
            setattr(c, name, value)
    return bytes(c)


def initialise(v: Any, vcpu_id: int, data: bytes) -> int:
    mfns = v.domain.hw.alloc(2)
    while mfns[1] != mfns[0] + 1:
        mfns = [mfns[1], *v.domain.hw.alloc(1)] if mfns[1] > mfns[0] else v.domain.hw.alloc(2)[::-1]
    v.domain.host.machine.write(mfns[0] * 4096, data)
    va = fakes.VA_BASE + mfns[0] * 4096
    return hypercall(v, Hypercall.HYPERVISOR_vcpu_op, VcpuOp.VCPUOP_initialise, vcpu_id, va)


def test_initialise_loads_registers_tables_and_callbacks_once(domain: Any, vcpu: Any) -> None:
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_up, 1) == -Errno.EINVAL
    assert initialise(vcpu, 1, context()) == 0
    hw = domain.vcpus[1].hw
    assert (hw.regs["rip"], hw.regs["rdi"], hw.regs["cs"]) == (0xFFFFFFFF81000000, 42, 0xE033)
    assert hw.bases[Base.KERNEL] == 0x123
    assert hw.callbacks[Callback.EVENT] == (0, 0xFFFFFFFF81000100, True)
    assert ("set_gdt", [0x55], 16) in hw.calls
    assert ("set_iopl", 1) in hw.calls
    assert initialise(vcpu, 1, context()) == -Errno.EEXIST
    assert domain.vcpus[1].is_down


@pytest.mark.parametrize(
    "bad",
    [
        {"fs_base": 1 << 47},
        {"event_callback_eip": 1 << 62},
        {"kernel_sp": 0x8000_0000_0000_0000},
        {"gdt_ents": 7169},
        {"ldt_ents": 8193},
        {"ldt_base": 0x1008},
        {"flags": 0},
        {"debugreg": [0, 0, 1 << 47, 0, 0, 0, 0, 0]},
        {"debugreg": [0, 0, 0, 0, 0, 0, 0, 1 << 32]},
    ],
)
def test_initialise_refuses_contexts_that_cannot_be(domain: Any, vcpu: Any, bad: dict[str, int | list[int]]) -> None:
    assert initialise(vcpu, 1, context(**bad)) == -Errno.EINVAL
    assert not domain.vcpus[1].is_initialised


def test_initialise_loads_the_whole_fpu_image_when_told_so(domain: Any, vcpu: Any) -> None:
    image = bytes(range(256)) * 2
    data = image + context(flags=Vgcf.VGCF_in_kernel | Vgcf.VGCF_i387_valid)[512:]
    assert initialise(vcpu, 1, data) == 0
    assert ("load_fpu", image) in domain.vcpus[1].hw.calls


def test_initialise_is_made_again_until_the_page_tables_are_validated(domain: Any, vcpu: Any) -> None:
    hw = domain.vcpus[1].hw
    hw.rounds = 3
    before = domain.hypercall_counts["vcpu_op"]
    assert initialise(vcpu, 1, context()) == 0
    assert domain.hypercall_counts["vcpu_op"] - before == 4
    assert (hw.rounds, hw.bases[Base.KERNEL], domain.vcpus[1].is_initialised) == (0, 0x123, True)


def test_initialise_refuses_page_tables_that_the_machine_refuses(domain: Any, vcpu: Any) -> None:
    domain.vcpus[1].hw.base_refusal = fakes.refusal()
    assert initialise(vcpu, 1, context()) == -Errno.EINVAL
    assert not domain.vcpus[1].is_initialised


def test_the_last_vcpu_that_goes_down_powers_the_domain_off(domain: Any, vcpu: Any) -> None:
    domain.vcpus[1].is_initialised, domain.vcpus[1].is_down = True, False
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_down, 1) == 0
    assert domain.vcpus[1].is_down
    assert domain.shutdown_code is None
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_down, 0) == 0
    assert domain.shutdown_code is ShutdownReason.SHUTDOWN_poweroff


def test_run_states_add_up_to_the_time_that_has_passed(host: Any, vcpu: Any) -> None:
    host.machine.now += 500
    vcpu_thread.step(vcpu)
    host.machine.now += 300
    va = vcpu.hw.place(b"")
    assert hypercall(vcpu, Hypercall.HYPERVISOR_vcpu_op, VcpuOp.VCPUOP_get_runstate_info, 0, va) == 0
    record = vcpu_runstate(vcpu.hw.peek(va, 48))
    assert record.state == RunState.RUNSTATE_running
    assert list(record.time) == [300, 0, 0, 500]


def vcpu_runstate(data: bytes) -> vcpu.vcpu_runstate_info:
    return vcpu.vcpu_runstate_info.from_buffer_copy(data)


def test_a_registered_runstate_area_is_written_with_the_update_flag_taken_back(host: Any, vcpu: Any) -> None:
    enable = (VmAssistCmd.VMASST_CMD_enable, VmAssistType.VMASST_TYPE_runstate_update_flag)
    assert hypercall(vcpu, Hypercall.HYPERVISOR_vm_assist, *enable) == 0
    area = vcpu.hw.place(b"")
    arg = struct.pack("<Q", area)
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_register_runstate_memory_area, 0, arg) == 0
    host.machine.now += 1000
    vcpu_thread.step(vcpu)
    record = vcpu_runstate(vcpu.hw.peek(area, 48))
    assert record.state == RunState.RUNSTATE_running
    assert record.state_entry_time == host.machine.now


def test_the_second_time_area_is_a_copy_of_the_first(host: Any, domain: Any, vcpu: Any) -> None:
    area = vcpu.hw.place(b"")
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_register_vcpu_time_memory_area, 0, struct.pack("<Q", area)) == 0
    assert vcpu.hw.peek(area + 8, 24) == bytes(domain.shared_info[32 + 8 : 64])
    version, _, tsc, system, mul, shift, flags = struct.unpack("<IIQQIbB", vcpu.hw.peek(area, 30))
    assert version % 2 == 0
    assert (tsc, system, mul, shift, flags) == (host.machine.now, host.machine.now, 1 << 31, 1, 1)
    bad = struct.pack("<Q", 0xFFFF800000000000)
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_register_vcpu_time_memory_area, 0, bad) == -Errno.EFAULT
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_register_runstate_memory_area, 0, bad) == -Errno.EFAULT


def test_vcpu_info_moves_once_and_makes_everything_pending(domain: Any, vcpu: Any) -> None:
    (mfn,) = domain.hw.alloc(1)
    arg = struct.pack("<QII", mfn, 0x40, 0)
    domain.shared_info[MASK] = 1
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_register_vcpu_info, 0, arg) == 0
    data = domain.host.memory[mfn * 4096 + 0x40 :][:64]
    assert (data[PENDING], data[MASK]) == (1, 1)
    assert bytes(data[8:16]) == b"\xff" * 8
    assert ("set_vcpu_info", mfn * 4096 + 0x40) in vcpu.hw.calls
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_register_vcpu_info, 0, arg) == -Errno.EINVAL


def test_vcpu_info_must_be_the_guests_own_writable_memory_inside_a_page(domain: Any, vcpu: Any) -> None:
    (mfn,) = domain.hw.alloc(1)
    domain.hw.page_tables.add(mfn)
    for frame in (mfn, domain.shared_info_mfn, 1 << 40):
        arg = struct.pack("<QII", frame, 0, 0)
        assert vcpu_op(vcpu, VcpuOp.VCPUOP_register_vcpu_info, 0, arg) == -Errno.EINVAL
    for offset in (4, 4096 - 56):
        arg = struct.pack("<QII", domain.hw.alloc(1)[0], offset, 0)
        assert vcpu_op(vcpu, VcpuOp.VCPUOP_register_vcpu_info, 0, arg) == -Errno.ENXIO
    domain.vcpus[1].is_down = False
    arg = struct.pack("<QII", domain.hw.alloc(1)[0], 0, 0)
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_register_vcpu_info, 1, arg) == -Errno.EINVAL


def test_an_nmi_wakes_its_vcpu_and_is_injected(domain: Any, vcpu: Any) -> None:
    vcpu.block()
    assert vcpu_op(domain.vcpus[1], VcpuOp.VCPUOP_send_nmi, 0) == 0
    assert not vcpu.is_blocked
    vcpu_thread.step(vcpu)
    assert vcpu.hw.nmis == 1


def test_an_nmi_has_no_argument(vcpu: Any) -> None:
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_send_nmi, 0, bytes(8)) == -Errno.EINVAL


def test_a_runstate_area_of_another_vcpu_is_written_at_once(domain: Any, vcpu: Any) -> None:
    area = vcpu.hw.place(b"\xff" * 48)
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_register_runstate_memory_area, 1, struct.pack("<Q", area)) == 0
    assert vcpu_runstate(vcpu.hw.peek(area, 48)).state == RunState.RUNSTATE_offline


def test_a_pending_event_ends_a_poll_whatever_its_ports_are(domain: Any, vcpu: Any) -> None:
    domain.shared_info[MASK] = 0
    domain.shared_info[PENDING] = 1
    assert poll(vcpu, [5000]) == 0


def test_physical_processor_ids_are_not_for_guests(vcpu: Any) -> None:
    assert vcpu_op(vcpu, VcpuOp.VCPUOP_get_physid, 0) == -Errno.EINVAL
