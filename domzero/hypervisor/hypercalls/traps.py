# SPDX-License-Identifier: Apache-2.0
"""set_trap_table, set_callbacks, callback_op (callback.h), nmi_op (nmi.h): where the guest wants to be entered."""

from typing import TYPE_CHECKING

from domzero._machine import Callback
from domzero.abi.arch_x86 import FLAT_COMPAT_RING1_CS, FLAT_KERNEL_CS64, trap_info
from domzero.abi.callback import (
    CALLBACKF_mask_events,
    CallbackOp,
    CallbackType,
    callback_register,
    callback_unregister,
)
from domzero.abi.errno import Errno
from domzero.abi.layout import layout_for, sizeof
from domzero.abi.nmi import NmiOp, xennmi_callback
from domzero.abi.x86 import Vector, is_canonical
from domzero.abi.xen import Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.hypercalls.table import Continuation, hypercall, operation
from domzero.hypervisor.selectors import fixup_selector

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

TRAPS_AT_ONCE = 128
VECTORS = 256

callback_op = operation(Hypercall.HYPERVISOR_callback_op, "ip", CallbackOp)


def _check_callback_op(vcpu: "Vcpu", command: int, _arg: int) -> None:
    """An unknown command is EINVAL to a 32-bit guest, ENOSYS to others."""
    if vcpu.domain.is_32bit and command not in set(CallbackOp):
        raise XenError(Errno.EINVAL)


callback_op.check = _check_callback_op
nmi_op = operation(Hypercall.HYPERVISOR_nmi_op, "up", NmiOp)


TI_IF = 1 << 2
"""trap_info.flags: events are masked on entry."""


def _is_address(vcpu: "Vcpu", address: int) -> bool:
    return vcpu.domain.is_32bit or is_canonical(address)


@hypercall(Hypercall.HYPERVISOR_set_trap_table, "p")
def set_trap_table(vcpu: "Vcpu", traps: int) -> None:
    """Registers exception handlers: an array that ends with address 0; no array clears the table."""
    if traps == 0:
        for vector in range(VECTORS):
            vcpu.hw.set_trap(vector, 0, 0, 0)
        return
    size = sizeof(layout_for(trap_info, vcpu.domain.is_32bit))
    for _ in range(TRAPS_AT_ONCE):
        trap = guest_memory.copy_in(vcpu, trap_info, traps)
        if trap.address == 0:
            return
        if not _is_address(vcpu, trap.address):
            raise XenError(Errno.EINVAL)
        vcpu.hw.set_trap(trap.vector, fixup_selector(vcpu, trap.cs), trap.address, trap.flags)
        traps += size
    raise Continuation(traps)


@hypercall(Hypercall.HYPERVISOR_set_callbacks, "llll", note="64-bit guests: three addresses")
def set_callbacks(vcpu: "Vcpu", a: int, b: int, c: int, d: int) -> None:
    """Event, failsafe and (64-bit) syscall entry points. An address that is not canonical is left out silently."""
    if vcpu.domain.is_32bit:
        _register(vcpu, Callback.EVENT, a & 0xFFFF, b, mask_events=False)
        _register(vcpu, Callback.FAILSAFE, c & 0xFFFF, d, mask_events=False)
        return
    for kind, address in ((Callback.EVENT, a), (Callback.FAILSAFE, b), (Callback.SYSCALL, c)):
        _register(vcpu, kind, FLAT_KERNEL_CS64, address, mask_events=False)


def _register(vcpu: "Vcpu", kind: Callback, cs: int, address: int, *, mask_events: bool) -> int:
    if not _is_address(vcpu, address):
        return -Errno.EINVAL
    if kind == Callback.NMI:
        _register_nmi(vcpu, address)
    else:
        vcpu.hw.set_callback(kind, fixup_selector(vcpu, cs), address, mask_events or kind == Callback.EVENT)
    return 0


def _register_nmi(vcpu: "Vcpu", address: int) -> None:
    """The NMI callback is entry 2 of the trap table."""
    cs = FLAT_COMPAT_RING1_CS if vcpu.domain.is_32bit else FLAT_KERNEL_CS64
    vcpu.hw.set_trap(Vector.NMI, cs, address, TI_IF)


_KINDS: dict[int, Callback] = {
    CallbackType.CALLBACKTYPE_event: Callback.EVENT,
    CallbackType.CALLBACKTYPE_failsafe: Callback.FAILSAFE,
    CallbackType.CALLBACKTYPE_syscall: Callback.SYSCALL,
    CallbackType.CALLBACKTYPE_syscall32: Callback.SYSCALL32,
    CallbackType.CALLBACKTYPE_sysenter: Callback.SYSENTER,
    CallbackType.CALLBACKTYPE_nmi: Callback.NMI,
}


@callback_op.sub(CallbackOp.CALLBACKOP_register, callback_register)
def register(vcpu: "Vcpu", arg: callback_register) -> int:
    """Registers one entry point."""
    kind = _KINDS.get(arg.type)
    if kind is None:
        return -Errno.ENOSYS if _is_address(vcpu, arg.address) else -Errno.EINVAL
    if vcpu.domain.is_32bit:
        if kind == Callback.SYSCALL:
            return -Errno.ENOSYS
        cs = arg.cs & 0xFFFF
    else:
        cs = FLAT_KERNEL_CS64
    return _register(vcpu, kind, cs, arg.address, mask_events=bool(arg.flags & CALLBACKF_mask_events))


@callback_op.sub(CallbackOp.CALLBACKOP_unregister, callback_unregister)
def unregister(vcpu: "Vcpu", arg: callback_unregister) -> int:
    """Only the NMI callback can be given up."""
    match arg.type:
        case CallbackType.CALLBACKTYPE_nmi:
            vcpu.hw.set_trap(Vector.NMI, 0, 0, 0)
            return 0
        case CallbackType.CALLBACKTYPE_syscall if vcpu.domain.is_32bit:
            return -Errno.ENOSYS
        case (
            CallbackType.CALLBACKTYPE_event
            | CallbackType.CALLBACKTYPE_failsafe
            | CallbackType.CALLBACKTYPE_syscall
            | CallbackType.CALLBACKTYPE_syscall32
            | CallbackType.CALLBACKTYPE_sysenter
        ):
            return -Errno.EINVAL
        case _:
            return -Errno.ENOSYS


@nmi_op.sub(NmiOp.XENNMI_register_callback, xennmi_callback)
def register_nmi(vcpu: "Vcpu", arg: xennmi_callback) -> None:
    """The older way to register the NMI callback."""
    if not _is_address(vcpu, arg.handler_address):
        raise XenError(Errno.EINVAL)
    _register_nmi(vcpu, arg.handler_address)


@nmi_op.sub(NmiOp.XENNMI_unregister_callback)
def unregister_nmi(vcpu: "Vcpu", _arg: int) -> None:
    """Gives it up."""
    vcpu.hw.set_trap(Vector.NMI, 0, 0, 0)
