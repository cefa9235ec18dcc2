# SPDX-License-Identifier: Apache-2.0
"""Privileged instructions of a guest kernel, CPUID and MSRs."""

import struct
from typing import Any

from fakes import make_domain, refusal

from domzero import _machine
from domzero._machine import Base
from domzero.abi import x86
from domzero.abi.arch_x86 import MSR_HYPERCALL_PAGE
from domzero.hypervisor.emulate import cpuid, msr, privileged
from domzero.hypervisor.hypercall_page import hypercall_page

GP, UD = 13, 6


def run(v: Any, insn: "_machine.ExitPrivileged") -> int | None:
    """Emulates and returns the exception that was injected."""
    v.hw.injected.clear()
    v.hw.skipped = 0
    privileged.emulate(v, insn)
    vector = v.hw.injected[0][0] if v.hw.injected else None
    assert v.hw.skipped == (insn.length if vector is None else 0)
    return vector


def mov_from_cr(v: Any, cr: int, register: "_machine.Gpr" = "rax") -> int | None:
    return run(v, _machine.ExitMovFromCr(cr, register, 3))


def mov_to_cr(v: Any, cr: int, register: "_machine.Gpr" = "rax") -> int | None:
    return run(v, _machine.ExitMovToCr(cr, register, 3))


def rdmsr(v: Any, index: int) -> int | None:
    v.hw.regs["rcx"] = index
    if run(v, _machine.ExitRdmsr(2)) is not None:
        return None
    return int(v.hw.regs["rax"] | v.hw.regs["rdx"] << 32)


def wrmsr(v: Any, index: int, value: int) -> bool:
    v.hw.regs.update(rcx=index, rax=value & 0xFFFFFFFF, rdx=value >> 32)
    return run(v, _machine.ExitWrmsr(2)) is None


def test_caches_are_not_the_guests_business(vcpu: Any) -> None:
    assert run(vcpu, _machine.ExitWbinvd(2)) is None


def test_a_refused_instruction_is_a_general_protection_fault_with_an_error_code(vcpu: Any) -> None:
    assert not wrmsr(vcpu, 0xCE, 1 << 31)
    assert vcpu.hw.injected == [(GP, 0)]
    assert vcpu.has_injected


def test_a_load_of_cr3_is_made_again_until_the_page_tables_are_validated(vcpu: Any) -> None:
    vcpu.hw.rounds = 2
    vcpu.hw.regs["rax"] = 0x55000
    for _ in range(2):
        privileged.emulate(vcpu, _machine.ExitMovToCr(3, "rax", 3))
        assert (vcpu.hw.skipped, vcpu.hw.injected, vcpu.hw.bases[Base.KERNEL]) == (0, [], 0)
    privileged.emulate(vcpu, _machine.ExitMovToCr(3, "rax", 3))
    assert (vcpu.hw.skipped, vcpu.hw.bases[Base.KERNEL]) == (3, 0x55)


def test_cr0_shows_a_running_processor_and_only_ts_can_change(vcpu: Any) -> None:
    assert mov_from_cr(vcpu, 0, "rbx") is None
    assert vcpu.hw.regs["rbx"] == cpuid.CR0_VALUE
    vcpu.hw.regs["rbx"] |= 8
    assert mov_to_cr(vcpu, 0, "rbx") is None
    assert vcpu.hw.ts
    vcpu.hw.regs["rbx"] = 0
    assert mov_to_cr(vcpu, 0, "rbx") == GP
    assert run(vcpu, _machine.ExitClts(2)) is None
    assert not vcpu.hw.ts


def test_cr3_is_a_machine_frame(vcpu: Any) -> None:
    vcpu.hw.bases[Base.KERNEL] = 0x1234
    mov_from_cr(vcpu, 3, "r8")
    assert vcpu.hw.regs["r8"] == 0x1234000
    vcpu.hw.regs["r8"] = 0x5678000
    assert mov_to_cr(vcpu, 3, "r8") is None
    assert vcpu.hw.bases[Base.KERNEL] == 0x5678
    vcpu.hw.base_refusal = refusal()
    assert mov_to_cr(vcpu, 3, "r8") == GP


def test_cr4_keeps_what_a_guest_may_not_change(vcpu: Any) -> None:
    vcpu.hw.regs["rax"] = 0xFFFFF
    assert mov_to_cr(vcpu, 4, "rax") is None
    mov_from_cr(vcpu, 4, "rcx")
    assert vcpu.hw.regs["rcx"] == cpuid.CR4_INITIAL | 0x5000C


def test_control_and_debug_registers_that_do_not_exist_are_undefined(vcpu: Any) -> None:
    assert mov_from_cr(vcpu, 1) == UD
    assert mov_to_cr(vcpu, 5) == UD
    assert run(vcpu, _machine.ExitMovFromDr(8, "rax", 3)) == UD
    assert run(vcpu, _machine.ExitMovToDr(9, "rax", 3)) == UD
    assert run(vcpu, _machine.ExitMovFromDr(7, "rdx", 3)) is None
    assert vcpu.hw.regs["rdx"] == 0x107


