// SPDX-License-Identifier: Apache-2.0
//! Memory operands near each other that one check is made for: those of a prologue, or the fields of a structure.

use super::emit::wanted;
use super::flow::is_conditional;
use super::operand::{place, plain_base, Place};
use super::select::{counts_by_cl, gives_index, How};
use crate::cpu::exec::fast::lower::immediate;
use crate::cpu::exec::operand::memory_operand;
use crate::cpu::region::SPILLED;
use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// Bytes that a group spans at most. The more they are, the more often they lie in two pages, and are left to the interpreter.
const SPAN: i64 = 128;

/// Instructions one after the other with operands at displacements from one register, or without any in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub base: Register,
    /// Where the operands begin, from what the register holds at the first of them.
    pub low: i32,
    pub size: u8,
    pub write: bool,
    /// What one of them must be aligned to, as all are from it on: 1, or 16 or 32 of vector registers.
    pub align: u8,
    /// Number of the last instruction with an operand.
    pub last: usize,
}

struct Access {
    base: Register,
    disp: i64,
    size: u8,
    write: bool,
    align: u8,
}

/// The group that begins with instruction `first`, if there is one.
pub(super) fn find(insns: &[Instruction], hows: &[How], first: usize) -> Option<Group> {
    let mut factory = InstructionInfoFactory::new();
    let a = access(insns.get(first)?, *hows.get(first)?)?;
    let base = a.base;
    let (mut low, mut high) = (a.disp, a.disp + i64::from(a.size));
    let (mut write, mut last) = (a.write, first);
    // An operand that must be aligned, and to what; the range begins and ends at such a distance from it.
    let mut anchor = (a.disp, a.align);
    let mut moved = 0;
    let mut conditional = false;
    let pairs = insns.iter().zip(hows).enumerate().skip(first);
    for ((_, (before, how_before)), (n, (i, how))) in pairs.clone().zip(pairs.skip(1)) {
        let Some(by) = moves(before, *how_before, base, &mut factory) else {
            break;
        };
        moved += by;
        conditional |= *how_before == How::Flow && is_conditional(before);
        let Some(a) = access(i, *how) else {
            if leaves_scratch(i, *how) {
                continue;
            }
            break;
        };
        let (from, to) = (moved + a.disp, moved + a.disp + i64::from(a.size));
        let all_anchor = match (anchor.1, a.align) {
            (_, 1) => anchor,
            (1, align) => (from, align),
            (align, other) if align == other && (from - anchor.0) % i64::from(align) == 0 => anchor,
            _ => break,
        };
        let (all_low, all_high) = aligned_to(all_anchor, low.min(from), high.max(to));
        // A page is not written to that may not be.
        if a.base != base || all_high - all_low > SPAN || conditional && a.write && !write {
            break;
        }
        (low, high, last, anchor) = (all_low, all_high, n, all_anchor);
        write |= a.write;
    }
    (last > first).then_some(Group {
        base,
        low: i32::try_from(low).ok()?,
        size: u8::try_from(high - low).ok()?,
        write,
        align: anchor.1,
        last,
    })
}

/// A range made wider, so that it begins and ends at multiples of the anchor's alignment from it. What is aligned lies in one page with
/// the bytes that are added.
fn aligned_to((anchor, align): (i64, u8), low: i64, high: i64) -> (i64, i64) {
    let align = i64::from(align);
    (
        low - (low - anchor).rem_euclid(align),
        high + (anchor - high).rem_euclid(align),
    )
}

/// The one operand in memory, if it can be part of a group.
fn access(i: &Instruction, how: How) -> Option<Access> {
    let stack = |disp, write| {
        let (base, size) = (Register::RSP, 8);
        Some(Access {
            base,
            disp,
            size,
            write,
            align: 1,
        })
    };
    match how {
        How::Stack if matches!(i.code(), Code::Push_r64 | Code::Pushq_imm8 | Code::Pushq_imm32) => {
            stack(-8, true)
        }
        How::Stack if i.code() == Code::Push_rm64 && i.op0_kind() == OpKind::Register => stack(-8, true),
        How::Stack if i.code() == Code::Pop_r64 && i.op0_register() != Register::RSP => stack(0, false),
        How::Flow if i.code() == Code::Call_rel32_64 => stack(-8, true),
        How::Flow if matches!(i.code(), Code::Retnq | Code::Retnq_imm16) => stack(0, false),
        How::Same | How::Vector | How::Avx if i.mnemonic() != Mnemonic::Lea => {
            let n = memory_operand(i)?;
            let w = wanted(i, n, how)?;
            let disp = i.memory_displacement64() as i64;
            // What is locked is for its handler if it is not aligned, and nothing before it.
            let locked = how == How::Same && w.align > 1;
            let suits = !locked && !counts_by_cl(i) && spilled(i) <= 1;
            (suits && small(&disp)).then_some(Access {
                base: plain_base(i)?,
                disp,
                size: w.size,
                write: w.write,
                align: w.align,
            })
        }
        _ => None,
    }
}

/// Whether an instruction without a memory operand leaves `S1` alone.
fn leaves_scratch(i: &Instruction, how: How) -> bool {
    match how {
        How::Nothing => true,
        How::Flow => is_jump(i),
        How::Same | How::Vector | How::Avx => {
            if i.mnemonic() == Mnemonic::Lea {
                return !matches!(place(i.memory_index()), Place::Spilled(_));
            }
            memory_operand(i).is_none()
                && !gives_index(i)
                && spilled(i) <= if counts_by_cl(i) { 1 } else { 2 }
        }
        _ => false,
    }
}

/// What an instruction adds to `base`; `None` if that is not known.
fn moves(i: &Instruction, how: How, base: Register, factory: &mut InstructionInfoFactory) -> Option<i64> {
    let stack = base == Register::RSP;
    match how {
        How::Flow => return is_jump(i).then_some(0),
        How::Stack if i.mnemonic() == Mnemonic::Push => return stack.then_some(-8),
        How::Stack if i.mnemonic() == Mnemonic::Pop => return stack.then_some(8),
        _ => {}
    }
    let to_base = i.op0_kind() == OpKind::Register && i.op0_register() == base;
    match i.mnemonic() {
        Mnemonic::Add if to_base => return immediate(i, 1).map(|n| n as i64).filter(small),
        Mnemonic::Sub if to_base => return immediate(i, 1).map(|n| -(n as i64)).filter(small),
        Mnemonic::Lea if to_base && i.memory_base() == base && i.memory_index() == Register::None => {
            return Some(i.memory_displacement64() as i64).filter(small);
        }
        _ => {}
    }
    let written = factory.info(i).used_registers().iter().any(|r| {
        r.register().full_register() == base
            && !matches!(r.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead)
    });
    (!written).then_some(0)
}

/// Whether it is a jump that a block may go on after.
fn is_jump(i: &Instruction) -> bool {
    is_conditional(i) || matches!(i.code(), Code::Jmp_rel8_64 | Code::Jmp_rel32_64)
}

/// Whether it is no more than structures and stack frames have.
fn small(n: &i64) -> bool {
    (-1 << 20..1 << 20).contains(n)
}

/// Register operands that must be brought into a scratch register.
fn spilled(i: &Instruction) -> usize {
    let mut seen = [false; SPILLED];
    for n in (0..i.op_count()).filter(|&n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_gpr()) {
        if let Place::Spilled(k) = place(i.op_register(n)) {
            seen[k] = true;
        }
    }
    seen.iter().filter(|&&s| s).count()
}
