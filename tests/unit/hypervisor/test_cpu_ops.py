# SPDX-License-Identifier: Apache-2.0
"""Traps, callbacks, descriptors, vm_assist, xen_version, console_io, physdev_op, multicall, and what is refused."""

import struct
from typing import Any

import pytest
from fakes import hypercall, make_domain

from domzero._machine import Callback
from domzero.abi.arch_x86 import trap_info
from domzero.abi.errno import Errno
from domzero.abi.xen import Hypercall, multicall_entry
from domzero.hypervisor import hypercalls
from domzero.hypervisor.hypercalls import TABLE, State

H = Hypercall


def traps(*entries: tuple[int, int, int, int]) -> bytes:
    return b"".join(bytes(trap_info(*entry)) for entry in entries) + bytes(16)


def test_set_trap_table_registers_handlers_with_the_kernels_rpl(vcpu: Any) -> None:
    va = vcpu.hw.place(traps((14, 4, 0xE030, 0xFFFFFFFF81000000), (3, 3, 0xE033, 0x1000)))
    assert hypercall(vcpu, H.HYPERVISOR_set_trap_table, va) == 0
    assert vcpu.hw.traps == {14: (0xE033, 0xFFFFFFFF81000000, 4), 3: (0xE033, 0x1000, 3)}


def test_set_trap_table_without_a_table_clears_it(vcpu: Any) -> None:
    vcpu.hw.traps[14] = (1, 2, 3)
    assert hypercall(vcpu, H.HYPERVISOR_set_trap_table, 0) == 0
    assert vcpu.hw.traps[14] == (0, 0, 0)


def test_trap_handlers_must_be_canonical_and_the_table_mapped(vcpu: Any) -> None:
    va = vcpu.hw.place(traps((14, 4, 0xE030, 1 << 47)))
    assert hypercall(vcpu, H.HYPERVISOR_set_trap_table, va) == -Errno.EINVAL
    assert hypercall(vcpu, H.HYPERVISOR_set_trap_table, 0x1000) == -Errno.EFAULT
    assert hypercall(vcpu, H.HYPERVISOR_set_trap_table, 0xFFFF800000000000) == -Errno.EFAULT


def test_a_trap_table_that_never_ends_is_taken_in_rounds_and_ends_in_a_fault(vcpu: Any) -> None:
    entries = bytes(trap_info(3, 0, 0xE033, 0x1000)) * 256
    va = vcpu.hw.place(entries)
    assert hypercall(vcpu, H.HYPERVISOR_set_trap_table, va) == -Errno.EFAULT


def test_set_callbacks_registers_three_entry_points(vcpu: Any) -> None:
    assert hypercall(vcpu, H.HYPERVISOR_set_callbacks, 0x1000, 0x2000, 0x3000) == 0
    assert vcpu.hw.callbacks == {
        Callback.EVENT: (0xE033, 0x1000, True),
        Callback.FAILSAFE: (0xE033, 0x2000, False),
        Callback.SYSCALL: (0xE033, 0x3000, False),
    }
    assert hypercall(vcpu, H.HYPERVISOR_set_callbacks, 1 << 50, 0x5000, 0) == 0
    assert vcpu.hw.callbacks[Callback.EVENT][1] == 0x1000
    assert vcpu.hw.callbacks[Callback.FAILSAFE][1] == 0x5000


def callback(v: Any, command: int, kind: int, flags: int = 0, address: int = 0x1000) -> int:
    va = v.hw.place(struct.pack("<HHxxxxQ", kind, flags, address))
    return hypercall(v, H.HYPERVISOR_callback_op, command, va)


def test_callback_op_registers_every_kind(vcpu: Any) -> None:
    for kind in (0, 1, 2, 4, 5, 7):
        assert callback(vcpu, 0, kind, 1) == 0
    assert set(vcpu.hw.callbacks) == {
        Callback.EVENT,
        Callback.FAILSAFE,
        Callback.SYSCALL,
        Callback.SYSENTER,
        Callback.SYSCALL32,
    }
    assert vcpu.hw.traps[2] == (0xE033, 0x1000, 4)
    assert vcpu.hw.callbacks[Callback.SYSCALL] == (0xE033, 0x1000, True)
    assert callback(vcpu, 0, 3) == -Errno.ENOSYS
    assert callback(vcpu, 0, 6) == -Errno.ENOSYS
    assert callback(vcpu, 0, 0, 0, 1 << 47) == -Errno.EINVAL


