# SPDX-License-Identifier: Apache-2.0
"""sched_op (sched.h), set_timer_op."""

import struct
from typing import TYPE_CHECKING

from domzero.abi.errno import Errno
from domzero.abi.sched import SchedOp, ShutdownReason, sched_poll, sched_shutdown, sched_watchdog
from domzero.abi.sched import sched_remote_shutdown as remote_shutdown_arg
from domzero.abi.xen import Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.hypercalls.table import hypercall, operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

MAX_POLL_PORTS = 128
_REASONS = {int(reason): reason for reason in ShutdownReason}

sched_op = operation(Hypercall.HYPERVISOR_sched_op, "ip", SchedOp)
sched_op_compat = operation(
    Hypercall.HYPERVISOR_sched_op_compat, "il", note="the interface before 3.0.2: yield, block, shutdown"
)


def reason_of(code: int) -> int:
    """A shutdown code as Xen keeps it: 8 bits, whether or not it has a name."""
    return _REASONS.get(code & 0xFF, code & 0xFF)


@sched_op.sub(SchedOp.SCHEDOP_yield)
@sched_op_compat.sub(SchedOp.SCHEDOP_yield)
def yield_(_vcpu: "Vcpu", _arg: int) -> None:
    """Other vCPUs get their turn at the big lock between two exits anyhow."""


@sched_op.sub(SchedOp.SCHEDOP_block)
@sched_op_compat.sub(SchedOp.SCHEDOP_block)
def block(vcpu: "Vcpu", _arg: int) -> None:
    """Sleeps until an event."""
    vcpu.block()


@sched_op.sub(SchedOp.SCHEDOP_shutdown, sched_shutdown)
def shutdown(vcpu: "Vcpu", arg: sched_shutdown) -> None:
    """Ends the domain."""
    vcpu.domain.shutdown(reason_of(arg.reason))


@sched_op_compat.sub(SchedOp.SCHEDOP_shutdown)
def shutdown_compat(vcpu: "Vcpu", reason: int) -> None:
    """Ends the domain; the reason is the argument itself."""
    vcpu.domain.shutdown(reason_of(reason))


@sched_op.sub(SchedOp.SCHEDOP_shutdown_code, sched_shutdown)
def shutdown_code(vcpu: "Vcpu", arg: sched_shutdown) -> None:
    """Latches the reason of a later shutdown; the first one counts."""
    if vcpu.domain.latched_code is None:
        vcpu.domain.latched_code = reason_of(arg.reason)


@sched_op.sub(SchedOp.SCHEDOP_poll, sched_poll)
def poll(vcpu: "Vcpu", arg: sched_poll) -> None:
    """Sleeps until one of some ports is pending, an event, or a time."""
    if arg.nr_ports > MAX_POLL_PORTS:
        raise XenError(Errno.EINVAL)
    guest_memory.check_range(vcpu, arg.ports, 4 * arg.nr_ports)
    if vcpu.info.upcall_is_due:
        return  # whatever the ports are
    ports = struct.unpack(f"<{arg.nr_ports}I", guest_memory.read(vcpu, arg.ports, 4 * arg.nr_ports))
    vcpu.poll(ports, arg.timeout or None)


@sched_op.sub(SchedOp.SCHEDOP_watchdog, sched_watchdog)
def watchdog(vcpu: "Vcpu", arg: sched_watchdog) -> int:
    """Sets, pokes or removes a watchdog timer."""
    return vcpu.domain.watchdogs.set(arg.id, arg.timeout)


@sched_op.sub(SchedOp.SCHEDOP_remote_shutdown, remote_shutdown_arg, note="only of domains one controls: none")
def remote_shutdown(vcpu: "Vcpu", arg: remote_shutdown_arg) -> int:
    """Shuts another domain down: not for an unprivileged one."""
    vcpu.domain.domids.check_remote(arg.domain_id)
    return -Errno.EPERM


sched_op.refuse(Errno.EPERM, SchedOp.SCHEDOP_pin_override, note="hardware domain only")


@hypercall(Hypercall.HYPERVISOR_set_timer_op, "q", in_machine=True)
def set_timer_op(vcpu: "Vcpu", timeout_ns: int) -> None:
    """Sets the vCPU's single-shot timer to an absolute system time; 0 stops it."""
    vcpu.hw.set_timer_op(timeout_ns)
