// SPDX-License-Identifier: Apache-2.0
//! Compares, tests and classification.

use super::{mem_f32, mem_f64, mem_i16, mem_i32, sn, unpack, waiting};
use crate::cpu::exec::softfp::{arith, Class, Un};
use crate::cpu::fault::Exec;
use crate::cpu::x87state::sw;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::Code;
use std::cmp::Ordering;

/// The order of ST(0) and `b`, and whether the instruction completes (and pops). An unmasked #I stores "unordered" all the same;
/// an unmasked #D (`None`) stores nothing.
fn order(cpu: &mut Cpu, b: Option<Un>, quiet_too: bool) -> Option<(Option<Ordering>, bool)> {
    let (Some(a), Some(b)) = (cpu.fpu.x87.get(0), b) else {
        let masked = cpu.fpu.x87.stack_fault(false);
        return Some((None, masked));
    };
    let mut env = cpu.fpu.x87.env();
    let o = arith::compare(&mut env, &unpack(a), &b, quiet_too);
    cpu.fpu.x87.raise_keeping_c1(env.flags);
    let masked = cpu.fpu.x87.masked(env.flags);
    (masked || o.is_none()).then_some((o, masked))
}

/// Into C3, C2, C0.
fn codes(cpu: &mut Cpu, b: Option<Un>, quiet_too: bool, pops: u8) -> Exec {
    let o = order(cpu, b, quiet_too);
    let Some((o, completes)) = o else { return Ok(()) };
    let bits = match o {
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => sw::C0,
        Some(Ordering::Equal) => sw::C3,
        None => sw::C0 | sw::C2 | sw::C3,
    };
    cpu.fpu.x87.status = (cpu.fpu.x87.status & !(sw::C0 | sw::C1 | sw::C2 | sw::C3)) | bits;
    if completes {
        (0..pops).for_each(|_| cpu.fpu.x87.pop());
    }
    Ok(())
}

/// Into ZF, PF, CF.
fn flags(cpu: &mut Cpu, n: u8, quiet_too: bool, pop: bool) -> Exec {
    let b = cpu.fpu.x87.get(n).map(unpack);
    let o = order(cpu, b, quiet_too);
    let Some((o, completes)) = o else { return Ok(()) };
    cpu.set_arith_flags(match o {
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => 1,
        Some(Ordering::Equal) => 0x40,
        None => 0x45,
    });
    if pop && completes {
        cpu.fpu.x87.pop();
    }
    Ok(())
}

fn examine(cpu: &mut Cpu) -> Exec {
    let slot = cpu.fpu.x87.slot(0) & 7;
    let v = cpu.fpu.x87.regs[slot];
    let class = if cpu.fpu.x87.get(0).is_none() {
        sw::C3 | sw::C0
    } else {
        let u = unpack(v);
        match u.class {
            Class::Bad => 0,
            Class::Nan => sw::C0,
            Class::Inf => sw::C2 | sw::C0,
            Class::Zero => sw::C3,
            Class::Num if u.denormal => sw::C3 | sw::C2,
            Class::Num => sw::C2,
        }
    };
    let kept = cpu.fpu.x87.status & !(sw::C0 | sw::C1 | sw::C2 | sw::C3);
    cpu.fpu.x87.status = kept | class | if v.se & 0x8000 != 0 { sw::C1 } else { 0 };
    Ok(())
}

macro_rules! mem {
    ($read:ident, $pops:literal) => {
        waiting!(|cpu, i| {
            let b = $read(cpu, i)?;
            codes(cpu, Some(b), true, $pops)
        })
    };
}
macro_rules! reg {
    ($quiet:literal, $pops:literal) => {
        waiting!(|cpu, i| {
            let b = cpu.fpu.x87.get(sn(i.op1_register())).map(unpack);
            codes(cpu, b, $quiet, $pops)
        })
    };
}
/// With ST(1), both popped.
macro_rules! both {
    ($quiet:literal) => {
        waiting!(|cpu, i| {
            let b = cpu.fpu.x87.get(1).map(unpack);
            codes(cpu, b, $quiet, 2)
        })
    };
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Fcom_m32fp => mem!(mem_f32, 0),
        Fcomp_m32fp => mem!(mem_f32, 1),
        Fcom_m64fp => mem!(mem_f64, 0),
        Fcomp_m64fp => mem!(mem_f64, 1),
        Ficom_m16int => mem!(mem_i16, 0),
        Ficomp_m16int => mem!(mem_i16, 1),
        Ficom_m32int => mem!(mem_i32, 0),
        Ficomp_m32int => mem!(mem_i32, 1),
        Fcom_st0_sti | Fcom_st0_sti_DCD0 => reg!(true, 0),
        Fcomp_st0_sti | Fcomp_st0_sti_DCD8 | Fcomp_st0_sti_DED0 => reg!(true, 1),
        Fucom_st0_sti => reg!(false, 0),
        Fucomp_st0_sti => reg!(false, 1),
        Fcompp => both!(true),
        Fucompp => both!(false),
        Ftst => waiting!(|cpu, i| codes(cpu, Some(Un::zero(false)), true, 0)),
        Fcomi_st0_sti => waiting!(|cpu, i| flags(cpu, sn(i.op1_register()), true, false)),
        Fcomip_st0_sti => waiting!(|cpu, i| flags(cpu, sn(i.op1_register()), true, true)),
        Fucomi_st0_sti => waiting!(|cpu, i| flags(cpu, sn(i.op1_register()), false, false)),
        Fucomip_st0_sti => waiting!(|cpu, i| flags(cpu, sn(i.op1_register()), false, true)),
        Fxam => waiting!(|cpu, i| examine(cpu)),
        _ => return None,
    })
}
