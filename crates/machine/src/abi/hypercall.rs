// SPDX-License-Identifier: Apache-2.0
//! Hypercalls that the machine itself answers, their sub-operations and arguments (`xen.h`, `arch-x86/xen-x86_64.h`).

/// Hypercall numbers (`__HYPERVISOR_*`).
pub mod nr {
    pub const MMU_UPDATE: u64 = 1;
    pub const STACK_SWITCH: u64 = 3;
    pub const FPU_TASKSWITCH: u64 = 5;
    pub const UPDATE_VA_MAPPING: u64 = 14;
    pub const EVENT_CHANNEL_OP_COMPAT: u64 = 16;
    pub const GRANT_TABLE_OP: u64 = 20;
    pub const IRET: u64 = 23;
    pub const SET_SEGMENT_BASE: u64 = 25;
    pub const MMUEXT_OP: u64 = 26;
    pub const EVENT_CHANNEL_OP: u64 = 32;
}

/// The vector by which 32-bit guests make hypercalls, and the direct entry of the others' `int $0x82` (TRAP_INSTR).
pub const HYPERCALL_VECTOR: u8 = 0x82;
/// Length of `syscall` and of `int $0x82`.
pub const HYPERCALL_INSTRUCTION_LEN: u64 = 2;

/// In `count` of mmu_update and mmuext_op: the continuation of a preempted call; `*done` counts what earlier parts did.
/// Xen's own, in no public header (MMU_UPDATE_PREEMPTED).
pub const MMU_UPDATE_PREEMPTED: u32 = 1 << 31;

/// Commands in the low bits of `mmu_update.ptr` (`MMU_*`).
pub mod mmu {
    pub const NORMAL_PT_UPDATE: u64 = 0;
    pub const MACHPHYS_UPDATE: u64 = 1;
    pub const PT_UPDATE_PRESERVE_AD: u64 = 2;
    pub const PT_UPDATE_NO_TRANSLATE: u64 = 3;
    /// The address of an entry leaves three bits for the command.
    pub const COMMAND: u64 = 7;
}

/// Operations of mmuext_op (`MMUEXT_*`).
pub mod mmuext {
    pub const PIN_L1_TABLE: u32 = 0;
    pub const PIN_L2_TABLE: u32 = 1;
    pub const PIN_L3_TABLE: u32 = 2;
    pub const PIN_L4_TABLE: u32 = 3;
    pub const UNPIN_TABLE: u32 = 4;
    pub const NEW_BASEPTR: u32 = 5;
    pub const TLB_FLUSH_LOCAL: u32 = 6;
    pub const INVLPG_LOCAL: u32 = 7;
    pub const TLB_FLUSH_MULTI: u32 = 8;
    pub const INVLPG_MULTI: u32 = 9;
    pub const TLB_FLUSH_ALL: u32 = 10;
    pub const INVLPG_ALL: u32 = 11;
    pub const FLUSH_CACHE: u32 = 12;
    pub const SET_LDT: u32 = 13;
    pub const NEW_USER_BASEPTR: u32 = 15;
    pub const CLEAR_PAGE: u32 = 16;
    pub const COPY_PAGE: u32 = 17;
    pub const FLUSH_CACHE_GLOBAL: u32 = 18;
    pub const MARK_SUPER: u32 = 19;
    pub const UNMARK_SUPER: u32 = 20;
}

/// Flags of update_va_mapping (`UVMF_*`).
pub mod uvmf {
    pub const FLUSHTYPE_MASK: u64 = 3;
    pub const TLB_FLUSH: u64 = 1;
    pub const INVLPG: u64 = 2;
    pub const ALL: u64 = 4;
}

/// Numbers of the flags that vm_assist sets (`VMASST_TYPE_*`): bit numbers of `Domain::set_vm_assist`.
pub mod vmasst {
    pub const WRITABLE_PAGETABLES: u32 = 2;
    pub const ARCHITECTURAL_IOPL: u32 = 4;
    pub const M2P_STRICT: u32 = 32;
}

/// Which base set_segment_base sets (`SEGBASE_*`).
pub mod segbase {
    pub const FS: u32 = 0;
    pub const GS_USER: u32 = 1;
    pub const GS_KERNEL: u32 = 2;
    pub const GS_USER_SEL: u32 = 3;
}
