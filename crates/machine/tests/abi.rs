// SPDX-License-Identifier: Apache-2.0
//! Xen's numbers and layouts here are those of its public headers, as a C compiler has told them to
//! `tests/abi/golden.json` (written by `tests/abi/probe.py`).

use domzero_machine::abi::hypercall::{mmu, mmuext, nr, segbase, uvmf, vmasst};
use domzero_machine::abi::structs::{iret_context, mmu_update, mmuext_op, vcpu_info};
use domzero_machine::abi::{self, layout, selector, Errno};
use std::collections::HashMap;

/// The golden file's values of one width.
fn golden(width: &str) -> HashMap<String, i64> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/abi/golden.json");
    let text = std::fs::read_to_string(path).expect("tests/abi/golden.json");
    let mut all: HashMap<String, HashMap<String, i64>> =
        serde_json::from_str(&text).expect("two widths of numbers");
    all.remove(width).expect("this width")
}

/// `[name in C, value here]` for constants that are named as there but for a prefix.
macro_rules! named {
    ($prefix:literal, $module:ident: $($name:ident = $c:literal),+ $(,)?) => {
        vec![$((format!("value {}{}", $prefix, $c), $module::$name as i64)),+]
    };
}

fn numbers() -> Vec<(String, i64)> {
    let mut all = named!("__HYPERVISOR_", nr: MMU_UPDATE = "mmu_update", STACK_SWITCH = "stack_switch",
        FPU_TASKSWITCH = "fpu_taskswitch", UPDATE_VA_MAPPING = "update_va_mapping", IRET = "iret",
        SET_SEGMENT_BASE = "set_segment_base", MMUEXT_OP = "mmuext_op");
    all.extend(
        named!("MMU_", mmu: NORMAL_PT_UPDATE = "NORMAL_PT_UPDATE", MACHPHYS_UPDATE = "MACHPHYS_UPDATE",
        PT_UPDATE_PRESERVE_AD = "PT_UPDATE_PRESERVE_AD", PT_UPDATE_NO_TRANSLATE = "PT_UPDATE_NO_TRANSLATE"),
    );
    all.extend(
        named!("MMUEXT_", mmuext: PIN_L1_TABLE = "PIN_L1_TABLE", PIN_L2_TABLE = "PIN_L2_TABLE",
        PIN_L3_TABLE = "PIN_L3_TABLE", PIN_L4_TABLE = "PIN_L4_TABLE", UNPIN_TABLE = "UNPIN_TABLE",
        NEW_BASEPTR = "NEW_BASEPTR", TLB_FLUSH_LOCAL = "TLB_FLUSH_LOCAL", INVLPG_LOCAL = "INVLPG_LOCAL",
        TLB_FLUSH_MULTI = "TLB_FLUSH_MULTI", INVLPG_MULTI = "INVLPG_MULTI", TLB_FLUSH_ALL = "TLB_FLUSH_ALL",
        INVLPG_ALL = "INVLPG_ALL", FLUSH_CACHE = "FLUSH_CACHE", SET_LDT = "SET_LDT",
        NEW_USER_BASEPTR = "NEW_USER_BASEPTR", CLEAR_PAGE = "CLEAR_PAGE", COPY_PAGE = "COPY_PAGE",
        FLUSH_CACHE_GLOBAL = "FLUSH_CACHE_GLOBAL", MARK_SUPER = "MARK_SUPER", UNMARK_SUPER = "UNMARK_SUPER"),
    );
    all.extend(
        named!("UVMF_", uvmf: FLUSHTYPE_MASK = "FLUSHTYPE_MASK", TLB_FLUSH = "TLB_FLUSH",
        INVLPG = "INVLPG", ALL = "ALL"),
    );
    all.extend(
        named!("VMASST_TYPE_", vmasst: WRITABLE_PAGETABLES = "writable_pagetables",
        ARCHITECTURAL_IOPL = "architectural_iopl", M2P_STRICT = "m2p_strict"),
    );
    all.extend(
        named!("SEGBASE_", segbase: FS = "FS", GS_USER = "GS_USER", GS_KERNEL = "GS_KERNEL",
        GS_USER_SEL = "GS_USER_SEL"),
    );
    all.extend(
        named!("DOMID_", abi: DOMID_FIRST_RESERVED = "FIRST_RESERVED", DOMID_SELF = "SELF", DOMID_IO = "IO",
        DOMID_XEN = "XEN", DOMID_INVALID = "INVALID"),
    );
    all.extend(
        named!("FLAT_", selector: FLAT_KERNEL_CS = "KERNEL_CS64", FLAT_KERNEL_SS = "KERNEL_SS64",
        FLAT_RING3_CS64 = "RING3_CS64", FLAT_RING3_SS64 = "RING3_SS64", FLAT_RING3_CS32 = "RING3_CS32",
        FLAT_RING3_DS32 = "RING3_DS32", FLAT_RING3_SS32 = "RING3_SS32"),
    );
    all.extend(
        named!("", layout: HYPERVISOR_VIRT_START = "HYPERVISOR_VIRT_START", HYPERVISOR_VIRT_END = "HYPERVISOR_VIRT_END",
        M2P_VA = "MACH2PHYS_VIRT_START", FIRST_RESERVED_GDT_ENTRY = "FIRST_RESERVED_GDT_ENTRY"),
    );
    all.extend(named!("", iret_context: VGCF_IN_SYSCALL = "VGCF_in_syscall"));
    all.extend(Errno::ALL.map(|e| (format!("value XEN_{e}"), i64::from(e.number()))));
    all
}

