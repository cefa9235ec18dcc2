// SPDX-License-Identifier: Apache-2.0
//! Bits of registers, descriptors and error codes, and the numbers of registers and exceptions (AMD APM volume 2; Intel SDM
//! volume 3, chapters 2, 3, 6 and 17; volume 1, 3.4).

/// True for addresses whose bits 47..63 are all equal.
#[inline(always)]
pub fn canonical(va: u64) -> bool {
    ((va as i64) << 16 >> 16) as u64 == va
}

/// Entries of a descriptor table that a page holds.
pub const DESCRIPTORS_PER_FRAME: u32 = 512;

/// Exception vectors, by their mnemonics.
pub mod vector {
    /// Divide error, of `div`, `idiv` and `aam`: a fault.
    pub const DE: u8 = 0;
    /// Debug: a trap after a single step or an access to data, a fault before a breakpoint's instruction.
    pub const DB: u8 = 1;
    /// Non-maskable interrupt.
    pub const NMI: u8 = 2;
    /// Breakpoint, of `int3`: a trap.
    pub const BP: u8 = 3;
    /// Overflow, of `into`: a trap.
    pub const OF: u8 = 4;
    /// Bound range exceeded, of `bound`.
    pub const BR: u8 = 5;
    /// Invalid opcode.
    pub const UD: u8 = 6;
    /// Device not available: a floating-point or vector instruction with CR0.TS or CR0.EM.
    pub const NM: u8 = 7;
    /// Double fault; the error code is zero.
    pub const DF: u8 = 8;
    /// Invalid TSS, with the selector as error code.
    pub const TS: u8 = 10;
    /// Segment not present, with the selector as error code.
    pub const NP: u8 = 11;
    /// Stack fault: not present, or an address beyond the limit or not canonical; with an error code.
    pub const SS: u8 = 12;
    /// General protection, with an error code.
    pub const GP: u8 = 13;
    /// Page fault, with an error code of the bits in [`pf`](super::pf); the address is in CR2.
    pub const PF: u8 = 14;
    /// x87 floating-point exception pending.
    pub const MF: u8 = 16;
    /// Alignment check, of CPL 3 only; the error code is zero.
    pub const AC: u8 = 17;
    /// Machine check.
    pub const MC: u8 = 18;
    /// SIMD floating-point exception, of one that MXCSR does not mask.
    pub const XM: u8 = 19;
}

/// Bits of #PF's error code.
pub mod pf {
    /// The translation exists: a violation of rights, not a page that is not present.
    pub const P: u32 = 1;
    /// The access was a write.
    pub const W: u32 = 2;
    /// The access was made at CPL 3.
    pub const U: u32 = 4;
    /// A reserved bit is set in an entry of the page tables.
    pub const RSVD: u32 = 8;
    /// The access was the fetch of an instruction.
    pub const I: u32 = 16;
}

/// Error codes that name a selector or a vector.
pub mod error_code {
    /// What was going on came from outside the program.
    pub const EXT: u32 = 1;
    /// A gate of the IDT is meant.
    pub const IDT: u32 = 2;
    /// That of the gate of a vector.
    pub const fn of_gate(vector: u8) -> u32 {
        (vector as u32) << 3 | IDT
    }
}

/// Selectors: index, table, requested privilege level.
pub mod selector {
    /// Requested privilege level, 0 to 3.
    pub const RPL: u16 = 3;
    /// The descriptor is in the LDT.
    pub const TI: u16 = 4;
    /// Of entries of a table, in bytes; a selector without RPL and TI is an offset.
    pub const ENTRY: u16 = 8;
    /// Whether it names no segment, whatever its RPL.
    pub const fn is_null(selector: u16) -> bool {
        selector & !RPL == 0
    }
    /// As the error code of a fault that it causes.
    pub const fn error_code(selector: u16) -> u32 {
        (selector & !RPL) as u32
    }
    /// Number of its descriptor.
    pub const fn index(selector: u16) -> u32 {
        (selector >> 3) as u32
    }
    /// Where its descriptor stands in its table, in bytes.
    pub const fn offset(selector: u16) -> u64 {
        (selector & !(TI | RPL)) as u64
    }
    /// Its requested privilege level, 0 to 3.
    pub const fn rpl(selector: u16) -> u8 {
        (selector & RPL) as u8
    }
}

