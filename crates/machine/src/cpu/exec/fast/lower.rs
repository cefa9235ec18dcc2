// SPDX-License-Identifier: Apache-2.0
//! Chooses fast handlers for instructions, and finds out which flags nobody will look at.

use super::{alu, flow, misc, mov, narrow, shift, string, vector, Handler, Op, RSP};
use crate::cpu::regs::{gpr_index, is_high_byte};
use iced_x86::{Code, CodeSize, ConditionCode, Instruction, Mnemonic as M, OpKind, Register};

/// What goes into the slot after an op with links (and `target` into `disp` of one without).
#[derive(Clone, Copy, Default)]
pub(crate) struct LowExt {
    pub imm: i32,
    pub target: i32,
}

#[derive(Clone, Copy)]
pub(crate) enum Low {
    /// Does nothing at all.
    Nothing,
    Op(Op, LowExt),
}

/// Byte offsets in `Cpu` of what serves as a base register.
const ZERO: u8 = 128;
const PAGE: u8 = 136;
const FS: u8 = 144;
const GS: u8 = 152;

const _: () = {
    use crate::cpu::Cpu;
    assert!(std::mem::offset_of!(Cpu, regs) == 0);
    assert!(std::mem::offset_of!(Cpu, bases.zero) == ZERO as usize);
    assert!(std::mem::offset_of!(Cpu, bases.page) == PAGE as usize);
    assert!(std::mem::offset_of!(Cpu, bases.fs) == FS as usize);
    assert!(std::mem::offset_of!(Cpu, bases.gs) == GS as usize);
};

pub(super) fn reg_off(r: Register) -> u8 {
    (gpr_index(r) * 8) as u8 + u8::from(is_high_byte(r))
}

pub(super) fn is_reg(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Register && i.op_register(n).is_gpr()
}

pub(super) fn is_mem(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Memory
}

/// Fills in the memory operand; says whether it has an index, or `None` if it takes a slow handler.
pub(super) fn memory(i: &Instruction, op: &mut Op) -> Option<bool> {
    let (base, index) = (i.memory_base(), i.memory_index());
    let wide = i.code_size() == CodeSize::Code64;
    op.disp = if wide {
        i32::try_from(i.memory_displacement64() as i64).ok()?
    } else {
        i.memory_displacement32() as i32
    };
    (op.base, op.index, op.scale) = (ZERO, ZERO, 0);
    let segment = match i.memory_segment() {
        Register::FS => Some(FS),
        Register::GS => Some(GS),
        _ => None,
    };
    match base {
        Register::None if wide && i.memory_displ_size() == 4 => return None,
        // 16-bit addresses.
        Register::None if !wide && index == Register::None && i.memory_displ_size() == 2 => return None,
        Register::None => {}
        Register::RIP => op.base = PAGE,
        r if r.is_gpr64() || !wide && r.is_gpr32() => op.base = reg_off(r),
        _ => return None,
    }
    if index == Register::None {
        return Some(match segment {
            Some(s) if op.base == ZERO => {
                op.base = s;
                false
            }
            Some(s) => {
                op.index = s;
                true
            }
            None => false,
        });
    }
    if segment.is_some() || !(index.is_gpr64() || !wide && index.is_gpr32()) {
        return None;
    }
    op.index = reg_off(index);
    op.scale = i.memory_index_scale().trailing_zeros() as u8;
    Some(true)
}

fn alu_op(m: M) -> Option<u8> {
    Some(match m {
        M::Add => alu::ADD,
        M::Or => alu::OR,
        M::Adc => alu::ADC,
        M::Sbb => alu::SBB,
        M::And => alu::AND,
        M::Sub => alu::SUB,
        M::Xor => alu::XOR,
        M::Cmp => alu::CMP,
        M::Test => alu::TEST,
        _ => return None,
    })
}

