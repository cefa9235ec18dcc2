# SPDX-License-Identifier: Apache-2.0
"""memory_op (memory.h): what a domain may know of memory. Changing how much it has is in `reservation`."""

import struct
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from domzero.abi import memory as abi
from domzero.abi.arch_x86 import (
    MACH2PHYS_COMPAT_VIRT_END,
    MACH2PHYS_NR_ENTRIES,
    MACH2PHYS_VIRT_END,
    MACH2PHYS_VIRT_START,
    MACH2PHYS_VIRT_START_PAE,
)
from domzero.abi.errno import Errno
from domzero.abi.layout import layout_for, offset_of, sizeof
from domzero.abi.memory import MEMOP_EXTENT_SHIFT, XENMEM_RDM_ALL, MapSpace, MemoryOp
from domzero.abi.xen import Hypercall, arch_shared_info, shared_info
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls.table import Handler, operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

memory_op = operation(Hypercall.HYPERVISOR_memory_op, "lp", MemoryOp)
memory_op.command_bits = MEMOP_EXTENT_SHIFT

E820_ENTRY = struct.Struct("<QQI")
E820_MAX = 1024
M2P_EXTENT_FRAMES = 512
"""2 MiB of machine-to-phys table."""


def whole(errno: Errno) -> Callable[[Handler], Handler]:
    """For commands that are never continued: `errno` when the first argument says where to go on."""

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        def checked(vcpu: "Vcpu", start: int, arg: int) -> int | None:
            return -errno if start else handler(vcpu, arg)

        return checked

    return decorate


def _own_reservation(vcpu: "Vcpu", arg: int) -> None:
    vcpu.domain.domids.check_own(guest_memory.copy_in(vcpu, abi.xen_memory_domain, arg).domid)


@memory_op.sub(MemoryOp.XENMEM_maximum_ram_page)
@whole(Errno.EINVAL)
def maximum_ram_page(vcpu: "Vcpu", _arg: int) -> int:
    """The highest machine frame."""
    return vcpu.domain.host.machine.frames - 1


@memory_op.sub(MemoryOp.XENMEM_current_reservation)
@whole(Errno.EINVAL)
def current_reservation(vcpu: "Vcpu", arg: int) -> int:
    """Frames the domain has."""
    _own_reservation(vcpu, arg)
    return vcpu.domain.hw.frames_owned


@memory_op.sub(MemoryOp.XENMEM_maximum_reservation)
@whole(Errno.EINVAL)
def maximum_reservation(vcpu: "Vcpu", arg: int) -> int:
    """Frames the domain may have."""
    _own_reservation(vcpu, arg)
    return vcpu.domain.max_pages


@memory_op.sub(MemoryOp.XENMEM_maximum_gpfn)
@whole(Errno.EINVAL)
def maximum_gpfn(vcpu: "Vcpu", arg: int) -> int:
    """The highest pseudo-physical frame number, as the guest has said in shared_info."""
    _own_reservation(vcpu, arg)
    is_32bit = vcpu.domain.is_32bit
    layout = layout_for(shared_info, is_32bit)
    at = vcpu.domain.shared_info_maddr + offset_of(layout, "arch")
    at += offset_of(layout_for(arch_shared_info, is_32bit), "max_pfn")
    shared = vcpu.domain.host.shared
    max_pfn = shared.u32(at) if is_32bit else shared.u64(at) & 0x7FFFFFFFFFFFFFFF
    return max(max_pfn, 1) - 1


