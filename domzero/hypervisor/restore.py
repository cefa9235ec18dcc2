# SPDX-License-Identifier: Apache-2.0
"""Makes a PV domain of what was saved of one (`saved`).

All of it may come from somebody hostile: each number is checked before it is used, frames get their contents while they
have no types, and page tables are validated as they are for a guest's own hypercalls. What is refused leaves nothing.
"""

from __future__ import annotations

import uuid as uuid_module
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from domzero._machine import MachineError, Preempted, XenRefused
from domzero.abi.arch_x86 import Vgcf, vcpu_guest_context
from domzero.abi.grant_table import GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE
from domzero.abi.layout import layout_for, sizeof
from domzero.abi.start_info import start_info
from domzero.abi.x86 import EFER_AUTOIBRS, is_canonical
from domzero.abi.xen import PAGE_SIZE, VmAssistType, shared_info
from domzero.hypervisor import m2p, timekeeping, vcpu_context
from domzero.hypervisor.capture import ADDRESS_MASKS, OTHER_CALLBACKS
from domzero.hypervisor.domain import Domain, DomainSpec, Limits
from domzero.hypervisor.emulate.cpu_features import PLACES, available, supported
from domzero.hypervisor.emulate.cpu_policy import Bits, CpuPolicy
from domzero.hypervisor.engine import Engine
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.evtchn import alloc_unbound
from domzero.hypervisor.host import Host
from domzero.hypervisor.saved import RestoreError, SavedDomain, SavedVcpu
from domzero.hypervisor.selectors import fixup_selector
from domzero.hypervisor.vcpu import Vcpu

SYSTEM_TIME_MAX_NS = 1 << 61
"""73 years: what is added to it still counts in 62 bits, as deadlines do."""
E820_MAX = 128
_E820_LIMITS = (1 << 64, 1 << 64, 1 << 32)
UPPER_VECTORS_SIZE = 256
VM_ASSIST_MAX = 64


@dataclass(slots=True, frozen=True)
class Restored:
    """A domain that is there again, paused once (`Domain.unpause`)."""

    domain: Domain
    store_port: int
    console_port: int


def check_policy(saved: SavedDomain) -> CpuPolicy:
    """What CPUID showed, which it goes on to show: RestoreError where this host cannot."""
    features = frozenset(saved.features)
    if unknown := sorted(features - PLACES.keys()):
        raise RestoreError(f"its processor has {unknown[0][:20]!r}, which is no feature")
    if missing := sorted(features - available()):
        raise RestoreError(f"its processor has {', '.join(missing)}, and this host has not")
    if supported(features) != features:
        raise RestoreError("its processor has features without those that they need")
    for bits in saved.cpuid_bits:
        if not (0 <= bits.leaf < 1 << 32 and -1 <= bits.subleaf < 1 << 32 and bits.register in _REGISTERS):
            raise RestoreError("what CPUID shows is no such register")
        if not (0 <= bits.mask < 1 << 32 and 0 <= bits.value < 1 << 32):
            raise RestoreError("what CPUID shows has more than 32 bits")
    made = (
        Bits((bits.leaf, None if bits.subleaf < 0 else bits.subleaf, bits.register), bits.mask, bits.value & bits.mask)
        for bits in saved.cpuid_bits
    )
    return CpuPolicy(features, tuple(made))


_REGISTERS = ("eax", "ebx", "ecx", "edx")


def restore(
    host: Host,
    saved: SavedDomain,
    mfns: array[int],
    pfns: array[int],
    fill: Callable[[memoryview], None],
    *,
    vcpus: int,
    max_pages: int,
    name: str,
    uuid: uuid_module.UUID,
    domid: int,
    limits: Limits,
    engine: Engine,
) -> Restored:
    """Makes the domain in a host of as many frames as the one that it was saved in (`SavedDomain.machine_frames`).

    :param mfns, pfns: its frames, and the pseudo-physical one of each.
    :param fill: writes the contents of the frames that are not zero into machine memory, which it is given.
    :param vcpus: that it is to have.
    :param max_pages: frames that it may own at most.
    :raises RestoreError: something in it is wrong; nothing is left then.
    """
    if len(saved.vcpus) != vcpus:
        raise RestoreError(f"it has {len(saved.vcpus)} vCPUs, and its configuration {vcpus}")
    if saved.machine_frames != host.machine.frames:
        raise RestoreError("its machine had another size")
    if not 0 < len(mfns) <= max_pages or len(pfns) != len(mfns):
        raise RestoreError(f"it has {len(mfns)} frames, and may have {max_pages}")
    if not 0 <= saved.vm_assist < 1 << VM_ASSIST_MAX or saved.vm_assist & ~_ASSISTS:
        raise RestoreError("it has asked for assistance that there is not")
    if len(saved.e820) > E820_MAX or any(len(entry) != 3 for entry in saved.e820):
        raise RestoreError("its memory map is none")
    if any(not 0 <= part < limit for entry in saved.e820 for part, limit in zip(entry, _E820_LIMITS, strict=True)):
        raise RestoreError("its memory map is none")
    if any(len(entry) != 2 for entry in saved.pinned):
        raise RestoreError("its pinned page tables are none")
    spec = DomainSpec(
        name=name,
        max_pages=max_pages,
        vcpus=vcpus,
        uuid=uuid,
        is_32bit=saved.is_32bit,
        domid=domid,
        e820=list(saved.e820),
        limits=limits,
        engine=engine,
        cpu=check_policy(saved),
    )
    host.machine.hand_out_last(mfns.tolist())
    domain = host.create_domain(spec)
    try:
        return _restore(host, domain, saved, mfns, pfns, fill)
    except BaseException:
        host.destroy_domain(domain)
        raise


