// SPDX-License-Identifier: Apache-2.0
//! Stores to memory: the result is worked out, written, and only then is the stack changed.

use super::{unpack, waiting, INDEFINITE};
use crate::cpu::exec::softfp::{self, convert, flag, rc, Class, Env, Format, F32, F64};
use crate::cpu::fault::Exec;
use crate::cpu::x87state::F80;
use crate::cpu::{Cpu, Scalar, SlowFn};
use iced_x86::{Code, Instruction};

/// Writes what `f` makes of ST(0) and pops if asked. `empty` is what a masked stack underflow stores.
fn store(
    cpu: &mut Cpu,
    i: &Instruction,
    pop: bool,
    empty: u128,
    len: usize,
    f: impl Fn(&mut Env, F80) -> u128,
) -> Exec {
    let va = cpu.ea(i);
    cpu.check_alignment(va, if len == 10 { 8 } else { len })?;
    let Some(a) = cpu.fpu.x87.get(0) else {
        if cpu.fpu.x87.masked(flag::IE) {
            write(cpu, va, empty, len)?;
        } else {
            cpu.probe_write(va, len)?;
        }
        if cpu.fpu.x87.stack_fault(false) && pop {
            cpu.fpu.x87.pop();
        }
        return Ok(());
    };
    let mut env = cpu.fpu.x87.env();
    let v = f(&mut env, a);
    let stores = cpu.fpu.x87.would_store(&env);
    if stores {
        write(cpu, va, v, len)?;
    } else {
        cpu.probe_write(va, len)?;
    }
    if !stores {
        // Nothing was rounded into memory.
        env.flags &= !flag::PE;
    }
    cpu.fpu.x87.settle(&env);
    if stores && pop {
        cpu.fpu.x87.pop();
    }
    Ok(())
}

fn write(cpu: &mut Cpu, va: u64, v: u128, len: usize) -> Exec {
    match len {
        2 => cpu.write::<u16>(va, v as u16),
        4 => cpu.write::<u32>(va, v as u32),
        8 => cpu.write::<u64>(va, v as u64),
        _ => cpu.write_bytes(va, v.to_le_bytes().get(..len).unwrap_or(&[])),
    }
}

fn float<F: Format>(env: &mut Env, a: F80) -> u128 {
    let u = unpack(a);
    if u.is_snan() || u.class == Class::Bad {
        env.flags |= flag::IE;
    }
    u128::from(softfp::pack::<F>(env, u.res()))
}

fn integer(env: &mut Env, a: F80, truncate: bool, bits: u32) -> u128 {
    let rounding = if truncate { rc::ZERO } else { env.rc };
    let v = convert::to_int(env, &unpack(a), rounding, bits).unwrap_or(i64::MIN >> (64 - bits));
    u128::from(v as u64)
}

const BCD_INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

fn bcd(env: &mut Env, a: F80) -> u128 {
    let u = unpack(a);
    let rounding = env.rc;
    let magnitude = convert::to_int(env, &u, rounding, 64).map(i64::unsigned_abs);
    let Some(mut rest) = magnitude.filter(|&m| m <= 999_999_999_999_999_999) else {
        env.flags = flag::IE;
        return BCD_INDEFINITE;
    };
    let mut out = u128::from(u.sign) << 79;
    for k in 0..18 {
        out |= u128::from(rest % 10) << (4 * k);
        rest /= 10;
    }
    out
}

macro_rules! fst {
    ($f:ty, $t:ty, $empty:literal, $pop:literal) => {
        waiting!(|cpu, i| store(cpu, i, $pop, $empty, <$t as Scalar>::SIZE, float::<$f>))
    };
}
macro_rules! fist {
    ($bits:literal, $truncate:literal, $pop:literal) => {
        waiting!(
            |cpu, i| store(cpu, i, $pop, 1 << ($bits - 1), $bits / 8, |env, a| {
                integer(env, a, $truncate, $bits)
            })
        )
    };
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Fst_m32fp => fst!(F32, u32, 0xffc0_0000, false),
        Fstp_m32fp => fst!(F32, u32, 0xffc0_0000, true),
        Fst_m64fp => fst!(F64, u64, 0xfff8_0000_0000_0000, false),
        Fstp_m64fp => fst!(F64, u64, 0xfff8_0000_0000_0000, true),
        Fstp_m80fp => waiting!(|cpu, i| {
            let raw = |v: F80| u128::from(v.m) | u128::from(v.se) << 64;
            store(cpu, i, true, raw(INDEFINITE), 10, |_, a| raw(a))
        }),
        Fist_m16int => fist!(16, false, false),
        Fistp_m16int => fist!(16, false, true),
        Fisttp_m16int => fist!(16, true, true),
        Fist_m32int => fist!(32, false, false),
        Fistp_m32int => fist!(32, false, true),
        Fisttp_m32int => fist!(32, true, true),
        Fistp_m64int => fist!(64, false, true),
        Fisttp_m64int => fist!(64, true, true),
        Fbstp_m80bcd => waiting!(|cpu, i| store(cpu, i, true, BCD_INDEFINITE, 10, bcd)),
        _ => return None,
    })
}
