// SPDX-License-Identifier: Apache-2.0
//! Branches, calls and returns.

use super::lower::{cond_number, is_mem, is_reg, memory, op_size, reg_off, target, with, Low, LowExt};
use super::*;
use crate::cpu::block::Ext;
use crate::cpu::flags;
use crate::cpu::run::PendingLink;
use iced_x86::Code;

/// Condition code `C` (x86 numbering) of the current flags.
#[inline(always)]
pub(crate) unsafe fn cond<const C: u8>(cpu: *const Cpu) -> bool {
    by_contract!({
        let c = &*cpu;
        let v = match C >> 1 {
            0 => c.of(),
            1 => c.cf(),
            2 => c.zf(),
            3 => c.cf() | c.zf(),
            4 => c.sf(),
            5 => c.pf(),
            6 => c.sf() != c.of(),
            _ => c.zf() | (c.sf() != c.of()),
        };
        v != (C & 1 != 0)
    })
}

/// Where a branch with a link that leads nowhere yet goes: within the page the run loop finds the block and sets the
/// link, elsewhere it is looked up each time, because another frame may be mapped there the next time.
pub(crate) unsafe fn follow(cpu: *mut Cpu, op: *const Op, taken: bool) -> *const Op {
    by_contract!({
        let ext = op.add(1).cast::<Ext>();
        let target = if taken {
            (*ext).target
        } else {
            i32::from((*op).off) + i32::from((*op).len)
        };
        let rip = (*cpu).bases.page.wrapping_add(target as i64 as u64) & (*cpu).bases.mask;
        if (0..4096).contains(&target) {
            let holder = if taken { op } else { op.add(1) };
            let slot = holder.cast::<u64>().add(1).cast_mut();
            (*cpu).chain.pending = Some(PendingLink {
                slot,
                mfn: (*ext).mfn,
            });
            (*cpu).rip = rip;
            return null();
        }
        jump!(cpu, rip)
    })
}

/// Follows the link in `imm`.
macro_rules! taken {
    ($cpu:expr, $op:expr) => {{
        let l = (*$op).imm as *const Op;
        if !l.is_null() {
            enter!($cpu, l)
        }
        return follow($cpu, $op, true);
    }};
}

pub(crate) unsafe fn jcc<const C: u8>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        if cond::<C>(cpu) {
            taken!(cpu, op)
        }
        let l = (*op.add(1).cast::<Ext>()).fall as *const Op;
        if !l.is_null() {
            enter!(cpu, l)
        }
        follow(cpu, op, false)
    })
}

pub(crate) fn pick_jcc(cc: u8) -> Handler {
    by_cond!(cc, jcc::<C> as Handler)
}

/// The next block in the page.
pub(crate) unsafe fn op_fall(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({ taken!(cpu, op) })
}

/// A jump out of the page, and its end.
pub(crate) unsafe fn op_far(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        jump!(
            cpu,
            (*cpu).bases.page.wrapping_add((*op).disp as i64 as u64) & (*cpu).bases.mask
        )
    })
}

/// Pushes the return address.
macro_rules! push_return {
    ($cpu:expr, $op:expr) => {{
        let sp = rd::<u64>($cpu, RSP).wrapping_sub(8);
        let ret = (*$cpu)
            .bases
            .page
            .wrapping_add((*$op).off as u64 + (*$op).len as u64);
        st!(u64, $cpu, $op, sp, ret);
        wr::<u64>($cpu, RSP, sp);
    }};
}

/// An indirect branch to a non-canonical address faults itself, a call after what its push may raise. The jump cache has
/// canonical addresses only.
macro_rules! check_target {
    ($cpu:expr, $op:expr, $rip:expr) => {{
        let j = (*$cpu).chain.jumps.add(crate::cpu::jumps::jump_index($rip));
        if (*j).rip != $rip && !crate::abi::x86::canonical($rip) {
            return miss::redo($cpu, $op);
        }
    }};
}

pub(crate) unsafe fn call_near(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        push_return!(cpu, op);
        taken!(cpu, op)
    })
}

pub(crate) unsafe fn call_far(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        push_return!(cpu, op);
        jump!(cpu, (*cpu).bases.page.wrapping_add((*op).disp as i64 as u64))
    })
}

pub(crate) unsafe fn call_reg(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let rip = rd::<u64>(cpu, (*op).src);
        check_target!(cpu, op, rip);
        push_return!(cpu, op);
        jump!(cpu, rip)
    })
}

pub(crate) unsafe fn call_mem<const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let rip = ld!(u64, cpu, op, ea::<X>(cpu, op));
        check_target!(cpu, op, rip);
        push_return!(cpu, op);
        jump!(cpu, rip)
    })
}

pub(crate) unsafe fn jmp_reg(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let rip = rd::<u64>(cpu, (*op).src);
        check_target!(cpu, op, rip);
        jump!(cpu, rip)
    })
}

pub(crate) unsafe fn jmp_mem<const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let rip = ld!(u64, cpu, op, ea::<X>(cpu, op));
        check_target!(cpu, op, rip);
        jump!(cpu, rip)
    })
}

pub(crate) unsafe fn ret(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let sp = rd::<u64>(cpu, RSP);
        let rip = ld!(u64, cpu, op, sp);
        check_target!(cpu, op, rip);
        wr::<u64>(cpu, RSP, sp.wrapping_add(8));
        jump!(cpu, rip)
    })
}

pub(crate) unsafe fn set_r<const C: u8>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        wr::<u8>(cpu, (*op).dst, u8::from(cond::<C>(cpu)));
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn set_m<const C: u8>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        st!(u8, cpu, op, ea::<true>(cpu, op), u8::from(cond::<C>(cpu)));
        go!(cpu, op.add(1))
    })
}