@memory_op.sub(MemoryOp.XENMEM_machphys_mapping)
@whole(Errno.ENOSYS)
def machphys_mapping(vcpu: "Vcpu", arg: int) -> None:
    """Where the machine-to-phys table is."""
    if vcpu.domain.is_32bit:
        start, end = MACH2PHYS_VIRT_START_PAE, MACH2PHYS_COMPAT_VIRT_END
        values = (start, end, (end - start) // 4 - 1)
    else:
        values = (MACH2PHYS_VIRT_START, MACH2PHYS_VIRT_END, MACH2PHYS_NR_ENTRIES - 1)
    layout = layout_for(abi.xen_machphys_mapping, vcpu.domain.is_32bit)
    guest_memory.write(vcpu, arg, bytes(layout(*values)))


@memory_op.sub(MemoryOp.XENMEM_machphys_mfn_list)
@whole(Errno.ENOSYS)
def machphys_mfn_list(vcpu: "Vcpu", arg: int) -> None:
    """The frames of that table, one for each 2 MiB. A 32-bit guest has only the narrow one."""
    machine = vcpu.domain.host.machine
    _m2p_frames(vcpu, arg, machine.m2p_compat if vcpu.domain.is_32bit else machine.m2p)


@memory_op.sub(MemoryOp.XENMEM_machphys_compat_mfn_list)
@whole(Errno.ENOSYS)
def machphys_compat_mfn_list(vcpu: "Vcpu", arg: int) -> None:
    """The same of the table that 32-bit guests see."""
    _m2p_frames(vcpu, arg, vcpu.domain.host.machine.m2p_compat)


def _m2p_frames(vcpu: "Vcpu", arg: int, table: tuple[int, int]) -> None:
    xmml = guest_memory.copy_in(vcpu, abi.xen_machphys_mfn_list, arg)
    first, count = table
    extents = range(first, first + count, M2P_EXTENT_FRAMES)[: xmml.max_extents]
    guest_memory.write(vcpu, xmml.extent_start, b"".join(guest_memory.ulong(vcpu, mfn) for mfn in extents))
    xmml.nr_extents = len(extents)
    guest_memory.write(vcpu, arg, bytes(xmml))


@memory_op.sub(MemoryOp.XENMEM_memory_map, note="ENOSYS when none was set")
@whole(Errno.ENOSYS)
def memory_map(vcpu: "Vcpu", arg: int) -> int:
    """The pseudo-physical memory map."""
    entries = vcpu.domain.e820
    if not entries:
        return -Errno.ENOSYS
    query = guest_memory.copy_in(vcpu, abi.xen_memory_map, arg)
    entries = entries[: query.nr_entries]
    guest_memory.write(vcpu, query.buffer, b"".join(E820_ENTRY.pack(*entry) for entry in entries))
    query.nr_entries = len(entries)
    guest_memory.write(vcpu, arg, bytes(query))
    return 0


@memory_op.sub(MemoryOp.XENMEM_set_memory_map)
@whole(Errno.ENOSYS)
def set_memory_map(vcpu: "Vcpu", arg: int) -> int:
    """Replaces that map."""
    new = guest_memory.copy_in(vcpu, abi.xen_foreign_memory_map, arg)
    if new.map.nr_entries > E820_MAX:
        return -Errno.EINVAL
    vcpu.domain.domids.check_own(new.domid)
    data = guest_memory.read(vcpu, new.map.buffer, new.map.nr_entries * E820_ENTRY.size)
    vcpu.domain.e820 = [(address, size, kind) for address, size, kind in E820_ENTRY.iter_unpack(data)]
    return 0


@memory_op.sub(MemoryOp.XENMEM_add_to_physmap, note="EACCES: translated domains only")
def add_to_physmap(vcpu: "Vcpu", start: int, arg: int) -> int:
    """PV domains have no physmap."""
    if start >> 16:
        return -Errno.EDOM
    request = guest_memory.copy_in(vcpu, abi.xen_add_to_physmap, arg)
    if request.space == MapSpace.XENMAPSPACE_gmfn_foreign:
        return -Errno.ENOSYS
    vcpu.domain.domids.check_any(request.domid)
    return -Errno.EACCES


@memory_op.sub(MemoryOp.XENMEM_add_to_physmap_batch, note="EACCES, as above")
def add_to_physmap_batch(vcpu: "Vcpu", start: int, arg: int) -> int:
    """PV domains have no physmap."""
    if start >> 16:
        return -Errno.EDOM
    request = guest_memory.copy_in(vcpu, abi.xen_add_to_physmap_batch, arg)
    if vcpu.domain.is_32bit:
        for array in (request.idxs, request.gpfns, request.errs):
            guest_memory.check_range(vcpu, array, request.size * 4)
    if request.space == MapSpace.XENMAPSPACE_gmfn_range:
        return -Errno.EOPNOTSUPP
    vcpu.domain.domids.check_any(request.domid)
    return -Errno.EACCES


@memory_op.sub(MemoryOp.XENMEM_remove_from_physmap, note="EACCES, as above")
@whole(Errno.EINVAL)
def remove_from_physmap(vcpu: "Vcpu", arg: int) -> int:
    """PV domains have no physmap."""
    vcpu.domain.domids.check_any(guest_memory.copy_in(vcpu, abi.xen_remove_from_physmap, arg).domid)
    return -Errno.EACCES


@memory_op.sub(MemoryOp.XENMEM_set_pod_target, note="EINVAL: not an HVM domain")
@memory_op.sub(MemoryOp.XENMEM_get_pod_target, note="EINVAL: not an HVM domain")
@whole(Errno.ENOSYS)
def pod_target(vcpu: "Vcpu", arg: int) -> int:
    """PV domains are not populated on demand."""
    vcpu.domain.domids.check_any(guest_memory.copy_in(vcpu, abi.xen_pod_target, arg).domid)
    return -Errno.EINVAL


@memory_op.sub(MemoryOp.XENMEM_claim_pages, note="EPERM: privileged domains only")
def claim_pages(vcpu: "Vcpu", start: int, arg: int) -> int:
    """Claims are the toolstack's; 32-bit guests have no such command."""
    if vcpu.domain.is_32bit:
        return -Errno.ENOSYS
    if start:
        return -Errno.EINVAL
    claim = guest_memory.copy_in(vcpu, abi.xen_memory_reservation, arg)
    if claim.extent_start or claim.extent_order or claim.mem_flags:
        return -Errno.EINVAL
    if not vcpu.domain.domids.exists(claim.domid):
        return -Errno.EINVAL
    return -Errno.EPERM


@memory_op.sub(MemoryOp.XENMEM_get_vnumainfo, note="EOPNOTSUPP: the domain has no virtual NUMA")
@whole(Errno.EINVAL)
def get_vnumainfo(vcpu: "Vcpu", arg: int) -> int:
    """No domain has one."""
    topology = guest_memory.copy_in(vcpu, abi.xen_vnuma_topology_info, arg)
    if topology.pad:
        return -Errno.EINVAL
    vcpu.domain.domids.check_own(topology.domid)
    return -Errno.EOPNOTSUPP


@memory_op.sub(MemoryOp.XENMEM_reserved_device_memory_map, note="there is none")
@whole(Errno.EINVAL)
def reserved_device_memory_map(vcpu: "Vcpu", arg: int) -> int:
    """Memory that devices behind an IOMMU need: there are no such devices."""
    query = guest_memory.copy_in(vcpu, abi.xen_reserved_device_memory_map, arg)
    guest_memory.check_range(vcpu, query.buffer, query.nr_entries * 2 * guest_memory.ulong_size(vcpu))
    if query.flags & ~XENMEM_RDM_ALL:
        return -Errno.EINVAL
    query.nr_entries = 0
    guest_memory.write(vcpu, arg, bytes(query))
    return 0


@memory_op.sub(MemoryOp.XENMEM_acquire_resource, note="EPERM: of domains one controls only: none")
def acquire_resource(vcpu: "Vcpu", _start: int, arg: int) -> int:
    """Frames of the hypervisor's about another domain."""
    request = guest_memory.copy_in(vcpu, abi.xen_mem_acquire_resource, arg)
    if request.pad or (request.frame + request.nr_frames) >> 32:
        return -Errno.EINVAL
    vcpu.domain.domids.check_remote(request.domid)
    return -Errno.EPERM


@memory_op.sub(MemoryOp.XENMEM_access_op, note="EINVAL: for translated domains")
def access_op(vcpu: "Vcpu", _start: int, arg: int) -> int:
    """Access rights of a physmap, which PV domains do not have."""
    vcpu.domain.domids.check_remote(guest_memory.copy_in(vcpu, abi.xen_mem_access_op, arg).domid)
    return -Errno.EINVAL


@memory_op.sub(MemoryOp.XENMEM_get_sharing_freed_pages)
@memory_op.sub(MemoryOp.XENMEM_get_sharing_shared_pages)
@whole(Errno.ENOSYS)
def sharing_pages(_vcpu: "Vcpu", _arg: int) -> int:
    """Pages that are shared between domains: none."""
    return 0


memory_op.refuse(
    Errno.EPERM,
    MemoryOp.XENMEM_machine_memory_map,
    note="privileged domains only",
    reads=(0, sizeof(abi.xen_memory_map.compat)),
)
memory_op.refuse(
    Errno.ENOSYS, MemoryOp.XENMEM_paging_op, MemoryOp.XENMEM_sharing_op, note="not configured, as in Xen by default"
)
