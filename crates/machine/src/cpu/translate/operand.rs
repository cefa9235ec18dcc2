// SPDX-License-Identifier: Apache-2.0
//! Where the guest's registers are, and the addresses of its memory operands.

use super::asm::{at, frame, indexed, Label, GUEST_RCX, GUEST_RSP, S1, S2};
use super::emit::Emitter;
use iced_x86::{Instruction, MemoryOperand, Register};
use Register as R;

/// Where a general-purpose register of the guest is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In one of the host's, given in 64 bits.
    Host(Register),
    /// In the frame, by number: those of the guest's that compilers take last.
    Spilled(usize),
}

/// Where the register is that `r` is, or is part of.
pub(super) fn place(r: Register) -> Place {
    match r.full_register() {
        R::RCX => Place::Host(GUEST_RCX),
        R::RSP => Place::Host(GUEST_RSP),
        R::R8 => Place::Spilled(0),
        R::R9 => Place::Spilled(1),
        R::R10 => Place::Spilled(2),
        R::R11 => Place::Spilled(3),
        R::R15 => Place::Spilled(4),
        full => Place::Host(full),
    }
}

/// The register of the guest's that the host has in this one.
pub(super) fn guest(host: Register) -> Register {
    match host {
        GUEST_RCX => R::RCX,
        GUEST_RSP => R::RSP,
        same => same,
    }
}

pub(super) fn slot(n: usize) -> MemoryOperand {
    at(R::RSP, 8 * n as i64)
}

const _: () = assert!(std::mem::offset_of!(crate::cpu::region::Frame, spilled) == 0);

/// The part of `full`, a 64-bit register, that has as many bits as `like`, which is none of ah to bh.
pub(super) fn sized(full: Register, like: Register) -> Register {
    let n = full as u32 - R::RAX as u32;
    match like.size() {
        1 if n < 4 => R::AL + n,
        1 => R::SPL + (n - 4),
        2 => R::AX + n,
        4 => R::EAX + n,
        _ => full,
    }
}

/// The linear address of an operand: what a register of the host's holds, plus a displacement.
#[derive(Clone, Copy)]
pub(super) struct Ea {
    pub reg: Register,
    pub disp: i8,
    /// Where the address is made from the guest's registers, to be made once more.
    pub again: Label,
}

