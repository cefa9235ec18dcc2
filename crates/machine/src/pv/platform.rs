//! Xen around the processor: its part of the GDT and of the address space, its registers, emulated page-table stores.

use crate::abi::layout::{M2P_COMPAT_VA, M2P_VA, XEN_DIRECT_MAP};
use crate::cpu::platform::{Platform, SystemRegisters};
use crate::frames::segdesc::FIRST_RESERVED_GDT_ENTRY;
use crate::frames::{ptwr, Domain};
use crate::mmu::walk::Window;

use super::{selector, HYPERVISOR_VIRT_END};

/// What a guest sees of ring 0's own tables: somewhere it cannot read. Only plausible.
const REGISTERS: SystemRegisters = SystemRegisters {
    gdtr: (0xefff, 0xffff_82d0_ffff_8000),
    idtr: (0x0fff, 0xffff_82d0_fffe_0000),
    // LDT_SELECTOR and TSS_SELECTOR of Xen's descriptor table.
    ldtr: 0xe048,
    tr: 0xe040,
    // PG AM WP NE ET MP PE.
    cr0: 0x8005_0033,
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

/// Descriptors in Xen's part of the GDT that a guest may use: the selectors of the public headers, which mean other
/// things to 32-bit guests.
fn reserved_descriptor(index: u32, is_32bit: bool) -> Option<u64> {
    Some(match (index << 3, is_32bit) {
        (0xe008, _) => 0x00af_9b00_0000_ffff,     // ring 0 code, 64-bit
        (0xe010, _) => 0x00cf_9300_0000_ffff,     // ring 0 data
        (0xe018, true) => 0x00cf_bb00_0000_ffff,  // ring 1 code (FLAT_RING1_CS)
        (0xe020, true) => 0x00cf_b300_0000_ffff,  // ring 1 data (FLAT_RING1_DS, SS)
        (0xe028, true) => 0x00cf_fb00_0000_ffff,  // ring 3 code (FLAT_RING3_CS)
        (0xe030, true) => 0x00cf_f300_0000_ffff,  // ring 3 data (FLAT_RING3_DS, SS)
        (0xe020, false) => 0x00cf_fb00_0000_ffff, // ring 3 code, 32-bit (FLAT_RING3_CS32)
        (0xe028, false) => 0x00cf_f300_0000_ffff, // ring 3 data (FLAT_RING3_DS32, SS64)
        (0xe030, false) => 0x00af_fb00_0000_ffff, // ring 3 code, 64-bit (FLAT_RING3_CS64)
        _ => return None,
    })
}
