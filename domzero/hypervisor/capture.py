# SPDX-License-Identifier: Apache-2.0
"""Reads what a suspended PV domain is (`saved`), and lets it go on if it was only a checkpoint."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from domzero._machine import Callback, Preempted
from domzero.abi.sched import ShutdownReason
from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor import timekeeping, vcpu_context
from domzero.hypervisor.saved import SavedBits, SavedCallback, SavedDomain, SavedVcpu, SaveError

if TYPE_CHECKING:
    from domzero._machine import Register
    from domzero.hypervisor.domain import Domain
    from domzero.hypervisor.vcpu import Vcpu

OTHER_CALLBACKS = (Callback.SYSCALL32, Callback.SYSENTER, Callback.NMI)
"""Those that struct vcpu_guest_context has no room for, in the order of `SavedVcpu.callbacks`."""
ADDRESS_MASKS: tuple[Register, ...] = ("dr0_mask", "dr1_mask", "dr2_mask", "dr3_mask")
SUSPEND_CANCELLED = 1
"""What SCHEDOP_shutdown returns to a guest that goes on where it was: 0 in one that was restored."""


def frames_of(domain: Domain) -> tuple[array[int], array[int], tuple[tuple[int, int], ...]]:
    """The domain's frames in order, the pseudo-physical one of each, and the page tables that it has pinned."""
    machine = domain.host.machine
    first, count = machine.m2p
    found, pinned = domain.hw.list_frames()
    with domain.host.memory[first * PAGE_SIZE : (first + count) * PAGE_SIZE].cast("Q") as m2p:
        pfns = array("Q", map(m2p.__getitem__, found))
    mfns = array("Q", found)
    return mfns, pfns, tuple(pinned)


def capture(
    domain: Domain, store: tuple[int, int], console: tuple[int, int]
) -> tuple[SavedDomain, array[int], array[int]]:
    """What a domain is that has shut down for SHUTDOWN_suspend and whose vCPUs stand still.

    :param store, console: frame and port of its rings.
    :returns: with its frames, in order, and the pseudo-physical ones.
    :raises SaveError: it has not suspended itself, or has what cannot be saved.
    """
    host = domain.host
    with host.lock:
        if domain.shutdown_code != ShutdownReason.SHUTDOWN_suspend:
            raise SaveError("the guest has not suspended itself")
        if host.clock.virtual_start_ns is not None:
            raise SaveError("a domain with virtual time is not saved")
        while domain.hw.owes:
            try:
                domain.hw.settle()
            except Preempted:
                continue
        mfns, pfns, pinned = frames_of(domain)
        for mfn, what in ((store[0], "store"), (console[0], "console")):
            if host.machine.frame_info(mfn).owner != domain.domid:
                raise SaveError(f"the guest has given back the page of its {what}")
        saved = SavedDomain(
            is_32bit=domain.is_32bit,
            machine_frames=host.machine.frames,
            system_time_ns=host.now_ns(),
            max_pages=domain.max_pages,
            e820=tuple(domain.e820),
            vm_assist=domain.vm_assist,
            shared_info=bytes(domain.shared_info).hex(),
            features=tuple(sorted(domain.cpu.features)),
            cpuid_bits=tuple(
                SavedBits(
                    leaf=bits.register[0],
                    subleaf=-1 if bits.register[1] is None else bits.register[1],
                    register=bits.register[2],
                    mask=bits.mask,
                    value=bits.value,
                )
                for bits in domain.cpu.bits
            ),
            pinned=pinned,
            store_mfn=store[0],
            store_port=store[1],
            console_mfn=console[0],
            console_port=console[1],
            vcpus=tuple(_vcpu(vcpu) for vcpu in domain.vcpus),
        )
    return saved, mfns, pfns


def _vcpu(vcpu: Vcpu) -> SavedVcpu:
    hw = vcpu.hw
    at = vcpu.info.maddr + timekeeping.VCPU_INFO_TIME
    callbacks = [hw.get_callback(kind) for kind in OTHER_CALLBACKS]
    return SavedVcpu(
        context=bytes(vcpu_context.save(vcpu)).hex() if vcpu.is_initialised else "",
        is_up=not vcpu.is_down,
        upcall_mask=vcpu.info.upcall_mask,
        time_version=int.from_bytes(vcpu.domain.host.memory[at : at + 4], "little"),
        cr2=hw.get_reg("cr2"),
        tsc_aux=hw.get_reg("tsc_aux"),
        xcr0=hw.get_reg("xcr0"),
        address_masks=tuple(hw.get_reg(name) for name in ADDRESS_MASKS),
        upper_vectors=bytes(hw.save_upper_vectors()).hex(),
        callbacks=tuple(SavedCallback(cs=cs, address=address, masks_events=masks) for cs, address, masks in callbacks),
        cpuid_faulting=vcpu.cpuid_faulting,
        efer_bits=vcpu.efer_bits,
    )


def touched_runs(domain: Domain, mfns: array[int], most: int) -> Iterator[tuple[int, int]]:
    """Runs of frames that may hold something: (index of the first one in `mfns`, how many); none goes over a multiple
    of `most` in `mfns`.

    Frames that the host has no memory for are zero, and are left out without being touched: it would have some then.
    """
    fd, index, total = domain.host.machine.fileno(), 0, len(mfns)
    end = 0
    while index < total:
        mfn = mfns[index]
        if mfn >= end:
            try:
                begin = os.lseek(fd, mfn * PAGE_SIZE, os.SEEK_DATA) // PAGE_SIZE
            except OSError:  # ENXIO: nothing but a hole is left
                return
            end = -(-os.lseek(fd, begin * PAGE_SIZE, os.SEEK_HOLE) // PAGE_SIZE)
            if begin > mfn:
                while index < total and mfns[index] < begin:
                    index += 1
                continue
        first = index
        last = min(total, (index // most + 1) * most)
        while index < last and mfns[index] < end:
            if index > first and mfns[index] != mfns[index - 1] + 1:
                break
            index += 1
        yield first, index - first


def go_on(domain: Domain) -> None:
    """Lets a guest go on that has suspended itself, as if it had been told that it is not suspended after all."""
    with domain.host.lock:
        if domain.shutdown_code != ShutdownReason.SHUTDOWN_suspend:
            raise SaveError("the guest has not suspended itself")
        domain.vcpus[0].hw.hypercall_return(SUSPEND_CANCELLED)
        domain.resume()


__all__ = ["capture", "frames_of", "go_on", "touched_runs"]
