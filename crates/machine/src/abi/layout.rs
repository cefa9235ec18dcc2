// SPDX-License-Identifier: Apache-2.0
//! Which addresses are whose: `HYPERVISOR_VIRT_START` and its kin of `arch-x86/xen-x86_64.h` and `arch-x86/xen-x86_32.h`.

use super::x86::DESCRIPTORS_PER_FRAME;

/// End of the lower canonical half.
pub const LOW_END: u64 = 1 << 47;

/// The hypervisor's part of a 64-bit guest's address space: [`XEN_SLOTS`].
pub const HYPERVISOR_VIRT_START: u64 = 0xffff_8000_0000_0000;
/// The first address behind it.
pub const HYPERVISOR_VIRT_END: u64 = 0xffff_8800_0000_0000;
/// That of a 32-bit guest's, from here to 4 GiB.
pub const HYPERVISOR_VIRT_START_PAE: u64 = 0xf580_0000;

/// L4 slots that belong to Xen. Slot 256 shows the machine-to-phys table; the others are not present for a guest.
pub const XEN_SLOTS: std::ops::Range<u64> = 256..272;
/// Where Xen maps all memory for itself: a guest's access there is a violation, not a miss.
pub const XEN_DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
/// Where guests read the machine-to-phys table (MACH2PHYS_VIRT_START).
pub const M2P_VA: u64 = HYPERVISOR_VIRT_START;
/// Where 32-bit guests read theirs.
pub const M2P_COMPAT_VA: u64 = HYPERVISOR_VIRT_START_PAE;
/// Entry of the machine-to-phys table for a frame that has no pseudo-physical address (INVALID_M2P_ENTRY).
pub const INVALID_M2P_ENTRY: u64 = u64::MAX;

/// First GDT entry of Xen's own, and the first byte of it.
pub const FIRST_RESERVED_GDT_ENTRY: u32 = 14 * DESCRIPTORS_PER_FRAME;
/// LDT entries there can be: 64 KiB of descriptors are 16 pages.
pub const LDT_ENTRIES_MAX: u32 = 8192;
