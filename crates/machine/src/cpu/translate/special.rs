// SPDX-License-Identifier: Apache-2.0
//! Instructions that the host has too, but not with their operands where translated code keeps them: bytes ah to bh, bits of
//! memory, division, selectors, and 16 bytes compared and exchanged.

use super::asm::{at, frame, indexed, GUEST_RCX, S0, S1, S2};
use super::emit::{put_memory, wanted, Emitter, Wanted};
use super::operand::{place, sized, slot, Place};
use super::select::{self, How};
use crate::cpu::descriptor_cache::Segments;
use crate::cpu::exec::operand::memory_operand;
use crate::cpu::regs::{is_high_byte, seg_index};
use crate::cpu::Cpu;
use iced_x86::{Code, Instruction, MemoryOperand, Mnemonic as M, OpKind, Register};
use std::mem::offset_of;

/// Whether `special` has code for it.
pub(super) fn is_special(i: &Instruction) -> bool {
    on_high_bytes(i) || indexes_bits(i) || divides(i) || exchanges_pair(i) || reads_selector(i)
}

fn registers(i: &Instruction) -> impl Iterator<Item = Register> + '_ {
    (0..i.op_count())
        .filter(|&n| i.op_kind(n) == OpKind::Register)
        .map(|n| i.op_register(n))
}

/// An operand is one of ah, ch, dh and bh; what else there is has an encoding without REX.
fn on_high_bytes(i: &Instruction) -> bool {
    let memory = memory_operand(i).is_some();
    registers(i).any(is_high_byte)
        && registers(i).all(|r| r.is_gpr() && r.full_register() != Register::RSP)
        // The address is in rcx by then.
        && !(memory && registers(i).any(|r| r.full_register() == Register::RCX))
        && select::plain_memory(i)
        && select::integer(i)
        && select::on_every_host(i)
        && !matches!(i.mnemonic(), M::Cmpxchg)
}

/// bt and its kin with the number of a bit anywhere in memory.
fn indexes_bits(i: &Instruction) -> bool {
    matches!(i.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc)
        && i.op0_kind() == OpKind::Memory
        && i.op1_kind() == OpKind::Register
        && i.op1_register().size() >= 4
        && i.memory_base().size() != 4
        && i.memory_index().size() != 4
        && select::plain_memory(i)
}

fn divides(i: &Instruction) -> bool {
    let size = match i.code() {
        Code::Div_rm32 | Code::Idiv_rm32 => 4,
        Code::Div_rm64 | Code::Idiv_rm64 => 8,
        _ => return false,
    };
    match i.op0_kind() {
        OpKind::Register => i.op0_register().full_register() != Register::RDX,
        _ => select::plain_memory(i) && i.memory_size().size() == size,
    }
}

fn exchanges_pair(i: &Instruction) -> bool {
    i.code() == Code::Cmpxchg16b_m128 && is_x86_feature_detected!("cmpxchg16b") && select::plain_memory(i)
}

fn reads_selector(i: &Instruction) -> bool {
    matches!(
        i.code(),
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg
    ) && select::plain_memory(i)
}