pub(super) fn op_size(i: &Instruction, n: u32) -> usize {
    match i.op_kind(n) {
        OpKind::Register => i.op_register(n).size(),
        _ => i.memory_size().size(),
    }
}

pub(crate) fn immediate(i: &Instruction, n: u32) -> Option<u64> {
    match i.op_kind(n) {
        OpKind::Immediate8
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => Some(i.immediate(n)),
        _ => None,
    }
}

pub(super) fn done(op: Op) -> Option<Low> {
    Some(Low::Op(op, LowExt::default()))
}

pub(super) fn with(h: Handler, mut op: Op) -> Option<Low> {
    op.h = h;
    done(op)
}

/// The x86 number of a condition.
pub(super) fn cond_number(i: &Instruction) -> Option<u8> {
    use ConditionCode as C;
    Some(match i.condition_code() {
        C::None => return None,
        C::o => 0,
        C::no => 1,
        C::b => 2,
        C::ae => 3,
        C::e => 4,
        C::ne => 5,
        C::be => 6,
        C::a => 7,
        C::s => 8,
        C::ns => 9,
        C::p => 10,
        C::np => 11,
        C::l => 12,
        C::ge => 13,
        C::le => 14,
        C::g => 15,
    })
}

/// A near branch target relative to the start of the page, if it has the width of the code and fits.
pub(super) fn target(i: &Instruction) -> Option<i32> {
    match i.op0_kind() {
        OpKind::NearBranch64 => i32::try_from(i.near_branch64() as i64).ok(),
        OpKind::NearBranch32 => Some(i.near_branch32() as i32),
        _ => None,
    }
}

/// Bit n: instruction n must leave exact flags.
pub(crate) fn flags_live(insns: &[Instruction]) -> Vec<bool> {
    let mut live = true;
    let mut out = vec![true; insns.len()];
    for (slot, i) in out.iter_mut().zip(insns).rev() {
        *slot = live;
        let quiet = |n: u32| {
            let k = i.op_kind(n);
            k == OpKind::Register && i.op_register(n).is_gpr() || immediate(i, n).is_some()
        };
        // Nothing here can fault, and what it does to flags is known.
        let simple = (0..i.op_count()).all(quiet);
        live = match i.mnemonic() {
            M::Nop | M::Endbr64 | M::Lea => live,
            M::Add | M::Or | M::And | M::Sub | M::Xor | M::Cmp | M::Test | M::Neg if simple => false,
            M::Mov
            | M::Movzx
            | M::Movsx
            | M::Movsxd
            | M::Not
            | M::Bswap
            | M::Cdqe
            | M::Cwde
            | M::Cdq
            | M::Cqo
                if simple =>
            {
                live
            }
            M::Inc | M::Dec if simple => live,
            M::Shl | M::Sal | M::Shr | M::Sar if simple && shift_count(i).is_some_and(|n| n != 0) => false,
            M::Rol | M::Ror if simple && shift_count(i).is_some() => live,
            _ => true,
        };
    }
    out
}

/// Shifts and rotations: with a count of zero they leave all flags as they are.
pub(crate) fn is_shift(i: &Instruction) -> bool {
    matches!(
        i.mnemonic(),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    )
}

/// The masked count of a shift by a constant.
pub(crate) fn shift_count(i: &Instruction) -> Option<u32> {
    let n = immediate(i, i.op_count().checked_sub(1)?)? as u32;
    Some(n & count_mask(i))
}

/// The bits of a shift's count that count.
pub(crate) fn count_mask(i: &Instruction) -> u32 {
    if op_size(i, 0) == 8 {
        63
    } else {
        31
    }
}