def test_only_the_nmi_callback_can_be_unregistered(vcpu: Any) -> None:
    assert callback(vcpu, 1, 4) == 0
    assert callback(vcpu, 1, 0) == -Errno.EINVAL
    assert callback(vcpu, 1, 9) == -Errno.ENOSYS
    assert callback(vcpu, 2, 0) == -Errno.ENOSYS


def test_nmi_op_registers_the_nmi_callback(vcpu: Any) -> None:
    va = vcpu.hw.place(struct.pack("<QQ", 0x4000, 0))
    assert hypercall(vcpu, H.HYPERVISOR_nmi_op, 0, va) == 0
    assert vcpu.hw.traps[2] == (0xE033, 0x4000, 4)
    assert hypercall(vcpu, H.HYPERVISOR_nmi_op, 1, 0) == 0
    assert vcpu.hw.traps[2] == (0, 0, 0)
    assert hypercall(vcpu, H.HYPERVISOR_nmi_op, 2, 0) == -Errno.ENOSYS


def test_set_gdt_takes_as_many_frames_as_its_entries_need(vcpu: Any) -> None:
    va = vcpu.hw.place(struct.pack("<3Q", 5, 6, 7))
    assert hypercall(vcpu, H.HYPERVISOR_set_gdt, va, 513) == 0
    assert ("set_gdt", [5, 6], 513) in vcpu.hw.calls
    assert hypercall(vcpu, H.HYPERVISOR_set_gdt, va, 7169) == -Errno.EINVAL
    assert hypercall(vcpu, H.HYPERVISOR_set_gdt, 0x1000, 1) == -Errno.EFAULT


def test_debug_registers_outside_the_range_do_not_exist(vcpu: Any) -> None:
    assert hypercall(vcpu, H.HYPERVISOR_set_debugreg, 8, 0) == -Errno.ENODEV
    assert hypercall(vcpu, H.HYPERVISOR_set_debugreg, 0xFFFFFFFF, 0) == -Errno.ENODEV
    assert hypercall(vcpu, H.HYPERVISOR_get_debugreg, 8) == -Errno.ENODEV
    assert hypercall(vcpu, H.HYPERVISOR_get_debugreg, 7) == 0x107


def test_arguments_are_cut_to_their_declared_width(vcpu: Any) -> None:
    assert hypercall(vcpu, H.HYPERVISOR_fpu_taskswitch, 1 << 32) == 0
    assert vcpu.hw.ts is False
    assert hypercall(vcpu, H.HYPERVISOR_xen_version, 1 << 32, 0) == 0x40011
    hypercall(vcpu, H.HYPERVISOR_mmu_update, 1 << 40, (1 << 32) + 2, 1 << 41, (1 << 33) + 0x7FF0)
    assert ("mmu_update", 1 << 40, 2, 1 << 41, 0x7FF0) in vcpu.hw.calls


def test_a_32_bit_guest_passes_64_bit_values_in_two_registers(host: Any) -> None:
    v = make_domain(host, is_32bit=True).vcpus[0]
    assert hypercall(v, H.HYPERVISOR_update_va_mapping, 0x1000, 0x80000063, 0x1, 2) == 0
    assert ("update_va_mapping", 0x1000, 0x180000063, 2) in v.hw.calls
    assert hypercall(v, H.HYPERVISOR_set_segment_base, 0, 0) == -Errno.ENOSYS


def test_vm_assist_knows_its_types(domain: Any, vcpu: Any) -> None:
    domain.vcpus[1].in_guest = True
    assert hypercall(vcpu, H.HYPERVISOR_vm_assist, 0, 2) == 0
    assert hypercall(vcpu, H.HYPERVISOR_vm_assist, 0, 32) == 0
    assert domain.vm_assist == 1 << 2 | 1 << 32
    assert hypercall(vcpu, H.HYPERVISOR_vm_assist, 1, 2) == 0
    assert domain.vm_assist == 1 << 32
    for assist in (6, 31, 33, 64, 0xFFFFFFFF):
        assert hypercall(vcpu, H.HYPERVISOR_vm_assist, 0, assist) == -Errno.EINVAL
    assert hypercall(vcpu, H.HYPERVISOR_vm_assist, 2, 2) == -Errno.ENOSYS
    assert hypercall(vcpu, H.HYPERVISOR_vm_assist, 2, 6) == -Errno.EINVAL, "the type is looked at first"
    assert domain.hw.vm_assist == 1 << 32, "the machine keeps it, for all vCPUs"
    assert domain.vcpus[1].hw.kicked == 3, (
        "each change interrupts the other vCPUs, which look at it when they run again"
    )


