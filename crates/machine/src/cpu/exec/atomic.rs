// SPDX-License-Identifier: Apache-2.0
//! xadd and compare-and-exchange.

use super::alu::{add, sub};
use super::operand::*;
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

fn xadd<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let src = i.op1_register();
    let b = gpr(cpu, src);
    if i.op0_kind() == OpKind::Register {
        // The source gets the old value first, so that `xadd r, r` ends with the sum.
        let a = gpr(cpu, i.op0_register());
        let (r, f) = add::<B>(a, b, 0);
        set_gpr(cpu, src, a);
        set_gpr(cpu, i.op0_register(), r);
        cpu.set_arith_flags(f);
        return Ok(());
    }
    let va = cpu.ea(i);
    let old = rmw_mem::<B>(cpu, va, i.has_lock_prefix(), &mut |a| Some(add::<B>(a, b, 0).0))?;
    set_gpr(cpu, src, old);
    cpu.set_arith_flags(add::<B>(old, b, 0).1);
    Ok(())
}

fn cmpxchg<const B: u32>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let new = gpr(cpu, i.op1_register());
    let expected = acc::<B>(cpu);
    let old = if i.op0_kind() == OpKind::Register {
        let r = i.op0_register();
        let old = gpr(cpu, r);
        // Only the side that is written is zero-extended by a 32-bit form.
        if old == expected {
            set_gpr(cpu, r, new);
        }
        old
    } else {
        let va = cpu.ea(i);
        rmw_mem::<B>(cpu, va, i.has_lock_prefix(), &mut |o| {
            (o == expected).then_some(new)
        })?
    };
    if old != expected {
        set_low::<B>(cpu, RAX, old);
    }
    cpu.set_arith_flags(sub::<B>(expected, old, 0).1);
    Ok(())
}

fn set_zf(cpu: &mut Cpu, on: bool) {
    let f = cpu.rflags() & ARITH & !ZF;
    cpu.set_arith_flags(f | flag(ZF, on));
}

fn cmpxchg8b(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let pair = |cpu: &Cpu, h: usize, l: usize| cpu.regs[h] << 32 | cpu.regs[l] & mask(32);
    let (expected, new) = (pair(cpu, RDX, RAX), pair(cpu, RCX, RBX));
    let va = cpu.ea(i);
    let old = rmw_mem::<64>(cpu, va, i.has_lock_prefix(), &mut |o| {
        (o == expected).then_some(new)
    })?;
    if old != expected {
        set_low::<32>(cpu, RAX, old);
        set_low::<32>(cpu, RDX, old >> 32);
    }
    set_zf(cpu, old == expected);
    Ok(())
}

fn cmpxchg16b(cpu: &mut Cpu, i: &Instruction) -> Exec {
    let pair = |cpu: &Cpu, h: usize, l: usize| (cpu.regs[h] as u128) << 64 | cpu.regs[l] as u128;
    let (expected, new) = (pair(cpu, RDX, RAX), pair(cpu, RCX, RBX));
    let va = cpu.ea(i);
    if va & 15 != 0 {
        return Err(Fault::gp().into());
    }
    let old = cpu.rmw::<u128>(va, i.has_lock_prefix(), &mut |o: u128| {
        (o == expected).then_some(new)
    })?;
    if old != expected {
        cpu.regs[RAX] = old as u64;
        cpu.regs[RDX] = (old >> 64) as u64;
    }
    set_zf(cpu, old == expected);
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Xadd_rm8_r8 => xadd::<8>,
        Xadd_rm16_r16 => xadd::<16>,
        Xadd_rm32_r32 => xadd::<32>,
        Xadd_rm64_r64 => xadd::<64>,
        Cmpxchg_rm8_r8 => cmpxchg::<8>,
        Cmpxchg_rm16_r16 => cmpxchg::<16>,
        Cmpxchg_rm32_r32 => cmpxchg::<32>,
        Cmpxchg_rm64_r64 => cmpxchg::<64>,
        Cmpxchg8b_m64 => cmpxchg8b,
        Cmpxchg16b_m128 => cmpxchg16b,
        _ => return None,
    })
}
