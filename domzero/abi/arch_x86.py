# SPDX-License-Identifier: Apache-2.0
"""arch-x86/xen*.h: registers, trap table, vCPU context, flat selectors, the memory windows of the hypervisor."""

from collections.abc import MutableSequence
from enum import IntEnum, IntFlag

from domzero.abi.layout import Annotated, Wire, array, chars, u8, u16, u32, u64, ulong, wire

FIRST_RESERVED_GDT_PAGE = 14
FIRST_RESERVED_GDT_BYTE = FIRST_RESERVED_GDT_PAGE * 4096
FIRST_RESERVED_GDT_ENTRY = FIRST_RESERVED_GDT_BYTE // 8

FLAT_RING3_CS32 = 0xE023
FLAT_RING3_CS64 = 0xE033
FLAT_RING3_DS32 = 0xE02B
FLAT_RING3_SS32 = 0xE02B
FLAT_RING3_SS64 = 0xE02B
FLAT_KERNEL_CS64 = FLAT_RING3_CS64
FLAT_KERNEL_SS64 = FLAT_RING3_SS64
FLAT_KERNEL_DS64 = 0

FLAT_COMPAT_RING1_CS = 0xE019
FLAT_COMPAT_RING1_DS = 0xE021
FLAT_COMPAT_RING1_SS = 0xE021
FLAT_COMPAT_RING3_CS = 0xE02B
FLAT_COMPAT_RING3_DS = 0xE033
FLAT_COMPAT_RING3_SS = 0xE033
"""xen-x86_32.h names these FLAT_RING1_CS and so on."""

HYPERVISOR_VIRT_START = 0xFFFF800000000000
HYPERVISOR_VIRT_END = 0xFFFF880000000000
MACH2PHYS_VIRT_START = 0xFFFF800000000000
MACH2PHYS_VIRT_END = 0xFFFF804000000000
MACH2PHYS_NR_ENTRIES = (MACH2PHYS_VIRT_END - MACH2PHYS_VIRT_START) >> 3

HYPERVISOR_VIRT_START_PAE = 0xF5800000
MACH2PHYS_VIRT_START_PAE = 0xF5800000
MACH2PHYS_VIRT_END_PAE = 0xF6800000
MACH2PHYS_NR_ENTRIES_PAE = (MACH2PHYS_VIRT_END_PAE - MACH2PHYS_VIRT_START_PAE) >> 2

MACH2PHYS_COMPAT_VIRT_END = 0xFFE00000
"""Where the window of 32-bit guests ends on a 64-bit Xen; their own header ends it earlier."""

MSR_HYPERCALL_PAGE = 0x40000000
"""Writing it is the way of HVM guests to the hypercall page; Xen's CPUID leaf 2 tells its number."""
VGCF_in_syscall = 1 << 8
XEN_CPUID_NO_SUBLEAF = 0xFFFFFFFF
XEN_EMULATE_PREFIX = b"\x0f\x0bxen"


class SegBase(IntEnum):
    """`which` of set_segment_base."""

    SEGBASE_FS = 0
    SEGBASE_GS_USER = 1
    SEGBASE_GS_KERNEL = 2
    SEGBASE_GS_USER_SEL = 3


class Vgcf(IntFlag):
    """vcpu_guest_context.flags."""

    VGCF_i387_valid = 1 << 0
    VGCF_in_kernel = 1 << 2
    VGCF_failsafe_disables_events = 1 << 3
    VGCF_syscall_disables_events = 1 << 4
    VGCF_online = 1 << 5


@wire
class trap_info(Wire):
    """One entry of set_trap_table."""

    vector: u8
    flags: u8
    cs: u16
    address: ulong


class _cpu_user_regs_compat(Wire):
    ebx: u32
    ecx: u32
    edx: u32
    esi: u32
    edi: u32
    ebp: u32
    eax: u32
    error_code: u16
    entry_vector: u16
    eip: u32
    cs: u16
    saved_upcall_mask: u8
    _pad0: u8
    eflags: u32
    esp: u32
    ss: u16
    _pad1: u16
    es: u16
    _pad2: u16
    ds: u16
    _pad3: u16
    fs: u16
    _pad4: u16
    gs: u16
    _pad5: u16


