//! Descriptor tables (GDT and LDT pages): which descriptors a guest may have.

use super::op::{MmResult, EINVAL};
use crate::machine::Machine;
use crate::mem::Mfn;

/// First GDT entry of Xen's own (FIRST_RESERVED_GDT_ENTRY).
pub const FIRST_RESERVED_GDT_ENTRY: u32 = 14 * 4096 / 8;

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
    let flat_kernel_cs = if is_32bit { 0xe019 } else { 0xe033 };
    u32::from(sel >> 3) < FIRST_RESERVED_GDT_ENTRY || sel & 4 != 0 || sel == flat_kernel_cs
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
        return (!is_32bit || d & L == 0).then_some(fixed);
    }
    match (d >> TYPE_SHIFT) & 15 {
        // Reserved type: harmless, also the second half of a 16-byte gate.
        0 => Some(fixed),
        // Call gate: its target is checked, because a far call would go there.
        12 => {
            let sel = (d >> 16) as u16;
            let sel = if u64::from(sel & 3) < rpl {
                (sel & !3) | rpl as u16
            } else {
                sel
            };
            gate_selector_ok(sel, is_32bit).then_some((fixed & !0xffff_0000) | (u64::from(sel) << 16))
        }
        // TSS, LDT, interrupt, trap and task gates: never the guest's.
        _ => None,
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
