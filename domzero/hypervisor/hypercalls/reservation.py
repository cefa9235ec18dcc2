# SPDX-License-Identifier: Apache-2.0
"""memory_op: the balloon (increase, decrease, populate) and exchange."""

from typing import TYPE_CHECKING

from domzero import _machine
from domzero.abi.errno import Errno
from domzero.abi.layout import offset_of
from domzero.abi.memory import MEMOP_EXTENT_SHIFT, MemoryOp, xen_memory_exchange, xen_memory_reservation
from domzero.abi.xen import PAGE_SHIFT
from domzero.hypervisor import guest_memory
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.hypercalls.memory import memory_op
from domzero.hypervisor.hypercalls.table import Continuation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

FRAMES_AT_ONCE = 128
"""After so many frames the guest gets its events, and others their turn."""
MAX_EXTENTS = (1 << 32) - 1 >> MEMOP_EXTENT_SHIFT
MAX_ORDER = 9
"""The largest extent an unprivileged domain may ask for."""
ADDRESS_BITS = 0xFF
POPULATE_ON_DEMAND = 1 << 16
"""Of XENMEMF_*."""


def _at_once(order: int, mem_flags: int = 0) -> int:
    """Extents per round. Frames in a row, and frames below a limit, are looked for, which takes longer."""
    return FRAMES_AT_ONCE if order == 0 and not mem_flags & ADDRESS_BITS else max(1, 8 >> order)


def _extents(vcpu: "Vcpu", start: int, arg: int) -> tuple[xen_memory_reservation, int] | None:
    """The reservation and where this round ends; None where Xen says "none done" instead of an error."""
    try:
        reservation = guest_memory.copy_in(vcpu, xen_memory_reservation, arg)
    except _machine.GuestFault:
        return None
    if reservation.nr_extents > MAX_EXTENTS or start >= reservation.nr_extents:
        return None
    if not vcpu.domain.domids.is_own(reservation.domid):
        return None
    if reservation.extent_order > MAX_ORDER or 0 < reservation.mem_flags & ADDRESS_BITS <= PAGE_SHIFT:
        return None
    at_once = _at_once(reservation.extent_order, reservation.mem_flags)
    return reservation, min(start + at_once, reservation.nr_extents)


def _list_is_possible(vcpu: "Vcpu", reservation: xen_memory_reservation, start: int) -> bool:
    size = guest_memory.ulong_size(vcpu)
    try:
        guest_memory.check_range(vcpu, reservation.extent_start + start * size, (reservation.nr_extents - start) * size)
    except _machine.GuestFault:
        return False
    return True


def _finish(op: MemoryOp, arg: int, reservation: xen_memory_reservation, done: int, end: int) -> int:
    """What has been done is the result; a whole round with more to come is continued."""
    if done == end < reservation.nr_extents:
        raise Continuation(op | done << MEMOP_EXTENT_SHIFT, arg)
    return done


def _allocate(vcpu: "Vcpu", order: int, mem_flags: int) -> int | None:
    """The first of 2^order new frames in a row, without regard to the domain's limit.

    :raises Preempted: the search is to go on after others had their turn.
    """
    hw = vcpu.domain.hw
    bits = mem_flags & ADDRESS_BITS
    below = 1 << (bits - PAGE_SHIFT) if PAGE_SHIFT < bits < 64 else vcpu.domain.host.machine.frames
    if order == 0 and below >= vcpu.domain.host.machine.frames:
        try:
            return hw.alloc(1)[0]
        except _machine.MachineError:
            return None
    return hw.alloc_extent(order, below=below)


def _take(vcpu: "Vcpu", reservation: xen_memory_reservation) -> int | None:
    """One more extent for the domain, within its limit."""
    order = reservation.extent_order
    if vcpu.domain.hw.frames_owned + (1 << order) > vcpu.domain.max_pages:
        return None
    return _allocate(vcpu, order, reservation.mem_flags)


def _give_back(vcpu: "Vcpu", mfn: int, order: int) -> None:
    for frame in range(mfn, mfn + (1 << order)):
        _release(vcpu, frame)


def _release(vcpu: "Vcpu", mfn: int) -> bool:
    """Gives a frame back; False when it is not the domain's."""
    try:
        vcpu.domain.hw.release(mfn)
    except _machine.XenRefused:
        return False
    return True


