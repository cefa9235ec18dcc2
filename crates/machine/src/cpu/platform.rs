// SPDX-License-Identifier: Apache-2.0
//! What surrounds a processor and is not x86: given to it once, by the layer that runs guests on it.

use crate::frames::{Domain, PtwrResult};
use crate::mmu::walk::Window;
use crate::shared::Caller;

/// The answer of sgdt and sidt: limit, linear address.
pub(crate) type TableRegister = (u16, u64);

/// What the instructions tell that show ring 0's own state to any code: sgdt, sidt, sldt, str, smsw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemRegisters {
    pub gdtr: TableRegister,
    pub idtr: TableRegister,
    /// The selector of a guest's LDT, when it has one.
    pub ldtr: u16,
    pub tr: u16,
    /// CR0 without TS.
    pub cr0: u64,
    /// Whether ring 0 itself uses xsave, so that all code can, whatever a guest sees of CR4.
    pub osxsave: bool,
}

/// A store to a live page table that is mapped read-only: as [`crate::frames::ptwr`].
pub(crate) type TableStore =
    fn(&Domain, Caller<'_>, maddr: u64, upper_half: bool, &mut dyn FnMut(u64) -> Option<u64>) -> PtwrResult;

/// What the operating system on the processor is written for; it cannot change that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Long mode: page tables of four levels, 64-bit code and code of compatibility mode, all of it in ring 3.
    Long,
    /// Legacy mode with PAE: page tables of three levels, code of 16 and 32 bits, kernels in ring 1 and applications in
    /// ring 3, which share page tables but not rights.
    Legacy,
}

impl Mode {
    /// The privilege level at which kernels begin.
    pub const fn kernel_cpl(self) -> u8 {
        match self {
            Mode::Long => 3,
            Mode::Legacy => 1,
        }
    }
}

/// One value for all that the processor must know of the layer above.
#[derive(Debug, Clone)]
pub struct Platform {
    pub mode: Mode,
    /// Far calls and jumps through call gates end in [`crate::cpu::fault::Trap::CallGate`]: the layer above makes them.
    pub call_gates: bool,
    /// Descriptors that are not in the guest's own GDT, from `reserved_gdt` on.
    pub reserved_descriptor: fn(index: u32) -> Option<u64>,
    /// The first GDT entry that is not the guest's.
    pub reserved_gdt: u32,
    /// The selector of flat 64-bit ring-3 code that guests nearly always run under, if it is one of the reserved: it needs
    /// no look at a table.
    pub flat_cs: Option<u16>,
    pub registers: SystemRegisters,
    /// The part of each address space that is not the guest's.
    pub window: Option<Window>,
    /// How stores to live page tables are emulated, if code that may do so asks for it ([`AccessRules`](super::access::AccessRules)).
    pub table_store: TableStore,
}
