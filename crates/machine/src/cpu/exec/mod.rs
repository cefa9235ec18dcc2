// SPDX-License-Identifier: Apache-2.0
//! Instruction handlers.

mod alu;
mod atomic;
mod avx;
mod bits;
mod bmi;
pub(crate) mod fast;
mod flow;
pub(crate) mod general;
mod legacy;
mod mov;
mod muldiv;
pub(crate) mod operand;
mod segment;
mod shift;
pub(crate) mod softfp;
pub(crate) mod sse;
mod stack;
mod string;
mod system;
pub(crate) mod x87;
mod xsave;

use crate::cpu::SlowFn;
use iced_x86::Code;
use std::sync::LazyLock;

/// Handlers by `Code`: decoding asks once per instruction.
static HANDLERS: LazyLock<Vec<Option<SlowFn>>> = LazyLock::new(|| {
    Code::values()
        .map(|code| {
            general::lookup(code)
                .or_else(|| sse::lookup(code))
                .or_else(|| avx::lookup(code))
                .or_else(|| x87::lookup(code))
                .or_else(|| xsave::lookup(code))
        })
        .collect()
});

/// The handler of an instruction form; `None` raises #UD.
pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    HANDLERS.get(code as usize).copied().flatten()
}
