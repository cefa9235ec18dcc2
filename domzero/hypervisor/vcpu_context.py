# SPDX-License-Identifier: Apache-2.0
"""struct vcpu_guest_context: the first registers of a vCPU, for VCPUOP_initialise, and all of them, for core dumps."""

from contextlib import suppress
from typing import TYPE_CHECKING

from domzero._machine import Base, Callback, XenRefused
from domzero.abi.arch_x86 import (
    FIRST_RESERVED_GDT_ENTRY,
    Vgcf,
    vcpu_guest_context,
    xen_cr3_to_pfn,
    xen_pfn_to_cr3,
)
from domzero.abi.errno import Errno
from domzero.abi.layout import layout_for
from domzero.abi.x86 import (
    X86_CR0_TS,
    X86_EFLAGS_AC,
    X86_EFLAGS_AF,
    X86_EFLAGS_CF,
    X86_EFLAGS_DF,
    X86_EFLAGS_FIXED,
    X86_EFLAGS_ID,
    X86_EFLAGS_IF,
    X86_EFLAGS_NT,
    X86_EFLAGS_OF,
    X86_EFLAGS_PF,
    X86_EFLAGS_SF,
    X86_EFLAGS_TF,
    X86_EFLAGS_ZF,
    is_canonical,
)
from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor.emulate import cpuid
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.selectors import fixup_selector

if TYPE_CHECKING:
    from domzero._machine import Register
    from domzero.hypervisor.vcpu import Vcpu

LDT_MAX_ENTRIES = 8192
RFLAGS_GUEST = (
    X86_EFLAGS_CF
    | X86_EFLAGS_PF
    | X86_EFLAGS_AF
    | X86_EFLAGS_ZF
    | X86_EFLAGS_SF
    | X86_EFLAGS_TF
    | X86_EFLAGS_DF
    | X86_EFLAGS_OF
    | X86_EFLAGS_NT
    | X86_EFLAGS_AC
    | X86_EFLAGS_ID
)
"""What a context may set. IF follows the upcall mask, IOPL is kept beside."""
FPU_SIZE = 512

_REGISTERS_64: tuple["Register", ...] = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
)  # fmt: skip
_REGISTERS_32: tuple["Register", ...] = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip")
_SEGMENTS: tuple["Register", ...] = ("ds", "es", "fs", "gs")


def load(vcpu: "Vcpu", context: vcpu_guest_context) -> None:
    """Checks a context and loads it into a vCPU that has not run yet.

    :raises XenError: EINVAL; the vCPU may keep part of the state but stays uninitialised.
    :raises Preempted: its page tables are not validated yet; it is to be called again.
    """
    try:
        _load(vcpu, context)
    except XenRefused as refused:
        raise XenError(Errno.EINVAL) from refused
    vcpu.is_initialised = True
    if context.flags & Vgcf.VGCF_online:
        vcpu.bring_up()


def _load(vcpu: "Vcpu", context: vcpu_guest_context) -> None:
    is_32bit = vcpu.domain.is_32bit
    if not is_32bit:
        if context.debugreg[6] >> 32 or context.debugreg[7] >> 32:
            raise XenError(Errno.EINVAL)
        _check_canonical(context)
    for index in range(4):
        vcpu.hw.set_debug_reg(index, context.debugreg[index])
    if context.ldt_base % PAGE_SIZE or context.ldt_ents > LDT_MAX_ENTRIES:
        raise XenError(Errno.EINVAL)
    if not is_32bit and not context.flags & Vgcf.VGCF_in_kernel and not context.ctrlreg[1]:
        raise XenError(Errno.EINVAL)  # applications need page tables
    if context.gdt_ents > FIRST_RESERVED_GDT_ENTRY:
        raise XenError(Errno.EINVAL)
    # Page tables first: they may take many rounds, each of which begins anew here.
    vcpu.hw.set_base(Base.KERNEL, xen_cr3_to_pfn(context.ctrlreg[3], is_32bit=is_32bit))
    if not is_32bit and context.ctrlreg[1]:
        vcpu.hw.set_base(Base.USER, xen_cr3_to_pfn(context.ctrlreg[1]))
    _load_registers(vcpu, context)
    _load_tables(vcpu, context)
    _load_callbacks(vcpu, context)
    vcpu.hw.set_cr0_ts(bool(context.ctrlreg[0] & X86_CR0_TS))


