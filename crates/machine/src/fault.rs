// SPDX-License-Identifier: Apache-2.0
//! An exception as the processor raises it.

pub(crate) use crate::abi::x86::pf;
pub use crate::abi::x86::vector;

/// An x86 exception as the hardware would raise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub vector: u8,
    /// `None` for vectors that push no error code.
    pub error_code: Option<u32>,
    /// Faulting linear address; meaningful for #PF only.
    pub cr2: u64,
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
    /// A fault whose error code names a selector.
    pub const fn of_selector(vector: u8, selector: u16) -> Self {
        Self::with_code(vector, crate::abi::x86::selector::error_code(selector))
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
