//! x87, fxsave/fxrstor, xsave family.

use crate::cpu::SlowFn;
use iced_x86::Code;

/// The handler for an x87 or state-saving instruction form, if it is one.
pub fn lookup(_code: Code) -> Option<SlowFn> {
    None
}