def _check_canonical(c: vcpu_guest_context) -> None:
    addresses = [
        c.user_regs.rip,
        c.user_regs.rsp,
        c.event_callback_eip,
        c.failsafe_callback_eip,
        c.syscall_callback_eip,
        c.kernel_sp,
        c.fs_base,
        c.gs_base_kernel,
        c.gs_base_user,
        *(trap.address for trap in c.trap_ctxt),
    ]
    if c.ldt_ents:
        addresses.append(c.ldt_base)
    if not all(is_canonical(address) for address in addresses):
        raise XenError(Errno.EINVAL)


def _load_registers(vcpu: "Vcpu", c: vcpu_guest_context) -> None:
    hw, is_32bit = vcpu.hw, vcpu.domain.is_32bit
    regs = c.user_regs
    for name in _REGISTERS_32 if is_32bit else _REGISTERS_64:
        hw.set_reg(name, getattr(regs, name.replace("r", "e", 1) if is_32bit else name))
    flags = regs.eflags if is_32bit else regs.rflags
    hw.set_reg("rflags", flags & RFLAGS_GUEST | X86_EFLAGS_FIXED | X86_EFLAGS_IF)
    hw.set_iopl(flags >> 12 & 3)
    in_kernel = bool(c.flags & Vgcf.VGCF_in_kernel) or is_32bit
    hw.set_reg("cs", fixup_selector(vcpu, regs.cs))
    hw.set_reg("ss", fixup_selector(vcpu, regs.ss))
    for name in _SEGMENTS:
        hw.set_reg(name, getattr(regs, name))
    if not is_32bit:
        hw.guest_kernel = in_kernel
        hw.set_reg("fs_base", c.fs_base)
        hw.set_reg("gs_base_kernel", c.gs_base_kernel)
        hw.set_reg("gs_base_user", c.gs_base_user)
    if c.flags & Vgcf.VGCF_i387_valid:
        hw.load_fpu(bytes(c)[:FPU_SIZE])


def _load_tables(vcpu: "Vcpu", c: vcpu_guest_context) -> None:
    hw = vcpu.hw
    for trap in c.trap_ctxt:
        if trap.address:
            hw.set_trap(trap.vector, fixup_selector(vcpu, trap.cs), trap.address, trap.flags)
    if c.gdt_ents:
        pages = (c.gdt_ents + 511) // 512
        hw.set_gdt(list(c.gdt_frames[:pages]), c.gdt_ents)
    if c.ldt_ents:
        hw.set_ldt(c.ldt_base, c.ldt_ents)
    hw.set_kernel_stack(fixup_selector(vcpu, c.kernel_ss & 0xFFFF), c.kernel_sp)
    hw.set_cr4(cpuid.CR4_INITIAL | c.ctrlreg[4] & cpuid.CR4_GUEST_MASK)
    for index in (6, 7):
        # As on Xen, what the guest may not set is left out.
        with suppress(XenRefused):
            hw.set_debug_reg(index, c.debugreg[index])


def _load_callbacks(vcpu: "Vcpu", c: vcpu_guest_context) -> None:
    hw = vcpu.hw
    failsafe_masks = bool(c.flags & Vgcf.VGCF_failsafe_disables_events)
    if vcpu.domain.is_32bit:
        event_cs, failsafe_cs = c.event_callback_cs, c.failsafe_callback_cs
        hw.set_callback(Callback.EVENT, fixup_selector(vcpu, event_cs & 0xFFFF), c.event_callback_eip, True)
        hw.set_callback(
            Callback.FAILSAFE, fixup_selector(vcpu, failsafe_cs & 0xFFFF), c.failsafe_callback_eip, failsafe_masks
        )
        return
    masks = bool(c.flags & Vgcf.VGCF_syscall_disables_events)
    hw.set_callback(Callback.EVENT, 0, c.event_callback_eip, True)
    hw.set_callback(Callback.FAILSAFE, 0, c.failsafe_callback_eip, failsafe_masks)
    hw.set_callback(Callback.SYSCALL, 0, c.syscall_callback_eip, masks)


