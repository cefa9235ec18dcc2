//! Which addresses are whose: `HYPERVISOR_VIRT_START` and its kin of `arch-x86/xen-x86_64.h` and `arch-x86/xen-x86_32.h`.

/// True for addresses whose bits 47..63 are all equal.
#[inline(always)]
pub fn canonical(va: u64) -> bool {
    ((va as i64) << 16 >> 16) as u64 == va
}

/// L4 slots that belong to Xen. Slot 256 shows the machine-to-phys table; the others are not present for a guest.
pub const XEN_SLOTS: std::ops::Range<u64> = 256..272;
/// Where Xen maps all memory for itself: a guest's access there is a violation, not a miss.
pub const XEN_DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
/// Where guests read the machine-to-phys table.
pub const M2P_VA: u64 = 0xffff_8000_0000_0000;
/// Where 32-bit guests read theirs: the hypervisor has everything from here to 4 GiB.
pub const M2P_COMPAT_VA: u64 = 0xf580_0000;
