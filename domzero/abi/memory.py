# SPDX-License-Identifier: Apache-2.0
"""memory.h: memory_op."""

from enum import IntEnum

from domzero.abi.layout import Wire, domid_t, handle, u8, u16, u32, u64, ulong, wire, xen_pfn_t

MEMOP_EXTENT_SHIFT = 6
"""The low bits of memory_op's first argument are the command, the others say where a continuation goes on."""
MEMOP_CMD_MASK = (1 << MEMOP_EXTENT_SHIFT) - 1


XENMEM_RDM_ALL = 1


class MapSpace(IntEnum):
    """`enum phys_map_space`."""

    XENMAPSPACE_shared_info = 0
    XENMAPSPACE_grant_table = 1
    XENMAPSPACE_gmfn = 2
    XENMAPSPACE_gmfn_range = 3
    XENMAPSPACE_gmfn_foreign = 4
    XENMAPSPACE_dev_mmio = 5


class MemoryOp(IntEnum):
    """`XENMEM_*`."""

    XENMEM_increase_reservation = 0
    XENMEM_decrease_reservation = 1
    XENMEM_maximum_ram_page = 2
    XENMEM_current_reservation = 3
    XENMEM_maximum_reservation = 4
    XENMEM_machphys_mfn_list = 5
    XENMEM_populate_physmap = 6
    XENMEM_add_to_physmap = 7
    XENMEM_memory_map = 9
    XENMEM_machine_memory_map = 10
    XENMEM_exchange = 11
    XENMEM_machphys_mapping = 12
    XENMEM_set_memory_map = 13
    XENMEM_maximum_gpfn = 14
    XENMEM_remove_from_physmap = 15
    XENMEM_set_pod_target = 16
    XENMEM_get_pod_target = 17
    XENMEM_get_sharing_freed_pages = 18
    XENMEM_get_sharing_shared_pages = 19
    XENMEM_paging_op = 20
    XENMEM_access_op = 21
    XENMEM_sharing_op = 22
    XENMEM_add_to_physmap_batch = 23
    XENMEM_claim_pages = 24
    XENMEM_machphys_compat_mfn_list = 25
    XENMEM_get_vnumainfo = 26
    XENMEM_reserved_device_memory_map = 27
    XENMEM_acquire_resource = 28


@wire
class xen_memory_reservation(Wire):
    """increase_reservation, decrease_reservation, populate_physmap."""

    extent_start: handle
    nr_extents: ulong
    extent_order: u32
    mem_flags: u32
    domid: domid_t


@wire
class xen_memory_exchange(Wire):
    """XENMEM_exchange."""

    in_: xen_memory_reservation
    out: xen_memory_reservation
    nr_exchanged: ulong


@wire
class xen_memory_domain(Wire):
    """current_reservation, maximum_reservation, maximum_gpfn: the argument is a domid."""

    domid: domid_t


@wire
class xen_machphys_mfn_list(Wire):
    """XENMEM_machphys_mfn_list."""

    max_extents: u32
    extent_start: handle
    nr_extents: u32


@wire
class xen_machphys_mapping(Wire):
    """XENMEM_machphys_mapping."""

    v_start: ulong
    v_end: ulong
    max_mfn: ulong


@wire
class xen_add_to_physmap(Wire):
    """XENMEM_add_to_physmap."""

    domid: domid_t
    size: u16
    space: u32
    idx: ulong
    gpfn: xen_pfn_t


@wire
class xen_add_to_physmap_batch(Wire):
    """XENMEM_add_to_physmap_batch."""

    domid: domid_t
    space: u16
    size: u16
    foreign_domid: domid_t
    idxs: handle
    gpfns: handle
    errs: handle


@wire
class xen_remove_from_physmap(Wire):
    """XENMEM_remove_from_physmap."""

    domid: domid_t
    gpfn: xen_pfn_t


@wire
class xen_memory_map(Wire):
    """XENMEM_memory_map."""

    nr_entries: u32
    buffer: handle


@wire
class xen_foreign_memory_map(Wire):
    """XENMEM_set_memory_map."""

    domid: domid_t
    map: xen_memory_map


@wire
class xen_pod_target(Wire):
    """XENMEM_set_pod_target, XENMEM_get_pod_target."""

    target_pages: u64
    tot_pages: u64
    pod_cache_pages: u64
    pod_entries: u64
    domid: domid_t


@wire
class xen_reserved_device_memory_map(Wire):
    """XENMEM_reserved_device_memory_map."""

    flags: u32
    nr_entries: u32
    buffer: handle
    seg: u16
    bus: u8
    devfn: u8


@wire
class xen_vnuma_topology_info(Wire):
    """XENMEM_get_vnumainfo; its handles are in unions with a uint64_t."""

    domid: domid_t
    pad: u16
    nr_vnodes: u32
    nr_vcpus: u32
    nr_vmemranges: u32
    vdistance: u64
    vcpu_to_vnode: u64
    vmemrange: u64


@wire
class xen_mem_acquire_resource(Wire):
    """XENMEM_acquire_resource."""

    domid: domid_t
    type: u16
    id: u32
    nr_frames: u32
    pad: u32
    frame: u64
    frame_list: handle


@wire
class xen_mem_access_op(Wire):
    """XENMEM_access_op."""

    op: u8
    access: u8
    domid: domid_t
    nr: u32
    pfn: u64
    pfn_list: handle
    access_list: handle