_ASSISTS = sum(1 << int(assist) for assist in VmAssistType)


def _restore(
    host: Host,
    domain: Domain,
    saved: SavedDomain,
    mfns: array[int],
    pfns: array[int],
    fill: Callable[[memoryview], None],
) -> Restored:
    try:
        domain.hw.alloc_at(mfns.tolist())
    except MachineError as error:
        raise RestoreError(f"its frames are not to be had: {error}") from error
    owned = set(mfns)
    if saved.store_mfn == saved.console_mfn or not {saved.store_mfn, saved.console_mfn} <= owned:
        raise RestoreError("the pages of its rings are none of its own")
    fill(host.memory)
    m2p.fill(host.machine, host.memory, mfns, pfns)
    store_port, console_port = alloc_unbound(domain), alloc_unbound(domain)
    if (store_port, console_port) != (saved.store_port, saved.console_port):
        raise RestoreError("the ports of its rings are others than a domain is started with")
    _write_start_info(host, domain, saved, owned)
    _fill_shared_info(domain, saved)
    # Nothing that is written from outside can be made a page table from here on.
    for mfn in (saved.store_mfn, saved.console_mfn):
        host.frame_view(mfn)
    domain.grants.seed(GNTTAB_RESERVED_CONSOLE, saved.console_mfn)
    domain.grants.seed(GNTTAB_RESERVED_XENSTORE, saved.store_mfn)
    domain.vm_assist = saved.vm_assist
    _pin(domain, saved)
    with host.lock:
        for vcpu, state in zip(domain.vcpus, saved.vcpus, strict=True):
            _load_vcpu(vcpu, state)
        for vcpu, state in zip(domain.vcpus, saved.vcpus, strict=True):
            if state.is_up:
                if not vcpu.is_initialised:
                    raise RestoreError(f"vCPU {vcpu.vcpu_id} runs and has no registers")
                vcpu.bring_up()
    if domain.vcpus[0].is_down:
        raise RestoreError("vCPU 0, which suspended it, is down")
    return Restored(domain, store_port, console_port)


def _write_start_info(host: Host, domain: Domain, saved: SavedDomain, owned: set[int]) -> None:
    """What a resumed guest finds in start_info: the frame of that page is the hypercall's third argument."""
    regs = _context(domain, saved.vcpus[0], 0).user_regs
    frame = regs.edx if saved.is_32bit else regs.rdx
    if frame not in owned or frame in (saved.store_mfn, saved.console_mfn):
        raise RestoreError("the page of its start_info is none of its own")
    layout = layout_for(start_info, saved.is_32bit)
    with host.memory[frame * PAGE_SIZE : frame * PAGE_SIZE + sizeof(layout)] as view:
        info = layout.from_buffer_copy(view)
        info.shared_info = domain.shared_info_maddr
        info.flags = 0
        info.store_mfn, info.store_evtchn = saved.store_mfn, saved.store_port
        info.console.domU.mfn, info.console.domU.evtchn = saved.console_mfn, saved.console_port
        view[:] = bytes(info)