def version(v: Any, command: int, data: bytes = b"") -> tuple[int, bytes]:
    va = v.hw.place(data)
    return hypercall(v, H.HYPERVISOR_xen_version, command, va), v.hw.peek(va, 1100)


def test_xen_version_answers_what_every_guest_may_ask(domain: Any, vcpu: Any) -> None:
    assert hypercall(vcpu, H.HYPERVISOR_xen_version, 0, 0) == 4 << 16 | 17
    assert hypercall(vcpu, H.HYPERVISOR_xen_version, 7, 0) == 4096
    assert hypercall(vcpu, H.HYPERVISOR_xen_version, 7, 1) == -Errno.EINVAL
    assert version(vcpu, 1)[1].startswith(b".0-domzero\0")
    assert b"xen-3.0-x86_64" in version(vcpu, 3)[1]
    assert version(vcpu, 5)[1][:8] == struct.pack("<Q", 0xFFFF800000000000)
    assert version(vcpu, 8)[1][:16] == domain.uuid.bytes
    assert version(vcpu, 9)[1].startswith(b"<denied>")
    assert version(vcpu, 10)[0] == -Errno.EPERM
    assert version(vcpu, 11)[0] == -Errno.ENOSYS
    for command in (1, 2, 3, 4, 5, 6, 8, 9):
        assert hypercall(vcpu, H.HYPERVISOR_xen_version, command, 0x1000) == -Errno.EFAULT


def test_features_are_those_of_a_pv_guest(vcpu: Any) -> None:
    rc, data = version(vcpu, 6, struct.pack("<I", 0))
    assert (rc, data[:8]) == (0, struct.pack("<II", 0, 0x220E0))
    assert version(vcpu, 6, struct.pack("<I", 1))[0] == -Errno.EINVAL


def test_console_io_writes_go_to_the_sink_and_reads_are_refused(domain: Any, vcpu: Any) -> None:
    seen: list[bytes] = []
    domain.console_sink = seen.append
    va = vcpu.hw.place(b"hello")
    assert hypercall(vcpu, H.HYPERVISOR_console_io, 0, 5, va) == 0
    assert seen == [b"hello"]
    long = vcpu.hw.place(b"x" * 4096)
    seen.clear()
    assert hypercall(vcpu, H.HYPERVISOR_console_io, 0, 8192, long) == -Errno.EFAULT
    assert [len(text) for text in seen] == [4096]
    assert hypercall(vcpu, H.HYPERVISOR_console_io, 0, 5, 0x1000) == -Errno.EFAULT
    assert hypercall(vcpu, H.HYPERVISOR_console_io, 1, 5, va) == -Errno.EPERM
    assert hypercall(vcpu, H.HYPERVISOR_console_io, 2, 5, va) == -Errno.EPERM


def physdev(v: Any, command: int, data: bytes = bytes(64)) -> int:
    return hypercall(v, H.HYPERVISOR_physdev_op, command, v.hw.place(data))


def test_iopl_and_the_io_bitmap_can_be_set(vcpu: Any) -> None:
    assert physdev(vcpu, 6, struct.pack("<I", 1)) == 0
    assert ("set_iopl", 1) in vcpu.hw.calls
    assert physdev(vcpu, 6, struct.pack("<I", 4)) == -Errno.EINVAL
    bitmap = vcpu.hw.place(b"\xfe\xff")
    assert physdev(vcpu, 7, struct.pack("<QI", bitmap, 16)) == 0
    assert ("set_io_bitmap", bitmap, 16) in vcpu.hw.calls
    assert physdev(vcpu, 7, struct.pack("<QI", bitmap, 65537)) == -Errno.EINVAL
    assert physdev(vcpu, 7, struct.pack("<QI", 0x800000000000, 16)) == -Errno.EINVAL


def test_interrupts_and_devices_are_not_for_guests(vcpu: Any) -> None:
    for command in (8, 9, 10, 13, 14, 15, 16, 19, 20, 21, 24, 25, 26, 27, 29, 30, 31):
        assert physdev(vcpu, command) == -Errno.EPERM
        unmapped = hypercall(vcpu, H.HYPERVISOR_physdev_op, command, 0x1000)
        assert unmapped == (-Errno.EPERM if command in (24, 29) else -Errno.EFAULT)
    for command in (13, 14):
        assert physdev(vcpu, command, struct.pack("<H62x", 999)) == -Errno.ESRCH
    assert physdev(vcpu, 21, struct.pack("<i60x", -1)) == -Errno.EINVAL
    assert physdev(vcpu, 20, struct.pack("<BxxxII52x", 0, 2, 0)) == -Errno.EINVAL
    assert physdev(vcpu, 4) == 0
    assert physdev(vcpu, 11) == -Errno.ENOSYS
    assert physdev(vcpu, 12) == -Errno.EINVAL
    assert physdev(vcpu, 5) == 0
    assert physdev(vcpu, 5, struct.pack("<I", 5000)) == -Errno.EINVAL
    assert physdev(vcpu, 99) == -Errno.ENOSYS


