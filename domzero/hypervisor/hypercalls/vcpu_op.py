# SPDX-License-Identifier: Apache-2.0
"""vcpu_op (vcpu.h)."""

from contextlib import suppress
from typing import TYPE_CHECKING

from domzero._machine import GuestFault, Preempted
from domzero.abi import vcpu as abi
from domzero.abi.arch_x86 import vcpu_guest_context
from domzero.abi.errno import Errno
from domzero.abi.layout import Wire, sizeof
from domzero.abi.sched import ShutdownReason
from domzero.abi.vcpu import VcpuOp
from domzero.abi.xen import PAGE_SIZE, Hypercall, vcpu_time_info
from domzero.hypervisor import guest_memory, timekeeping, vcpu_context
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.hypercalls.table import operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

MIN_PERIOD_NS = 1_000_000
MAX_PERIOD_NS = (1 << 62) - 1

vcpu_op = operation(Hypercall.HYPERVISOR_vcpu_op, "iup", VcpuOp)
vcpu_op.in_machine = True


def target(vcpu: "Vcpu", vcpu_id: int) -> "Vcpu":
    """The vCPU an operation is about.

    :raises XenError: ENOENT.
    """
    found = vcpu.domain.vcpu(vcpu_id)
    if found is None:
        raise XenError(Errno.ENOENT)
    return found


def _check(vcpu: "Vcpu", _command: int, vcpu_id: int, *_args: int) -> None:
    """The vCPU must exist, before anything else is looked at."""
    target(vcpu, vcpu_id)


vcpu_op.check = _check


def _in_machine(command: VcpuOp, struct: type[Wire] | None = None) -> None:
    """Registers a command that the machine answers, without coming here unless the domain is traced."""

    @vcpu_op.sub(command, struct, by_address=True, note="in the machine")
    def handler(vcpu: "Vcpu", vcpu_id: int, va: int) -> int:
        return vcpu.hw.vcpu_op(command, vcpu_id, va)


_in_machine(VcpuOp.VCPUOP_is_up)
_in_machine(VcpuOp.VCPUOP_set_singleshot_timer, abi.vcpu_set_singleshot_timer)
_in_machine(VcpuOp.VCPUOP_stop_singleshot_timer)


@vcpu_op.sub(VcpuOp.VCPUOP_initialise)
def initialise(vcpu: "Vcpu", vcpu_id: int, arg: int) -> int:
    """Gives a vCPU its first registers."""
    other = target(vcpu, vcpu_id)
    context = guest_memory.copy_in(vcpu, vcpu_guest_context, arg)
    if other.is_initialised:
        return -Errno.EEXIST
    vcpu_context.load(other, context)
    return 0


@vcpu_op.sub(VcpuOp.VCPUOP_up)
def up(vcpu: "Vcpu", vcpu_id: int, _arg: int) -> int:
    """Starts a vCPU."""
    other = target(vcpu, vcpu_id)
    if not other.is_initialised:
        return -Errno.EINVAL
    if other.is_down:
        other.bring_up()
    return 0


@vcpu_op.sub(VcpuOp.VCPUOP_down)
def down(vcpu: "Vcpu", vcpu_id: int, _arg: int) -> None:
    """Stops a vCPU; the domain powers off with its last one."""
    other = target(vcpu, vcpu_id)
    if all(v.is_down for v in vcpu.domain.vcpus if v is not other):
        vcpu.domain.shutdown(ShutdownReason.SHUTDOWN_poweroff)
    else:
        other.take_down()


@vcpu_op.sub(VcpuOp.VCPUOP_get_runstate_info)
def get_runstate_info(vcpu: "Vcpu", vcpu_id: int, arg: int) -> None:
    """How a vCPU has spent its time."""
    other = target(vcpu, vcpu_id)
    record = other.runstates.record(vcpu.domain.host.now_ns(), is_32bit=vcpu.domain.is_32bit)
    guest_memory.write(vcpu, arg, record)


