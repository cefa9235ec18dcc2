"""memory_op: the balloon (increase, decrease, populate) and exchange."""

from typing import TYPE_CHECKING

from domzero import _machine
from domzero.abi.errno import Errno
from domzero.abi.memory import MEMOP_EXTENT_SHIFT, MemoryOp, xen_memory_exchange, xen_memory_reservation
from domzero.abi.xen import DOMID_SELF
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls.event_channel import check_self
from domzero.hypervisor.hypercalls.memory import memory_op
from domzero.hypervisor.hypercalls.table import Continuation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

EXTENTS_AT_ONCE = 256
"""After so many extents the guest gets its events."""
MAX_EXTENTS = (1 << 32) - 1 >> MEMOP_EXTENT_SHIFT
MAX_ORDER = 9
"""The largest extent an unprivileged domain may ask for."""


def _extents(vcpu: "Vcpu", start: int, arg: int) -> tuple[xen_memory_reservation, int] | None:
    """The reservation and where this round ends; None where Xen says "none done" instead of an error."""
    try:
        reservation = guest_memory.copy_in(vcpu, xen_memory_reservation, arg)
    except _machine.GuestFault:
        return None
    if reservation.nr_extents > MAX_EXTENTS or start >= reservation.nr_extents:
        return None
    if reservation.domid not in (DOMID_SELF, vcpu.domain.domid):
        return None
    if reservation.extent_order > MAX_ORDER:
        return None
    return reservation, min(start + EXTENTS_AT_ONCE, reservation.nr_extents)


def _finish(op: MemoryOp, arg: int, reservation: xen_memory_reservation, done: int, end: int) -> int:
    """What has been done is the result; a whole round with more to come is continued."""
    if done == end < reservation.nr_extents:
        raise Continuation(op | done << MEMOP_EXTENT_SHIFT, arg)
    return done


def _take(vcpu: "Vcpu") -> int | None:
    """One more frame for the domain, within its limit."""
    domain = vcpu.domain
    if domain.hw.frames_owned >= domain.max_pages:
        return None
    try:
        return domain.hw.alloc(1)[0]
    except _machine.MachineError:
        return None


@memory_op.sub(MemoryOp.XENMEM_increase_reservation, note="extents of one frame")
def increase_reservation(vcpu: "Vcpu", start: int, arg: int) -> int:
    """More frames; their numbers are stored."""
    found = _extents(vcpu, start, arg)
    if found is None:
        return start
    reservation, end = found
    size = guest_memory.ulong_size(vcpu)
    done = start
    while done < end and reservation.extent_order == 0:
        mfn = _take(vcpu)
        if mfn is None:
            return done
        if reservation.extent_start:
            try:
                guest_memory.write_ulong(vcpu, reservation.extent_start + done * size, mfn)
            except _machine.GuestFault:
                vcpu.domain.hw.release(mfn)
                return done
        done += 1
    return _finish(MemoryOp.XENMEM_increase_reservation, arg, reservation, done, end)


@memory_op.sub(MemoryOp.XENMEM_populate_physmap, note="extents of one frame")
def populate_physmap(vcpu: "Vcpu", start: int, arg: int) -> int:
    """More frames at given pseudo-physical numbers, which their machine numbers replace."""
    found = _extents(vcpu, start, arg)
    if found is None:
        return start
    reservation, end = found
    size = guest_memory.ulong_size(vcpu)
    hw = vcpu.domain.hw
    done = start
    while done < end and reservation.extent_order == 0:
        at = reservation.extent_start + done * size
        try:
            (gpfn,) = guest_memory.read_ulongs(vcpu, at, 1)
        except _machine.GuestFault:
            return done
        mfn = _take(vcpu)
        if mfn is None:
            return done
        hw.m2p_set(mfn, gpfn)
        try:
            guest_memory.write_ulong(vcpu, at, mfn)
        except _machine.GuestFault:
            hw.release(mfn)
            return done
        done += 1
    return _finish(MemoryOp.XENMEM_populate_physmap, arg, reservation, done, end)


@memory_op.sub(MemoryOp.XENMEM_decrease_reservation)
def decrease_reservation(vcpu: "Vcpu", start: int, arg: int) -> int:
    """Gives frames back."""
    found = _extents(vcpu, start, arg)
    if found is None:
        return start
    reservation, end = found
    size = guest_memory.ulong_size(vcpu)
    done = start
    while done < end:
        try:
            (first,) = guest_memory.read_ulongs(vcpu, reservation.extent_start + done * size, 1)
        except _machine.GuestFault:
            return done
        for mfn in range(first, first + (1 << reservation.extent_order)):
            if vcpu.domain.hw.release(mfn):
                return done
        done += 1
    return _finish(MemoryOp.XENMEM_decrease_reservation, arg, reservation, done, end)


@memory_op.sub(MemoryOp.XENMEM_exchange, note="extents of one frame; ENOMEM for contiguous ones")
def exchange(vcpu: "Vcpu", _start: int, arg: int) -> int:
    """Gives frames back and takes others in their place."""
    exch = guest_memory.copy_in(vcpu, xen_memory_exchange, arg)
    old, new = exch.in_, exch.out
    if exch.nr_exchanged > old.nr_extents:
        return -Errno.EINVAL
    if max(old.nr_extents, new.nr_extents) > MAX_EXTENTS or max(old.extent_order, new.extent_order) > 63:
        return -Errno.EINVAL
    if old.nr_extents << old.extent_order != new.nr_extents << new.extent_order or old.domid != new.domid:
        return -Errno.EINVAL
    if max(old.extent_order, new.extent_order) > MAX_ORDER:
        return -Errno.EPERM
    check_self(vcpu, old.domid)
    if old.extent_order or new.extent_order:
        return -Errno.ENOMEM
    done = exch.nr_exchanged
    end = min(done + EXTENTS_AT_ONCE, old.nr_extents)
    rc = 0
    while done < end and rc == 0:
        rc = _exchange_one(vcpu, exch, done)
        done += rc == 0
    at = arg + type(exch).nr_exchanged.offset  # type: ignore[attr-defined]
    guest_memory.write_ulong(vcpu, at, done)
    if rc == 0 and done < old.nr_extents:
        raise Continuation(MemoryOp.XENMEM_exchange, arg)
    return rc


def _exchange_one(vcpu: "Vcpu", exch: xen_memory_exchange, index: int) -> int:
    at = index * guest_memory.ulong_size(vcpu)
    hw = vcpu.domain.hw
    (old,) = guest_memory.read_ulongs(vcpu, exch.in_.extent_start + at, 1)
    (gpfn,) = guest_memory.read_ulongs(vcpu, exch.out.extent_start + at, 1)
    try:
        mfn = hw.alloc(1)[0]
    except _machine.MachineError:
        return -Errno.ENOMEM
    if hw.release(old):
        hw.release(mfn)
        return -Errno.EINVAL
    hw.m2p_set(mfn, gpfn)
    guest_memory.write_ulong(vcpu, exch.out.extent_start + at, mfn)
    return 0
