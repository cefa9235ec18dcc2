// SPDX-License-Identifier: Apache-2.0
//! Why `Vcpu::run` came back: the closed set of things the hypervisor above must handle.

use crate::cpu::fault::PrivInsn;

/// An exception that was delivered to the guest kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenTrap {
    /// Its vector: one of [`vector`](mod@crate::vector).
    pub vector: u8,
    /// The error code, of vectors that have one.
    pub error_code: Option<u32>,
    /// The faulting address, of #PF.
    pub cr2: u64,
    /// Where the guest was, as it is told.
    pub rip: u64,
    /// Whether its kernel was running, not one of its applications.
    pub in_kernel: bool,
}

/// Why [`Vcpu::run`](super::Vcpu::run) returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Hypercall `nr` with up to six arguments. Finish it with `hypercall_return`.
    Hypercall {
        /// Its number (`__HYPERVISOR_*`), of eax.
        nr: u64,
        /// rdi, rsi, rdx, r10, r8, r9; of 32-bit guests ebx, ecx, edx, esi, edi, ebp.
        args: [u64; 6],
    },
    /// A privileged instruction that the hypervisor emulates for the guest kernel; `rip` is at it, `len` bytes long.
    Privileged {
        /// What it is, with its operands.
        insn: PrivInsn,
        /// Its length in bytes.
        len: u8,
    },
    /// An exception for which the guest has no handler, or whose delivery failed: the domain crashes.
    Fault {
        /// Its vector: one of [`vector`](mod@crate::vector).
        vector: u8,
        /// The error code, of vectors that have one.
        error_code: Option<u32>,
        /// The faulting address, of #PF.
        cr2: u64,
        /// Why it was not delivered, for the log.
        reason: &'static str,
    },
    /// An exception that is watched (`Vcpu::watch_traps`) was delivered; the vCPU is at its handler.
    Trap(SeenTrap),
    /// The instruction budget is spent, exactly.
    Budget,
    /// The deadline (system time) given to `run` has passed.
    Deadline,
    /// Another thread asked with `kick`.
    Interrupted,
    /// The engine cannot do what the guest asks for.
    Unsupported(&'static str),
}
