// SPDX-License-Identifier: Apache-2.0
//! Descriptor tables (GDT and LDT pages): which descriptors a guest may have.

use super::machine::Machine;
use super::op::{MmResult, EINVAL};
use crate::abi::layout::{FIRST_RESERVED_GDT_ENTRY, M2P_COMPAT_VA};
use crate::abi::selector::{FLAT_COMPAT_RING1_CS, FLAT_KERNEL_CS};
use crate::abi::x86::descriptor::{self, system, G, L, LIMIT, P, S};
use crate::abi::x86::selector;
use crate::mem::Mfn;

/// Lowest privilege level number of guest code: 64-bit kernels run at CPL 3, 32-bit ones in ring 1.
const fn kernel_rpl(is_32bit: bool) -> u8 {
    if is_32bit {
        1
    } else {
        3
    }
}

/// May a gate of this guest lead through `sel`? Not into Xen's part of the GDT, but for the flat guest segments there.
pub(crate) fn gate_selector_ok(sel: u16, is_32bit: bool) -> bool {
    let flat_kernel_cs = if is_32bit {
        FLAT_COMPAT_RING1_CS
    } else {
        FLAT_KERNEL_CS
    };
    selector::index(sel) < FIRST_RESERVED_GDT_ENTRY || sel & selector::TI != 0 || sel == flat_kernel_cs
}

/// The descriptor as it may stand in a table (with its privilege level raised to the guest kernel's where it claims more),
/// or `None` if it may not.
pub(crate) fn check(d: u64, is_32bit: bool) -> Option<u64> {
    if d & P == 0 {
        return Some(d);
    }
    let rpl = kernel_rpl(is_32bit);
    let dpl = descriptor::dpl(d).max(rpl);
    let fixed = descriptor::with_dpl(d, dpl);
    if d & S != 0 {
        // Code and data. A 64-bit code segment in a 32-bit guest would take it out of its architecture.
        return match is_32bit {
            true if d & L != 0 => None,
            true => Some(reach_m2p(fixed)),
            false => Some(fixed),
        };
    }
    match descriptor::system_type(d) {
        // Reserved type: harmless, also the second half of a 16-byte gate.
        0 => Some(d),
        // Call gate: with DPL 0, so that its use faults and is emulated; its own DPL is kept as the selector's RPL.
        system::CALL_GATE => {
            let sel = descriptor::gate_selector(d);
            let reserved = if is_32bit { 0xe0 } else { 0xff };
            let sound = gate_selector_ok(sel, is_32bit) && (d >> 32) & reserved == 0;
            let sel = sel & !selector::RPL | u16::from(dpl);
            sound.then_some(descriptor::with_dpl(d, 0) & !0xffff_0000 | u64::from(sel) << 16)
        }
        // TSS, LDT, interrupt, trap and task gates: never the guest's.
        _ => None,
    }
}

/// A flat segment of a 32-bit guest that ends in the hypervisor's part of the address space is made to reach all of it:
/// guests cut theirs off where the machine-to-phys table of 32-bit hypervisors began.
fn reach_m2p(d: u64) -> u64 {
    let size = u64::from(descriptor::raw_limit(d)) + 1;
    let size = if d & G != 0 { size << 12 } else { size };
    if descriptor::base(d) == 0 && size > M2P_COMPAT_VA {
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
