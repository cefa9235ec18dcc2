//! What can end an instruction other than its completion.

/// An x86 exception as the hardware would raise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub vector: u8,
    /// `None` for vectors that push no error code.
    pub error_code: Option<u32>,
    /// Faulting linear address; meaningful for #PF only.
    pub cr2: u64,
}

/// Exception vectors, by their Intel SDM mnemonics.
pub mod vector {
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const XM: u8 = 19;
}

/// #PF error code bits.
pub mod pf {
    pub const P: u32 = 1;
    pub const W: u32 = 2;
    pub const U: u32 = 4;
    pub const RSVD: u32 = 8;
    pub const I: u32 = 16;
}

impl Fault {
    pub const fn new(vector: u8) -> Self {
        Fault {
            vector,
            error_code: None,
            cr2: 0,
        }
    }
    pub const fn with_code(vector: u8, error_code: u32) -> Self {
        Fault {
            vector,
            error_code: Some(error_code),
            cr2: 0,
        }
    }
    /// #GP(0)
    pub const fn gp() -> Self {
        Self::with_code(vector::GP, 0)
    }
    pub const fn ud() -> Self {
        Self::new(vector::UD)
    }
    pub const fn pf(cr2: u64, error_code: u32) -> Self {
        Fault {
            vector: vector::PF,
            error_code: Some(error_code),
            cr2,
        }
    }
}

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
    /// Far transfers, lgdt, lidt, lldt, ltr, monitor and the like: privileged, and nothing PV guests rely on.
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
    /// A far call or jump to a call gate of a 32-bit guest; `rip` is at it, `ret` the address after it.
    CallGate { selector: u16, call: bool, ret: u32 },
    /// `int n` / `int3` / `into`; `rip` is after it, `len` bytes long.
    SoftInt { vector: u8, len: u8 },
    /// Something this engine cannot do yet: the domain is crashed with this text.
    Unsupported(&'static str),
    /// `iret`-like change of the stream that the engine itself did: only ends the block.
    EndBlock,
}

impl From<Fault> for Trap {
    fn from(f: Fault) -> Self {
        Trap::Fault(f)
    }
}

/// What every instruction handler returns.
pub type Exec = Result<(), Trap>;
