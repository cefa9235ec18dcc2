// SPDX-License-Identifier: Apache-2.0
//! The general-purpose instructions: all handlers of the files beside this one.

use super::{alu, atomic, bits, bmi, flow, legacy, mov, muldiv, segment, shift, stack, string, system};
use crate::cpu::SlowFn;
use iced_x86::Code;

/// The handler of a general-purpose instruction form, if it is one.
pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    mov::lookup(code)
        .or_else(|| alu::lookup(code))
        .or_else(|| flow::lookup(code))
        .or_else(|| stack::lookup(code))
        .or_else(|| shift::lookup(code))
        .or_else(|| bits::lookup(code))
        .or_else(|| muldiv::lookup(code))
        .or_else(|| string::lookup(code))
        .or_else(|| atomic::lookup(code))
        .or_else(|| system::lookup(code))
        .or_else(|| segment::lookup(code))
        .or_else(|| bmi::lookup(code))
        .or_else(|| legacy::lookup(code))
}
