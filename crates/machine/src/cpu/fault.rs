// SPDX-License-Identifier: Apache-2.0
//! What can end an instruction other than its completion.

pub(crate) use crate::fault::pf;
pub use crate::fault::{vector, Fault};

/// A sensitive instruction that faulted because the guest is deprivileged; the hypervisor emulates it.
/// `reg` operands are general-purpose register numbers 0..15 (rax rcx rdx rbx rsp rbp rsi rdi r8..r15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivInsn {
    Cli,
    Sti,
    Hlt,
    Rdmsr,
    Wrmsr,
    Rdpmc,
    MovFromCr {
        cr: u8,
        reg: u8,
    },
    MovToCr {
        cr: u8,
        reg: u8,
    },
    MovFromDr {
        dr: u8,
        reg: u8,
    },
    MovToDr {
        dr: u8,
        reg: u8,
    },
    Clts,
    Lmsw {
        value: u16,
    },
    Invlpg {
        va: u64,
    },
    Invd,
    Wbinvd,
    Swapgs,
    Xsetbv,
    /// `in`: `port`, operand size in bytes.
    In {
        port: u16,
        size: u8,
    },
    Out {
        port: u16,
        size: u8,
    },
    /// `ins`/`outs`: `va` of the first element; `mask` is the width of the address.
    StringIo {
        port: u16,
        size: u8,
        out: bool,
        rep: bool,
        mask: u64,
        va: u64,
    },
    /// With CR4.TSD.
    Rdtsc {
        aux: bool,
    },
    /// With CPUID faulting.
    Cpuid,
    Iret,
    Sysret,
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
    Priv { insn: PrivInsn, len: u8 },
    /// `syscall` executed; `rip` is after it. rcx and r11 are set as the hardware sets them.
    Syscall,
    /// `sysenter` executed; `rip` is after it.
    Sysenter,
    /// A far call or jump to a call gate, where the platform makes them; `rip` is at it, `ret` the address after it.
    CallGate { selector: u16, call: bool, ret: u32 },
    /// `int n` / `int3` / `into`; `rip` is after it, `len` bytes long.
    SoftInt { vector: u8, len: u8 },
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