def test_free_interrupt_numbers_are_bounded_and_can_be_acknowledged(vcpu: Any) -> None:
    gsis = set()
    va = vcpu.hw.place(b"")
    for _ in range(8):
        vcpu.hw.write_va(va, struct.pack("<iI", 1, 0))
        assert hypercall(vcpu, H.HYPERVISOR_physdev_op, 23, va) == 0
        gsis.add(struct.unpack("<I", vcpu.hw.peek(va + 4, 4))[0])
    assert gsis == set(range(16, 24))
    assert hypercall(vcpu, H.HYPERVISOR_physdev_op, 23, va) == -Errno.ENOSPC
    assert physdev(vcpu, 12, struct.pack("<I", 16)) == 0
    assert physdev(vcpu, 12, struct.pack("<I", 15)) == -Errno.EINVAL


def test_the_acknowledgement_page_is_one_writable_frame_of_the_guest(domain: Any, vcpu: Any) -> None:
    first, second = domain.hw.alloc(2)
    assert physdev(vcpu, 28, struct.pack("<Q", domain.shared_info_mfn)) == -Errno.EINVAL
    assert physdev(vcpu, 28, struct.pack("<Q", first)) == 0
    assert physdev(vcpu, 17, struct.pack("<Q", second)) == -Errno.EBUSY
    assert domain.hw.refs == {(first, True): 1}
    assert domain.host.destroy_domain(domain) == 0
    assert domain.hw.refs == {}


def test_the_old_physdev_op_takes_command_and_argument_together(vcpu: Any) -> None:
    va = vcpu.hw.place(struct.pack("<II", 6, 0) + struct.pack("<I", 2))
    assert hypercall(vcpu, H.HYPERVISOR_physdev_op_compat, va) == 0
    assert ("set_iopl", 2) in vcpu.hw.calls
    va = vcpu.hw.place(struct.pack("<II", 12, 0))
    assert hypercall(vcpu, H.HYPERVISOR_physdev_op_compat, va) == -Errno.ENOSYS


def calls(*entries: tuple[int, ...]) -> bytes:
    return b"".join(struct.pack("<8Q", op, 0xDEAD, *args, *([0] * (6 - len(args)))) for op, *args in entries)


def results(v: Any, va: int, count: int) -> list[int]:
    return [multicall_entry.from_buffer_copy(v.hw.peek(va + 64 * i, 64)).result for i in range(count)]


def test_a_multicall_makes_each_call_and_stores_its_result(vcpu: Any) -> None:
    va = vcpu.hw.place(calls((17, 0, 0), (5, 1), (60,), (17, 7, 1)))
    assert hypercall(vcpu, H.HYPERVISOR_multicall, va, 4) == 0
    assert results(vcpu, va, 4) == [0x40011, 0, 2**64 - Errno.ENOSYS, 2**64 - Errno.EINVAL]
    assert vcpu.hw.ts


def test_multicalls_do_not_nest(vcpu: Any) -> None:
    inner = vcpu.hw.place(calls((17, 0, 0)))
    va = vcpu.hw.place(calls((13, inner, 1)))
    assert hypercall(vcpu, H.HYPERVISOR_multicall, va, 1) == 0
    assert results(vcpu, va, 1) == [2**64 - Errno.EINVAL]


def test_a_multicall_that_runs_into_unmapped_memory_is_efault(vcpu: Any) -> None:
    va = vcpu.hw.place(calls((17, 0, 0)), 4096 - 64)
    assert hypercall(vcpu, H.HYPERVISOR_multicall, va, 0xFFFFFFFF) == -Errno.EFAULT
    assert results(vcpu, va, 1) == [0x40011]
    assert not vcpu.in_multicall


def test_a_multicall_stops_when_the_domain_does(domain: Any, vcpu: Any) -> None:
    reason = vcpu.hw.place(struct.pack("<I", 0))
    va = vcpu.hw.place(calls((29, 2, reason), (17, 0, 0)))
    hypercalls.dispatch(vcpu, H.HYPERVISOR_multicall, (va, 2, 0, 0, 0, 0))
    assert results(vcpu, va, 2) == [0, 0xDEAD]
    assert not vcpu.may_run


