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
    pub const MC: u8 = 18;
    pub const XM: u8 = 19;
}

/// Bits of #PF's error code.
pub mod pf {
    pub const P: u32 = 1;
    pub const W: u32 = 2;
    pub const U: u32 = 4;
    pub const RSVD: u32 = 8;
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
    pub const fn rpl(selector: u16) -> u8 {
        (selector & RPL) as u8
    }
}

/// Bits of the 8 bytes of a descriptor.
pub mod descriptor {
    pub const ACCESSED: u64 = 1 << 40;
    /// Code can be read, data written.
    pub const RW: u64 = 1 << 41;
    /// Code is conforming, data expands down.
    pub const CONFORMING: u64 = 1 << 42;
    pub const CODE: u64 = 1 << 43;
    /// Code or data, as against system segments and gates.
    pub const S: u64 = 1 << 44;
    pub const DPL_SHIFT: u32 = 45;
    pub const DPL: u64 = 3 << DPL_SHIFT;
    pub const P: u64 = 1 << 47;
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

    /// Present, accessed segments of all addresses, without their privilege level.
    pub const FLAT_CODE32: u64 = FLAT | DB | CODE;
    pub const FLAT_CODE64: u64 = FLAT | L | CODE;
    pub const FLAT_DATA: u64 = FLAT | DB;
    const FLAT: u64 = P | S | RW | ACCESSED | G | LIMIT;

    /// Types of system segments and gates, with S clear.
    pub mod system {
        pub const LDT: u8 = 2;
        pub const TSS_AVAILABLE: u8 = 9;
        pub const TSS_BUSY: u8 = 11;
        pub const CALL_GATE: u8 = 12;
        pub const INTERRUPT_GATE: u8 = 14;
        pub const TRAP_GATE: u8 = 15;
    }

    /// Type, of system segments and gates.
    pub const fn system_type(d: u64) -> u8 {
        (d >> 40 & 15) as u8
    }
    pub const fn dpl(d: u64) -> u8 {
        (d >> DPL_SHIFT & 3) as u8
    }
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
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const SFMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
}

/// EFER.
pub mod efer {
    pub const SCE: u64 = 1;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
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
    pub const ONES: u64 = 0x400;
    /// All but the reserved bits.
    pub const SETTABLE: u64 = 0xffff_27ff;

    /// What a breakpoint is on: its R/W field.
    pub const ON_EXECUTION: u64 = 0;
    pub const ON_WRITE: u64 = 1;
    pub const ON_IO: u64 = 2;
    pub const ON_ACCESS: u64 = 3;

    /// Whether breakpoint `n` is enabled, locally or globally.
    pub const fn enabled(dr7: u64, n: u32) -> bool {
        dr7 >> (2 * n) & 3 != 0
    }
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
}

/// RFLAGS.
pub mod rflags {
    pub const CF: u64 = 1;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    pub const IOPL: u64 = 3 << IOPL_SHIFT;
    pub const IOPL_SHIFT: u32 = 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
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
    pub const PE: u64 = 1;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const PG: u64 = 1 << 31;
    pub const AM: u64 = 1 << 18;
    /// As a guest sees Xen's own with TS clear.
    pub const XEN: u64 = PG | AM | WP | NE | ET | MP | PE;
}

/// CR4.
pub mod cr4 {
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const FSGSBASE: u64 = 1 << 16;
    /// What a PV guest sees of Xen's own.
    pub const INITIAL: u64 = PAE | MCE | OSFXSR | OSXMMEXCPT;
}

/// Numbers of general registers, as instructions encode them.
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
}

/// Numbers of segment registers.
pub mod seg {
    pub const ES: usize = 0;
    pub const CS: usize = 1;
    pub const SS: usize = 2;
    pub const DS: usize = 3;
    pub const FS: usize = 4;
    pub const GS: usize = 5;
}