/// cmp or test with the jcc after it, as one op.
pub(crate) fn fuse(i: &Instruction, next: Option<&Instruction>) -> Option<Low> {
    let next = next?;
    let test = match i.mnemonic() {
        M::Cmp => false,
        M::Test => true,
        _ => return None,
    };
    if !next.is_jcc_short_or_near() {
        return None;
    }
    let cc = cond_number(next)?;
    let mut op = Op::new(super::op_nop);
    let mut ext = LowExt {
        imm: 0,
        target: target(next)?,
    };
    let size = op_size(i, 0);
    let k = if is_reg(i, 0) {
        op.dst = reg_off(i.op0_register());
        if is_reg(i, 1) {
            op.src = reg_off(i.op1_register());
            0
        } else if is_mem(i, 1) {
            if memory(i, &mut op)? {
                return None;
            }
            3
        } else {
            ext.imm = immediate(i, 1)? as i32;
            1
        }
    } else if is_mem(i, 0) {
        if memory(i, &mut op)? {
            return None;
        }
        if is_reg(i, 1) {
            op.dst = reg_off(i.op1_register());
            4
        } else {
            ext.imm = immediate(i, 1)? as i32;
            2
        }
    } else {
        return None;
    };
    op.h = alu::pick_fused(test, size, cc, k)?;
    op.links = 2;
    Some(Low::Op(op, ext))
}

/// The fast form of `i`, if it has one; `live`: its flags may be looked at.
pub(crate) fn lower(i: &Instruction, live: bool) -> Option<Low> {
    let mut op = Op::new(super::op_nop);
    let m = i.mnemonic();
    if let Some(o) = alu_op(m) {
        return two_operands(i, o, live);
    }
    let lock = i.has_lock_prefix();
    match m {
        M::Nop | M::Endbr64 | M::Endbr32 | M::Pause => Some(Low::Nothing),
        M::Mov => mov_form(i),
        M::Movzx | M::Movsx | M::Movsxd => {
            let (to, from) = (op_size(i, 0), op_size(i, 1));
            op.dst = reg_off(i.op0_register());
            let mem = if is_mem(i, 1) {
                Some(memory(i, &mut op)?)
            } else {
                op.src = reg_off(i.op1_register());
                None
            };
            with(mov::pick_extend(from, to, m != M::Movzx, mem)?, op)
        }
        M::Lea => {
            let wide = i.code_size() == CodeSize::Code64;
            if wide && (i.memory_base().size() == 4 || i.memory_index().size() == 4) {
                return None;
            }
            let mut plain = *i;
            plain.set_segment_prefix(Register::None);
            let x = memory(&plain, &mut op)?;
            op.dst = reg_off(i.op0_register());
            match (op_size(i, 0), x) {
                (4, false) => with(mov::lea::<u32, false>, op),
                (4, true) => with(mov::lea::<u32, true>, op),
                (8, false) => with(mov::lea::<u64, false>, op),
                (8, true) => with(mov::lea::<u64, true>, op),
                _ => None,
            }
        }
        M::Push => push_form(i),
        M::Pop if i.code() == Code::Pop_r64 => {
            op.dst = reg_off(i.op0_register());
            op.base = RSP;
            with(mov::pop_r, op)
        }
        M::Pop if i.code() == Code::Pop_r32 => {
            op.dst = reg_off(i.op0_register());
            op.base = RSP;
            with(narrow::pop_r, op)
        }
        M::Leave if i.code() == Code::Leaved => {
            op.base = super::RBP;
            with(narrow::leave, op)
        }
        M::Leave if i.code() == Code::Leaveq => {
            op.base = super::RBP;
            with(mov::leave, op)
        }
        M::Inc | M::Dec | M::Neg | M::Not => {
            let o = match m {
                M::Inc => alu::INC,
                M::Dec => alu::DEC,
                M::Neg => alu::NEG,
                _ => alu::NOT,
            };
            if is_reg(i, 0) {
                op.dst = reg_off(i.op0_register());
                return with(alu::pick_r(o, op_size(i, 0), live), op);
            }
            let x = memory(i, &mut op)?;
            if lock {
                return with(alu::pick_lock(o, op_size(i, 0), x, true)?, op);
            }
            with(alu::pick_m(o, op_size(i, 0), x), op)
        }
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror => shift_form(i, live),
        M::Imul if i.op_count() >= 2 => imul_form(i),
        M::Mul if is_reg(i, 0) => {
            op.src = reg_off(i.op0_register());
            match op_size(i, 0) {
                4 => with(misc::mul_r::<u32>, op),
                8 => with(misc::mul_r::<u64>, op),
                _ => None,
            }
        }
        M::Bt if is_reg(i, 0) => {
            op.dst = reg_off(i.op0_register());
            if let Some(n) = immediate(i, 1) {
                op.imm = n;
                return match op_size(i, 0) {
                    4 => with(misc::bt::<u32, true>, op),
                    8 => with(misc::bt::<u64, true>, op),
                    _ => None,
                };
            }
            op.src = reg_off(i.op1_register());
            match op_size(i, 0) {
                4 => with(misc::bt::<u32, false>, op),
                8 => with(misc::bt::<u64, false>, op),
                _ => None,
            }
        }
        M::Xchg => exchange_form(i, false),
        M::Xadd if lock => exchange_form(i, true),
        M::Cmpxchg if is_mem(i, 0) => {
            let x = memory(i, &mut op)?;
            op.src = reg_off(i.op1_register());
            with(alu::pick_cmpxchg(lock, op_size(i, 0), x), op)
        }
        M::Cwde => with(mov::widen_a::<u16, u32>, op),
        M::Cdqe => with(mov::widen_a::<u32, u64>, op),
        M::Cdq => with(mov::widen_d::<u32>, op),
        M::Cqo => with(mov::widen_d::<u64>, op),
        M::Bswap => {
            op.dst = reg_off(i.op0_register());
            match op_size(i, 0) {
                4 => with(mov::bswap::<u32>, op),
                8 => with(mov::bswap::<u64>, op),
                _ => None,
            }
        }
        M::Clc => with(flow::carry::<0>, op),
        M::Stc => with(flow::carry::<1>, op),
        M::Cmc => with(flow::carry::<2>, op),
        _ => flow::lower(i)
            .or_else(|| string::lower(i))
            .or_else(|| vector::lower(i)),
    }
}

