// SPDX-License-Identifier: Apache-2.0
//! Xen around the processor: its part of the GDT and of the address space, its registers, emulated page-table stores.

use crate::abi::layout::{
    FIRST_RESERVED_GDT_ENTRY, HYPERVISOR_VIRT_END, M2P_COMPAT_VA, M2P_VA, XEN_DIRECT_MAP,
};
use crate::abi::selector;
use crate::abi::x86::cr0;
use crate::cpu::platform::{Platform, SystemRegisters};
use crate::frames::{ptwr, Domain};
use crate::mmu::walk::Window;

/// What a guest sees of ring 0's own tables: somewhere it cannot read. Only plausible.
const REGISTERS: SystemRegisters = SystemRegisters {
    gdtr: (0xefff, 0xffff_82d0_ffff_8000),
    idtr: (0x0fff, 0xffff_82d0_fffe_0000),
    ldtr: selector::XEN_LDT,
    tr: selector::XEN_TSS,
    cr0: cr0::XEN,
};

/// Xen, as the processors of this domain meet it.
pub fn platform(domain: &Domain) -> Platform {
    Platform {
        reserved_descriptor,
        reserved_gdt: FIRST_RESERVED_GDT_ENTRY,
        flat_cs: Some(selector::FLAT_KERNEL_CS),
        registers: REGISTERS,
        window: Some(window(domain)),
        table_store: ptwr,
    }
}

/// The hypervisor's part of the address space, at whose beginning guests read the machine-to-phys table.
fn window(domain: &Domain) -> Window {
    let machine = &domain.machine;
    if domain.is_32bit {
        Window {
            addresses: M2P_COMPAT_VA..=u64::MAX,
            shown: machine.m2p_compat(),
            supervisor_only: true,
            forbidden: 0..0,
        }
    } else {
        Window {
            addresses: M2P_VA..=HYPERVISOR_VIRT_END - 1,
            shown: machine.m2p(),
            supervisor_only: false,
            // Xen's map of all memory.
            forbidden: XEN_DIRECT_MAP..XEN_DIRECT_MAP + (machine.mem.frames() << 12),
        }
    }
}

/// Where in its table the descriptor of a selector stands.
const fn offset(selector: u16) -> u32 {
    (selector & !7) as u32
}

/// Descriptors in Xen's part of the GDT that a guest may use: the selectors of the public headers, which mean other
/// things to 32-bit guests.
fn reserved_descriptor(index: u32, is_32bit: bool) -> Option<u64> {
    const COMPAT_RING1_CS: u32 = offset(selector::FLAT_COMPAT_RING1_CS);
    const COMPAT_RING1_DS: u32 = offset(selector::FLAT_COMPAT_RING1_DS);
    const COMPAT_RING3_CS: u32 = offset(selector::FLAT_COMPAT_RING3_CS);
    const COMPAT_RING3_DS: u32 = offset(selector::FLAT_COMPAT_RING3_DS);
    const RING3_CS32: u32 = offset(selector::FLAT_RING3_CS32);
    const RING3_DS32: u32 = offset(selector::FLAT_RING3_DS32);
    const RING3_CS64: u32 = offset(selector::FLAT_RING3_CS64);
    const XEN_CS64: u32 = offset(selector::XEN_CS64);
    const XEN_DS: u32 = offset(selector::XEN_DS);
    Some(match (index << 3, is_32bit) {
        (XEN_CS64, _) => 0x00af_9b00_0000_ffff,           // ring 0 code, 64-bit
        (XEN_DS, _) => 0x00cf_9300_0000_ffff,             // ring 0 data
        (COMPAT_RING1_CS, true) => 0x00cf_bb00_0000_ffff, // ring 1 code
        (COMPAT_RING1_DS, true) => 0x00cf_b300_0000_ffff, // ring 1 data
        (COMPAT_RING3_CS, true) => 0x00cf_fb00_0000_ffff, // ring 3 code
        (COMPAT_RING3_DS, true) => 0x00cf_f300_0000_ffff, // ring 3 data
        (RING3_CS32, false) => 0x00cf_fb00_0000_ffff,     // ring 3 code, 32-bit
        (RING3_DS32, false) => 0x00cf_f300_0000_ffff,     // ring 3 data, and the stack of 64-bit code
        (RING3_CS64, false) => 0x00af_fb00_0000_ffff,     // ring 3 code, 64-bit
        _ => return None,
    })
}
