// SPDX-License-Identifier: Apache-2.0
//! Add, subtract, multiply, divide, square root, sign, round, scale, extract.

use super::{
    mem_f32, mem_f64, mem_i16, mem_i32, pack, sn, target, unary, unpack, waiting, EXTENDED, INDEFINITE,
};
use crate::cpu::exec::softfp::{arith, convert, flag, Class, Env, Res, Un};
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::Code;

type Op = fn(&mut Env, &Un, &Un) -> Res;

fn subr(env: &mut Env, a: &Un, b: &Un) -> Res {
    arith::sub(env, b, a)
}
fn divr(env: &mut Env, a: &Un, b: &Un) -> Res {
    arith::div(env, b, a)
}

/// `ST(dst) = f(ST(dst), b)`; false if nothing was stored.
fn apply(cpu: &mut Cpu, dst: u8, b: Option<Un>, f: Op) -> bool {
    let (Some(a), Some(b)) = (cpu.fpu.x87.get(dst), b) else {
        let masked = cpu.fpu.x87.stack_fault(false);
        if masked {
            cpu.fpu.x87.put(dst, INDEFINITE);
        }
        return masked;
    };
    let mut env = cpu.fpu.x87.env();
    let res = f(&mut env, &unpack(a), &b);
    let v = pack(&mut env, res, &target(cpu));
    let stored = cpu.fpu.x87.settle(&env);
    if stored {
        cpu.fpu.x87.put(dst, v);
    }
    stored
}

fn registers(cpu: &mut Cpu, dst: u8, src: u8, pop: bool, f: Op) -> Exec {
    let b = cpu.fpu.x87.get(src).map(unpack);
    if apply(cpu, dst, b, f) && pop {
        cpu.fpu.x87.pop();
    }
    Ok(())
}

macro_rules! mem {
    ($read:ident, $f:path) => {
        waiting!(|cpu, i| {
            let b = $read(cpu, i)?;
            apply(cpu, 0, Some(b), $f);
            Ok(())
        })
    };
}
macro_rules! st0 {
    ($f:path) => {
        waiting!(|cpu, i| registers(cpu, 0, sn(i.op1_register()), false, $f))
    };
}
macro_rules! sti {
    ($f:path, $pop:literal) => {
        waiting!(|cpu, i| registers(cpu, sn(i.op0_register()), 0, $pop, $f))
    };
}

fn rndint(env: &mut Env, a: &Un) -> Res {
    match a.class {
        Class::Bad => env.invalid(),
        Class::Nan => arith::pick_nan(env, a, a),
        _ => {
            env.denormals(a, a);
            let rounding = env.rc;
            convert::round_int(env, a, rounding, true)
        }
    }
}

/// ST(0) times two to the power of ST(1) cut to an integer.
fn scale(env: &mut Env, a: &Un, b: &Un) -> Res {
    if a.class == Class::Bad || b.class == Class::Bad {
        return env.invalid();
    }
    if a.is_nan() || b.is_nan() {
        return arith::pick_nan(env, a, b);
    }
    if b.is_inf() {
        if if b.sign { a.is_inf() } else { a.is_zero() } {
            return env.invalid();
        }
        env.denormals(a, b);
        return if b.sign {
            Res::Zero(a.sign)
        } else {
            Res::Inf(a.sign)
        };
    }
    env.denormals(a, b);
    let Res::Num(sign, exp, sig) = a.res() else {
        return a.res();
    };
    let n = match b.class {
        Class::Num if b.exp >= 17 => 1 << 17,
        Class::Num if b.exp >= 0 => (b.sig >> (63 - b.exp)) as i32,
        _ => 0,
    };
    Res::Num(sign, if b.sign { exp - n } else { exp + n }, sig)
}

/// Exponent into ST(0), significand pushed.
fn extract(cpu: &mut Cpu) -> Exec {
    let Some(a) = cpu.fpu.x87.get(0) else {
        if cpu.fpu.x87.stack_fault(false) {
            cpu.fpu.x87.put(0, INDEFINITE);
            cpu.fpu.x87.push_unchecked(INDEFINITE);
        }
        return Ok(());
    };
    if cpu.fpu.x87.get(7).is_some() {
        if cpu.fpu.x87.stack_fault(true) {
            cpu.fpu.x87.put(0, INDEFINITE);
            cpu.fpu.x87.push_unchecked(INDEFINITE);
        }
        return Ok(());
    }
    let mut env = cpu.fpu.x87.env();
    let u = unpack(a);
    let (exponent, significand) = match u.class {
        Class::Bad => (env.invalid(), env.invalid()),
        Class::Nan => {
            let r = arith::pick_nan(&mut env, &u, &u);
            (r, r)
        }
        Class::Inf => (Res::Inf(false), Res::Inf(u.sign)),
        Class::Zero => {
            env.flags |= flag::ZE;
            (Res::Inf(true), Res::Zero(u.sign))
        }
        Class::Num => {
            env.denormals(&u, &u);
            (
                convert::from_int(i64::from(u.exp)).res(),
                Res::Num(u.sign, 0, u128::from(u.sig) << 64),
            )
        }
    };
    let exponent = pack(&mut env, exponent, &EXTENDED);
    let significand = pack(&mut env, significand, &EXTENDED);
    if cpu.fpu.x87.settle(&env) {
        cpu.fpu.x87.put(0, exponent);
        cpu.fpu.x87.push(significand);
    }
    Ok(())
}

