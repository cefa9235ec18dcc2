# SPDX-License-Identifier: Apache-2.0
"""Processor state: descriptors, stack_switch, fpu_taskswitch, debug registers, segment bases, vm_assist."""

from typing import TYPE_CHECKING

from domzero.abi.arch_x86 import FIRST_RESERVED_GDT_ENTRY
from domzero.abi.errno import Errno
from domzero.abi.xen import Hypercall, VmAssistCmd, VmAssistType
from domzero.hypervisor import guest_memory
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.hypercalls.table import hypercall, operation
from domzero.hypervisor.selectors import fixup_selector

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

ENTRIES_PER_GDT_FRAME = 512
UINT_MAX = 0xFFFFFFFF
CR_WORD = 0xFFFF
LAST_ASSIST_32 = 31
_ASSISTS = frozenset(int(t) for t in VmAssistType)

vm_assist = operation(Hypercall.HYPERVISOR_vm_assist, "uu", VmAssistCmd)


def _check_assist(vcpu: "Vcpu", _command: int, assist: int) -> None:
    """Xen looks at the type before the command."""
    if _assist_bit(vcpu, assist) is None:
        raise XenError(Errno.EINVAL)


vm_assist.check = _check_assist


@hypercall(Hypercall.HYPERVISOR_set_gdt, "pu")
def set_gdt(vcpu: "Vcpu", frames: int, entries: int) -> None:
    """Installs a GDT made of up to 14 of the guest's frames."""
    if entries > FIRST_RESERVED_GDT_ENTRY:
        raise XenError(Errno.EINVAL)
    count = (entries + ENTRIES_PER_GDT_FRAME - 1) // ENTRIES_PER_GDT_FRAME
    mfns = guest_memory.read_ulongs(vcpu, frames, count)
    vcpu.hw.set_gdt(list(mfns), entries)


@hypercall(Hypercall.HYPERVISOR_update_descriptor, "qq")
def update_descriptor(vcpu: "Vcpu", maddr: int, descriptor: int) -> None:
    """Writes one descriptor at a machine address."""
    vcpu.hw.update_descriptor(maddr, descriptor)


@hypercall(Hypercall.HYPERVISOR_stack_switch, "ll", in_machine=True)
def stack_switch(vcpu: "Vcpu", ss: int, sp: int) -> None:
    """The stack on which the guest kernel is entered from user mode."""
    vcpu.hw.set_kernel_stack(fixup_selector(vcpu, ss & CR_WORD), sp)


@hypercall(Hypercall.HYPERVISOR_fpu_taskswitch, "i", in_machine=True)
def fpu_taskswitch(vcpu: "Vcpu", ts: int) -> None:
    """Sets or clears CR0.TS."""
    vcpu.hw.set_cr0_ts(bool(ts))


@hypercall(Hypercall.HYPERVISOR_set_debugreg, "il")
def set_debugreg(vcpu: "Vcpu", index: int, value: int) -> None:
    """Writes a debug register: ENODEV if there is none, EINVAL for bits there are not, EPERM for what is Xen's."""
    vcpu.hw.set_debug_reg(index & UINT_MAX, value)


@hypercall(Hypercall.HYPERVISOR_get_debugreg, "i")
def get_debugreg(vcpu: "Vcpu", index: int) -> int:
    """Reads a debug register; the result and -ENODEV share one range, as on Xen."""
    value = vcpu.hw.get_debug_reg(index & UINT_MAX)
    if value is None:
        return -Errno.ENODEV
    return value - (1 << 64) if value >> 63 else value


@hypercall(Hypercall.HYPERVISOR_set_segment_base, "ul", in_machine=True, note="64-bit guests only")
def set_segment_base(vcpu: "Vcpu", which: int, base: int) -> None:
    """FS base, GS bases, user GS selector."""
    if vcpu.domain.is_32bit:
        raise XenError(Errno.ENOSYS)
    vcpu.hw.set_segment_base(which, base)


def _assist_bit(vcpu: "Vcpu", assist: int) -> int | None:
    if assist not in _ASSISTS or (vcpu.domain.is_32bit and assist > LAST_ASSIST_32):
        return None
    return 1 << assist


@vm_assist.sub(VmAssistCmd.VMASST_CMD_enable)
def enable(vcpu: "Vcpu", assist: int) -> int:
    """Turns a behaviour on."""
    return _assist(vcpu, assist, on=True)


@vm_assist.sub(VmAssistCmd.VMASST_CMD_disable)
def disable(vcpu: "Vcpu", assist: int) -> int:
    """Turns it off."""
    return _assist(vcpu, assist, on=False)


def _assist(vcpu: "Vcpu", assist: int, *, on: bool) -> int:
    bit = _assist_bit(vcpu, assist)
    if bit is None:
        return -Errno.EINVAL
    domain = vcpu.domain
    domain.vm_assist = domain.vm_assist | bit if on else domain.vm_assist & ~bit
    for other in domain.vcpus:
        if other is not vcpu:
            other.interrupt()
    return 0
