// SPDX-License-Identifier: Apache-2.0
//! Which arithmetic flags are looked at after an instruction: where none is, what is emitted before it may change them.

use super::flow::is_conditional;
use super::select::How;
use crate::cpu::exec::fast::lower::{is_shift, shift_count};
use iced_x86::{Instruction, RflagsBits};

/// CF, PF, AF, ZF, SF and OF, as iced numbers them.
pub(super) const ALL: u32 =
    RflagsBits::CF | RflagsBits::PF | RflagsBits::AF | RflagsBits::ZF | RflagsBits::SF | RflagsBits::OF;

/// The flags that are looked at from each instruction of a block on, and in the last place those from its end on, which are given:
/// all, if nobody knows what follows there.
pub(super) fn of_block(insns: &[Instruction], hows: &[How], after: u32) -> Vec<u32> {
    let mut live = vec![after; insns.len() + 1];
    for (n, (i, how)) in insns.iter().zip(hows).enumerate().rev() {
        live[n] = before(i, *how, live[n + 1]);
    }
    live
}

fn before(i: &Instruction, how: How, after: u32) -> u32 {
    match how {
        How::Nothing | How::Stack | How::Repeat => after,
        // Handlers have all flags in the CPU, and may look at any of them.
        How::Handler => ALL,
        // Where it leads to nobody knows.
        How::Flow if is_conditional(i) => ALL,
        How::Flow => after,
        How::Same | How::Vector | How::Avx | How::X87 | How::Special => {
            after & !certainly_written(i) | i.rflags_read() & ALL
        }
    }
}

/// What an instruction leaves undefined counts as written: nobody can rely on it.
fn certainly_written(i: &Instruction) -> u32 {
    if is_shift(i) && shift_count(i).is_none_or(|n| n == 0) {
        return 0;
    }
    i.rflags_modified() & ALL
}
