"""set_trap_table, set_callbacks, callback_op (callback.h), nmi_op (nmi.h): where the guest wants to be entered."""

from typing import TYPE_CHECKING, Literal

from domzero.abi.arch_x86 import FLAT_KERNEL_CS64, trap_info
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
from domzero.abi.xen import Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.emulate.msr import is_canonical
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.hypercalls.table import Continuation, hypercall, operation
from domzero.hypervisor.selectors import fixup_selector

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

TRAPS_AT_ONCE = 512
VECTORS = 256

Kind = Literal["event", "failsafe", "syscall", "syscall32", "sysenter", "nmi"]

callback_op = operation(Hypercall.HYPERVISOR_callback_op, "ip", CallbackOp)
nmi_op = operation(Hypercall.HYPERVISOR_nmi_op, "up", NmiOp)


def _check(vcpu: "Vcpu", address: int) -> int:
    if not vcpu.domain.is_32bit and not is_canonical(address):
        raise XenError(Errno.EINVAL)
    return address


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
        vcpu.hw.set_trap(trap.vector, fixup_selector(vcpu, trap.cs), _check(vcpu, trap.address), trap.flags)
        traps += size
    raise Continuation(traps)


@hypercall(Hypercall.HYPERVISOR_set_callbacks, "llll", note="64-bit guests: three addresses")
def set_callbacks(vcpu: "Vcpu", a: int, b: int, c: int, d: int) -> None:
    """Event, failsafe and (64-bit) syscall entry points."""
    if vcpu.domain.is_32bit:
        vcpu.hw.set_callback("event", fixup_selector(vcpu, a & 0xFFFF), b, True)
        vcpu.hw.set_callback("failsafe", fixup_selector(vcpu, c & 0xFFFF), d, False)
        return
    _set(vcpu, "event", FLAT_KERNEL_CS64, a, False)
    _set(vcpu, "failsafe", FLAT_KERNEL_CS64, b, False)
    _set(vcpu, "syscall", FLAT_KERNEL_CS64, c, False)


def _set(vcpu: "Vcpu", kind: Kind, cs: int, address: int, mask_events: bool) -> None:
    always_masked = kind in ("event", "nmi")
    vcpu.hw.set_callback(kind, fixup_selector(vcpu, cs), _check(vcpu, address), mask_events or always_masked)


_KINDS: dict[int, Kind] = {
    CallbackType.CALLBACKTYPE_event: "event",
    CallbackType.CALLBACKTYPE_failsafe: "failsafe",
    CallbackType.CALLBACKTYPE_syscall: "syscall",
    CallbackType.CALLBACKTYPE_syscall32: "syscall32",
    CallbackType.CALLBACKTYPE_sysenter: "sysenter",
    CallbackType.CALLBACKTYPE_nmi: "nmi",
}


@callback_op.sub(CallbackOp.CALLBACKOP_register, callback_register)
def register(vcpu: "Vcpu", arg: callback_register) -> int:
    """Registers one entry point."""
    kind = _KINDS.get(arg.type)
    if arg.type == CallbackType.CALLBACKTYPE_sysenter_deprecated and vcpu.domain.is_32bit:
        return -Errno.EINVAL  # the processor shows no SEP
    if kind is None or (kind == "syscall" and vcpu.domain.is_32bit):
        return -Errno.ENOSYS
    cs = arg.cs & 0xFFFF if vcpu.domain.is_32bit else FLAT_KERNEL_CS64
    _set(vcpu, kind, cs, arg.address, bool(arg.flags & CALLBACKF_mask_events))
    return 0


@callback_op.sub(CallbackOp.CALLBACKOP_unregister, callback_unregister)
def unregister(vcpu: "Vcpu", arg: callback_unregister) -> int:
    """Only the NMI callback can be given up."""
    match arg.type:
        case CallbackType.CALLBACKTYPE_nmi:
            vcpu.hw.set_callback("nmi", 0, 0, True)
            return 0
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
    cs = FLAT_KERNEL_CS64 if not vcpu.domain.is_32bit else 0
    _set(vcpu, "nmi", cs, arg.handler_address, True)


@nmi_op.sub(NmiOp.XENNMI_unregister_callback)
def unregister_nmi(vcpu: "Vcpu", _arg: int) -> None:
    """Gives it up."""
    vcpu.hw.set_callback("nmi", 0, 0, True)