/// Bits of the 8 bytes of a descriptor.
pub mod descriptor {
    /// Type bit of code and data: the processor sets it when the segment is loaded.
    pub const ACCESSED: u64 = 1 << 40;
    /// Code can be read, data written.
    pub const RW: u64 = 1 << 41;
    /// Code is conforming, data expands down.
    pub const CONFORMING: u64 = 1 << 42;
    /// Type bit: code, as against data.
    pub const CODE: u64 = 1 << 43;
    /// Code or data, as against system segments and gates.
    pub const S: u64 = 1 << 44;
    /// Number of the lower bit of `DPL`.
    pub const DPL_SHIFT: u32 = 45;
    /// Descriptor privilege level.
    pub const DPL: u64 = 3 << DPL_SHIFT;
    /// Present.
    pub const P: u64 = 1 << 47;
    /// 64-bit code; `DB` is then clear.
    pub const L: u64 = 1 << 53;
    /// 32-bit code or stack.
    pub const DB: u64 = 1 << 54;
    /// The limit counts pages.
    pub const G: u64 = 1 << 55;
    /// The bits of the limit.
    pub const LIMIT: u64 = 0x000f_0000_0000_ffff;
    /// Those that say what it is and who may use it, in the upper doubleword: as `lar` gives them.
    pub const RIGHTS: u32 = 0x00ff_ff00;
    /// Where the flags of `RIGHTS` stand in the upper doubleword: the same bits, this much lower.
    pub const UPPER: u32 = 32;

    /// Readable 32-bit code. This and the next two are present, accessed segments of all addresses, without their
    /// privilege level.
    pub const FLAT_CODE32: u64 = FLAT | DB | CODE;
    /// Readable 64-bit code.
    pub const FLAT_CODE64: u64 = FLAT | L | CODE;
    /// Writable data, 32 bits wide as a stack.
    pub const FLAT_DATA: u64 = FLAT | DB;
    const FLAT: u64 = P | S | RW | ACCESSED | G | LIMIT;

    /// Types of system segments and gates, with S clear.
    pub mod system {
        /// A local descriptor table.
        pub const LDT: u8 = 2;
        /// A 64-bit or 32-bit task-state segment that no processor has loaded.
        pub const TSS_AVAILABLE: u8 = 9;
        /// One that a processor has loaded.
        pub const TSS_BUSY: u8 = 11;
        /// A 64-bit or 32-bit call gate.
        pub const CALL_GATE: u8 = 12;
        /// A gate of the IDT that clears RFLAGS.IF.
        pub const INTERRUPT_GATE: u8 = 14;
        /// A gate of the IDT that leaves RFLAGS.IF.
        pub const TRAP_GATE: u8 = 15;
    }

    /// Type, of system segments and gates.
    pub const fn system_type(d: u64) -> u8 {
        (d >> 40 & 15) as u8
    }
    /// Its privilege level, 0 to 3.
    pub const fn dpl(d: u64) -> u8 {
        (d >> DPL_SHIFT & 3) as u8
    }
    /// The same descriptor for another privilege level; only the lower two bits of `dpl` count.
    pub const fn with_dpl(d: u64, dpl: u8) -> u64 {
        d & !DPL | (dpl as u64 & 3) << DPL_SHIFT
    }
    /// Bits 0 to 31 of the base.
    pub const fn base(d: u64) -> u64 {
        d >> 16 & 0xff_ffff | d >> 32 & 0xff00_0000
    }
    /// The limit as it is written, in bytes or pages.
    pub const fn raw_limit(d: u64) -> u32 {
        (d & 0xffff) as u32 | (d >> 32) as u32 & 0xf_0000
    }
    /// The selector that a gate leads through.
    pub const fn gate_selector(d: u64) -> u16 {
        (d >> 16) as u16
    }
    /// How many words a 32-bit call gate copies to the inner stack.
    pub const fn gate_parameters(d: u64) -> usize {
        (d >> 32) as usize & 31
    }
    /// Bits 0 to 31 of the offset that a gate leads to.
    pub const fn gate_offset(d: u64) -> u32 {
        (d & 0xffff) as u32 | (d >> 32) as u32 & 0xffff_0000
    }
}

/// Model-specific registers.
pub mod msr {
    /// Extended features: bits in [`efer`](super::efer).
    pub const EFER: u32 = 0xc000_0080;
    /// Selectors that `syscall` and `sysret` load, in bits 32 to 47 and 48 to 63.
    pub const STAR: u32 = 0xc000_0081;
    /// Where `syscall` of 64-bit code goes.
    pub const LSTAR: u32 = 0xc000_0082;
    /// Bits of RFLAGS that `syscall` clears.
    pub const SFMASK: u32 = 0xc000_0084;
    /// Base of FS.
    pub const FS_BASE: u32 = 0xc000_0100;
    /// Base of GS.
    pub const GS_BASE: u32 = 0xc000_0101;
    /// What `swapgs` exchanges with the base of GS.
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
}

/// EFER.
pub mod efer {
    /// `syscall` and `sysret` are enabled.
    pub const SCE: u64 = 1;
    /// Long mode is enabled.
    pub const LME: u64 = 1 << 8;
    /// Long mode is active: enabled, and paging is on.
    pub const LMA: u64 = 1 << 10;
    /// Bit 63 of page-table entries forbids execution.
    pub const NXE: u64 = 1 << 11;
}

