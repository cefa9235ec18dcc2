# SPDX-License-Identifier: Apache-2.0
"""event_channel_op (event_channel.h)."""

from enum import IntEnum
from typing import TYPE_CHECKING

from domzero.abi import event_channel as abi
from domzero.abi.errno import Errno
from domzero.abi.event_channel import EVTCHN_FIFO_LINK_BITS, EvtchnOp, EvtchnStat
from domzero.abi.xen import Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.hypercalls.table import Continuation, hypercall, operation
from domzero.hypervisor.limits import MAX_PORT

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

event_channel_op = operation(Hypercall.HYPERVISOR_event_channel_op, "ip", EvtchnOp)
NR_PIRQS = 272
PORTS_AT_ONCE = 128
"""After so many ports a reset, or a new page of event words, lets others have their turn."""
COMPAT_OP_SIZE = 28
"""struct evtchn_op."""


class EvtchnOpInternal(IntEnum):
    """Commands that are not in the public header: how Xen continues a long operation. Guests may make them too."""

    EVTCHNOP_reset_cont = 14


def check_port(vcpu: "Vcpu", domid: int, port: int) -> None:
    """Xen looks whether the port exists before it looks at permissions.

    :raises XenError: ESRCH, EINVAL, EPERM.
    """
    domids = vcpu.domain.domids
    domids.check_any(domid)
    other = domids.find_any(domid)
    if other is not None:
        other.evtchn.channel(port)
    elif port > MAX_PORT:
        raise XenError(Errno.EINVAL)
    domids.check_own(domid)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_alloc_unbound, abi.evtchn_alloc_unbound, copy_out=True)
def alloc_unbound(vcpu: "Vcpu", arg: abi.evtchn_alloc_unbound) -> None:
    """A port that waits for a peer."""
    vcpu.domain.domids.check_own(arg.dom)
    arg.port = vcpu.domain.evtchn.alloc_unbound(arg.remote_dom)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_bind_interdomain, abi.evtchn_bind_interdomain, copy_out=True)
def bind_interdomain(vcpu: "Vcpu", arg: abi.evtchn_bind_interdomain) -> None:
    """Connects to a port that waits for this domain."""
    arg.local_port = vcpu.domain.evtchn.bind_interdomain(arg.remote_dom, arg.remote_port)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_bind_virq, abi.evtchn_bind_virq, copy_out=True)
def bind_virq(vcpu: "Vcpu", arg: abi.evtchn_bind_virq) -> None:
    """Connects a port to a virtual interrupt."""
    arg.port = vcpu.domain.evtchn.bind_virq(arg.virq, arg.vcpu)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_bind_pirq, abi.evtchn_bind_pirq, note="refused: no domain owns interrupts")
def bind_pirq(_vcpu: "Vcpu", arg: abi.evtchn_bind_pirq) -> int:
    """Connects a port to a physical interrupt: no domain here has one."""
    return -Errno.EINVAL if arg.pirq >= NR_PIRQS else -Errno.EPERM


@event_channel_op.sub(EvtchnOp.EVTCHNOP_bind_ipi, abi.evtchn_bind_ipi, copy_out=True)
def bind_ipi(vcpu: "Vcpu", arg: abi.evtchn_bind_ipi) -> None:
    """A port for interrupts between vCPUs."""
    arg.port = vcpu.domain.evtchn.bind_ipi(arg.vcpu)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_close, abi.evtchn_close)
def close(vcpu: "Vcpu", arg: abi.evtchn_close) -> None:
    """Frees a port."""
    vcpu.domain.evtchn.close(arg.port)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_send, abi.evtchn_send)
def send(vcpu: "Vcpu", arg: abi.evtchn_send) -> None:
    """Notifies the other end."""
    vcpu.domain.evtchn.send(arg.port)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_status, abi.evtchn_status, copy_out=True)