def test_a_call_that_is_continued_inside_a_multicall_says_so_in_its_entry(domain: Any, vcpu: Any) -> None:
    domain.console_sink = lambda _data: None
    text = vcpu.hw.place(b"x" * 4096)
    va = vcpu.hw.place(calls((18, 0, 5000, text), (17, 0, 0)))
    hypercalls.dispatch(vcpu, H.HYPERVISOR_multicall, (va, 2, 0, 0, 0, 0))
    assert vcpu.hw.restarted
    assert (vcpu.hw.regs["rdi"], vcpu.hw.regs["rsi"]) == (va, 2)
    assert struct.unpack("<3Q", vcpu.hw.peek(va + 16, 24)) == (0, 5000 - 4096, text + 4096)


def test_a_long_multicall_lets_others_have_their_turn_and_is_done_whole(vcpu: Any) -> None:
    va = vcpu.hw.place(calls(*[(17, 0, 0)] * 60))
    hypercalls.dispatch(vcpu, H.HYPERVISOR_multicall, (va, 60, 0, 0, 0, 0))
    assert vcpu.hw.restarted
    assert hypercall(vcpu, H.HYPERVISOR_multicall, vcpu.hw.regs["rdi"], vcpu.hw.regs["rsi"]) == 0
    assert results(vcpu, va, 60) == [0x40011] * 60


def test_iret_ends_a_multicall_and_its_registers_stay(vcpu: Any) -> None:
    va = vcpu.hw.place(calls((23,), (17, 0, 0)))
    hypercalls.dispatch(vcpu, H.HYPERVISOR_multicall, (va, 2, 0, 0, 0, 0))
    assert ("iret",) in vcpu.hw.calls
    assert vcpu.hw.result is None
    assert not vcpu.hw.restarted
    assert results(vcpu, va, 2) == [0xDEAD, 0xDEAD]


def control(v: Any, nr: int, version_: int, domid: int = 0) -> int:
    return hypercall(v, nr, v.hw.place(struct.pack("<IIH", 1, version_, domid) + bytes(160)))


def test_hvm_parameters_are_not_for_pv_guests(vcpu: Any) -> None:
    va = vcpu.hw.place(struct.pack("<HHIQ", 0x7FF0, 0, 1, 0))
    assert hypercall(vcpu, H.HYPERVISOR_hvm_op, 0, va) == -Errno.EINVAL
    assert hypercall(vcpu, H.HYPERVISOR_hvm_op, 1, 0x1000) == -Errno.EFAULT
    assert hypercall(vcpu, H.HYPERVISOR_hvm_op, 50, va) == -Errno.ENOSYS


def test_an_unknown_hypercall_is_logged_once(host: Any, vcpu: Any) -> None:
    for _ in range(3):
        hypercall(vcpu, 43)
    assert [line for line in host.log_lines if "unimplemented" in line] == ["(XEN) d1 unimplemented hypercall 43"]


def test_a_guest_cannot_fill_the_log(host: Any, vcpu: Any) -> None:
    for nr in range(1000, 2000):
        hypercall(vcpu, nr)
    assert len(host.log_lines) < 300


def test_hypercalls_are_counted_and_traced(domain: Any, vcpu: Any) -> None:
    seen: list[tuple[str, int]] = []
    domain.trace = lambda _vcpu, name, _args, rc: seen.append((name, rc))
    hypercall(vcpu, H.HYPERVISOR_xen_version, 0, 0)
    assert seen == [("xen_version", 0x40011)]
    assert domain.hypercall_counts["xen_version"] == 1


def test_no_bad_pointer_gets_past_any_hypercall(domain: Any, vcpu: Any) -> None:
    """Whatever a guest passes, it gets a number back."""
    for nr in TABLE:
        for value in (0, 1, 0x1000, 0x7FFFFFFFFFFF, 0x800000000000, 0xFFFF800000000000, 2**64 - 1):
            for command in range(40):
                domain.shutdown_code = domain.latched_code = None
                assert isinstance(hypercall(vcpu, nr, command, value, value, value, value, value), int)


def test_registering_a_command_twice_is_an_error() -> None:
    row = TABLE[H.HYPERVISOR_sched_op]
    with pytest.raises(ValueError, match="twice"):
        row.sub(next(iter(row.commands or [])))(lambda _vcpu: 0)
    assert row.state is State.DONE