def test_msrs_have_the_values_a_pv_guest_sees(host: Any, vcpu: Any) -> None:
    vcpu.hw.traps[GP] = (0xE033, 0x1000, 0)
    assert rdmsr(vcpu, x86.MSR_EFER) == 0xD01
    assert rdmsr(vcpu, x86.MSR_TSC) == host.machine.now
    assert rdmsr(vcpu, x86.MSR_APIC_BASE) == 0xFEE00900
    assert rdmsr(vcpu, x86.MSR_PAT) == 0x050100070406
    assert rdmsr(vcpu, 0x12345) is None


def test_an_unknown_msr_reads_as_zero_until_the_guest_can_take_faults(vcpu: Any) -> None:
    assert rdmsr(vcpu, 0x12345) == 0
    assert not wrmsr(vcpu, 0x12345, 1)


def test_cpuid_faulting_can_be_turned_on(vcpu: Any) -> None:
    assert rdmsr(vcpu, 0xCE) == 1 << 31
    assert not wrmsr(vcpu, 0xCE, 1 << 31)
    assert wrmsr(vcpu, 0x140, 1)
    assert rdmsr(vcpu, 0x140) == 1
    assert not wrmsr(vcpu, 0x140, 2)


def test_what_the_virtual_processor_has_none_of_reads_as_zero_and_ignores_writes(vcpu: Any) -> None:
    for index in (0xC0010000, 0xC0010201, 0xC0010064, 0x17A):
        assert wrmsr(vcpu, index, 5)
        assert rdmsr(vcpu, index) == 0
    assert rdmsr(vcpu, 0x179) == 2
    assert rdmsr(vcpu, 0x400) == 2**64 - 1


def test_tsc_aux_has_thirty_two_bits(vcpu: Any) -> None:
    assert wrmsr(vcpu, 0xC0000103, 7)
    assert rdmsr(vcpu, 0xC0000103) == 7
    assert not wrmsr(vcpu, 0xC0000103, 1 << 32)


def test_of_efer_only_automatic_ibrs_can_be_written(vcpu: Any) -> None:
    assert wrmsr(vcpu, x86.MSR_EFER, 0xD01 | 1 << 21)
    assert rdmsr(vcpu, x86.MSR_EFER) == 0xD01 | 1 << 21
    assert not wrmsr(vcpu, x86.MSR_EFER, 0xD00)


def test_each_breakpoint_has_an_address_mask_of_32_bits(vcpu: Any) -> None:
    assert {leaf[0]: leaf[4] for leaf in cpuid.leaves(vcpu.domain, 0)}[0x80000001] >> 26 & 1  # dbext
    for number, index in enumerate(msr.ADDRESS_MASKS):
        assert rdmsr(vcpu, index) == 0
        assert wrmsr(vcpu, index, 0xFFF0 + number)
        assert not wrmsr(vcpu, index, 1 << 32)
    assert [rdmsr(vcpu, index) for index in msr.ADDRESS_MASKS] == [0xFFF0, 0xFFF1, 0xFFF2, 0xFFF3]


def test_the_hypercall_page_can_be_had_through_its_msr(domain: Any, vcpu: Any) -> None:
    (mfn,) = domain.hw.alloc(1)
    assert wrmsr(vcpu, MSR_HYPERCALL_PAGE, mfn << 12)
    assert domain.host.machine.read(mfn * 4096, 4096) == hypercall_page(False)
    assert not wrmsr(vcpu, MSR_HYPERCALL_PAGE, domain.shared_info_mfn << 12)
    assert domain.hw.refs == {}


def test_cpuid_shows_xen_and_hides_what_xen_hides_from_pv(domain: Any) -> None:
    table = {(leaf[0], leaf[1]): leaf[2:] for leaf in cpuid.leaves(domain, 1)}
    signature = struct.pack("<3I", *table[0x40000000, None][1:])
    assert signature == b"XenVMMXenVMM"
    assert table[0x40000001, None][0] == 4 << 16 | 17
    assert table[1, None][1] >> 24 == 1
    edx, ecx = table[1, None][3], table[1, None][2]
    for hidden in (1, 3, 12, 13, 17):  # vme pse mtrr pge pse36
        assert not edx >> hidden & 1
    for hidden in (17, 21, 24, 27):  # pcid x2apic tsc-deadline, and osxsave, which follows CR4
        assert not ecx >> hidden & 1
    assert ecx >> 31 & 1
    assert ecx >> 30 & 1 and table[7, 0][1] >> 18 & 1  # rdrand, rdseed


def test_hypercall_stubs_are_thirty_two_bytes_each(host: Any) -> None:
    page = hypercall_page(False)
    assert len(page) == 4096
    assert page[17 * 32 :].startswith(b"\x51\x41\x53\xb8\x11\0\0\0\x0f\x05\x41\x5b\x59\xc3")
    assert page[23 * 32 :].startswith(b"\x51\x41\x53\x50\xb8\x17\0\0\0\x0f\x05")
    assert hypercall_page(True)[17 * 32 :].startswith(b"\xb8\x11\0\0\0\xcd\x82\xc3")
    v = make_domain(host, is_32bit=True).vcpus[0]
    assert rdmsr(v, x86.MSR_FS_BASE) == 0
