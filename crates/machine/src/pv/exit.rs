// SPDX-License-Identifier: Apache-2.0
//! Why `Vcpu::run` came back: the closed set of things the hypervisor above must handle.

use crate::cpu::fault::PrivInsn;

/// An exception that was delivered to the guest kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenTrap {
    pub vector: u8,
    pub error_code: Option<u32>,
    pub cr2: u64,
    /// Where the guest was, as it is told.
    pub rip: u64,
    /// Whether its kernel was running, not one of its applications.
    pub in_kernel: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Hypercall `nr` with up to six arguments. Finish it with `hypercall_return`.
    Hypercall { nr: u64, args: [u64; 6] },
    /// A privileged instruction that the hypervisor emulates for the guest kernel; `rip` is at it, `len` bytes long.
    Privileged { insn: PrivInsn, len: u8 },
    /// An exception for which the guest has no handler, or whose delivery failed: the domain crashes.
    Fault {
        vector: u8,
        error_code: Option<u32>,
        cr2: u64,
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
