// SPDX-License-Identifier: Apache-2.0
//! Page-table entry bits of 64-bit and PAE tables, and which of them a PV guest may set.

use super::layout::{HYPERVISOR_VIRT_START_PAE, XEN_SLOTS};

/// Present.
pub const P: u64 = 1;
/// Writable.
pub const RW: u64 = 1 << 1;
/// For CPL 3 too (U/S).
pub const USER: u64 = 1 << 2;
/// Write-through caching.
pub const PWT: u64 = 1 << 3;
/// No caching.
pub const PCD: u64 = 1 << 4;
/// Accessed: set by the processor.
pub const A: u64 = 1 << 5;
/// Dirty: set by the processor in an entry that maps a page, when it is written.
pub const D: u64 = 1 << 6;
/// PAT in an L1 entry, page size above.
pub const PSE: u64 = 1 << 7;
/// The translation outlives a load of CR3.
pub const GLOBAL: u64 = 1 << 8;
/// Bits 9..11: the guest's.
pub const AVAIL: u64 = 7 << 9;
/// Bits 52..62: the guest's too, in 64-bit mode.
pub const AVAIL_HIGH: u64 = 0x7ff << 52;
/// Xen marks 64-bit guest kernel mappings (given without USER) with this bit of AVAIL_HIGH.
pub const GUEST_KERNEL: u64 = 1 << 52;
/// Nothing is executed there.
pub const NX: u64 = 1 << 63;
/// The frame address, bits 12..51.
pub const ADDR: u64 = 0x000f_ffff_ffff_f000;

/// Entries of one table.
pub const ENTRIES: usize = 512;

/// L4 slots `XEN_L4_FIRST..=XEN_L4_LAST` belong to Xen (HYPERVISOR_VIRT_START..END).
pub const XEN_L4_FIRST: usize = XEN_SLOTS.start as usize;
/// The last of them.
pub const XEN_L4_LAST: usize = XEN_SLOTS.end as usize - 1;
/// In the L2 behind slot 3 of a PAE guest's L3, entries from here on belong to Xen (HYPERVISOR_VIRT_START_PAE).
pub const XEN_PAE_L2_FIRST: usize = ((HYPERVISOR_VIRT_START_PAE >> 21) & 511) as usize;

/// Bits no guest entry of any level may have.
const BASE_DISALLOWED: u64 = PWT | PCD | PSE | GLOBAL;
/// Differences that change no reference: such an L1 update needs no validation.
pub const FAST_L1: u64 = NX | AVAIL_HIGH | AVAIL | GLOBAL | A | D | USER;
/// The same for L2 and above.
pub const FAST_TABLE: u64 = NX | AVAIL_HIGH | AVAIL | A | D | USER;

/// Frame number of an entry.
pub const fn mfn(e: u64) -> u64 {
    (e & ADDR) >> 12
}

/// Whether the entry leads anywhere.
pub const fn present(e: u64) -> bool {
    e & P != 0
}

/// Whether it is present and allows writes.
pub const fn writable(e: u64) -> bool {
    e & (P | RW) == P | RW
}

/// Bits that make a present entry of `level` (1..=4) invalid. No guest here has device memory, so cache attributes are
/// refused in L1 entries as Xen refuses them to a domain without any.
pub const fn disallowed(level: u8, is_32bit: bool) -> u64 {
    match level {
        1 => BASE_DISALLOWED & !GLOBAL,
        3 if is_32bit => BASE_DISALLOWED | AVAIL_HIGH | NX,
        _ => BASE_DISALLOWED,
    }
}

/// The entry as Xen installs it: 64-bit guests run their kernel at CPL 3, so every present entry gets USER.
pub const fn adjust(e: u64, level: u8, is_32bit: bool) -> u64 {
    if e & P == 0 {
        return e;
    }
    if is_32bit {
        // The L3 of a PAE guest has no RW and USER bits of its own; the walk sees it as a full table.
        return if level == 3 { e | USER | RW } else { e };
    }
    if level > 1 {
        return e | USER;
    }
    let e = if e & USER == 0 { e | GUEST_KERNEL | USER } else { e };
    if e & GUEST_KERNEL == 0 {
        e | GLOBAL
    } else {
        e
    }
}
