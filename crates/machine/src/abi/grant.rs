// SPDX-License-Identifier: Apache-2.0
//! Grant tables (`grant_table.h`): entries, operations, statuses.

/// Commands of grant_table_op (`GNTTABOP_*`) that the machine answers.
pub mod gnttabop {
    pub const MAP_GRANT_REF: u32 = 0;
    pub const UNMAP_GRANT_REF: u32 = 1;
    pub const COPY: u32 = 5;
    pub const UNMAP_AND_REPLACE: u32 = 7;
    pub const SWAP_GRANT_REF: u32 = 11;
}

/// Flags of an entry (`GTF_*`).
pub mod gtf {
    pub const TYPE_MASK: u32 = 3;
    pub const PERMIT_ACCESS: u32 = 1;
    pub const TRANSITIVE: u32 = 3;
    pub const READONLY: u32 = 1 << 2;
    pub const READING: u32 = 1 << 3;
    pub const WRITING: u32 = 1 << 4;
    pub const SUB_PAGE: u32 = 1 << 8;
    /// Numbers of two of these bits.
    pub const READING_BIT: u64 = 3;
    pub const WRITING_BIT: u64 = 4;
}

/// Flags of a mapping (`GNTMAP_*`).
pub mod gntmap {
    pub const DEVICE_MAP: u32 = 1 << 0;
    pub const HOST_MAP: u32 = 1 << 1;
    pub const READONLY: u32 = 1 << 2;
    pub const APPLICATION_MAP: u32 = 1 << 3;
    pub const CONTAINS_PTE: u32 = 1 << 4;
    /// Bits from here on go to the bits of the entry that the hardware leaves to software (`GNTMAP_guest_avail0`).
    pub const GUEST_AVAIL0_SHIFT: u32 = 16;
}

/// Flags of a copy (`GNTCOPY_*`).
pub mod gntcopy {
    pub const SOURCE_GREF: u16 = 1 << 0;
    pub const DEST_GREF: u16 = 1 << 1;
}

/// Why a grant cannot be used (`GNTST_*`); 0 is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
#[allow(non_camel_case_types)] // named as in the header, as errno's are
pub enum GrantStatus {
    general_error = -1,
    bad_domain = -2,
    bad_gntref = -3,
    bad_handle = -4,
    bad_dev_addr = -6,
    permission_denied = -8,
    bad_page = -9,
    bad_copy_arg = -10,
    eagain = -12,
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
    pub const SIZE: u64 = 8;
    pub const FRAME: u64 = 4;
}

/// `union grant_entry_v2`.
pub mod entry_v2 {
    pub const SIZE: u64 = 16;
    pub const FULL_FRAME: u64 = 8;
    pub const SUB_PAGE_OFF: u64 = 4;
    pub const SUB_LENGTH: u64 = 6;
    pub const SUB_FRAME: u64 = 8;
    pub const TRANS_DOMID: u64 = 4;
    pub const TRANS_GREF: u64 = 8;
}

/// `grant_status_t` of an entry of version 2: 16 bits.
pub const STATUS_SIZE: u64 = 2;

/// `struct gnttab_map_grant_ref`, the same for both widths.
pub mod map_grant_ref {
    pub const SIZE: usize = 32;
    pub const HOST_ADDR: usize = 0;
    pub const FLAGS: usize = 8;
    pub const REF: usize = 12;
    pub const DOM: usize = 16;
    pub const STATUS: usize = 18;
    pub const HANDLE: usize = 20;
    pub const DEV_BUS_ADDR: usize = 24;
}

/// `struct gnttab_unmap_grant_ref`, the same for both widths.
pub mod unmap_grant_ref {
    pub const SIZE: usize = 24;
    pub const HOST_ADDR: usize = 0;
    pub const DEV_BUS_ADDR: usize = 8;
    pub const HANDLE: usize = 16;
    pub const STATUS: usize = 20;
}

/// `struct gnttab_unmap_and_replace`, the same for both widths.
pub mod unmap_and_replace {
    pub const SIZE: usize = 24;
    pub const HOST_ADDR: usize = 0;
    pub const NEW_ADDR: usize = 8;
    pub const HANDLE: usize = 16;
    pub const STATUS: usize = 20;
}

/// `struct gnttab_copy`: two ends, then `len`, `flags` and `status`. A frame is an `unsigned long` of the guest's.
pub mod copy {
    use crate::abi::structs::long;
    pub const SIZE_MAX: usize = 40;

    pub const fn size(is_32bit: bool) -> usize {
        if is_32bit {
            24
        } else {
            SIZE_MAX
        }
    }
    pub const SOURCE: usize = 0;
    pub const fn dest(is_32bit: bool) -> usize {
        2 * long(is_32bit)
    }
    /// In an end: after `u.ref` or `u.gmfn`.
    pub const fn end_domid(is_32bit: bool) -> usize {
        long(is_32bit)
    }
    pub const fn end_offset(is_32bit: bool) -> usize {
        long(is_32bit) + 2
    }
    pub const fn len(is_32bit: bool) -> usize {
        4 * long(is_32bit)
    }
    pub const fn flags(is_32bit: bool) -> usize {
        4 * long(is_32bit) + 2
    }
    pub const fn status(is_32bit: bool) -> usize {
        4 * long(is_32bit) + 4
    }
}

/// `struct gnttab_swap_grant_ref`.
pub mod swap_grant_ref {
    pub const SIZE: usize = 12;
    pub const REF_A: usize = 0;
    pub const REF_B: usize = 4;
    pub const STATUS: usize = 8;
}
