"""Privileged instructions of the guest kernel, as Xen emulates them for PV."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from domzero import _machine
from domzero.abi.arch_x86 import MSR_HYPERCALL_PAGE, xen_cr3_to_pfn, xen_pfn_to_cr3
from domzero.abi.errno import Errno
from domzero.abi.x86 import X86_CR0_TS, Vector
from domzero.hypervisor.emulate import cpuid, msr
from domzero.hypervisor.hypercall_page import fill_hypercall_page

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

PAGE_MASK = 0xFFF

REGISTERS = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip


def emulate(vcpu: "Vcpu", insn: _machine.ExitPrivileged) -> None:
    """Emulates one instruction and moves past it, or gives the guest the exception it asked for."""
    handler = _HANDLERS.get(insn.kind)
    vector = handler(vcpu, insn) if handler is not None else Vector.GP
    if vector is None:
        vcpu.hw.skip(insn.length)
        return
    vcpu.has_injected = True
    if vector == Vector.GP:
        vcpu.hw.inject(Vector.GP, 0)
    else:
        vcpu.hw.inject(vector)


Insn = _machine.ExitPrivileged
Raised = int | None


def _nothing(_vcpu: "Vcpu", _insn: Insn) -> Raised:
    return None


def _rdmsr(vcpu: "Vcpu", _insn: Insn) -> Raised:
    index = vcpu.hw.get_reg("rcx") & 0xFFFFFFFF
    value = msr.read(vcpu, index)
    if value is None:
        vcpu.domain.log_once(f"rdmsr {index:x}", f"RDMSR 0x{index:08x} unimplemented")
        if vcpu.hw.get_trap(Vector.GP)[1] != 0:
            return Vector.GP
        # Kernels read MSRs before they have set up exception handlers: see set_trap_table in arch-x86/xen.h.
        value = 0
    vcpu.hw.set_reg("rax", value & 0xFFFFFFFF)
    vcpu.hw.set_reg("rdx", value >> 32)
    return None


def _wrmsr(vcpu: "Vcpu", _insn: Insn) -> Raised:
    hw = vcpu.hw
    index = hw.get_reg("rcx") & 0xFFFFFFFF
    value = (hw.get_reg("rdx") & 0xFFFFFFFF) << 32 | hw.get_reg("rax") & 0xFFFFFFFF
    if index == MSR_HYPERCALL_PAGE:
        # The low bits choose a page; there is one.
        is_first = value & PAGE_MASK == 0
        return None if is_first and fill_hypercall_page(vcpu.domain, value >> 12) else Vector.GP
    if msr.write(vcpu, index, value):
        return None
    vcpu.domain.log_once(f"wrmsr {index:x}", f"WRMSR 0x{index:08x} val 0x{value:016x} unimplemented")
    return Vector.GP


def _mov_from_cr(vcpu: "Vcpu", insn: Insn) -> Raised:
    match insn.a:
        case 0:
            value = cpuid.CR0_VALUE | (X86_CR0_TS if vcpu.hw.get_cr0_ts() else 0)
        case 2:
            value = vcpu.hw.get_reg("cr2")
        case 3:
            value = xen_pfn_to_cr3(vcpu.hw.get_base("kernel"), is_32bit=vcpu.domain.is_32bit)
        case 4:
            value = vcpu.hw.get_cr4()
        case _:
            return Vector.UD if insn.a != 8 else Vector.GP
    vcpu.hw.set_reg(REGISTERS[insn.b & 15], value)
    return None


def _mov_to_cr(vcpu: "Vcpu", insn: Insn) -> Raised:
    value = vcpu.hw.get_reg(REGISTERS[insn.b & 15])
    match insn.a:
        case 0:
            if (value ^ cpuid.CR0_VALUE) & ~X86_CR0_TS:
                vcpu.domain.log_once("cr0", "Attempt to change unmodifiable CR0 flags")
                return Vector.GP
            vcpu.hw.set_cr0_ts(bool(value & X86_CR0_TS))
        case 2:
            vcpu.hw.set_reg("cr2", value)
        case 3:
            if vcpu.hw.set_base("kernel", xen_cr3_to_pfn(value, is_32bit=vcpu.domain.is_32bit)):
                return Vector.GP
        case 4:
            # As on Xen, what a guest may not change keeps its value.
            vcpu.hw.set_cr4(cpuid.CR4_INITIAL | value & cpuid.CR4_GUEST_MASK)
        case _:
            return Vector.UD if insn.a != 8 else Vector.GP
    return None


def _clts(vcpu: "Vcpu", _insn: Insn) -> Raised:
    vcpu.hw.set_cr0_ts(False)
    return None


def _mov_from_dr(vcpu: "Vcpu", insn: Insn) -> Raised:
    value = vcpu.hw.get_debug_reg(insn.a)
    if value is None:
        return Vector.UD
    vcpu.hw.set_reg(REGISTERS[insn.b & 15], value)
    return None


def _mov_to_dr(vcpu: "Vcpu", insn: Insn) -> Raised:
    rc = vcpu.hw.set_debug_reg(insn.a, vcpu.hw.get_reg(REGISTERS[insn.b & 15]))
    if rc == 0:
        return None
    return Vector.UD if rc == -Errno.ENODEV else Vector.GP


_HANDLERS: dict[str, Callable[["Vcpu", Insn], Raised]] = {
    "rdmsr": _rdmsr,
    "wrmsr": _wrmsr,
    "mov_from_cr": _mov_from_cr,
    "mov_to_cr": _mov_to_cr,
    "mov_from_dr": _mov_from_dr,
    "mov_to_dr": _mov_to_dr,
    "clts": _clts,
    "wbinvd": _nothing,
}
"""What else Xen lets a guest kernel do is done in the machine; all other instructions raise #GP there."""