def status(vcpu: "Vcpu", arg: abi.evtchn_status) -> None:
    """Says what a port is connected to."""
    check_port(vcpu, arg.dom, arg.port)
    channel = vcpu.domain.evtchn.channel(arg.port)
    arg.status = channel.state
    arg.vcpu = channel.vcpu
    match channel.state:
        case EvtchnStat.EVTCHNSTAT_unbound:
            arg.u.interdomain.dom = channel.remote_domid
        case EvtchnStat.EVTCHNSTAT_interdomain:
            arg.u.interdomain.dom = channel.remote_domid
            arg.u.interdomain.port = channel.remote_port
        case EvtchnStat.EVTCHNSTAT_virq:
            arg.u.virq = channel.virq
        case _:
            pass


@event_channel_op.sub(EvtchnOp.EVTCHNOP_bind_vcpu, abi.evtchn_bind_vcpu)
def bind_vcpu(vcpu: "Vcpu", arg: abi.evtchn_bind_vcpu) -> None:
    """Chooses which vCPU a port notifies."""
    vcpu.domain.evtchn.bind_vcpu(arg.port, arg.vcpu)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_unmask, abi.evtchn_unmask)
def unmask(vcpu: "Vcpu", arg: abi.evtchn_unmask) -> None:
    """Unmasks a port and delivers what is pending."""
    vcpu.domain.evtchn.unmask(arg.port)


def _reset(vcpu: "Vcpu", va: int, *, resume: bool) -> None:
    arg = guest_memory.copy_in(vcpu, abi.evtchn_reset, va)
    vcpu.domain.domids.check_own(arg.dom)
    if not vcpu.domain.evtchn.reset(PORTS_AT_ONCE, resume=resume):
        raise Continuation(EvtchnOpInternal.EVTCHNOP_reset_cont, va)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_reset)
def reset(vcpu: "Vcpu", va: int) -> None:
    """Closes all ports; with the FIFO ABI, also goes back to the 2-level one."""
    _reset(vcpu, va, resume=False)


@event_channel_op.sub(EvtchnOpInternal.EVTCHNOP_reset_cont, note="how a long reset goes on")
def reset_cont(vcpu: "Vcpu", va: int) -> None:
    """The rest of it."""
    _reset(vcpu, va, resume=True)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_init_control, abi.evtchn_init_control, copy_out=True)
def init_control(vcpu: "Vcpu", arg: abi.evtchn_init_control) -> None:
    """Gives a vCPU its control block: the domain uses the FIFO ABI from then on."""
    vcpu.domain.evtchn.init_control(arg.vcpu, arg.control_gfn, arg.offset)
    arg.link_bits = EVTCHN_FIFO_LINK_BITS


@event_channel_op.sub(EvtchnOp.EVTCHNOP_expand_array)
def expand_array(vcpu: "Vcpu", va: int) -> None:
    """One more page of event words (FIFO)."""
    gfn = guest_memory.copy_in(vcpu, abi.evtchn_expand_array, va).array_gfn
    if not vcpu.domain.evtchn.expand_array(gfn, vcpu_id=vcpu.vcpu_id, ports_at_once=PORTS_AT_ONCE):
        raise Continuation(EvtchnOp.EVTCHNOP_expand_array, va)


@event_channel_op.sub(EvtchnOp.EVTCHNOP_set_priority, abi.evtchn_set_priority)
def set_priority(vcpu: "Vcpu", arg: abi.evtchn_set_priority) -> None:
    """Chooses a port's queue (FIFO)."""
    vcpu.domain.evtchn.set_priority(arg.port, arg.priority)


@hypercall(Hypercall.HYPERVISOR_event_channel_op_compat, "p", note="the interface before 3.0.2, without later commands")
def event_channel_op_compat(vcpu: "Vcpu", op: int) -> int:
    """The command and its argument are in one structure."""
    data = guest_memory.read(vcpu, op, COMPAT_OP_SIZE)
    cmd = int.from_bytes(data[:4], "little")
    if cmd > EvtchnOp.EVTCHNOP_unmask:
        return -Errno.ENOSYS
    return event_channel_op.call(vcpu, [cmd, op + 4])
