// SPDX-License-Identifier: Apache-2.0
//! Layouts of the structures that the machine itself reads and writes (`xen.h`, `arch-x86/xen.h`): offsets in bytes.

/// `struct vcpu_info`.
pub mod vcpu_info {
    pub const SIZE: u64 = 64;
    pub const EVTCHN_UPCALL_PENDING: u64 = 0;
    pub const EVTCHN_UPCALL_MASK: u64 = 1;

    /// `arch.cr2`, an `unsigned long`.
    pub const fn arch_cr2(is_32bit: bool) -> u64 {
        if is_32bit {
            8
        } else {
            16
        }
    }
}

/// `struct mmu_update`: two words of 64 bits, `ptr` and `val`.
pub mod mmu_update {
    pub const SIZE: usize = 16;
    pub const PTR: usize = 0;
    pub const VAL: usize = 8;
}

/// `struct mmuext_op`: `cmd`, then two unions of the guest's `unsigned long`.
pub mod mmuext_op {
    pub const SIZE_MAX: usize = 24;
    pub const CMD: usize = 0;

    pub const fn size(is_32bit: bool) -> usize {
        3 * super::long(is_32bit)
    }
    pub const fn arg1(is_32bit: bool) -> usize {
        super::long(is_32bit)
    }
    pub const fn arg2(is_32bit: bool) -> usize {
        2 * super::long(is_32bit)
    }
}

/// `struct iret_context` of 64-bit guests: rax r11 rcx flags rip cs rflags rsp ss.
pub mod iret_context {
    pub const SIZE: usize = 72;
    /// `flags`: rcx and r11 need not be restored.
    pub const VGCF_IN_SYSCALL: u64 = 1 << 8;
}

/// `flags` of `struct trap_info`.
pub mod trap_info {
    /// TI_GET_DPL
    pub const DPL: u8 = 3;
    /// TI_GET_IF
    pub const IF: u8 = 4;
}

/// Bytes of an `unsigned long`.
pub const fn long(is_32bit: bool) -> usize {
    if is_32bit {
        4
    } else {
        8
    }
}