/// Changes the sign bit only, whatever the value.
fn sign(cpu: &mut Cpu, f: impl Fn(u16) -> u16) -> Exec {
    match cpu.fpu.x87.get(0) {
        Some(mut v) => {
            v.se = f(v.se);
            cpu.fpu.x87.set_c1(false);
            cpu.fpu.x87.put(0, v);
        }
        None => {
            if cpu.fpu.x87.stack_fault(false) {
                cpu.fpu.x87.put(0, INDEFINITE);
            }
        }
    }
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Fadd_m32fp => mem!(mem_f32, arith::add),
        Fmul_m32fp => mem!(mem_f32, arith::mul),
        Fsub_m32fp => mem!(mem_f32, arith::sub),
        Fsubr_m32fp => mem!(mem_f32, subr),
        Fdiv_m32fp => mem!(mem_f32, arith::div),
        Fdivr_m32fp => mem!(mem_f32, divr),
        Fadd_m64fp => mem!(mem_f64, arith::add),
        Fmul_m64fp => mem!(mem_f64, arith::mul),
        Fsub_m64fp => mem!(mem_f64, arith::sub),
        Fsubr_m64fp => mem!(mem_f64, subr),
        Fdiv_m64fp => mem!(mem_f64, arith::div),
        Fdivr_m64fp => mem!(mem_f64, divr),
        Fiadd_m32int => mem!(mem_i32, arith::add),
        Fimul_m32int => mem!(mem_i32, arith::mul),
        Fisub_m32int => mem!(mem_i32, arith::sub),
        Fisubr_m32int => mem!(mem_i32, subr),
        Fidiv_m32int => mem!(mem_i32, arith::div),
        Fidivr_m32int => mem!(mem_i32, divr),
        Fiadd_m16int => mem!(mem_i16, arith::add),
        Fimul_m16int => mem!(mem_i16, arith::mul),
        Fisub_m16int => mem!(mem_i16, arith::sub),
        Fisubr_m16int => mem!(mem_i16, subr),
        Fidiv_m16int => mem!(mem_i16, arith::div),
        Fidivr_m16int => mem!(mem_i16, divr),
        Fadd_st0_sti => st0!(arith::add),
        Fmul_st0_sti => st0!(arith::mul),
        Fsub_st0_sti => st0!(arith::sub),
        Fsubr_st0_sti => st0!(subr),
        Fdiv_st0_sti => st0!(arith::div),
        Fdivr_st0_sti => st0!(divr),
        Fadd_sti_st0 => sti!(arith::add, false),
        Fmul_sti_st0 => sti!(arith::mul, false),
        Fsub_sti_st0 => sti!(arith::sub, false),
        Fsubr_sti_st0 => sti!(subr, false),
        Fdiv_sti_st0 => sti!(arith::div, false),
        Fdivr_sti_st0 => sti!(divr, false),
        Faddp_sti_st0 => sti!(arith::add, true),
        Fmulp_sti_st0 => sti!(arith::mul, true),
        Fsubp_sti_st0 => sti!(arith::sub, true),
        Fsubrp_sti_st0 => sti!(subr, true),
        Fdivp_sti_st0 => sti!(arith::div, true),
        Fdivrp_sti_st0 => sti!(divr, true),
        Fsqrt => waiting!(|cpu, i| unary(cpu, &target(cpu), arith::sqrt)),
        Frndint => waiting!(|cpu, i| unary(cpu, &EXTENDED, rndint)),
        Fscale => waiting!(|cpu, i| {
            let b = cpu.fpu.x87.get(1).map(unpack);
            if b.is_none() {
                if cpu.fpu.x87.stack_fault(false) {
                    cpu.fpu.x87.put(0, INDEFINITE);
                }
                return Ok(());
            }
            unary(cpu, &EXTENDED, |env, a| {
                b.map_or(Res::Zero(false), |b| scale(env, a, &b))
            })
        }),
        Fxtract => waiting!(|cpu, i| extract(cpu)),
        Fchs => waiting!(|cpu, i| sign(cpu, |se| se ^ 0x8000)),
        Fabs => waiting!(|cpu, i| sign(cpu, |se| se & 0x7fff)),
        _ => return None,
    })
}