def save(vcpu: "Vcpu") -> vcpu_guest_context:
    """The context of a vCPU that stands still, as `load` takes it: XEN_DOMCTL_getvcpucontext, for core dumps.

    :returns: in the guest's own layout.
    """
    hw, is_32bit = vcpu.hw, vcpu.domain.is_32bit
    c: vcpu_guest_context = layout_for(vcpu_guest_context, is_32bit)()
    c.flags = (
        Vgcf.VGCF_i387_valid
        | (Vgcf.VGCF_in_kernel if hw.guest_kernel else 0)
        | (0 if vcpu.is_down else Vgcf.VGCF_online)
        | (Vgcf.VGCF_failsafe_disables_events if hw.get_callback(Callback.FAILSAFE)[2] else 0)
    )
    regs = c.user_regs
    for name in _REGISTERS_32 if is_32bit else _REGISTERS_64:
        setattr(regs, name.replace("r", "e", 1) if is_32bit else name, hw.get_reg(name))
    setattr(regs, "eflags" if is_32bit else "rflags", hw.get_reg("rflags") | hw.get_iopl() << 12)
    regs.saved_upcall_mask = vcpu.info.upcall_mask
    for name in ("cs", "ss", *_SEGMENTS):
        setattr(regs, name, hw.get_reg(name))
    for vector, trap in enumerate(c.trap_ctxt):
        trap.vector = vector
        trap.cs, trap.address, trap.flags = hw.get_trap(vector)
    _save_tables(vcpu, c)
    _save_callbacks(vcpu, c)
    c.vm_assist = vcpu.domain.vm_assist
    data = bytearray(bytes(c))
    data[:FPU_SIZE] = hw.save_fpu()  # assigned to its field, an array of char, it would end at its first zero
    whole: vcpu_guest_context = type(c).from_buffer_copy(data)
    return whole


def _save_tables(vcpu: "Vcpu", c: vcpu_guest_context) -> None:
    hw, is_32bit = vcpu.hw, vcpu.domain.is_32bit
    frames, c.gdt_ents = hw.get_gdt()
    c.gdt_frames[: len(frames)] = frames
    c.ldt_base, c.ldt_ents = hw.get_ldt()
    c.kernel_ss, c.kernel_sp = hw.get_kernel_stack()
    c.ctrlreg[0] = cpuid.CR0_VALUE | (X86_CR0_TS if hw.get_cr0_ts() else 0)
    c.ctrlreg[2] = hw.get_reg("cr2")
    c.ctrlreg[3] = xen_pfn_to_cr3(hw.get_base(Base.KERNEL), is_32bit=is_32bit)
    c.ctrlreg[4] = hw.get_cr4()
    if not is_32bit and (user := hw.get_base(Base.USER)):
        c.ctrlreg[1] = xen_pfn_to_cr3(user)
    for index in (0, 1, 2, 3, 6, 7):
        c.debugreg[index] = hw.get_debug_reg(index) or 0


def _save_callbacks(vcpu: "Vcpu", c: vcpu_guest_context) -> None:
    hw = vcpu.hw
    event, failsafe = hw.get_callback(Callback.EVENT), hw.get_callback(Callback.FAILSAFE)
    c.event_callback_eip, c.failsafe_callback_eip = event[1], failsafe[1]
    if vcpu.domain.is_32bit:
        c.event_callback_cs, c.failsafe_callback_cs = event[0], failsafe[0]
        return
    _, c.syscall_callback_eip, masks = hw.get_callback(Callback.SYSCALL)
    c.flags |= Vgcf.VGCF_syscall_disables_events if masks else 0
    c.fs_base, c.gs_base_kernel = hw.get_reg("fs_base"), hw.get_reg("gs_base_kernel")
    c.gs_base_user = hw.get_reg("gs_base_user")
