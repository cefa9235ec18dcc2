// SPDX-License-Identifier: Apache-2.0
//! Grant tables (`grant_table.h`): entries, operations, statuses.

/// Commands of grant_table_op (`GNTTABOP_*`) that the machine answers.
pub mod gnttabop {
    /// `struct gnttab_map_grant_ref`: map a granted frame.
    pub const MAP_GRANT_REF: u32 = 0;
    /// `struct gnttab_unmap_grant_ref`: end a mapping.
    pub const UNMAP_GRANT_REF: u32 = 1;
    /// `struct gnttab_copy`: copy inside one frame, from or to granted ones.
    pub const COPY: u32 = 5;
    /// `struct gnttab_unmap_and_replace`: end a mapping, and put another page in its place.
    pub const UNMAP_AND_REPLACE: u32 = 7;
    /// `struct gnttab_swap_grant_ref`: exchange two entries of the own table.
    pub const SWAP_GRANT_REF: u32 = 11;
}

/// Flags of an entry (`GTF_*`).
pub mod gtf {
    /// Bits of the type; zero is an entry that is not in use.
    pub const TYPE_MASK: u32 = 3;
    /// Type: the named domain may map and copy the frame.
    pub const PERMIT_ACCESS: u32 = 1;
    /// Type, in version 2: the entry passes on a grant of another domain's, for copies only.
    pub const TRANSITIVE: u32 = 3;
    /// The frame may be read, not written.
    pub const READONLY: u32 = 1 << 2;
    /// Xen's: somebody reads, or has it mapped.
    pub const READING: u32 = 1 << 3;
    /// Xen's: somebody writes, or has it mapped writable.
    pub const WRITING: u32 = 1 << 4;
    /// In version 2: only a part of the page is granted, and for copies only.
    pub const SUB_PAGE: u32 = 1 << 8;
    /// The number of the bit `READING`.
    pub const READING_BIT: u64 = 3;
    /// The number of the bit `WRITING`.
    pub const WRITING_BIT: u64 = 4;
}

/// Flags of a mapping (`GNTMAP_*`).
pub mod gntmap {
    /// For devices; `dev_bus_addr` is filled in.
    pub const DEVICE_MAP: u32 = 1 << 0;
    /// For the processor, at `host_addr`.
    pub const HOST_MAP: u32 = 1 << 1;
    /// The mapping is read-only.
    pub const READONLY: u32 = 1 << 2;
    /// For the guest's applications too, not only its kernel.
    pub const APPLICATION_MAP: u32 = 1 << 3;
    /// `host_addr` is the machine address of a page-table entry, not a virtual address.
    pub const CONTAINS_PTE: u32 = 1 << 4;
    /// Bits from here on go to the bits of the entry that the hardware leaves to software (`GNTMAP_guest_avail0`).
    pub const GUEST_AVAIL0_SHIFT: u32 = 16;
}

/// Flags of a copy (`GNTCOPY_*`).
pub mod gntcopy {
    /// The source is a grant reference, not a frame of the caller's.
    pub const SOURCE_GREF: u16 = 1 << 0;
    /// The destination is a grant reference, not a frame of the caller's.
    pub const DEST_GREF: u16 = 1 << 1;
}

/// Why a grant cannot be used (`GNTST_*`); 0 is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
#[allow(non_camel_case_types)] // named as in the header, as errno's are
pub enum GrantStatus {
    /// Something else than the others.
    general_error = -1,
    /// There is no such domain, or it may not be reached.
    bad_domain = -2,
    /// There is no such entry, or it cannot be used so.
    bad_gntref = -3,
    /// There is no such mapping.
    bad_handle = -4,
    /// The address for devices is not that of the mapping.
    bad_dev_addr = -6,
    /// The entry does not allow it.
    permission_denied = -8,
    /// The frame cannot be had.
    bad_page = -9,
    /// The copy goes across the end of a page.
    bad_copy_arg = -10,
    /// Not done; the caller may try again.
    eagain = -12,
    /// No handle is left for a mapping.
    no_space = -13,
}

impl GrantStatus {
    /// Every status that the machine gives.
    pub const ALL: [GrantStatus; 10] = [
        GrantStatus::general_error,
        GrantStatus::bad_domain,
        GrantStatus::bad_gntref,
        GrantStatus::bad_handle,
        GrantStatus::bad_dev_addr,
        GrantStatus::permission_denied,
        GrantStatus::bad_page,
        GrantStatus::bad_copy_arg,
        GrantStatus::eagain,
        GrantStatus::no_space,
    ];

    /// The number that goes into `status`.
    pub const fn number(self) -> i16 {
        self as i16
    }
}

impl std::fmt::Display for GrantStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GNTST_{self:?}")
    }
}

impl std::error::Error for GrantStatus {}

/// References that the toolstack fills in before the guest runs (`GNTTAB_NR_RESERVED_ENTRIES`).
pub const NR_RESERVED_ENTRIES: u32 = 8;

/// `struct grant_entry_v1`: flags, domid, frame; flags and domid are one word of 32 bits.
pub mod entry_v1 {
    /// `sizeof`.
    pub const SIZE: u64 = 8;
    /// `frame`, `uint32_t`; `flags` and `domid` are at 0.
    pub const FRAME: u64 = 4;
}

