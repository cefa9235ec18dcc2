//! SSE to SSE4.2, AES, PCLMULQDQ, SHA.

use crate::cpu::SlowFn;
use iced_x86::Code;

/// The handler for an SSE-family instruction form, if it is one.
pub fn lookup(_code: Code) -> Option<SlowFn> {
    None
}
