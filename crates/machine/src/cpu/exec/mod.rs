//! Instruction handlers.

pub mod sse;
pub mod x87;