@wire(compat=_cpu_user_regs_compat)
class cpu_user_regs(Wire):
    """General registers of a vCPU."""

    r15: u64
    r14: u64
    r13: u64
    r12: u64
    rbp: u64
    rbx: u64
    r11: u64
    r10: u64
    r9: u64
    r8: u64
    rax: u64
    rcx: u64
    rdx: u64
    rsi: u64
    rdi: u64
    error_code: u32
    entry_vector: u32
    rip: u64
    cs: u16
    _pad0: u16
    saved_upcall_mask: u8
    _pad1: Annotated[bytes, chars(3)]
    rflags: u64
    rsp: u64
    ss: u16
    _pad2: Annotated[bytes, chars(6)]
    es: u16
    _pad3: Annotated[bytes, chars(6)]
    ds: u16
    _pad4: Annotated[bytes, chars(6)]
    fs: u16
    _pad5: Annotated[bytes, chars(6)]
    gs: u16
    _pad6: Annotated[bytes, chars(6)]


class _vcpu_guest_context_compat(Wire):
    fpu_ctxt: Annotated[bytes, chars(512)]
    flags: ulong
    user_regs: cpu_user_regs
    trap_ctxt: Annotated[MutableSequence[trap_info], array(trap_info, 256)]
    ldt_base: ulong
    ldt_ents: ulong
    gdt_frames: Annotated[MutableSequence[int], array(ulong, 16)]
    gdt_ents: ulong
    kernel_ss: ulong
    kernel_sp: ulong
    ctrlreg: Annotated[MutableSequence[int], array(ulong, 8)]
    debugreg: Annotated[MutableSequence[int], array(ulong, 8)]
    event_callback_cs: ulong
    event_callback_eip: ulong
    failsafe_callback_cs: ulong
    failsafe_callback_eip: ulong
    vm_assist: ulong


@wire(compat=_vcpu_guest_context_compat)
class vcpu_guest_context(Wire):
    """The whole state of a vCPU, for VCPUOP_initialise."""

    fpu_ctxt: Annotated[bytes, chars(512)]
    flags: ulong
    user_regs: cpu_user_regs
    trap_ctxt: Annotated[MutableSequence[trap_info], array(trap_info, 256)]
    ldt_base: ulong
    ldt_ents: ulong
    gdt_frames: Annotated[MutableSequence[int], array(ulong, 16)]
    gdt_ents: ulong
    kernel_ss: ulong
    kernel_sp: ulong
    ctrlreg: Annotated[MutableSequence[int], array(ulong, 8)]
    debugreg: Annotated[MutableSequence[int], array(ulong, 8)]
    event_callback_eip: ulong
    failsafe_callback_eip: ulong
    syscall_callback_eip: ulong
    vm_assist: ulong
    fs_base: u64
    gs_base_kernel: u64
    gs_base_user: u64


class _iret_context_compat(Wire):
    """Not in the headers: a 32-bit guest's iret hypercall takes the hardware's frame with eax on top."""

    eax: u32
    eip: u32
    cs: u32
    eflags: u32
    esp: u32
    ss: u32


@wire(compat=_iret_context_compat)
class iret_context(Wire):
    """The frame of the iret hypercall, from the stack pointer up."""

    rax: u64
    r11: u64
    rcx: u64
    flags: u64
    rip: u64
    cs: u64
    rflags: u64
    rsp: u64
    ss: u64


def xen_cr3_to_pfn(cr3: int, *, is_32bit: bool = False) -> int:
    """The frame of a page-table root in cr3's guest format (32-bit guests fold bits 32.. into the low 12)."""
    if is_32bit:
        return ((cr3 & 0xFFFFFFFF) >> 12) | ((cr3 << 20) & 0xFFFFFFFF)
    return cr3 >> 12


def xen_pfn_to_cr3(pfn: int, *, is_32bit: bool = False) -> int:
    """The inverse of `xen_cr3_to_pfn`."""
    if is_32bit:
        return ((pfn << 12) & 0xFFFFFFFF) | ((pfn & 0xFFFFFFFF) >> 20)
    return pfn << 12
