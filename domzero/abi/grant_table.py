# SPDX-License-Identifier: Apache-2.0
"""grant_table.h: grant_table_op."""

from enum import IntEnum, IntFlag

from domzero.abi.layout import Wire, WireUnion, domid_t, handle, s16, u16, u32, u64, wire, xen_pfn_t

GNTTAB_NR_RESERVED_ENTRIES = 8
GNTTAB_RESERVED_CONSOLE = 0
GNTTAB_RESERVED_XENSTORE = 1

GTF_type_mask = 3


class GrantTableOp(IntEnum):
    """`enum grant_table_op`."""

    GNTTABOP_map_grant_ref = 0
    GNTTABOP_unmap_grant_ref = 1
    GNTTABOP_setup_table = 2
    GNTTABOP_dump_table = 3
    GNTTABOP_transfer = 4
    GNTTABOP_copy = 5
    GNTTABOP_query_size = 6
    GNTTABOP_unmap_and_replace = 7
    GNTTABOP_set_version = 8
    GNTTABOP_get_status_frames = 9
    GNTTABOP_get_version = 10
    GNTTABOP_swap_grant_ref = 11
    GNTTABOP_cache_flush = 12


class Gtf(IntFlag):
    """`GTF_*`: type in the low two bits, then flags."""

    GTF_invalid = 0
    GTF_permit_access = 1
    GTF_accept_transfer = 2
    GTF_transitive = 3
    GTF_readonly = 1 << 2
    GTF_reading = 1 << 3
    GTF_writing = 1 << 4
    GTF_PWT = 1 << 5
    GTF_PCD = 1 << 6
    GTF_PAT = 1 << 7
    GTF_sub_page = 1 << 8


class GntMap(IntFlag):
    """`GNTMAP_*`."""

    GNTMAP_device_map = 1 << 0
    GNTMAP_host_map = 1 << 1
    GNTMAP_readonly = 1 << 2
    GNTMAP_application_map = 1 << 3
    GNTMAP_contains_pte = 1 << 4


GNTMAP_guest_avail0_shift = 16
"""Bits of GNTMAP from here on go to the bits of the entry that the hardware leaves to software."""

GNTTAB_CACHE_CLEAN = 1
GNTTAB_CACHE_INVAL = 2

GNTTABOP_CMD_MASK = (1 << 12) - 1
"""Above the command Xen keeps where a cache_flush goes on."""


class GntCopy(IntFlag):
    """`GNTCOPY_*`."""

    GNTCOPY_source_gref = 1 << 0
    GNTCOPY_dest_gref = 1 << 1


class GntStatus(IntEnum):
    """`enum grant_status`."""

    GNTST_okay = 0
    GNTST_general_error = -1
    GNTST_bad_domain = -2
    GNTST_bad_gntref = -3
    GNTST_bad_handle = -4
    GNTST_bad_virt_addr = -5
    GNTST_bad_dev_addr = -6
    GNTST_no_device_space = -7
    GNTST_permission_denied = -8
    GNTST_bad_page = -9
    GNTST_bad_copy_arg = -10
    GNTST_address_too_big = -11
    GNTST_eagain = -12
    GNTST_no_space = -13


@wire
class grant_entry_v1(Wire):
    """One entry of a version 1 grant table."""

    flags: u16
    domid: domid_t
    frame: u32


@wire
class grant_entry_header(Wire):
    """What entries of both versions begin with."""

    flags: u16
    domid: domid_t


@wire
class grant_entry_v2_full_page(Wire):
    """A whole frame."""

    hdr: grant_entry_header
    pad0: u32
    frame: u64


@wire
class grant_entry_v2_sub_page(Wire):
    """A part of a frame, for copies only."""

    hdr: grant_entry_header
    page_off: u16
    length: u16
    frame: u64


@wire
class grant_entry_v2_transitive(Wire):
    """What a third domain has granted to this one, for copies only."""

    hdr: grant_entry_header
    trans_domid: domid_t
    pad0: u16
    gref: u32


@wire
class grant_entry_v2(WireUnion):
    """One entry of a version 2 grant table."""

    hdr: grant_entry_header
    full_page: grant_entry_v2_full_page
    sub_page: grant_entry_v2_sub_page
    transitive: grant_entry_v2_transitive


@wire
class gnttab_map_grant_ref(Wire):
    """GNTTABOP_map_grant_ref."""

    host_addr: u64
    flags: u32
    ref: u32
    dom: domid_t
    status: s16
    handle: u32
    dev_bus_addr: u64


@wire
class gnttab_unmap_grant_ref(Wire):
    """GNTTABOP_unmap_grant_ref."""

    host_addr: u64
    dev_bus_addr: u64
    handle: u32
    status: s16


@wire
class gnttab_setup_table(Wire):
    """GNTTABOP_setup_table."""

    dom: domid_t
    nr_frames: u32
    status: s16
    frame_list: handle


@wire
class gnttab_dump_table(Wire):
    """GNTTABOP_dump_table."""

    dom: domid_t
    status: s16


@wire
class gnttab_transfer(Wire):
    """GNTTABOP_transfer."""

    mfn: xen_pfn_t
    domid: domid_t
    ref: u32
    status: s16


@wire
class gnttab_copy_ptr_u(WireUnion):
    """A grant reference or one of the caller's frames."""

    ref: u32
    gmfn: xen_pfn_t


@wire
class gnttab_copy_ptr(Wire):
    """One end of a copy."""

    u: gnttab_copy_ptr_u
    domid: domid_t
    offset: u16


@wire
class gnttab_copy(Wire):
    """GNTTABOP_copy."""

    source: gnttab_copy_ptr
    dest: gnttab_copy_ptr
    len: u16
    flags: u16
    status: s16


@wire
class gnttab_query_size(Wire):
    """GNTTABOP_query_size."""

    dom: domid_t
    nr_frames: u32
    max_nr_frames: u32
    status: s16


@wire
class gnttab_unmap_and_replace(Wire):
    """GNTTABOP_unmap_and_replace."""

    host_addr: u64
    new_addr: u64
    handle: u32
    status: s16


@wire
class gnttab_set_version(Wire):
    """GNTTABOP_set_version."""

    version: u32


@wire
class gnttab_get_status_frames(Wire):
    """GNTTABOP_get_status_frames."""

    nr_frames: u32
    dom: domid_t
    status: s16
    frame_list: handle


@wire
class gnttab_get_version(Wire):
    """GNTTABOP_get_version."""

    dom: domid_t
    pad: u16
    version: u32


@wire
class gnttab_swap_grant_ref(Wire):
    """GNTTABOP_swap_grant_ref."""

    ref_a: u32
    ref_b: u32
    status: s16


@wire
class gnttab_cache_flush_a(WireUnion):
    """What to flush."""

    dev_bus_addr: u64
    ref: u32


@wire
class gnttab_cache_flush(Wire):
    """GNTTABOP_cache_flush."""

    a: gnttab_cache_flush_a
    offset: u16
    length: u16
    op: u32