/// DR6.
pub mod dr6 {
    /// A single step.
    pub const BS: u64 = 1 << 14;
    /// Bits that read as one.
    pub const ONES: u64 = 0xffff_0ff0;
    /// What software can set: B0..B3, BD, BS, BT.
    pub const SETTABLE: u64 = 0xe00f;
}

/// DR7.
pub mod dr7 {
    /// L0 G0 .. L3 G3: two bits for each breakpoint.
    pub const ACTIVE: u64 = 0xff;
    /// #DB at each access to a debug register.
    pub const GD: u64 = 1 << 13;
    /// Bits that read as one.
    pub const ONES: u64 = 0x400;
    /// All but the reserved bits.
    pub const SETTABLE: u64 = 0xffff_27ff;

    /// What a breakpoint is on (its R/W field): the execution of an instruction.
    pub const ON_EXECUTION: u64 = 0;
    /// A write to data.
    pub const ON_WRITE: u64 = 1;
    /// A read or write of a port, with CR4.DE.
    pub const ON_IO: u64 = 2;
    /// A read or write of data.
    pub const ON_ACCESS: u64 = 3;

    /// Whether breakpoint `n` is enabled, locally or globally.
    pub const fn enabled(dr7: u64, n: u32) -> bool {
        dr7 >> (2 * n) & 3 != 0
    }
    /// What breakpoint `n` is on: one of the `ON_` numbers.
    pub const fn kind(dr7: u64, n: u32) -> u64 {
        dr7 >> (16 + 4 * n) & 3
    }
    /// Bytes that breakpoint `n` covers.
    pub const fn len(dr7: u64, n: u32) -> u64 {
        match dr7 >> (18 + 4 * n) & 3 {
            0 => 1,
            1 => 2,
            2 => 8,
            _ => 4,
        }
    }
}

/// MXCSR.
pub mod mxcsr {
    /// After reset: all exceptions masked.
    pub const INITIAL: u32 = 0x1f80;
    /// Of all exceptions: set, they are not raised.
    pub const MASKS: u32 = 0x1f80;
}

/// RFLAGS.
pub mod rflags {
    /// Carry flag.
    pub const CF: u64 = 1;
    /// Parity flag: the lowest byte of the result has an even number of ones.
    pub const PF: u64 = 1 << 2;
    /// Auxiliary carry flag: a carry out of bit 3.
    pub const AF: u64 = 1 << 4;
    /// Zero flag.
    pub const ZF: u64 = 1 << 6;
    /// Sign flag.
    pub const SF: u64 = 1 << 7;
    /// Trap flag: #DB after each instruction.
    pub const TF: u64 = 1 << 8;
    /// Interrupt flag.
    pub const IF: u64 = 1 << 9;
    /// Direction flag: string instructions go down.
    pub const DF: u64 = 1 << 10;
    /// Overflow flag.
    pub const OF: u64 = 1 << 11;
    /// I/O privilege level.
    pub const IOPL: u64 = 3 << IOPL_SHIFT;
    /// Number of the lower bit of `IOPL`.
    pub const IOPL_SHIFT: u32 = 12;
    /// Nested task.
    pub const NT: u64 = 1 << 14;
    /// Resume flag: breakpoints on the next instruction are passed over.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment check, or access control (SMAP) at CPL 0 to 2.
    pub const AC: u64 = 1 << 18;
    /// Virtual interrupt flag.
    pub const VIF: u64 = 1 << 19;
    /// Virtual interrupt pending.
    pub const VIP: u64 = 1 << 20;
    /// Can be changed where there is `cpuid`.
    pub const ID: u64 = 1 << 21;
    /// Bit 1 always reads as one.
    pub const FIXED: u64 = 2;
    /// The arithmetic flags.
    pub const ARITH: u64 = CF | PF | AF | ZF | SF | OF;
    /// The I/O privilege level in it.
    pub const fn iopl(rflags: u64) -> u8 {
        (rflags >> IOPL_SHIFT & 3) as u8
    }
    /// The bits that exist, reserved ones between them included.
    pub const LOW: u64 = 0x3f_ffff;
    /// Everything RFLAGS can hold.
    pub const ALL: u64 = ARITH | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
}

