// SPDX-License-Identifier: Apache-2.0
//! Layouts of the structures that the machine itself reads and writes (`xen.h`, `arch-x86/xen.h`): offsets in bytes.

/// `struct vcpu_info`.
pub mod vcpu_info {
    /// `sizeof`, in guests of both widths.
    pub const SIZE: u64 = 64;
    /// `uint8_t`: not zero when an event is pending.
    pub const EVTCHN_UPCALL_PENDING: u64 = 0;
    /// `uint8_t`: not zero when the guest takes no events.
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

/// `struct vcpu_set_singleshot_timer`.
pub mod vcpu_set_singleshot_timer {
    /// `sizeof`; a 64-bit guest's ends in padding.
    pub const fn size(is_32bit: bool) -> usize {
        match is_32bit {
            true => 12,
            false => 16,
        }
    }
    /// `sizeof`, at most.
    pub const SIZE_MAX: usize = size(false);
    /// `uint64_t`: absolute system time.
    pub const TIMEOUT_ABS_NS: usize = 0;
}

/// `struct mmu_update`: two words of 64 bits, `ptr` and `val`.
pub mod mmu_update {
    /// `sizeof`.
    pub const SIZE: usize = 16;
    /// `uint64_t`: a machine address, and a command of [`mmu`](super::super::hypercall::mmu) in its lowest bits.
    pub const PTR: usize = 0;
    /// `uint64_t`: what is written there.
    pub const VAL: usize = 8;
}

/// `struct multicall_entry`: `unsigned long` all over, counted in these.
pub mod multicall_entry {
    /// How many it has.
    pub const WORDS: u64 = 8;
    /// The hypercall's number.
    pub const OP: u64 = 0;
    /// What it has returned.
    pub const RESULT: u64 = 1;
    /// Six arguments.
    pub const ARGS: u64 = 2;

    /// Bytes of an `unsigned long`.
    pub const fn word(is_32bit: bool) -> u64 {
        match is_32bit {
            true => 4,
            false => 8,
        }
    }
}

/// `struct mmuext_op`: `cmd`, then two unions of the guest's `unsigned long`.
pub mod mmuext_op {
    /// `sizeof` in a 64-bit guest.
    pub const SIZE_MAX: usize = 24;
    /// `unsigned int`, of [`mmuext`](super::super::hypercall::mmuext).
    pub const CMD: usize = 0;

    /// `sizeof`.
    pub const fn size(is_32bit: bool) -> usize {
        3 * super::long(is_32bit)
    }
    /// `arg1.mfn` or `arg1.linear_addr`.
    pub const fn arg1(is_32bit: bool) -> usize {
        super::long(is_32bit)
    }
    /// `arg2.nr_ents`, `arg2.vcpumask` or `arg2.src_mfn`.
    pub const fn arg2(is_32bit: bool) -> usize {
        2 * super::long(is_32bit)
    }
}

/// `struct iret_context` of 64-bit guests: rax r11 rcx flags rip cs rflags rsp ss.
pub mod iret_context {
    /// `sizeof`: nine words of 64 bits.
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