@vcpu_op.sub(VcpuOp.VCPUOP_set_periodic_timer, abi.vcpu_set_periodic_timer)
def set_periodic_timer(vcpu: "Vcpu", vcpu_id: int, arg: abi.vcpu_set_periodic_timer) -> int:
    """VIRQ_TIMER again and again."""
    other = target(vcpu, vcpu_id)
    if not MIN_PERIOD_NS <= arg.period_ns <= MAX_PERIOD_NS:
        return -Errno.EINVAL
    other.timers.set_periodic(arg.period_ns)
    return 0


@vcpu_op.sub(VcpuOp.VCPUOP_stop_periodic_timer)
def stop_periodic_timer(vcpu: "Vcpu", vcpu_id: int, _arg: int) -> None:
    """No more of it."""
    target(vcpu, vcpu_id).timers.set_periodic(0)


@vcpu_op.sub(VcpuOp.VCPUOP_register_vcpu_info, abi.vcpu_register_vcpu_info)
def register_vcpu_info(vcpu: "Vcpu", vcpu_id: int, arg: abi.vcpu_register_vcpu_info) -> int:
    """vcpu_info moves into a frame of the guest; once per vCPU."""
    other = target(vcpu, vcpu_id)
    alignment = guest_memory.ulong_size(vcpu)
    if arg.offset > PAGE_SIZE - timekeeping.VCPU_INFO_SIZE or arg.offset % alignment:
        return -Errno.ENXIO
    if other.info.mfn is not None:
        return -Errno.EINVAL
    if other is not vcpu and not other.is_down:
        return -Errno.EINVAL  # only oneself, or a vCPU that is offline
    if other is not vcpu and other.in_guest:
        raise Preempted  # it stops within a millisecond: Linux, when it is resumed, has just taken it down
    vcpu.domain.hw.get_ref(arg.mfn, writable=True)
    vcpu.domain.hw.host_mapped(arg.mfn)
    other.move_info(arg.mfn, arg.offset)
    return 0


@vcpu_op.sub(VcpuOp.VCPUOP_register_runstate_memory_area, abi.vcpu_register_runstate_memory_area)
def register_runstate(vcpu: "Vcpu", vcpu_id: int, arg: abi.vcpu_register_runstate_memory_area) -> None:
    """A place where the guest finds its run state without asking."""
    other = target(vcpu, vcpu_id)
    va = arg.addr & 0xFFFFFFFF if vcpu.domain.is_32bit else arg.addr
    now_ns = vcpu.domain.host.now_ns()
    if va:
        record = other.runstates.record(now_ns, is_32bit=vcpu.domain.is_32bit)
        guest_memory.check_range(vcpu, va, len(record))
    other.runstates.area_va = va
    if other is vcpu:
        vcpu.write_runstate(now_ns)
    elif va:
        with suppress(GuestFault):  # the other one's next change of state tries again
            guest_memory.write(vcpu, va, record)


@vcpu_op.sub(VcpuOp.VCPUOP_register_vcpu_time_memory_area, abi.vcpu_register_time_memory_area)
def register_time(vcpu: "Vcpu", vcpu_id: int, arg: abi.vcpu_register_time_memory_area) -> None:
    """A second copy of the time record, for user space."""
    other = target(vcpu, vcpu_id)
    va = arg.addr & 0xFFFFFFFF if vcpu.domain.is_32bit else arg.addr
    guest_memory.check_range(vcpu, va, sizeof(vcpu_time_info))
    other.time.area_va = va
    if other is vcpu:
        vcpu.update_time(vcpu.domain.host.now_ns())
    else:
        other.time.stamp_ns = -timekeeping.REFRESH_NS  # written when it runs next


@vcpu_op.sub(VcpuOp.VCPUOP_send_nmi)
def send_nmi(vcpu: "Vcpu", vcpu_id: int, arg: int) -> int:
    """An NMI for a vCPU."""
    if arg:
        return -Errno.EINVAL
    target(vcpu, vcpu_id).send_nmi()
    return 0


@vcpu_op.sub(VcpuOp.VCPUOP_get_physid, note="EINVAL: for pinned vCPUs of the hardware domain only")
def get_physid(vcpu: "Vcpu", vcpu_id: int, _arg: int) -> int:
    """No vCPU is pinned to a processor."""
    target(vcpu, vcpu_id)
    return -Errno.EINVAL
