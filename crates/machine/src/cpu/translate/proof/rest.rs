// SPDX-License-Identifier: Apache-2.0
//! The jump from the stub of a check to the rest of the block, which has been made once more (`translate/rest`).

use super::{site_of, Proof, State, Why};
use crate::cpu::translate::callout::Kind;
use crate::cpu::translate::CALL_BYTES;
use iced_x86::Instruction;

/// Bytes of a jump with a field of 32 bits.
const JUMP_BYTES: u64 = 5;

impl Proof<'_> {
    /// The jump at `from` may lead to the body of code of the last `count` instructions: it stands before a callout that says so of the
    /// first of them, and the slice has what the whole block takes.
    pub(super) fn rest(&self, from: u64, count: usize, state: &State) -> Result<(), Why> {
        let call = from + JUMP_BYTES;
        let is_jump = self
            .decode(from)
            .is_some_and(|i| i.is_jmp_near() && i.next_ip() == call);
        let site = is_jump
            .then(|| self.bytes(call + CALL_BYTES).and_then(site_of))
            .flatten();
        let site = site.ok_or("a jump to the rest of a block from what is no stub")?;
        let own = site.kind == Kind::Miss && site.block == self.s.block && usize::from(site.left) == count;
        // On one of the ways that take as much from the slice.
        let on = |way: &[Instruction]| {
            let insn = way.len().checked_sub(count).and_then(|n| way.get(n));
            insn.is_some_and(|i| i.ip() as u16 == site.off) && state.taken() == Some(way.len() as i64)
        };
        if !own || !self.s.ways().any(on) {
            return Err("a jump to the rest of a block from another instruction");
        }
        self.own_page(state)
    }
}
