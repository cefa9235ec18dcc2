# SPDX-License-Identifier: Apache-2.0
"""event_channel_op (event_channel.h): the machine's, which answers most of it without coming here."""

from enum import IntEnum
from typing import TYPE_CHECKING

from domzero.abi import event_channel as abi
from domzero.abi.errno import Errno
from domzero.abi.event_channel import EvtchnOp
from domzero.abi.layout import Wire
from domzero.abi.xen import Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls.table import Continuation, hypercall, operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

event_channel_op = operation(Hypercall.HYPERVISOR_event_channel_op, "ip", EvtchnOp)
event_channel_op.in_machine = True
COMPAT_OP_SIZE = 28
"""struct evtchn_op."""


class EvtchnOpInternal(IntEnum):
    """Commands that are not in the public header: how Xen continues a long operation. Guests may make them too."""

    EVTCHNOP_reset_cont = 14


_ARGUMENTS: dict[IntEnum, type[Wire]] = {
    EvtchnOp.EVTCHNOP_alloc_unbound: abi.evtchn_alloc_unbound,
    EvtchnOp.EVTCHNOP_bind_interdomain: abi.evtchn_bind_interdomain,
    EvtchnOp.EVTCHNOP_bind_virq: abi.evtchn_bind_virq,
    EvtchnOp.EVTCHNOP_bind_pirq: abi.evtchn_bind_pirq,
    EvtchnOp.EVTCHNOP_bind_ipi: abi.evtchn_bind_ipi,
    EvtchnOp.EVTCHNOP_bind_vcpu: abi.evtchn_bind_vcpu,
    EvtchnOp.EVTCHNOP_close: abi.evtchn_close,
    EvtchnOp.EVTCHNOP_send: abi.evtchn_send,
    EvtchnOp.EVTCHNOP_status: abi.evtchn_status,
    EvtchnOp.EVTCHNOP_unmask: abi.evtchn_unmask,
    EvtchnOp.EVTCHNOP_reset: abi.evtchn_reset,
    EvtchnOp.EVTCHNOP_init_control: abi.evtchn_init_control,
    EvtchnOp.EVTCHNOP_expand_array: abi.evtchn_expand_array,
    EvtchnOp.EVTCHNOP_set_priority: abi.evtchn_set_priority,
    EvtchnOpInternal.EVTCHNOP_reset_cont: abi.evtchn_reset,
}
_NOTES: dict[IntEnum, str] = {
    EvtchnOp.EVTCHNOP_bind_pirq: "refused: no domain owns interrupts; in the machine",
    # What changes the frames that are held is begun with the big lock, which the audit of references holds.
    EvtchnOp.EVTCHNOP_reset: "",
    EvtchnOp.EVTCHNOP_init_control: "",
    EvtchnOp.EVTCHNOP_expand_array: "",
    EvtchnOpInternal.EVTCHNOP_reset_cont: "how a long reset goes on",
}


def _in_machine(command: IntEnum) -> None:
    """Registers a command: the machine copies its argument in, does it, or a round of it, and copies out."""

    @event_channel_op.sub(command, _ARGUMENTS[command], by_address=True, note=_NOTES.get(command, "in the machine"))
    def handler(vcpu: "Vcpu", va: int) -> int:
        later = vcpu.hw.event_channel_op(command, va)
        vcpu.domain.back_ends.collect()
        if later is not None:
            raise Continuation(later, va)
        return 0


for _command in _ARGUMENTS:
    _in_machine(_command)


@hypercall(
    Hypercall.HYPERVISOR_event_channel_op_compat,
    "p",
    note="the interface before 3.0.2, without later commands",
    in_machine=True,
)
def event_channel_op_compat(vcpu: "Vcpu", op: int) -> int:
    """The command and its argument are in one structure."""
    data = guest_memory.read(vcpu, op, COMPAT_OP_SIZE)
    cmd = int.from_bytes(data[:4], "little")
    if cmd > EvtchnOp.EVTCHNOP_unmask:
        return -Errno.ENOSYS
    return event_channel_op.call(vcpu, [cmd, op + 4])
