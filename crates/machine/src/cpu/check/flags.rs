// SPDX-License-Identifier: Apache-2.0
//! Flags that the manuals leave undefined, in which the engines may differ.

use super::saved::{Saved, RFLAGS};
use super::undo::Changes;
use super::{Outcome, Phase};
use crate::abi::x86::gpr::RCX;
use crate::cpu::exec::fast::lower::{count_mask, is_shift, shift_count};
use crate::cpu::fault::Trap;
use crate::cpu::flags::{AF, ARITH, CF, OF, PF, SF, ZF};
use crate::cpu::{Cpu, Stop};
use crate::shared::InGuest;
use iced_x86::{Instruction, Mnemonic as M, RflagsBits};

/// Where r11 is among the words.
const R11: usize = 11;

/// Arithmetic flags as iced-x86 names them, at their places in RFLAGS.
fn rflags(bits: u32) -> u64 {
    [
        (RflagsBits::OF, OF),
        (RflagsBits::SF, SF),
        (RflagsBits::ZF, ZF),
        (RflagsBits::AF, AF),
        (RflagsBits::PF, PF),
        (RflagsBits::CF, CF),
    ]
    .iter()
    .filter(|(bit, _)| bits & bit != 0)
    .fold(0, |all, (_, flag)| all | flag)
}

/// What is undefined after `insn`, if `undefined` was before it and `count` is in cl.
fn undefined_after(insn: &Instruction, undefined: u64, rcx: u64) -> u64 {
    let mut new = rflags(insn.rflags_undefined());
    let written = rflags(insn.rflags_modified());
    match insn.mnemonic() {
        // iced-x86 has it write the flags that IA32_FMASK may clear.
        M::Syscall => return undefined,
        _ if is_shift(insn) => {
            let count = shift_count(insn).unwrap_or(rcx as u32 & count_mask(insn));
            if count == 0 {
                return undefined;
            }
            if matches!(insn.mnemonic(), M::Rcl | M::Rcr) && count != 1 {
                new |= OF;
            }
        }
        _ if (insn.has_rep_prefix() || insn.has_repne_prefix()) && rcx == 0 => return undefined,
        _ => {}
    }
    undefined & !written | new
}

impl Cpu {
    /// Whether two runs that differ do so in nothing but undefined flags. The slice is interpreted once more to find out, one
    /// instruction after the other: state and memory are then what they were after the second run.
    pub(super) fn differ_in_undefined_flags(
        &mut self,
        before: &Saved,
        amount: i64,
        first: &Outcome,
        after: &Changes,
        second: &Outcome,
        in_guest: &InGuest<'_>,
    ) -> bool {
        let same = first.stop == second.stop && first.left == second.left && !self.memory_differs(after);
        let is_syscall = second.stop == Stop::Trap(Trap::Syscall);
        let mut differing = 0;
        for (n, (a, b)) in first
            .state
            .words()
            .into_iter()
            .zip(second.state.words())
            .enumerate()
        {
            match n {
                // `syscall` has put the flags there.
                R11 if is_syscall => differing |= a ^ b,
                RFLAGS => differing |= a ^ b,
                _ if a != b => return false,
                _ => {}
            }
        }
        if differing & !ARITH != 0 || !same {
            return false;
        }
        self.undo_stores();
        before.put_back(self);
        let (mut undefined, mut left) = (0, amount);
        while left > second.left {
            let insn = self.next_instruction();
            let rcx = self.regs[RCX];
            let step = self.run_as(Phase::Interpreted, 1, in_guest);
            left += step.left - 1;
            if let (Some(insn), 0) = (insn, step.left) {
                undefined = undefined_after(&insn, undefined, rcx);
            }
            if step.left != 0 {
                break;
            }
        }
        if left > 0 {
            self.run_as(Phase::Interpreted, left, in_guest);
        }
        differing & !undefined == 0
    }
}