impl Emitter<'_> {
    /// The address at `disp` from a register of the guest's that the host has as `reg`.
    pub(super) fn at(&mut self, reg: Register, disp: i8) -> Ea {
        let again = self.asm.label();
        self.asm.bind(again);
        Ea { reg, disp, again }
    }

    /// Brings a register of the guest's into one of the host's: its own if it has one, else `scratch`.
    pub(super) fn base(&mut self, r: Register, scratch: Register) -> Register {
        match place(r) {
            Place::Host(h) => sized(h, r),
            Place::Spilled(n) => {
                self.asm.load(scratch, slot(n));
                sized(scratch, r)
            }
        }
    }

    /// Brings a register of the guest's into `scratch`.
    pub(super) fn copy(&mut self, scratch: Register, r: Register) {
        match place(r) {
            Place::Host(h) => self.asm.mov(scratch, h),
            Place::Spilled(n) => self.asm.load(scratch, slot(n)),
        }
    }

    /// The parts of the address of the memory operand, registers brought into the host's; nothing for relative and
    /// absolute addresses, and for segments.
    pub(super) fn parts(&mut self, i: &Instruction) -> MemoryOperand {
        let (base, index) = (i.memory_base(), i.memory_index());
        let base = match base {
            R::None => R::None,
            r => self.base(r, S2),
        };
        let index = match index {
            R::None => R::None,
            r => self.base(r, S1),
        };
        let disp = i.memory_displacement64() as i64;
        if base == R::None {
            return MemoryOperand::new(R::None, index, i.memory_index_scale(), disp, 8, false, R::None);
        }
        if index == R::None {
            return at(base, disp);
        }
        indexed(base, index, i.memory_index_scale(), disp)
    }

    /// The linear address of the memory operand.
    pub(super) fn address(&mut self, i: &Instruction) -> Ea {
        if self.flat {
            return self.flat_address(i);
        }
        match plain_base(i) {
            Some(base) => {
                let disp = i.memory_displacement64() as i64;
                self.address_at(base, disp, i.memory_size().size())
            }
            None => {
                let mut ea = self.at(S2, 0);
                ea.reg = self.linear(i);
                ea
            }
        }
    }

    /// The address of `size` bytes at `disp` from a register of the guest's.
    pub(super) fn address_at(&mut self, base: Register, disp: i64, size: usize) -> Ea {
        let mut ea = self.at(S2, 0);
        let reg = self.base(base, S2);
        match i8::try_from(disp) {
            Ok(disp) if one_page(disp, size) && !(self.apart && disp != 0) => {
                ea.reg = reg;
                ea.disp = disp;
            }
            _ => self.asm.lea(S2, at(reg, disp)),
        }
        ea
    }

    /// The address at `disp` from the sum of two registers, the second one of the host's.
    pub(super) fn indexed_at(&mut self, base: Register, (index, scale): Index, disp: i64) -> Ea {
        let ea = self.at(S2, 0);
        let base = self.base(base, S2);
        self.asm.lea(S2, indexed(base, index, scale, disp));
        ea
    }

    /// The linear address of the memory operand, in the register that is given: `S2` or one of the guest's.
    fn linear(&mut self, i: &Instruction) -> Register {
        let (base, index) = (i.memory_base(), i.memory_index());
        let disp = i.memory_displacement64() as i64;
        let segment = segment(i);
        if base == R::RIP {
            self.asm.load(S2, frame!(page));
            self.asm.lea(S2, at(S2, disp));
        } else if base == R::None && index == R::None {
            match segment {
                Some(segment) if i32::try_from(disp).is_ok() => {
                    self.asm.load(S2, segment);
                    if disp != 0 {
                        self.asm.lea(S2, at(S2, disp));
                    }
                    return S2;
                }
                _ => self.asm.constant(S2, disp as u64),
            }
        } else {
            let parts = self.parts(i);
            // Of 32-bit registers the address has 32 bits.
            self.asm.lea(S2, parts);
        }
        if let Some(segment) = segment {
            self.asm.load(S1, segment);
            self.asm.lea(S2, indexed(S2, S1, 1, 0));
        }
        S2
    }
}

/// An index register, as the host has it, and what it is multiplied by.
pub(super) type Index = (Register, u32);

/// The index of the memory operand, if it has one; `None` if that is in the frame.
pub(super) fn host_index(i: &Instruction) -> Option<Option<Index>> {
    match i.memory_index() {
        R::None => Some(None),
        r => match place(r) {
            Place::Host(h) if r.is_gpr64() => Some(Some((h, i.memory_index_scale()))),
            _ => None,
        },
    }
}

/// The register of 64 bits that the memory operand lies at a displacement from, if there is nothing else to its address.
pub(super) fn plain_base(i: &Instruction) -> Option<Register> {
    indexed_base(i).filter(|_| i.memory_index() == R::None)
}

/// The base register of 64 bits of the memory operand, if there is no segment to its address.
pub(super) fn indexed_base(i: &Instruction) -> Option<Register> {
    Some(i.memory_base()).filter(|b| segment(i).is_none() && b.is_gpr64())
}

/// The base of the memory operand's segment, if it has one.
pub(super) fn segment(i: &Instruction) -> Option<MemoryOperand> {
    match i.memory_segment() {
        R::FS => Some(frame!(fs)),
        R::GS => Some(frame!(gs)),
        _ => None,
    }
}

/// Whether an operand that has one byte in the page of its base register has the others there too, if it does not leave that page
/// at the end that [`Emitter::check`] looks at.
fn one_page(disp: i8, size: usize) -> bool {
    disp >= 0 || i64::from(disp) + size as i64 <= 1
}
