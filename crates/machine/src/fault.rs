// SPDX-License-Identifier: Apache-2.0
//! An exception as the processor raises it.

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
