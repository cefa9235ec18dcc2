// SPDX-License-Identifier: Apache-2.0
//! Partial remainder: `fprem` (quotient cut) and `fprem1` (quotient to nearest).

use super::{pack, unpack, waiting, EXTENDED, INDEFINITE};
use crate::cpu::exec::softfp::{arith, Class, Env, Res, Un};
use crate::cpu::fault::Exec;
use crate::cpu::x87state::sw;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::Code;

/// Divides significands for `steps` more bits: quotient (its low bits) and remainder.
fn divide(mut r: u64, d: u64, steps: u32) -> (u64, u64) {
    let mut q = 0u64;
    if r >= d {
        r -= d;
        q = 1;
    }
    for _ in 0..steps {
        let wide = u128::from(r) << 1;
        q <<= 1;
        if wide >= u128::from(d) {
            r = (wide - u128::from(d)) as u64;
            q |= 1;
        } else {
            r = wide as u64;
        }
    }
    (q, r)
}

/// A number from a significand that need not be normalised, at `exp`.
fn number(sign: bool, exp: i32, sig: u128) -> Res {
    if sig == 0 {
        return Res::Zero(sign);
    }
    let lz = sig.leading_zeros();
    Res::Num(sign, exp + 64 - lz as i32, sig << lz)
}

/// The remainder, the low bits of the quotient, and whether the reduction is only partial.
fn partial(env: &mut Env, a: &Un, b: &Un, nearest: bool) -> (Res, u64, bool) {
    if a.class == Class::Bad || b.class == Class::Bad {
        return (env.invalid(), 0, false);
    }
    if a.is_nan() || b.is_nan() {
        return (arith::pick_nan(env, a, b), 0, false);
    }
    if a.is_inf() || b.is_zero() {
        return (env.invalid(), 0, false);
    }
    env.denormals(a, b);
    if a.is_zero() || b.is_inf() {
        return (a.res(), 0, false);
    }
    let distance = a.exp - b.exp;
    if distance < -1 || (distance < 0 && !nearest) {
        return (a.res(), 0, false);
    }
    if distance == -1 {
        // |a| < |b|: nearest goes up when |a| is more than half of |b|.
        return if a.sig > b.sig {
            (
                number(!a.sign, a.exp, (u128::from(b.sig) << 1) - u128::from(a.sig)),
                1,
                false,
            )
        } else {
            (a.res(), 0, false)
        };
    }
    if distance >= 64 {
        // Reduces the distance by 32 to 63, as processors do.
        let steps = (distance as u32 & 31) | 32;
        let (_, r) = divide(a.sig, b.sig, steps);
        return (number(a.sign, a.exp - steps as i32, u128::from(r)), 0, true);
    }
    let (q, r) = divide(a.sig, b.sig, distance as u32);
    let twice = u128::from(r) << 1;
    if nearest && (twice > u128::from(b.sig) || (twice == u128::from(b.sig) && q & 1 == 1)) {
        return (
            number(!a.sign, b.exp, u128::from(b.sig - r)),
            q.wrapping_add(1),
            false,
        );
    }
    (number(a.sign, b.exp, u128::from(r)), q, false)
}

fn remainder(cpu: &mut Cpu, nearest: bool) -> Exec {
    cpu.fpu.x87.status &= !sw::C2;
    let (Some(a), Some(b)) = (cpu.fpu.x87.get(0), cpu.fpu.x87.get(1)) else {
        if cpu.fpu.x87.stack_fault(false) {
            cpu.fpu.x87.put(0, INDEFINITE);
        }
        return Ok(());
    };
    let mut env = cpu.fpu.x87.env();
    let (res, q, incomplete) = partial(&mut env, &unpack(a), &unpack(b), nearest);
    let v = pack(&mut env, res, &EXTENDED);
    if !cpu.fpu.x87.settle(&env) {
        return Ok(());
    }
    cpu.fpu.x87.put(0, v);
    if matches!(res, Res::Nan(_)) {
        // C0 and C3 keep what they had.
        cpu.fpu.x87.status &= !(sw::C1 | sw::C2);
        return Ok(());
    }
    let bit = |on: bool, code: u16| if on { code } else { 0 };
    let codes = if incomplete {
        sw::C2
    } else {
        bit(q & 4 != 0, sw::C0) | bit(q & 2 != 0, sw::C3) | bit(q & 1 != 0, sw::C1)
    };
    cpu.fpu.x87.status = (cpu.fpu.x87.status & !(sw::C0 | sw::C1 | sw::C2 | sw::C3)) | codes;
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Fprem => waiting!(|cpu, i| remainder(cpu, false)),
        Fprem1 => waiting!(|cpu, i| remainder(cpu, true)),
        _ => return None,
    })
}