/// `union grant_entry_v2`.
pub mod entry_v2 {
    /// `sizeof`; `hdr`, with flags and domid, is at 0.
    pub const SIZE: u64 = 16;
    /// `full_page.frame`, `uint64_t`.
    pub const FULL_FRAME: u64 = 8;
    /// `sub_page.page_off`, `uint16_t`, in bytes.
    pub const SUB_PAGE_OFF: u64 = 4;
    /// `sub_page.length`, `uint16_t`, in bytes.
    pub const SUB_LENGTH: u64 = 6;
    /// `sub_page.frame`, `uint64_t`.
    pub const SUB_FRAME: u64 = 8;
    /// `transitive.trans_domid`, `domid_t`.
    pub const TRANS_DOMID: u64 = 4;
    /// `transitive.gref`, `grant_ref_t`.
    pub const TRANS_GREF: u64 = 8;
}

/// `grant_status_t` of an entry of version 2: 16 bits.
pub const STATUS_SIZE: u64 = 2;

/// `struct gnttab_map_grant_ref`, the same for both widths.
pub mod map_grant_ref {
    /// `sizeof`.
    pub const SIZE: usize = 32;
    /// `uint64_t`: where to map: a virtual address, or with `GNTMAP_contains_pte` a machine address.
    pub const HOST_ADDR: usize = 0;
    /// `uint32_t`, of [`gntmap`](super::gntmap).
    pub const FLAGS: usize = 8;
    /// `grant_ref_t`.
    pub const REF: usize = 12;
    /// `domid_t` of the granting domain.
    pub const DOM: usize = 16;
    /// Out, `int16_t`: 0, or a [`GrantStatus`](super::GrantStatus).
    pub const STATUS: usize = 18;
    /// Out, `grant_handle_t`: the mapping, for its end.
    pub const HANDLE: usize = 20;
    /// Out, `uint64_t`: the frame's machine address.
    pub const DEV_BUS_ADDR: usize = 24;
}

/// `struct gnttab_unmap_grant_ref`, the same for both widths.
pub mod unmap_grant_ref {
    /// `sizeof`.
    pub const SIZE: usize = 24;
    /// `uint64_t`: where it is mapped; 0 leaves that mapping.
    pub const HOST_ADDR: usize = 0;
    /// `uint64_t`: the machine address that was given out; 0 leaves that mapping.
    pub const DEV_BUS_ADDR: usize = 8;
    /// `grant_handle_t`.
    pub const HANDLE: usize = 16;
    /// Out, `int16_t`: 0, or a [`GrantStatus`](super::GrantStatus).
    pub const STATUS: usize = 20;
}

/// `struct gnttab_unmap_and_replace`, the same for both widths.
pub mod unmap_and_replace {
    /// `sizeof`.
    pub const SIZE: usize = 24;
    /// `uint64_t`: the virtual address where it is mapped.
    pub const HOST_ADDR: usize = 0;
    /// `uint64_t`: the virtual address whose page moves there.
    pub const NEW_ADDR: usize = 8;
    /// `grant_handle_t`.
    pub const HANDLE: usize = 16;
    /// Out, `int16_t`: 0, or a [`GrantStatus`](super::GrantStatus).
    pub const STATUS: usize = 20;
}

/// `struct gnttab_copy`: two ends, then `len`, `flags` and `status`. A frame is an `unsigned long` of the guest's.
pub mod copy {
    use crate::abi::structs::long;
    /// `sizeof` in a 64-bit guest.
    pub const SIZE_MAX: usize = 40;

    /// `sizeof`.
    pub const fn size(is_32bit: bool) -> usize {
        if is_32bit {
            24
        } else {
            SIZE_MAX
        }
    }
    /// `source`, where to copy from.
    pub const SOURCE: usize = 0;
    /// `dest`, where to copy to.
    pub const fn dest(is_32bit: bool) -> usize {
        2 * long(is_32bit)
    }
    /// In an end: after `u.ref` or `u.gmfn`.
    pub const fn end_domid(is_32bit: bool) -> usize {
        long(is_32bit)
    }
    /// In an end: `offset` in its page, `uint16_t`, in bytes.
    pub const fn end_offset(is_32bit: bool) -> usize {
        long(is_32bit) + 2
    }
    /// `uint16_t`, in bytes.
    pub const fn len(is_32bit: bool) -> usize {
        4 * long(is_32bit)
    }
    /// `uint16_t`, of [`gntcopy`](super::gntcopy).
    pub const fn flags(is_32bit: bool) -> usize {
        4 * long(is_32bit) + 2
    }
    /// Out, `int16_t`: 0, or a [`GrantStatus`](super::GrantStatus).
    pub const fn status(is_32bit: bool) -> usize {
        4 * long(is_32bit) + 4
    }
}

/// `struct gnttab_swap_grant_ref`.
pub mod swap_grant_ref {
    /// `sizeof`.
    pub const SIZE: usize = 12;
    /// `ref_a`, `grant_ref_t`.
    pub const REF_A: usize = 0;
    /// `ref_b`, `grant_ref_t`.
    pub const REF_B: usize = 4;
    /// Out, `int16_t`: 0, or a [`GrantStatus`](super::GrantStatus).
    pub const STATUS: usize = 8;
}