/// CR0.
pub mod cr0 {
    /// Protection enable.
    pub const PE: u64 = 1;
    /// Monitor coprocessor: `wait` heeds TS.
    pub const MP: u64 = 1 << 1;
    /// Emulation: x87 instructions raise #NM.
    pub const EM: u64 = 1 << 2;
    /// Task switched: the next use of x87 or vector registers raises #NM.
    pub const TS: u64 = 1 << 3;
    /// Extension type, always one.
    pub const ET: u64 = 1 << 4;
    /// Numeric error: x87 exceptions raise #MF.
    pub const NE: u64 = 1 << 5;
    /// Write protect: pages that are read-only are so for CPL 0 to 2 too.
    pub const WP: u64 = 1 << 16;
    /// Paging.
    pub const PG: u64 = 1 << 31;
    /// Alignment mask: RFLAGS.AC is heeded.
    pub const AM: u64 = 1 << 18;
    /// As a guest sees Xen's own with TS clear.
    pub const XEN: u64 = PG | AM | WP | NE | ET | MP | PE;
}

/// CR4.
pub mod cr4 {
    /// Time stamp disable: `rdtsc` is of ring 0 only.
    pub const TSD: u64 = 1 << 2;
    /// Debugging extensions: breakpoints on ports, and no DR4 and DR5.
    pub const DE: u64 = 1 << 3;
    /// Physical address extension: entries of page tables have 64 bits.
    pub const PAE: u64 = 1 << 5;
    /// Machine-check enable.
    pub const MCE: u64 = 1 << 6;
    /// Performance counters may be read by any ring.
    pub const PCE: u64 = 1 << 8;
    /// The system saves registers with `fxsave`: SSE instructions can be used.
    pub const OSFXSR: u64 = 1 << 9;
    /// The system handles #XM; without it #UD is raised instead.
    pub const OSXMMEXCPT: u64 = 1 << 10;
    /// `sgdt`, `sidt`, `sldt`, `smsw` and `str` are of ring 0 only.
    pub const UMIP: u64 = 1 << 11;
    /// `rdfsbase` and its kin can be used, by any ring.
    pub const FSGSBASE: u64 = 1 << 16;
    /// The system saves registers with `xsave`: AVX instructions can be used, as far as XCR0 allows.
    pub const OSXSAVE: u64 = 1 << 18;
    /// What a PV guest sees of Xen's own.
    pub const INITIAL: u64 = PAE | MCE | OSFXSR | OSXMMEXCPT;
}

/// XCR0, and the components of an XSAVE area.
pub mod xcr0 {
    /// x87 state; always on.
    pub const X87: u64 = 1;
    /// xmm registers and MXCSR.
    pub const SSE: u64 = 2;
    /// Upper halves of the ymm registers; not without SSE.
    pub const AVX: u64 = 4;
    /// What AVX instructions need.
    pub const YMM: u64 = SSE | AVX;
    /// What the engine has.
    pub const ALL: u64 = X87 | SSE | AVX;
    /// What a PV guest's is before it sets it.
    pub const INITIAL: u64 = X87 | SSE;

    /// Bytes of an XSAVE area with these components, compacted or not.
    pub fn area_bytes(xcr0: u64) -> u32 {
        if xcr0 & AVX != 0 {
            832
        } else {
            576
        }
    }
}

/// CPUID: leaves, and bits of them that the engine itself looks at.
pub mod cpuid {
    /// Family, model, features.
    pub const FEATURES: u32 = 1;
    /// The XSAVE area.
    pub const XSTATE: u32 = 0xd;
    /// ecx of [`FEATURES`]: `xsave` and its kin can be enabled.
    pub const XSAVE: u32 = 1 << 26;
    /// ecx of [`FEATURES`]: they are.
    pub const OSXSAVE: u32 = 1 << 27;
}

/// Numbers of general registers, as instructions encode them.
pub mod gpr {
    /// `rax`, also eax, ax, al.
    pub const RAX: usize = 0;
    /// `rcx`, also ecx, cx, cl.
    pub const RCX: usize = 1;
    /// `rdx`, also edx, dx, dl.
    pub const RDX: usize = 2;
    /// `rbx`, also ebx, bx, bl.
    pub const RBX: usize = 3;
    /// `rsp`, also esp, sp, and as a byte spl or ah.
    pub const RSP: usize = 4;
    /// `rbp`, also ebp, bp, and as a byte bpl or ch.
    pub const RBP: usize = 5;
    /// `rsi`, also esi, si, and as a byte sil or dh.
    pub const RSI: usize = 6;
    /// `rdi`, also edi, di, and as a byte dil or bh.
    pub const RDI: usize = 7;
}

/// Numbers of segment registers.
pub mod seg {
    /// Destination of string instructions.
    pub const ES: usize = 0;
    /// Code.
    pub const CS: usize = 1;
    /// Stack.
    pub const SS: usize = 2;
    /// Data, unless an instruction says otherwise.
    pub const DS: usize = 3;
    /// Extra segment whose base counts in 64-bit code too.
    pub const FS: usize = 4;
    /// Extra segment whose base counts in 64-bit code too; `swapgs` exchanges it.
    pub const GS: usize = 5;
}
