// SPDX-License-Identifier: Apache-2.0
//! Hypercalls that the machine itself answers, their sub-operations and arguments (`xen.h`, `arch-x86/xen-x86_64.h`).

/// Hypercall numbers (`__HYPERVISOR_*`).
pub mod nr {
    /// Changes page-table entries, or entries of the machine-to-phys table.
    pub const MMU_UPDATE: u64 = 1;
    /// Sets the stack on which the guest kernel is entered.
    pub const STACK_SWITCH: u64 = 3;
    /// Sets or clears CR0.TS.
    pub const FPU_TASKSWITCH: u64 = 5;
    /// Several hypercalls: an array of [`multicall_entry`](super::super::structs::multicall_entry).
    pub const MULTICALL: u64 = 13;
    /// Changes the L1 entry of a virtual address in the current page tables.
    pub const UPDATE_VA_MAPPING: u64 = 14;
    /// Sets the vCPU's single-shot timer.
    pub const SET_TIMER_OP: u64 = 15;
    /// As EVENT_CHANNEL_OP, before 3.0.2: command and argument in one structure.
    pub const EVENT_CHANNEL_OP_COMPAT: u64 = 16;
    /// Tells what the hypervisor is: commands of [`xenver`](super::xenver).
    pub const XEN_VERSION: u64 = 17;
    /// Operations of [`gnttabop`](super::super::grant::gnttabop).
    pub const GRANT_TABLE_OP: u64 = 20;
    /// Returns from an exception or event.
    pub const IRET: u64 = 23;
    /// Operations on vCPUs: commands of [`vcpuop`](super::vcpuop).
    pub const VCPU_OP: u64 = 24;
    /// Sets a base of [`segbase`](super::segbase).
    pub const SET_SEGMENT_BASE: u64 = 25;
    /// Operations of [`mmuext`](super::mmuext).
    pub const MMUEXT_OP: u64 = 26;
    /// Scheduling: commands of [`schedop`](super::schedop).
    pub const SCHED_OP: u64 = 29;
    /// Operations on event channels.
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
    /// Check and write a page-table entry; `ptr` is its machine address.
    pub const NORMAL_PT_UPDATE: u64 = 0;
    /// Write the machine-to-phys entry of the frame that `ptr` is in.
    pub const MACHPHYS_UPDATE: u64 = 1;
    /// As `NORMAL_PT_UPDATE`, and the accessed and dirty bits stay as they are.
    pub const PT_UPDATE_PRESERVE_AD: u64 = 2;
    /// As `NORMAL_PT_UPDATE`, with frame numbers that are never translated: for PV guests the same.
    pub const PT_UPDATE_NO_TRANSLATE: u64 = 3;
    /// The address of an entry leaves three bits for the command.
    pub const COMMAND: u64 = 7;
}

/// Operations of mmuext_op (`MMUEXT_*`).
pub mod mmuext {
    /// Validate a frame as an L1 and keep it so.
    pub const PIN_L1_TABLE: u32 = 0;
    /// Validate a frame as an L2 and keep it so.
    pub const PIN_L2_TABLE: u32 = 1;
    /// Validate a frame as an L3 and keep it so.
    pub const PIN_L3_TABLE: u32 = 2;
    /// Validate a frame as an L4 and keep it so.
    pub const PIN_L4_TABLE: u32 = 3;
    /// End a pin.
    pub const UNPIN_TABLE: u32 = 4;
    /// CR3 of the kernel; of 32-bit guests the only one.
    pub const NEW_BASEPTR: u32 = 5;
    /// Flush this vCPU's TLB.
    pub const TLB_FLUSH_LOCAL: u32 = 6;
    /// Flush a page from this vCPU's TLB.
    pub const INVLPG_LOCAL: u32 = 7;
    /// Flush the TLBs of the vCPUs in a bitmap.
    pub const TLB_FLUSH_MULTI: u32 = 8;
    /// Flush a page from the TLBs of the vCPUs in a bitmap.
    pub const INVLPG_MULTI: u32 = 9;
    /// Flush the TLBs of all vCPUs of the domain.
    pub const TLB_FLUSH_ALL: u32 = 10;
    /// Flush a page from the TLBs of all vCPUs of the domain.
    pub const INVLPG_ALL: u32 = 11;
    /// Write back and invalidate this processor's caches.
    pub const FLUSH_CACHE: u32 = 12;
    /// Use an LDT: its linear address and number of entries.
    pub const SET_LDT: u32 = 13;
    /// CR3 of a 64-bit guest's applications.
    pub const NEW_USER_BASEPTR: u32 = 15;
    /// Fill a frame with zeros.
    pub const CLEAR_PAGE: u32 = 16;
    /// Copy a frame.
    pub const COPY_PAGE: u32 = 17;
    /// Write back and invalidate the caches of all processors.
    pub const FLUSH_CACHE_GLOBAL: u32 = 18;
    /// Type 2 MiB as a superpage.
    pub const MARK_SUPER: u32 = 19;
    /// End that.
    pub const UNMARK_SUPER: u32 = 20;
}

/// Flags of update_va_mapping (`UVMF_*`).
pub mod uvmf {
    /// Bits that say what is flushed; zero is nothing.
    pub const FLUSHTYPE_MASK: u64 = 3;
    /// The whole TLB.
    pub const TLB_FLUSH: u64 = 1;
    /// The translation of that page.
    pub const INVLPG: u64 = 2;
    /// For all vCPUs of the domain. Without it: a bitmap of vCPUs if the rest of the argument is its address, else
    /// this vCPU.
    pub const ALL: u64 = 4;
}

/// Numbers of the flags that vm_assist sets (`VMASST_TYPE_*`): bit numbers of `Domain::set_vm_assist`.
pub mod vmasst {
    /// Stores to page tables that are mapped read-only are emulated.
    pub const WRITABLE_PAGETABLES: u32 = 2;
    /// The IOPL is that of the flags which the guest returns with, not that of PHYSDEVOP_set_iopl.
    pub const ARCHITECTURAL_IOPL: u32 = 4;
    /// Slot 256 of an L4 shows the machine-to-phys table to the kernel only.
    pub const M2P_STRICT: u32 = 32;
}

/// Commands of xen_version (`XENVER_*`).
pub mod xenver {
    /// Tells the version, and gives the guest its events: the shortest hypercall that there is.
    pub const VERSION: u32 = 0;
    /// Leaf of CPUID whose eax is the version, too.
    pub const CPUID_LEAF: u32 = 0x4000_0001;
}

/// Commands of sched_op (`SCHEDOP_*`).
pub mod schedop {
    /// Enables upcalls, and sleeps until one is due.
    pub const BLOCK: u32 = 1;
}

/// Commands of vcpu_op (`VCPUOP_*`).
pub mod vcpuop {
    /// Whether a vCPU is up.
    pub const IS_UP: u32 = 3;
    /// Sets the vCPU's own single-shot timer.
    pub const SET_SINGLESHOT_TIMER: u32 = 8;
    /// Stops it.
    pub const STOP_SINGLESHOT_TIMER: u32 = 9;
}

/// Which base set_segment_base sets (`SEGBASE_*`).
pub mod segbase {
    /// The base of FS.
    pub const FS: u32 = 0;
    /// The base of GS that applications have.
    pub const GS_USER: u32 = 1;
    /// The base of GS that the kernel has.
    pub const GS_KERNEL: u32 = 2;
    /// The selector of GS that applications have; its descriptor gives the base.
    pub const GS_USER_SEL: u32 = 3;
}