fn numbers_of_32_bit_guests() -> Vec<(String, i64)> {
    let mut all = named!("FLAT_", selector: FLAT_COMPAT_RING1_CS = "RING1_CS", FLAT_COMPAT_RING1_DS = "RING1_DS",
        FLAT_COMPAT_RING1_SS = "RING1_SS", FLAT_COMPAT_RING3_CS = "RING3_CS", FLAT_COMPAT_RING3_DS = "RING3_DS",
        FLAT_COMPAT_RING3_SS = "RING3_SS");
    all.extend(
        named!("", layout: HYPERVISOR_VIRT_START_PAE = "__HYPERVISOR_VIRT_START_PAE", M2P_COMPAT_VA = "__MACH2PHYS_VIRT_START_PAE"),
    );
    all
}

fn layouts(is_32bit: bool, golden: &HashMap<String, i64>) -> Vec<(String, i64)> {
    // The compiler knows offsets within one structure.
    let cr2 = golden["offsetof vcpu_info arch"] + golden["offsetof arch_vcpu_info cr2"];
    assert_eq!(vcpu_info::arch_cr2(is_32bit) as i64, cr2);
    let mut all = vec![
        ("sizeof vcpu_info", vcpu_info::SIZE as i64),
        (
            "offsetof vcpu_info evtchn_upcall_pending",
            vcpu_info::EVTCHN_UPCALL_PENDING as i64,
        ),
        (
            "offsetof vcpu_info evtchn_upcall_mask",
            vcpu_info::EVTCHN_UPCALL_MASK as i64,
        ),
        ("sizeof mmu_update", mmu_update::SIZE as i64),
        ("offsetof mmu_update ptr", mmu_update::PTR as i64),
        ("offsetof mmu_update val", mmu_update::VAL as i64),
        ("sizeof mmuext_op", mmuext_op::size(is_32bit) as i64),
        ("offsetof mmuext_op cmd", mmuext_op::CMD as i64),
        ("offsetof mmuext_op arg1", mmuext_op::arg1(is_32bit) as i64),
        ("offsetof mmuext_op arg2", mmuext_op::arg2(is_32bit) as i64),
    ];
    if !is_32bit {
        all.push(("sizeof iret_context", iret_context::SIZE as i64));
    }
    all.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[test]
fn numbers_and_layouts_are_those_of_the_headers() {
    for (width, numbers) in [("64", numbers()), ("32", numbers_of_32_bit_guests())] {
        let golden = golden(width);
        let ours = numbers.into_iter().chain(layouts(width == "32", &golden));
        let wrong: Vec<_> = ours
            .filter(|(name, value)| golden.get(name) != Some(value))
            .map(|(name, value)| format!("{name}: here {value}, there {:?}", golden.get(&name)))
            .collect();
        assert!(wrong.is_empty(), "{width}: {wrong:#?}");
    }
}