pub(crate) fn pick_set(cc: u8, mem: bool) -> Handler {
    if mem {
        by_cond!(cc, set_m::<C> as Handler)
    } else {
        by_cond!(cc, set_r::<C> as Handler)
    }
}

/// A 32-bit cmov clears the upper half even when it does not move.
pub(crate) unsafe fn cmov_r<T: W, const C: u8>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let v = if cond::<C>(cpu) {
            rd::<T>(cpu, (*op).src)
        } else {
            rd::<T>(cpu, (*op).dst)
        };
        wr::<T>(cpu, (*op).dst, v);
        go!(cpu, op.add(1))
    })
}

/// The load happens whatever the condition.
pub(crate) unsafe fn cmov_m<T: W, const C: u8>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let m = ld!(T, cpu, op, ea::<true>(cpu, op));
        let v = if cond::<C>(cpu) {
            m
        } else {
            rd::<T>(cpu, (*op).dst)
        };
        wr::<T>(cpu, (*op).dst, v);
        go!(cpu, op.add(1))
    })
}

pub(crate) fn pick_cmov(cc: u8, size: usize, mem: bool) -> Option<Handler> {
    match (size, mem) {
        (4, false) => Some(by_cond!(cc, cmov_r::<u32, C> as Handler)),
        (8, false) => Some(by_cond!(cc, cmov_r::<u64, C> as Handler)),
        (4, true) => Some(by_cond!(cc, cmov_m::<u32, C> as Handler)),
        (8, true) => Some(by_cond!(cc, cmov_m::<u64, C> as Handler)),
        _ => None,
    }
}

/// clc, stc, cmc.
pub(crate) unsafe fn carry<const K: u8>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let c = &mut *cpu;
        // OF is CF xor bit 62: both bits change together.
        let change = match K {
            0 => c.cf(),
            1 => !c.cf(),
            _ => true,
        };
        if change {
            c.flags.aux ^= flags::AUX_CF | flags::AUX_PO;
        }
        go!(cpu, op.add(1))
    })
}

/// The fast form of a branch, setcc or cmovcc.
pub(crate) fn lower(i: &Instruction) -> Option<Low> {
    let mut op = Op::new(op_nop);
    match i.code() {
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 | Code::Jmp_rel8_32 | Code::Jmp_rel32_32 => {
            let target = target(i)?;
            let near = (0..4096).contains(&target);
            op.h = if near { op_fall } else { op_far };
            op.links = u8::from(near);
            // A jump to the very start of the page has target 0, and is near.
            return Some(Low::Op(op, LowExt { imm: 0, target }));
        }
        Code::Call_rel32_64 => {
            let target = target(i)?;
            let near = (0..4096).contains(&target);
            op.base = RSP;
            op.h = if near { call_near } else { call_far };
            op.links = u8::from(near);
            return Some(Low::Op(op, LowExt { imm: 0, target }));
        }
        Code::Call_rel32_32 => {
            let target = target(i)?;
            let near = (0..4096).contains(&target);
            op.base = RSP;
            op.h = if near { narrow::call_near } else { narrow::call_far };
            op.links = u8::from(near);
            return Some(Low::Op(op, LowExt { imm: 0, target }));
        }
        Code::Retnd | Code::Retnd_imm16 => {
            op.base = RSP;
            op.imm = match i.code() {
                Code::Retnd_imm16 => u64::from(i.immediate16()),
                _ => 0,
            };
            return with(narrow::ret, op);
        }
        Code::Call_rm32 | Code::Jmp_rm32 => {
            let call = i.code() == Code::Call_rm32;
            if is_reg(i, 0) {
                op.base = RSP;
                op.src = reg_off(i.op0_register());
                return with(if call { narrow::call_reg } else { narrow::jmp_reg }, op);
            }
            let h: Handler = match (call, memory(i, &mut op)?) {
                (true, false) => narrow::call_mem::<false>,
                (true, true) => narrow::call_mem::<true>,
                (false, false) => narrow::jmp_mem::<false>,
                (false, true) => narrow::jmp_mem::<true>,
            };
            return with(h, op);
        }
        Code::Retnq => {
            op.base = RSP;
            return with(ret, op);
        }
        Code::Call_rm64 | Code::Jmp_rm64 => {
            let call = i.code() == Code::Call_rm64;
            if is_reg(i, 0) {
                op.base = RSP;
                op.src = reg_off(i.op0_register());
                return with(if call { call_reg } else { jmp_reg }, op);
            }
            let h: Handler = match (call, memory(i, &mut op)?) {
                (true, false) => call_mem::<false>,
                (true, true) => call_mem::<true>,
                (false, false) => jmp_mem::<false>,
                (false, true) => jmp_mem::<true>,
            };
            return with(h, op);
        }
        _ => {}
    }
    let cc = cond_number(i)?;
    if i.is_jcc_short_or_near() {
        op.h = pick_jcc(cc);
        op.links = 2;
        return Some(Low::Op(
            op,
            LowExt {
                imm: 0,
                target: target(i)?,
            },
        ));
    }
    if i.op_count() == 1 && (is_reg(i, 0) || is_mem(i, 0)) {
        if is_reg(i, 0) {
            op.dst = reg_off(i.op0_register());
            return with(pick_set(cc, false), op);
        }
        memory(i, &mut op)?;
        return with(pick_set(cc, true), op);
    }
    if i.op_count() == 2 && is_reg(i, 0) {
        op.dst = reg_off(i.op0_register());
        let mem = is_mem(i, 1);
        if mem {
            memory(i, &mut op)?;
        } else {
            op.src = reg_off(i.op1_register());
        }
        return with(pick_cmov(cc, op_size(i, 0), mem)?, op);
    }
    None
}