fn two_operands(i: &Instruction, o: u8, live: bool) -> Option<Low> {
    let mut op = Op::new(super::op_nop);
    let size = op_size(i, 0);
    if is_reg(i, 0) {
        op.dst = reg_off(i.op0_register());
        if is_reg(i, 1) {
            op.src = reg_off(i.op1_register());
            return with(alu::pick_rr(o, size, live), op);
        }
        if is_mem(i, 1) {
            let x = memory(i, &mut op)?;
            return with(alu::pick_rm(o, size, live, x), op);
        }
        op.imm = immediate(i, 1)?;
        return with(alu::pick_ri(o, size, live), op);
    }
    if !is_mem(i, 0) {
        return None;
    }
    let x = memory(i, &mut op)?;
    let imm = match immediate(i, 1) {
        Some(v) => {
            op.imm = v;
            true
        }
        None => {
            op.src = reg_off(i.op1_register());
            false
        }
    };
    if i.has_lock_prefix() {
        return with(alu::pick_lock(o, size, x, imm)?, op);
    }
    with(alu::pick_mx(o, size, live, x, imm), op)
}

fn mov_form(i: &Instruction) -> Option<Low> {
    let mut op = Op::new(super::op_nop);
    if is_reg(i, 0) {
        let size = op_size(i, 0);
        op.dst = reg_off(i.op0_register());
        if is_reg(i, 1) {
            op.src = reg_off(i.op1_register());
            return with(super::by_size!(size, mov::rr::<T> as Handler), op);
        }
        if is_mem(i, 1) {
            let x = memory(i, &mut op)?;
            return with(mov::pick_rm(size, x), op);
        }
        op.imm = immediate(i, 1)?;
        return with(super::by_size!(size, mov::ri::<T> as Handler), op);
    }
    if !is_mem(i, 0) {
        return None;
    }
    let x = memory(i, &mut op)?;
    let size = i.memory_size().size();
    if is_reg(i, 1) {
        op.src = reg_off(i.op1_register());
        return with(mov::pick_mr(size, x), op);
    }
    op.imm = immediate(i, 1)?;
    with(mov::pick_mi(size, x), op)
}