@memory_op.sub(MemoryOp.XENMEM_increase_reservation)
def increase_reservation(vcpu: "Vcpu", start: int, arg: int) -> int:
    """More frames; their numbers are stored."""
    vcpu.domain.hw.settle()
    found = _extents(vcpu, start, arg)
    if found is None:
        return start
    reservation, end = found
    if reservation.extent_start and not _list_is_possible(vcpu, reservation, start):
        return start
    size = guest_memory.ulong_size(vcpu)
    done = start
    while done < end:
        try:
            mfn = _take(vcpu, reservation)
        except _machine.Preempted:
            raise Continuation(MemoryOp.XENMEM_increase_reservation | done << MEMOP_EXTENT_SHIFT, arg) from None
        if mfn is None:
            return done
        if reservation.extent_start:
            try:
                guest_memory.write_ulong(vcpu, reservation.extent_start + done * size, mfn)
            except _machine.GuestFault:
                _give_back(vcpu, mfn, reservation.extent_order)
                return done
        done += 1
    return _finish(MemoryOp.XENMEM_increase_reservation, arg, reservation, done, end)


@memory_op.sub(MemoryOp.XENMEM_populate_physmap)
def populate_physmap(vcpu: "Vcpu", start: int, arg: int) -> int:
    """More frames at given pseudo-physical numbers, which their machine numbers replace."""
    vcpu.domain.hw.settle()
    found = _extents(vcpu, start, arg)
    if found is None:
        return start
    reservation, end = found
    if reservation.mem_flags & POPULATE_ON_DEMAND or not _list_is_possible(vcpu, reservation, start):
        return start  # no domain populates itself on demand
    size = guest_memory.ulong_size(vcpu)
    done = start
    while done < end:
        at = reservation.extent_start + done * size
        try:
            (gpfn,) = guest_memory.read_ulongs(vcpu, at, 1)
        except _machine.GuestFault:
            return done
        try:
            mfn = _take(vcpu, reservation)
        except _machine.Preempted:
            raise Continuation(MemoryOp.XENMEM_populate_physmap | done << MEMOP_EXTENT_SHIFT, arg) from None
        if mfn is None:
            return done
        for offset in range(1 << reservation.extent_order):
            vcpu.domain.hw.m2p_set(mfn + offset, gpfn + offset & (1 << 64) - 1)
        try:
            guest_memory.write_ulong(vcpu, at, mfn)
        except _machine.GuestFault:
            _give_back(vcpu, mfn, reservation.extent_order)
            return done
        done += 1
    return _finish(MemoryOp.XENMEM_populate_physmap, arg, reservation, done, end)


@memory_op.sub(MemoryOp.XENMEM_decrease_reservation)
def decrease_reservation(vcpu: "Vcpu", start: int, arg: int) -> int:
    """Gives frames back. With a table that was pinned goes its tree: that is a round of its own, or several."""
    vcpu.domain.hw.settle()
    found = _extents(vcpu, start, arg)
    if found is None:
        return start
    reservation, end = found
    if not _list_is_possible(vcpu, reservation, start):
        return start
    size = guest_memory.ulong_size(vcpu)
    done = start
    while done < end:
        try:
            (first,) = guest_memory.read_ulongs(vcpu, reservation.extent_start + done * size, 1)
        except _machine.GuestFault:
            return done
        for mfn in range(first, first + (1 << reservation.extent_order)):
            if mfn >> 64 or not _release(vcpu, mfn):
                return done
        done += 1
        if vcpu.domain.hw.owes:
            raise Continuation(MemoryOp.XENMEM_decrease_reservation | done << MEMOP_EXTENT_SHIFT, arg)
    return _finish(MemoryOp.XENMEM_decrease_reservation, arg, reservation, done, end)


