// SPDX-License-Identifier: Apache-2.0
//! Descriptor tables (GDT and LDT pages): which descriptors a guest may have.

use super::machine::Machine;
use super::op::{MmResult, EINVAL};
use crate::abi::layout::{FIRST_RESERVED_GDT_ENTRY, M2P_COMPAT_VA};
use crate::abi::selector::{self, FLAT_COMPAT_RING1_CS, FLAT_KERNEL_CS};
use crate::mem::Mfn;

const P: u64 = 1 << 47;
const S: u64 = 1 << 44;
const L: u64 = 1 << 53;
const DPL_SHIFT: u32 = 45;
const TYPE_SHIFT: u32 = 40;

/// Lowest privilege level number of guest code: 64-bit kernels run at CPL 3, 32-bit ones in ring 1.
const fn kernel_rpl(is_32bit: bool) -> u64 {
    if is_32bit {
        1
    } else {
        3
    }
}

/// May a gate of this guest lead through `sel`? Not into Xen's part of the GDT, but for the flat guest segments there.
pub fn gate_selector_ok(sel: u16, is_32bit: bool) -> bool {
    let flat_kernel_cs = if is_32bit {
        FLAT_COMPAT_RING1_CS
    } else {
        FLAT_KERNEL_CS
    };
    u32::from(sel >> 3) < FIRST_RESERVED_GDT_ENTRY || sel & selector::TI != 0 || sel == flat_kernel_cs
}

/// The descriptor as it may stand in a table (with its privilege level raised to the guest kernel's where it claims more),
/// or `None` if it may not.
pub fn check(d: u64, is_32bit: bool) -> Option<u64> {
    if d & P == 0 {
        return Some(d);
    }
    let rpl = kernel_rpl(is_32bit);
    let dpl = (d >> DPL_SHIFT) & 3;
    let fixed = if dpl < rpl {
        (d & !(3 << DPL_SHIFT)) | (rpl << DPL_SHIFT)
    } else {
        d
    };
    if d & S != 0 {
        // Code and data. A 64-bit code segment in a 32-bit guest would take it out of its architecture.
        return match is_32bit {
            true if d & L != 0 => None,
            true => Some(reach_m2p(fixed)),
            false => Some(fixed),
        };
    }
    match (d >> TYPE_SHIFT) & 15 {
        // Reserved type: harmless, also the second half of a 16-byte gate.
        0 => Some(d),
        // Call gate: with DPL 0, so that its use faults and is emulated; its own DPL is kept as the selector's RPL.
        12 => {
            let sel = (d >> 16) as u16;
            let reserved = if is_32bit { 0xe0 } else { 0xff };
            let sound = gate_selector_ok(sel, is_32bit) && (d >> 32) & reserved == 0;
            let dpl = (fixed >> DPL_SHIFT) & 3;
            let sel = u64::from(sel & !3) | dpl;
            sound.then_some((d & !(3 << DPL_SHIFT) & !0xffff_0000) | sel << 16)
        }
        // TSS, LDT, interrupt, trap and task gates: never the guest's.
        _ => None,
    }
}

/// A flat segment of a 32-bit guest that ends in the hypervisor's part of the address space is made to reach all of it:
/// guests cut theirs off where the machine-to-phys table of 32-bit hypervisors began.
fn reach_m2p(d: u64) -> u64 {
    const G: u64 = 1 << 55;
    const LIMIT: u64 = 0x000f_0000_0000_ffff;
    let base = (d >> 16 & 0xff_ffff) | (d >> 32 & 0xff00_0000);
    let size = (d & 0xffff | d >> 32 & 0xf_0000) + 1;
    let size = if d & G != 0 { size << 12 } else { size };
    if base == 0 && size > M2P_COMPAT_VA {
        d | LIMIT
    } else {
        d
    }
}

/// Checks a page that is about to become a descriptor page, fixing its descriptors up in place. It is write-protected.
pub(super) fn validate_page(machine: &Machine, mfn: Mfn, is_32bit: bool) -> MmResult {
    for i in 0..512 {
        let maddr = mfn.maddr() + i * 8;
        let d = machine.mem.read_u64(maddr).ok_or(EINVAL)?;
        let fixed = check(d, is_32bit).ok_or(EINVAL)?;
        if fixed != d {
            machine.mem.write_u64(maddr, fixed);
        }
    }
    Ok(())
}
