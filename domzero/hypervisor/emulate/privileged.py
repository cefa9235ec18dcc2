# SPDX-License-Identifier: Apache-2.0
"""Privileged instructions of the guest kernel, as Xen emulates them for PV."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from domzero import _machine
from domzero._machine import Base, XenRefused
from domzero.abi.arch_x86 import MSR_HYPERCALL_PAGE, xen_cr3_to_pfn, xen_pfn_to_cr3
from domzero.abi.errno import Errno
from domzero.abi.x86 import X86_CR0_TS, Vector
from domzero.hypervisor.emulate import cpuid, msr
from domzero.hypervisor.hypercall_page import fill_hypercall_page

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

PAGE_MASK = 0xFFF

Raised = int | None
"""The exception that an instruction raises, if it does."""


def emulate(vcpu: "Vcpu", insn: "_machine.ExitPrivileged") -> None:
    """Emulates one instruction and moves past it, or gives the guest the exception it asked for."""
    try:
        vector = EXECUTE[type(insn)](vcpu, insn)
    except _machine.Preempted:
        return  # a new CR3: the instruction is made again
    if vector is None:
        vcpu.hw.skip(insn.length)
        return
    vcpu.has_injected = True
    if vector == Vector.GP:
        vcpu.hw.inject(Vector.GP, 0)
    else:
        vcpu.hw.inject(vector)


def _rdmsr(vcpu: "Vcpu") -> Raised:
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


def _wrmsr(vcpu: "Vcpu") -> Raised:
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


def _mov_from_cr(vcpu: "Vcpu", cr: int, register: "_machine.Gpr") -> Raised:
    match cr:
        case 0:
            value = cpuid.CR0_VALUE | (X86_CR0_TS if vcpu.hw.get_cr0_ts() else 0)
        case 2:
            value = vcpu.hw.get_reg("cr2")
        case 3:
            value = xen_pfn_to_cr3(vcpu.hw.get_base(Base.KERNEL), is_32bit=vcpu.domain.is_32bit)
        case 4:
            value = vcpu.hw.get_cr4()
        case _:
            return Vector.UD if cr != 8 else Vector.GP
    vcpu.hw.set_reg(register, value)
    return None


def _mov_to_cr(vcpu: "Vcpu", cr: int, value: int) -> Raised:
    match cr:
        case 0:
            if (value ^ cpuid.CR0_VALUE) & ~X86_CR0_TS:
                vcpu.domain.log_once("cr0", "Attempt to change unmodifiable CR0 flags")
                return Vector.GP
            vcpu.hw.set_cr0_ts(bool(value & X86_CR0_TS))
        case 2:
            vcpu.hw.set_reg("cr2", value)
        case 3:
            try:
                vcpu.hw.set_base(Base.KERNEL, xen_cr3_to_pfn(value, is_32bit=vcpu.domain.is_32bit))
            except XenRefused:
                return Vector.GP
        case 4:
            # As on Xen, what a guest may not change keeps its value.
            vcpu.hw.set_cr4(cpuid.CR4_INITIAL | value & cpuid.CR4_GUEST_MASK)
        case _:
            return Vector.UD if cr != 8 else Vector.GP
    return None


def _mov_from_dr(vcpu: "Vcpu", dr: int, register: "_machine.Gpr") -> Raised:
    value = vcpu.hw.get_debug_reg(dr)
    if value is None:
        return Vector.UD
    vcpu.hw.set_reg(register, value)
    return None


def _mov_to_dr(vcpu: "Vcpu", dr: int, value: int) -> Raised:
    try:
        vcpu.hw.set_debug_reg(dr, value)
    except XenRefused as refused:
        return Vector.UD if refused.errno == Errno.ENODEV else Vector.GP
    return None


def _clts(vcpu: "Vcpu") -> Raised:
    vcpu.hw.set_cr0_ts(False)
    return None


EXECUTE: dict[type, Callable[["Vcpu", Any], Raised]] = {
    _machine.ExitRdmsr: lambda vcpu, _: _rdmsr(vcpu),
    _machine.ExitWrmsr: lambda vcpu, _: _wrmsr(vcpu),
    _machine.ExitMovFromCr: lambda vcpu, insn: _mov_from_cr(vcpu, insn.cr, insn.register),
    _machine.ExitMovToCr: lambda vcpu, insn: _mov_to_cr(vcpu, insn.cr, vcpu.hw.get_reg(insn.register)),
    _machine.ExitMovFromDr: lambda vcpu, insn: _mov_from_dr(vcpu, insn.dr, insn.register),
    _machine.ExitMovToDr: lambda vcpu, insn: _mov_to_dr(vcpu, insn.dr, vcpu.hw.get_reg(insn.register)),
    _machine.ExitClts: lambda vcpu, _: _clts(vcpu),
    _machine.ExitWbinvd: lambda vcpu, _: None,  # caches are not the guest's business
}
"""What each kind of exit does: a look-up, as an idle kernel reads and writes CR0 at each context switch."""
