// SPDX-License-Identifier: Apache-2.0
//! Instructions that only 32-bit code has: decimal adjustment, bound, into, arpl.

use super::operand::*;
use crate::cpu::fault::{vector, Exec, Fault, Trap};
use crate::cpu::regs::seg_index;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

/// daa and das.
fn decimal<const SUB: bool>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let flags = cpu.rflags();
    let old = cpu.regs[RAX] as u8;
    let step = |al: u8, by: u8| {
        if SUB {
            al.wrapping_sub(by)
        } else {
            al.wrapping_add(by)
        }
    };
    let (mut al, mut out) = (old, 0);
    if old & 15 > 9 || flags & AF != 0 {
        al = step(al, 6);
        let carried = if SUB { old < 6 } else { old > 0xf9 };
        out |= AF | flag(CF, flags & CF != 0 || carried);
    }
    if old > 0x99 || flags & CF != 0 {
        al = step(al, 0x60);
        out |= CF;
    }
    set_low::<8>(cpu, RAX, u64::from(al));
    cpu.set_arith_flags(out | szp::<8>(u64::from(al)));
    Ok(())
}

/// aaa and aas.
fn ascii<const SUB: bool>(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let ax = cpu.regs[RAX] as u16;
    let adjust = ax & 15 > 9 || cpu.rflags() & AF != 0;
    let ax = match (adjust, SUB) {
        (true, false) => ax.wrapping_add(0x106),
        (true, true) => ax.wrapping_sub(0x106),
        _ => ax,
    } & 0xff0f;
    set_low::<16>(cpu, RAX, u64::from(ax));
    cpu.set_arith_flags(flag(AF | CF, adjust) | szp::<8>(u64::from(ax)));
    Ok(())
}

fn aam(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let al = cpu.regs[RAX] & 0xff;
    let base = imm(i, 0) & 0xff;
    let (Some(q), Some(r)) = (al.checked_div(base), al.checked_rem(base)) else {
        return Err(Fault::new(vector::DE).into());
    };
    set_low::<16>(cpu, RAX, q << 8 | r);
    cpu.set_arith_flags(szp::<8>(r));
    Ok(())
}

fn aad(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let ax = cpu.regs[RAX];
    let al = ((ax & 0xff) + (ax >> 8 & 0xff) * (imm(i, 0) & 0xff)) & 0xff;
    set_low::<16>(cpu, RAX, al);
    cpu.set_arith_flags(szp::<8>(al));
    Ok(())
}

fn salc(cpu: &mut Cpu, _: &Instruction) -> Exec {
    let v = if cpu.rflags() & CF != 0 { 0xff } else { 0 };
    set_low::<8>(cpu, RAX, v);
    Ok(())
}

fn into(cpu: &mut Cpu, i: &Instruction) -> Exec {
    if cpu.rflags() & OF == 0 {
        return Ok(());
    }
    Err(Trap::SoftInt {
        vector: vector::OF,
        len: i.len() as u8,
    })
}

fn bound<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let bytes = u64::from(B / 8);
    let low = load::<B>(cpu, ea_moved(cpu, i, 0, bytes))?;
    let high = load::<B>(cpu, ea_moved(cpu, i, bytes, bytes))?;
    let at = sext(B, gpr(cpu, i.op0_register())) as i64;
    if at < sext(B, low) as i64 || at > sext(B, high) as i64 {
        return Err(Fault::new(vector::BR).into());
    }
    Ok(())
}

fn arpl(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let rpl = gpr(cpu, i.op1_register()) & 3;
    // Operand 0 is 16 bits wide even where its register is named by 32.
    let adjust = |old: u64| (old & 3 < rpl).then_some(old & !3 | rpl);
    let raised = if i.op0_kind() == iced_x86::OpKind::Register {
        let n = crate::cpu::regs::gpr_index(i.op0_register());
        let new = adjust(cpu.regs[n & 15] & 0xffff);
        if let Some(v) = new {
            set_low::<16>(cpu, n, v);
        }
        new.is_some()
    } else {
        // It must be writable only if it changes.
        let (seg, off) = (seg_index(i.memory_segment()), cpu.ea_offset(i));
        let new = adjust(load::<16>(cpu, cpu.checked_va(seg, off, 2, false))?);
        if let Some(v) = new {
            store::<16>(cpu, cpu.checked_va(seg, off, 2, true), v)?;
        }
        new.is_some()
    };
    let f = cpu.rflags() & !ZF;
    cpu.set_arith_flags(f | flag(ZF, raised));
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Daa => decimal::<false>,
        Das => decimal::<true>,
        Aaa => ascii::<false>,
        Aas => ascii::<true>,
        Aam_imm8 => aam,
        Aad_imm8 => aad,
        Salc => salc,
        Into => into,
        Bound_r16_m1616 => bound::<16>,
        Bound_r32_m3232 => bound::<32>,
        Arpl_rm16_r16 | Arpl_r32m16_r32 => arpl,
        _ => return None,
    })
}