@memory_op.sub(MemoryOp.XENMEM_exchange)
def exchange(vcpu: "Vcpu", start: int, arg: int) -> int:
    """Gives extents back and takes others, of another size perhaps, in their place."""
    if start:
        return -Errno.EINVAL
    vcpu.domain.hw.settle()
    exch = guest_memory.copy_in(vcpu, xen_memory_exchange, arg)
    counted_at = arg + offset_of(type(exch), "nr_exchanged")
    try:
        _check_exchange(vcpu, exch)
    except XenError:
        guest_memory.write_ulong(vcpu, counted_at, exch.nr_exchanged)
        raise
    old, new = exch.in_, exch.out
    if exch.nr_exchanged == old.nr_extents:
        return 0
    order = max(old.extent_order, new.extent_order)
    extents = 1 << order - old.extent_order
    # Extents of the old list that make one step.
    done, rc, rounds = exch.nr_exchanged - exch.nr_exchanged % extents, 0, _at_once(order)
    while done + extents <= old.nr_extents and rc == 0 and rounds:
        try:
            rc = _exchange_step(vcpu, exch, done, order)
        except _machine.Preempted:
            break
        done += 0 if rc else extents
        rounds -= 1
    guest_memory.write_ulong(vcpu, counted_at, done)
    if rc == 0 and done + extents <= old.nr_extents:
        raise Continuation(MemoryOp.XENMEM_exchange, arg)
    return rc


def _check_exchange(vcpu: "Vcpu", exch: xen_memory_exchange) -> None:
    old, new = exch.in_, exch.out
    if vcpu.domain.is_32bit and any(_overflows_32(part) for part in (old, new)):
        raise XenError(Errno.EINVAL)  # looked at when the arguments are widened, before permission
    if max(old.extent_order, new.extent_order) > MAX_ORDER:
        raise XenError(Errno.EPERM)
    if exch.nr_exchanged > old.nr_extents or old.domid != new.domid:
        raise XenError(Errno.EINVAL)
    if max(old.nr_extents << old.extent_order, new.nr_extents << new.extent_order) >> 64:
        raise XenError(Errno.EINVAL)
    if old.nr_extents << old.extent_order != new.nr_extents << new.extent_order:
        raise XenError(Errno.EINVAL)
    done = exch.nr_exchanged << old.extent_order >> new.extent_order
    if not _list_is_possible(vcpu, old, exch.nr_exchanged) or not _list_is_possible(vcpu, new, done):
        raise XenError(Errno.EFAULT)
    if old.nr_extents:
        vcpu.domain.domids.check_own(old.domid)


def _overflows_32(part: xen_memory_reservation) -> bool:
    """Whether the frames of a list cannot be counted in 32 bits; only the low bits of an order count there."""
    return bool(0xFFFFFFFF >> (part.extent_order & 31) < part.nr_extents)


def _exchange_step(vcpu: "Vcpu", exch: xen_memory_exchange, first: int, order: int) -> int:
    """Exchanges 2^order frames: those of extent `first` of the old list and the following.

    :raises Preempted: nothing is done yet.
    """
    old, new = exch.in_, exch.out
    size = guest_memory.ulong_size(vcpu)
    bases = guest_memory.read_ulongs(vcpu, old.extent_start + first * size, 1 << order - old.extent_order)
    frames = [base + offset for base in bases for offset in range(1 << old.extent_order)]
    if len(set(frames)) != len(frames) or not all(_is_unused(vcpu, mfn) for mfn in frames):
        return -Errno.EINVAL
    out_at = new.extent_start + (first << old.extent_order >> new.extent_order) * size
    gpfns = guest_memory.read_ulongs(vcpu, out_at, 1 << order - new.extent_order)
    taken: list[int] = []
    while len(taken) < len(gpfns):
        try:
            mfn = _allocate(vcpu, new.extent_order, new.mem_flags)
        except _machine.Preempted:
            if taken:
                continue  # of several, all are looked for at once
            raise
        if mfn is None:
            for extent in taken:
                _give_back(vcpu, extent, new.extent_order)
            return -Errno.ENOMEM
        taken.append(mfn)
    for mfn in frames:
        _release(vcpu, mfn)
    for gpfn, mfn in zip(gpfns, taken, strict=True):
        for offset in range(1 << new.extent_order):
            vcpu.domain.hw.m2p_set(mfn + offset, gpfn + offset & (1 << 64) - 1)
    try:
        guest_memory.write(vcpu, out_at, b"".join(guest_memory.ulong(vcpu, mfn) for mfn in taken))
    except _machine.GuestFault:
        return -Errno.EFAULT
    return 0


def _is_unused(vcpu: "Vcpu", mfn: int) -> bool:
    """Whether a frame is the domain's, and neither mapped nor a table nor granted."""
    machine = vcpu.domain.host.machine
    if mfn >= machine.frames:
        return False
    frame = machine.frame_info(mfn)
    return frame.owner == vcpu.domain.domid and frame.refs == 1 and frame.type_count == 0
