// SPDX-License-Identifier: Apache-2.0
//! rep movs and rep stos of what lies in one page: no more than one instruction of the host's.

use super::asm::{frame, indexed, GUEST_RCX, S0, S1, S2};
use super::emit::{delta, page_mask, Emitter};
use crate::cpu::exec::fast::string::{elements, repeated};
use crate::mmu::tlb::TlbEntry;
use iced_x86::{Instruction, Register};
use std::mem::offset_of;

/// Counts from here on are left to the handler, which goes page by page: no count below takes an address round.
pub(super) const COUNT_MAX: u64 = 1024;

/// The number of bytes of an element, and whether there is a source; `None` if it is something else.
fn form(i: &Instruction) -> Option<(u32, bool)> {
    repeated(i).filter(|_| !i.has_repne_prefix())?;
    elements(i.mnemonic())
}

pub(super) fn is_repeat(i: &Instruction) -> bool {
    form(i).is_some()
}

impl Emitter<'_> {
    pub(super) fn repeat(&mut self, i: &Instruction) -> Option<()> {
        let (size, movs) = form(i)?;
        let slow = self.asm.label();
        // All bits, if the direction flag is set.
        self.asm.pext(S0, GUEST_RCX, frame!(count_mask));
        self.asm.jmp_unless_zero(slow);
        self.run_in_page(Register::RDI, size, offset_of!(TlbEntry, neg_w), S2, slow);
        if movs {
            self.run_in_page(Register::RSI, size, offset_of!(TlbEntry, neg_r), S1, slow);
        }
        self.asm.mov(S0, GUEST_RCX);
        self.asm.lea(Register::RDI, indexed(Register::RDI, S2, 1, 0));
        if movs {
            self.asm.lea(Register::RSI, indexed(Register::RSI, S1, 1, 0));
        }
        self.asm.emit(i);
        self.take_off(Register::RDI, S2);
        if movs {
            self.take_off(Register::RSI, S1);
        }
        self.asm.mov(GUEST_RCX, S0);
        self.handler_stub(i, slow, false)
    }

    /// Checks that the elements at the address in `va` lie in its page, which is in the TLB; brings what to add to the address
    /// into `to`.
    fn run_in_page(&mut self, va: Register, size: u32, tag: usize, to: Register, slow: super::asm::Label) {
        self.load_tag(va, tag);
        self.asm.lea(S0, indexed(S0, va, 1, 0));
        self.asm.lea(S0, indexed(S0, GUEST_RCX, size, -1));
        self.asm.pext(S0, S0, page_mask(0));
        self.asm.jmp_unless_zero(slow);
        self.asm.load(to, delta());
    }

    /// Subtracts `from` without a change of flags; what is in `from` is lost.
    fn take_off(&mut self, r: Register, from: Register) {
        self.asm.not(from);
        self.asm.lea(r, indexed(r, from, 1, 1));
    }
}