fn push_form(i: &Instruction) -> Option<Low> {
    let mut op = Op::new(super::op_nop);
    op.base = RSP;
    match i.code() {
        Code::Push_r64 => {
            op.src = reg_off(i.op0_register());
            with(mov::push_r, op)
        }
        Code::Pushq_imm8 | Code::Pushq_imm32 => {
            op.imm = immediate(i, 0)?;
            with(mov::push_i, op)
        }
        Code::Push_rm64 if is_mem(i, 0) => {
            if memory(i, &mut op)? {
                with(mov::push_m::<true>, op)
            } else {
                with(mov::push_m::<false>, op)
            }
        }
        Code::Push_r32 => {
            op.src = reg_off(i.op0_register());
            with(narrow::push_r, op)
        }
        Code::Pushd_imm8 | Code::Pushd_imm32 => {
            op.imm = immediate(i, 0)?;
            with(narrow::push_i, op)
        }
        Code::Push_rm32 if is_mem(i, 0) => {
            if memory(i, &mut op)? {
                with(narrow::push_m::<true>, op)
            } else {
                with(narrow::push_m::<false>, op)
            }
        }
        Code::Push_rm32 => {
            op.src = reg_off(i.op0_register());
            with(narrow::push_r, op)
        }
        Code::Push_rm64 => {
            op.src = reg_off(i.op0_register());
            with(mov::push_r, op)
        }
        _ => None,
    }
}

fn shift_form(i: &Instruction, live: bool) -> Option<Low> {
    let mut op = Op::new(super::op_nop);
    if !is_reg(i, 0) {
        return None;
    }
    let o = match i.mnemonic() {
        M::Rol => shift::ROL,
        M::Ror => shift::ROR,
        M::Shr => shift::SHR,
        M::Sar => shift::SAR,
        _ => shift::SHL,
    };
    let size = op_size(i, 0);
    op.dst = reg_off(i.op0_register());
    if i.op1_kind() == OpKind::Register {
        return with(shift::pick_cl(o, size)?, op);
    }
    let n = shift_count(i)?;
    if n == 0 || n as usize >= size * 8 {
        return None;
    }
    op.imm = u64::from(n);
    with(shift::pick_imm(o, size, live)?, op)
}

fn imul_form(i: &Instruction) -> Option<Low> {
    let mut op = Op::new(super::op_nop);
    op.dst = reg_off(i.op0_register());
    let imm = if i.op_count() == 3 {
        op.imm = immediate(i, 2)?;
        true
    } else {
        false
    };
    let mem = is_mem(i, 1);
    if mem {
        memory(i, &mut op)?;
    } else {
        op.src = reg_off(i.op1_register());
    }
    with(misc::pick_imul(op_size(i, 0), mem, imm)?, op)
}

/// xchg and lock xadd.
fn exchange_form(i: &Instruction, add: bool) -> Option<Low> {
    let mut op = Op::new(super::op_nop);
    let size = op_size(i, 0);
    if is_reg(i, 0) && is_reg(i, 1) {
        op.dst = reg_off(i.op0_register());
        op.src = reg_off(i.op1_register());
        return with(super::by_size!(size, mov::xchg_rr::<T> as Handler), op);
    }
    let n = u32::from(is_mem(i, 0));
    if !is_reg(i, n) {
        return None;
    }
    op.src = reg_off(i.op_register(n));
    let x = memory(i, &mut op)?;
    with(alu::pick_exchange(add, op_size(i, n), x), op)
}