def _fill_shared_info(domain: Domain, saved: SavedDomain) -> None:
    """As Xen's own toolstack does it: no event is pending, all are masked, and the guest says anew where its list of
    frames is. Time is the hypervisor's."""
    data = _bytes(saved.shared_info, PAGE_SIZE, "shared_info")
    layout = layout_for(shared_info, saved.is_32bit)
    page = layout.from_buffer_copy(data[: sizeof(layout)])
    for info in page.vcpu_info:
        info.evtchn_upcall_pending = 0
        info.evtchn_pending_sel = 0
        info.evtchn_upcall_mask = 1
    for index in range(len(page.evtchn_mask)):
        page.evtchn_pending[index] = 0
        page.evtchn_mask[index] = (1 << (32 if saved.is_32bit else 64)) - 1
    page.arch.pfn_to_mfn_frame_list_list = 0
    domain.shared_info[: sizeof(layout)] = bytes(page)
    timekeeping.update_wallclock(domain.host, domain.shared_info_maddr, is_32bit=saved.is_32bit)


def _pin(domain: Domain, saved: SavedDomain) -> None:
    """Validates and pins the page tables that it had pinned: those above first, which hold what is below."""
    for mfn, level in sorted(saved.pinned, key=lambda entry: -entry[1]):
        while True:
            try:
                domain.hw.pin_table(mfn, level)
            except Preempted:
                continue
            except (XenRefused, OverflowError) as refused:
                raise RestoreError(f"a page table of level {level} is not valid") from refused
            break


def _context(domain: Domain, state: SavedVcpu, number: int) -> vcpu_guest_context:
    layout = layout_for(vcpu_guest_context, domain.is_32bit)
    context: vcpu_guest_context = layout.from_buffer_copy(
        _bytes(state.context, sizeof(layout), f"the registers of vCPU {number}")
    )
    return context


def _load_vcpu(vcpu: Vcpu, state: SavedVcpu) -> None:
    number = f"vCPU {vcpu.vcpu_id}"
    for value, bits in ((state.tsc_aux, 32), (state.time_version, 32), (state.cr2, 64), (state.xcr0, 64)):
        if not 0 <= value < 1 << bits:
            raise RestoreError(f"{number}: a register is out of range")
    vcpu.info.upcall_mask = state.upcall_mask
    vcpu.time.go_on(state.time_version)
    vcpu.update_time(vcpu.domain.host.now_ns())
    if not state.context:
        return
    context = _context(vcpu.domain, state, vcpu.vcpu_id)
    context.flags &= ~int(Vgcf.VGCF_online)  # whether it runs is said beside
    while True:
        try:
            vcpu_context.load(vcpu, context)
        except Preempted:
            continue
        except (XenError, ValueError) as error:
            raise RestoreError(f"{number}: its registers are not possible") from error
        break
    _load_rest(vcpu, state, number)


def _load_rest(vcpu: Vcpu, state: SavedVcpu, number: str) -> None:
    """What struct vcpu_guest_context has no room for, as the guest could have set it."""
    hw = vcpu.hw
    if len(state.address_masks) != len(ADDRESS_MASKS) or len(state.callbacks) != len(OTHER_CALLBACKS):
        raise RestoreError(f"{number}: registers are missing")
    try:
        hw.set_reg("xcr0", state.xcr0)
    except ValueError as error:
        raise RestoreError(f"{number}: its XCR0 is not possible") from error
    hw.load_upper_vectors(_bytes(state.upper_vectors, UPPER_VECTORS_SIZE, f"{number}'s vectors"))
    hw.set_reg("tsc_aux", state.tsc_aux)
    hw.set_reg("cr2", state.cr2 & 0xFFFFFFFF if vcpu.domain.is_32bit else state.cr2)
    for name, mask in zip(ADDRESS_MASKS, state.address_masks, strict=True):
        if not 0 <= mask < 1 << 32:
            raise RestoreError(f"{number}: {name} is out of range")
        hw.set_reg(name, mask)
    for kind, callback in zip(OTHER_CALLBACKS, state.callbacks, strict=True):
        if not 0 <= callback.cs < 1 << 16 or not 0 <= callback.address < 1 << 64 or not is_canonical(callback.address):
            raise RestoreError(f"{number}: a callback is not possible")
        if callback.address:
            hw.set_callback(kind, fixup_selector(vcpu, callback.cs), callback.address, callback.masks_events)
    vcpu.cpuid_faulting = state.cpuid_faulting
    hw.set_cpuid_faulting(state.cpuid_faulting)
    vcpu.efer_bits = state.efer_bits & EFER_AUTOIBRS


def _bytes(digits: str, size: int, what: str) -> bytes:
    try:
        data = bytes.fromhex(digits)
    except ValueError as error:
        raise RestoreError(f"{what}: not hexadecimal digits") from error
    if len(data) != size:
        raise RestoreError(f"{what}: {len(data)} bytes, and {size} are expected")
    return data


__all__ = ["Restored", "check_policy", "restore"]
