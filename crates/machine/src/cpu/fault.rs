// SPDX-License-Identifier: Apache-2.0
//! What can end an instruction other than its completion.

pub(crate) use crate::fault::pf;
pub use crate::fault::{vector, Fault};

/// A sensitive instruction that faulted because the guest is deprivileged; the hypervisor emulates it.
/// `reg` operands are general-purpose register numbers 0..15 (rax rcx rdx rbx rsp rbp rsi rdi r8..r15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivInsn {
    /// `cli`, with too low an IOPL.
    Cli,
    /// `sti`, with too low an IOPL.
    Sti,
    /// `hlt`.
    Hlt,
    /// `rdmsr`; the number is in ecx.
    Rdmsr,
    /// `wrmsr`; the number is in ecx, the value in edx:eax.
    Wrmsr,
    /// `rdpmc`, without CR4.PCE.
    Rdpmc,
    /// `mov` from a control register.
    MovFromCr {
        /// Number of the control register.
        cr: u8,
        /// Where the value goes.
        reg: u8,
    },
    /// `mov` to a control register.
    MovToCr {
        /// Number of the control register.
        cr: u8,
        /// Where the value is.
        reg: u8,
    },
    /// `mov` from a debug register.
    MovFromDr {
        /// Number of the debug register.
        dr: u8,
        /// Where the value goes.
        reg: u8,
    },
    /// `mov` to a debug register.
    MovToDr {
        /// Number of the debug register.
        dr: u8,
        /// Where the value is.
        reg: u8,
    },
    /// `clts`.
    Clts,
    /// `lmsw`.
    Lmsw {
        /// The operand, read.
        value: u16,
    },
    /// `invlpg`.
    Invlpg {
        /// Linear address of the operand.
        va: u64,
    },
    /// `invd`.
    Invd,
    /// `wbinvd`.
    Wbinvd,
    /// `swapgs`.
    Swapgs,
    /// `xsetbv`.
    Xsetbv,
    /// `in`; the value goes to al, ax or eax.
    In {
        /// The port's number.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
    },
    /// `out`; the value is in al, ax or eax.
    Out {
        /// The port's number.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
    },
    /// `ins`/`outs`: `va` of the first element; `mask` is the width of the address.
    StringIo {
        /// The port's number.
        port: u16,
        /// Bytes of an element: 1, 2 or 4.
        size: u8,
        /// `outs`, as against `ins`.
        out: bool,
        /// With a `rep` prefix.
        rep: bool,
        /// Bits of rcx, rsi and rdi that count.
        mask: u64,
        /// Linear address of the element.
        va: u64,
    },
    /// With CR4.TSD.
    Rdtsc {
        /// `rdtscp`, as against `rdtsc`.
        aux: bool,
    },
    /// With CPUID faulting.
    Cpuid,
    /// `iret`.
    Iret,
    /// `sysret`.
    Sysret,
    /// `sysexit`.
    Sysexit,
    /// Far transfers, lgdt, lidt, lldt, ltr, monitor and the like: privileged, and told apart by nobody.
    Other,
}

/// Why the engine stopped in the middle of, or instead of, an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// `rip` is at the faulting instruction (traps such as #DB and #BP: after it, as the hardware has it).
    Fault(Fault),
    /// A privileged instruction at CPL > 0; `rip` is at the instruction, `len` bytes long.
    /// The layer above emulates it, or delivers #GP(0).
    Priv {
        /// What it is.
        insn: PrivInsn,
        /// Bytes of the instruction.
        len: u8,
    },
    /// `syscall` executed; `rip` is after it. rcx and r11 are set as the hardware sets them.
    Syscall,
    /// `sysenter` executed; `rip` is after it.
    Sysenter,
    /// A far call or jump to a call gate, where the platform makes them; `rip` is at it, `ret` the address after it.
    CallGate {
        /// The gate's.
        selector: u16,
        /// A call, as against a jump.
        call: bool,
        /// Where a call returns to.
        ret: u32,
    },
    /// `int n` / `int3` / `into`; `rip` is after it, `len` bytes long.
    SoftInt {
        /// The operand; 3 of `int3`, 4 of `into`.
        vector: u8,
        /// Bytes of the instruction.
        len: u8,
    },
    /// Something this engine cannot do yet: the domain is crashed with this text.
    Unsupported(&'static str),
    /// The instruction is to be begun again, after what this vCPU is wanted for; `rip` is at it.
    Again,
    /// `iret`-like change of the stream that the engine itself did: only ends the block.
    EndBlock,
}

impl From<Fault> for Trap {
    fn from(f: Fault) -> Self {
        Trap::Fault(f)
    }
}

/// What every instruction handler returns.
pub(crate) type Exec = Result<(), Trap>;
