// SPDX-License-Identifier: Apache-2.0
//! An exception as the processor raises it.

pub(crate) use crate::abi::x86::pf;
pub use crate::abi::x86::vector;

/// An x86 exception as the hardware would raise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// One of [`vector`](mod@vector).
    pub vector: u8,
    /// `None` for vectors that push no error code.
    pub error_code: Option<u32>,
    /// Faulting linear address; meaningful for #PF only.
    pub cr2: u64,
}

impl Fault {
    /// An exception without an error code.
    pub const fn new(vector: u8) -> Self {
        Fault {
            vector,
            error_code: None,
            cr2: 0,
        }
    }
    /// An exception with an error code.
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
    /// #UD
    pub const fn ud() -> Self {
        Self::new(vector::UD)
    }
    /// #PF, with bits of [`pf`](mod@pf).
    pub const fn pf(cr2: u64, error_code: u32) -> Self {
        Fault {
            vector: vector::PF,
            error_code: Some(error_code),
            cr2,
        }
    }
}
