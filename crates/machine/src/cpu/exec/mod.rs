//! Instruction handlers.

pub mod softfp;
pub mod sse;
pub mod x87;

use crate::cpu::SlowFn;
use iced_x86::Code;

/// The handler of an instruction form; `None` raises #UD.
pub fn lookup(code: Code) -> Option<SlowFn> {
    sse::lookup(code).or_else(|| x87::lookup(code))
}
