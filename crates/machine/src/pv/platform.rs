// SPDX-License-Identifier: Apache-2.0
//! Xen around the processor: its part of the GDT and of the address space, its registers, emulated page-table stores.

use crate::abi::layout::{
    FIRST_RESERVED_GDT_ENTRY, HYPERVISOR_VIRT_END, M2P_COMPAT_VA, M2P_VA, XEN_DIRECT_MAP,
};
use crate::abi::selector;
use crate::abi::x86::cr0;
use crate::abi::x86::descriptor::{with_dpl, FLAT_CODE32, FLAT_CODE64, FLAT_DATA};
use crate::cpu::platform::{Mode, Platform, SystemRegisters};
use crate::frames::{ptwr, Domain};
use crate::mmu::walk::Window;

/// What a guest sees of ring 0's own tables: somewhere it cannot read. Only plausible.
const REGISTERS: SystemRegisters = SystemRegisters {
    gdtr: (0xefff, 0xffff_82d0_ffff_8000),
    idtr: (0x0fff, 0xffff_82d0_fffe_0000),
    ldtr: selector::XEN_LDT,
    tr: selector::XEN_TSS,
    cr0: cr0::XEN,
    osxsave: true,
};

/// Xen, as the processors of this domain meet it.
pub fn platform(domain: &Domain) -> Platform {
    let compat = domain.is_32bit;
    Platform {
        mode: if compat { Mode::Legacy } else { Mode::Long },
        call_gates: compat,
        reserved_descriptor: if compat {
            reserved_descriptor_compat
        } else {
            reserved_descriptor
        },
        reserved_gdt: FIRST_RESERVED_GDT_ENTRY,
        flat_cs: (!compat).then_some(selector::FLAT_KERNEL_CS),
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

/// Descriptors in Xen's part of the GDT that a 64-bit guest may use: the selectors of the public headers.
fn reserved_descriptor(index: u32) -> Option<u64> {
    const RING3_CS32: u32 = selector::index(selector::FLAT_RING3_CS32);
    const RING3_DS32: u32 = selector::index(selector::FLAT_RING3_DS32);
    const RING3_CS64: u32 = selector::index(selector::FLAT_RING3_CS64);
    Some(match index {
        RING3_CS32 => with_dpl(FLAT_CODE32, 3),
        // Also the stack of 64-bit code.
        RING3_DS32 => with_dpl(FLAT_DATA, 3),
        RING3_CS64 => with_dpl(FLAT_CODE64, 3),
        _ => return xen_descriptor(index),
    })
}

/// Those that a 32-bit guest may use: the same selectors mean other things to it.
fn reserved_descriptor_compat(index: u32) -> Option<u64> {
    const RING1_CS: u32 = selector::index(selector::FLAT_COMPAT_RING1_CS);
    const RING1_DS: u32 = selector::index(selector::FLAT_COMPAT_RING1_DS);
    const RING3_CS: u32 = selector::index(selector::FLAT_COMPAT_RING3_CS);
    const RING3_DS: u32 = selector::index(selector::FLAT_COMPAT_RING3_DS);
    Some(match index {
        RING1_CS => with_dpl(FLAT_CODE32, 1),
        RING1_DS => with_dpl(FLAT_DATA, 1),
        RING3_CS => with_dpl(FLAT_CODE32, 3),
        RING3_DS => with_dpl(FLAT_DATA, 3),
        _ => return xen_descriptor(index),
    })
}

/// Xen's own, of ring 0.
fn xen_descriptor(index: u32) -> Option<u64> {
    const XEN_CS64: u32 = selector::index(selector::XEN_CS64);
    const XEN_DS: u32 = selector::index(selector::XEN_DS);
    match index {
        XEN_CS64 => Some(with_dpl(FLAT_CODE64, 0)),
        XEN_DS => Some(with_dpl(FLAT_DATA, 0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_descriptors_are_those_that_real_xen_shows() {
        let at = |selector: u16| reserved_descriptor(selector::index(selector));
        let compat = |selector: u16| reserved_descriptor_compat(selector::index(selector));
        assert_eq!(at(selector::FLAT_RING3_CS32), Some(0x00cf_fb00_0000_ffff));
        assert_eq!(at(selector::FLAT_RING3_DS32), Some(0x00cf_f300_0000_ffff));
        assert_eq!(at(selector::FLAT_RING3_CS64), Some(0x00af_fb00_0000_ffff));
        assert_eq!(
            compat(selector::FLAT_COMPAT_RING1_CS),
            Some(0x00cf_bb00_0000_ffff)
        );
        assert_eq!(
            compat(selector::FLAT_COMPAT_RING1_DS),
            Some(0x00cf_b300_0000_ffff)
        );
        assert_eq!(
            compat(selector::FLAT_COMPAT_RING3_CS),
            Some(0x00cf_fb00_0000_ffff)
        );
        assert_eq!(
            compat(selector::FLAT_COMPAT_RING3_DS),
            Some(0x00cf_f300_0000_ffff)
        );
        for sees in [at, compat] {
            assert_eq!(sees(selector::XEN_CS64), Some(0x00af_9b00_0000_ffff));
            assert_eq!(sees(selector::XEN_DS), Some(0x00cf_9300_0000_ffff));
        }
    }
}