impl Emitter<'_> {
    pub(super) fn special(&mut self, i: &Instruction) -> Option<()> {
        if on_high_bytes(i) {
            self.high_bytes(i)
        } else if indexes_bits(i) {
            self.bit_of_memory(i)
        } else if divides(i) {
            self.divide(i)
        } else if exchanges_pair(i) {
            self.exchange_pair(i)
        } else {
            self.selector(i)
        }
    }

    /// The instruction as it is, with rcx where it is the host's.
    fn high_bytes(&mut self, i: &Instruction) -> Option<()> {
        let mut new = *i;
        let on_rcx = registers(i).any(|r| r.full_register() == Register::RCX);
        if let Some(n) = memory_operand(i) {
            let ea = self.address(i);
            let operand = self.check(ea, wanted(i, n, How::Same)?);
            self.asm.lea(S0, operand);
            put_memory(&mut new, &at(S0, 0));
        }
        if on_rcx {
            self.asm.mov(S0, GUEST_RCX);
        }
        self.asm.emit(&new);
        if on_rcx {
            self.asm.mov(GUEST_RCX, S0);
        }
        Some(())
    }

    fn bit_of_memory(&mut self, i: &Instruction) -> Option<()> {
        let size = i.op1_register().size() as u64;
        let lock = i.has_lock_prefix();
        let ea = self.address(i);
        self.copy(S1, i.op1_register());
        if size == 4 {
            self.asm.movsxd(S1, S1);
        }
        self.asm.constant(S0, size.trailing_zeros() as u64 + 3);
        self.asm.sarx(S1, S1, S0);
        self.asm
            .lea(S2, indexed(ea.reg, S1, size as u32, i64::from(ea.disp)));
        let access = Wanted {
            size: size as u8,
            write: i.mnemonic() != M::Bt,
            align: if lock { size as u8 } else { 1 },
        };
        let ea = self.at(S2, 0);
        let operand = self.check(ea, access);
        self.asm.lea(S2, operand);
        self.copy(S1, i.op1_register());
        self.asm.constant(S0, size * 8 - 1);
        self.asm.pext_register(S0, S1, S0);
        let mut new = *i;
        put_memory(&mut new, &at(S2, 0));
        new.set_op1_register(sized(S0, i.op1_register()));
        self.asm.emit(&new);
        Some(())
    }

    /// Division whose dividend is not wider than the divisor nor negative, and whose divisor is not zero: it raises nothing.
    fn divide(&mut self, i: &Instruction) -> Option<()> {
        let signed = i.mnemonic() == M::Idiv;
        let slow = self.asm.label();
        let wide = matches!(i.code(), Code::Div_rm64 | Code::Idiv_rm64);
        if i.op0_kind() == OpKind::Register {
            self.copy(S1, i.op0_register());
        } else {
            let ea = self.address(i);
            let operand = self.check(ea, wanted(i, 0, How::Same)?);
            if wide {
                self.asm.load(S1, operand);
            } else {
                self.asm.load32(S1, operand);
            }
        }
        let part = |e: &mut Self, r: Register| match wide {
            true => e.asm.mov(S0, r),
            false => e.asm.mov32(S0, r),
        };
        part(self, S1);
        self.asm.jmp_if_zero(slow);
        part(self, Register::RDX);
        self.asm.jmp_unless_zero(slow);
        if signed {
            part(self, Register::RAX);
            self.asm.constant(S2, if wide { 63 } else { 31 });
            self.asm.shrx(S0, S0, S2);
            self.asm.jmp_unless_zero(slow);
        }
        let mut new = *i;
        new.set_op0_kind(OpKind::Register);
        new.set_op0_register(if wide { S1 } else { S1.full_register32() });
        self.asm.emit(&new);
        self.handler_stub(i, slow, false)
    }

    fn exchange_pair(&mut self, i: &Instruction) -> Option<()> {
        let ea = self.address(i);
        let access = Wanted {
            size: 16,
            write: true,
            align: 16,
        };
        let operand = self.check(ea, access);
        let mut new = *i;
        put_memory(&mut new, &operand);
        self.asm.mov(S0, GUEST_RCX);
        self.asm.emit(&new);
        Some(())
    }

    fn selector(&mut self, i: &Instruction) -> Option<()> {
        let n = seg_index(i.op1_register());
        let field = offset_of!(Cpu, seg) + offset_of!(Segments, sel) + 2 * n;
        let from = |base: Register| -> MemoryOperand { at(base, field as i64) };
        if i.op0_kind() == OpKind::Memory {
            let ea = self.address(i);
            let access = Wanted {
                size: 2,
                write: true,
                align: 1,
            };
            let operand = self.check(ea, access);
            self.asm.lea(S2, operand);
            self.asm.load(S1, frame!(cpu));
            self.asm.load16(S0, from(S1));
            self.asm.store16(at(S2, 0), S0);
            return Some(());
        }
        self.asm.load(S1, frame!(cpu));
        self.asm.load16(S0, from(S1));
        let r = i.op0_register();
        match (place(r), r.size()) {
            (Place::Host(h), 2) => self.asm.mov16(h, S0),
            (Place::Spilled(n), 2) => self.asm.store16(slot(n), S0),
            (Place::Host(h), _) => self.asm.mov(h, S0),
            (Place::Spilled(n), _) => self.asm.store(slot(n), S0),
        }
        Some(())
    }
}
