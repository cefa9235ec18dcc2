"""memory_op (memory.h): what a domain may know of memory. Changing how much it has is in `reservation`."""

import struct
from typing import TYPE_CHECKING

from domzero.abi import memory as abi
from domzero.abi.arch_x86 import (
    MACH2PHYS_NR_ENTRIES,
    MACH2PHYS_NR_ENTRIES_PAE,
    MACH2PHYS_VIRT_END,
    MACH2PHYS_VIRT_END_PAE,
    MACH2PHYS_VIRT_START,
    MACH2PHYS_VIRT_START_PAE,
)
from domzero.abi.errno import Errno
from domzero.abi.layout import layout_for, offset_of
from domzero.abi.memory import MEMOP_EXTENT_SHIFT, MemoryOp
from domzero.abi.xen import Hypercall, arch_shared_info, shared_info
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls.event_channel import check_self
from domzero.hypervisor.hypercalls.table import operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

memory_op = operation(Hypercall.HYPERVISOR_memory_op, "lp", MemoryOp)
memory_op.command_bits = MEMOP_EXTENT_SHIFT

E820_ENTRY = struct.Struct("<QQI")
E820_MAX = 1024
M2P_EXTENT_FRAMES = 512
"""2 MiB of machine-to-phys table."""


@memory_op.sub(MemoryOp.XENMEM_maximum_ram_page)
def maximum_ram_page(vcpu: "Vcpu", _start: int, _arg: int) -> int:
    """The highest machine frame."""
    return vcpu.domain.host.machine.frames - 1


@memory_op.sub(MemoryOp.XENMEM_current_reservation, abi.xen_memory_domain)
def current_reservation(vcpu: "Vcpu", _start: int, arg: abi.xen_memory_domain) -> int:
    """Frames the domain has."""
    check_self(vcpu, arg.domid)
    return vcpu.domain.hw.frames_owned


@memory_op.sub(MemoryOp.XENMEM_maximum_reservation, abi.xen_memory_domain)
def maximum_reservation(vcpu: "Vcpu", _start: int, arg: abi.xen_memory_domain) -> int:
    """Frames the domain may have."""
    check_self(vcpu, arg.domid)
    return vcpu.domain.max_pages


@memory_op.sub(MemoryOp.XENMEM_maximum_gpfn, abi.xen_memory_domain)
def maximum_gpfn(vcpu: "Vcpu", _start: int, arg: abi.xen_memory_domain) -> int:
    """The highest pseudo-physical frame number, as the guest has said in shared_info."""
    check_self(vcpu, arg.domid)
    is_32bit = vcpu.domain.is_32bit
    layout = layout_for(shared_info, is_32bit)
    at = vcpu.domain.shared_info_maddr + offset_of(layout, "arch")
    at += offset_of(layout_for(arch_shared_info, is_32bit), "max_pfn")
    shared = vcpu.domain.host.shared
    max_pfn = shared.u32(at) if is_32bit else shared.u64(at) & 0x7FFFFFFFFFFFFFFF
    return max(max_pfn, 1) - 1


@memory_op.sub(MemoryOp.XENMEM_machphys_mapping)
def machphys_mapping(vcpu: "Vcpu", _start: int, arg: int) -> None:
    """Where the machine-to-phys table is."""
    if vcpu.domain.is_32bit:
        values = (MACH2PHYS_VIRT_START_PAE, MACH2PHYS_VIRT_END_PAE, MACH2PHYS_NR_ENTRIES_PAE - 1)
    else:
        values = (MACH2PHYS_VIRT_START, MACH2PHYS_VIRT_END, MACH2PHYS_NR_ENTRIES - 1)
    layout = layout_for(abi.xen_machphys_mapping, vcpu.domain.is_32bit)
    guest_memory.write(vcpu, arg, bytes(layout(*values)))


@memory_op.sub(MemoryOp.XENMEM_machphys_mfn_list, abi.xen_machphys_mfn_list, copy_out=True)
def machphys_mfn_list(vcpu: "Vcpu", _start: int, arg: abi.xen_machphys_mfn_list) -> None:
    """The frames of that table, one for each 2 MiB."""
    first, count = vcpu.domain.host.machine.m2p
    extents = range(first, first + count, M2P_EXTENT_FRAMES)[: arg.max_extents]
    size = guest_memory.ulong_size(vcpu)
    for index, mfn in enumerate(extents):
        guest_memory.write_ulong(vcpu, arg.extent_start + index * size, mfn)
    arg.nr_extents = len(extents)


@memory_op.sub(MemoryOp.XENMEM_memory_map, abi.xen_memory_map, copy_out=True, note="ENOSYS when none was set")
def memory_map(vcpu: "Vcpu", _start: int, arg: abi.xen_memory_map) -> int:
    """The pseudo-physical memory map."""
    entries = vcpu.domain.e820
    if not entries:
        return -Errno.ENOSYS
    entries = entries[: arg.nr_entries]
    guest_memory.write(vcpu, arg.buffer, b"".join(E820_ENTRY.pack(*entry) for entry in entries))
    arg.nr_entries = len(entries)
    return 0


@memory_op.sub(MemoryOp.XENMEM_set_memory_map, abi.xen_foreign_memory_map)
def set_memory_map(vcpu: "Vcpu", _start: int, arg: abi.xen_foreign_memory_map) -> int:
    """Replaces that map."""
    if arg.map.nr_entries > E820_MAX:
        return -Errno.EINVAL
    check_self(vcpu, arg.domid)
    data = guest_memory.read(vcpu, arg.map.buffer, arg.map.nr_entries * E820_ENTRY.size)
    vcpu.domain.e820 = [(address, size, kind) for address, size, kind in E820_ENTRY.iter_unpack(data)]
    return 0


@memory_op.sub(MemoryOp.XENMEM_add_to_physmap, abi.xen_add_to_physmap, note="EACCES: translated domains only")
@memory_op.sub(MemoryOp.XENMEM_add_to_physmap_batch, abi.xen_add_to_physmap_batch, note="EACCES, as above")
@memory_op.sub(MemoryOp.XENMEM_remove_from_physmap, abi.xen_remove_from_physmap, note="EACCES, as above")
def physmap(vcpu: "Vcpu", _start: int, arg: abi.xen_remove_from_physmap) -> int:
    """PV domains have no physmap."""
    check_self(vcpu, arg.domid)
    return -Errno.EACCES


memory_op.refuse(
    Errno.EPERM,
    MemoryOp.XENMEM_machine_memory_map,
    MemoryOp.XENMEM_set_pod_target,
    MemoryOp.XENMEM_get_pod_target,
    MemoryOp.XENMEM_claim_pages,
    MemoryOp.XENMEM_reserved_device_memory_map,
    MemoryOp.XENMEM_acquire_resource,
    note="privileged domains only",
)
memory_op.refuse(
    Errno.EOPNOTSUPP,
    MemoryOp.XENMEM_get_sharing_freed_pages,
    MemoryOp.XENMEM_get_sharing_shared_pages,
    MemoryOp.XENMEM_paging_op,
    MemoryOp.XENMEM_access_op,
    MemoryOp.XENMEM_sharing_op,
    MemoryOp.XENMEM_get_vnumainfo,
    note="not configured",
)
