// SPDX-License-Identifier: Apache-2.0
//! Scalar and packed floating-point arithmetic, compares and rounding.

use super::{finish, handler, lane as l, low32, low64, packed, src128, src32, src64, x0};
use crate::cpu::exec::softfp::{fast, unpack, Class, Env, Format, F32, F64};
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};
use std::cmp::Ordering;

#[inline(always)]
fn scalar32(cpu: &mut Cpu, i: &Instruction, f: impl Fn(&mut Env, u64, u64) -> u64) -> Exec {
    let b = src32(cpu, i)?;
    let d = x0(i);
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let r = f(&mut env, u64::from(cpu.fpu.xmm[d] as u32), u64::from(b));
    finish(cpu, &env)?;
    cpu.fpu.xmm[d] = low32(cpu.fpu.xmm[d], r as u32);
    Ok(())
}
#[inline(always)]
fn scalar64(cpu: &mut Cpu, i: &Instruction, f: impl Fn(&mut Env, u64, u64) -> u64) -> Exec {
    let b = src64(cpu, i)?;
    let d = x0(i);
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let r = f(&mut env, cpu.fpu.xmm[d] as u64, b);
    finish(cpu, &env)?;
    cpu.fpu.xmm[d] = low64(cpu.fpu.xmm[d], r);
    Ok(())
}
/// A whole-register operation on lanes of 32 bits.
#[inline(always)]
fn whole32(cpu: &mut Cpu, i: &Instruction, f: impl Fn(&mut Env, [u64; 4], [u64; 4]) -> [u64; 4]) -> Exec {
    let b = src128(cpu, i)?;
    let d = x0(i);
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let r = f(
        &mut env,
        l::dwords(cpu.fpu.xmm[d]).map(u64::from),
        l::dwords(b).map(u64::from),
    );
    finish(cpu, &env)?;
    cpu.fpu.xmm[d] = l::from_dwords(r.map(|x| x as u32));
    Ok(())
}
#[inline(always)]
fn whole64(cpu: &mut Cpu, i: &Instruction, f: impl Fn(&mut Env, [u64; 2], [u64; 2]) -> [u64; 2]) -> Exec {
    let b = src128(cpu, i)?;
    let d = x0(i);
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let r = f(&mut env, l::qwords(cpu.fpu.xmm[d]), l::qwords(b));
    finish(cpu, &env)?;
    cpu.fpu.xmm[d] = l::from_qwords(r);
    Ok(())
}

macro_rules! ss {
    ($f:expr) => {
        handler!(|cpu, i| scalar32(cpu, i, $f))
    };
}
macro_rules! sd {
    ($f:expr) => {
        handler!(|cpu, i| scalar64(cpu, i, $f))
    };
}
macro_rules! ps {
    ($f:expr) => {
        handler!(|cpu, i| whole32(cpu, i, |env, a, b| std::array::from_fn(|k| $f(env, a[k], b[k]))))
    };
}
/// Packed single with a shortcut for all lanes together.
macro_rules! quick_ps {
    ($quick:path, $f:expr) => {
        handler!(|cpu, i| {
            if Env::is_fast(cpu.fpu.mxcsr) {
                let b = src128(cpu, i)?;
                let d = x0(i);
                if let Some(r) = $quick(cpu.fpu.xmm[d], b) {
                    cpu.fpu.xmm[d] = r;
                    return Ok(());
                }
            }
            whole32(cpu, i, |env, a, b| std::array::from_fn(|k| $f(env, a[k], b[k])))
        })
    };
}
macro_rules! pd {
    ($f:expr) => {
        handler!(|cpu, i| whole64(cpu, i, |env, a, b| std::array::from_fn(|k| $f(env, a[k], b[k]))))
    };
}
/// Scalar and packed with an immediate.
macro_rules! with_imm {
    ($shape:ident, $f:expr) => {
        handler!(|cpu, i| {
            let imm = i.immediate8();
            $shape(cpu, i, |env, a, b| $f(env, a, b, imm))
        })
    };
}

pub(crate) fn sqrt<F: Format>(env: &mut Env, _: u64, b: u64) -> u64 {
    fast::sqrt::<F>(env, b)
}
fn cmp<F: Format>(env: &mut Env, a: u64, b: u64, imm: u8) -> u64 {
    if fast::predicate::<F>(env, a, b, imm) {
        u64::MAX
    } else {
        0
    }
}
pub(crate) fn round<F: Format>(env: &mut Env, _: u64, b: u64, imm: u8) -> u64 {
    fast::round_imm::<F>(env, b, imm)
}

/// `comiss`, `ucomiss` and the double forms: ZF, PF, CF from the order.
pub(crate) fn compare<F: Format>(cpu: &mut Cpu, a: u64, b: u64, quiet_too: bool) -> Exec {
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let order = fast::compare::<F>(&mut env, a, b, quiet_too);
    finish(cpu, &env)?;
    cpu.set_arith_flags(match order {
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => 1,
        Some(Ordering::Equal) => 0x40,
        None => 0x45,
    });
    Ok(())
}

macro_rules! comi {
    ($src:ident, $f:ty, $quiet:literal) => {
        handler!(|cpu, i| {
            let b = u64::from($src(cpu, i)?);
            let a = cpu.fpu.xmm[x0(i)] as u64 & (<$f>::SIGN | (<$f>::SIGN - 1));
            compare::<$f>(cpu, a, b, $quiet)
        })
    };
}

/// Pairs of one operand, as `haddps` takes them.
#[inline(always)]
pub(crate) fn pairs(
    env: &mut Env,
    a: [u64; 4],
    b: [u64; 4],
    f: impl Fn(&mut Env, u64, u64) -> u64,
) -> [u64; 4] {
    [
        f(env, a[0], a[1]),
        f(env, a[2], a[3]),
        f(env, b[0], b[1]),
        f(env, b[2], b[3]),
    ]
}

/// An approximation with 12 bits, `1/x` or `1/sqrt(x)`: no flags, denormals are zeros, tiny results too.
/// Processors differ in the low bits; this is the correctly rounded value cut to 12 bits of fraction.
pub(crate) fn approximate(bits: u64, reciprocal_root: bool) -> u64 {
    let u = unpack::<F32>(bits, true);
    let sign = bits & F32::SIGN;
    match u.class {
        Class::Nan => return bits | 1 << 22,
        Class::Zero => return sign | 0x7f80_0000,
        _ if reciprocal_root && u.sign => return 0xffc0_0000,
        Class::Inf => return sign,
        _ => {}
    }
    let x = f64::from(f32::from_bits(bits as u32));
    let y = if reciprocal_root { 1.0 / x.sqrt() } else { 1.0 / x };
    let cut = (y as f32).to_bits().wrapping_add(0x400) & !0x7ff;
    // Not above the smallest normal number before it is rounded: zero.
    if y.abs() <= f64::from(f32::MIN_POSITIVE) {
        return sign;
    }
    u64::from(cut)
}

/// `dpps`: products chosen by the high half of the immediate, summed pairwise, stored where the low half says.
pub(crate) fn dot<F: Format, const N: usize>(env: &mut Env, a: [u64; N], b: [u64; N], imm: u8) -> [u64; N] {
    let p: [u64; N] = std::array::from_fn(|k| {
        if imm >> (4 + k) & 1 != 0 {
            fast::mul::<F>(env, a[k], b[k])
        } else {
            0
        }
    });
    let mut sum = fast::add::<F>(env, p[0], p[1]);
    if N == 4 {
        let high = fast::add::<F>(env, p[N - 2], p[N - 1]);
        sum = fast::add::<F>(env, sum, high);
    }
    std::array::from_fn(|k| if imm >> k & 1 != 0 { sum } else { 0 })
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Addss_xmm_xmmm32 => ss!(fast::add::<F32>),
        Subss_xmm_xmmm32 => ss!(fast::sub::<F32>),
        Mulss_xmm_xmmm32 => ss!(fast::mul::<F32>),
        Divss_xmm_xmmm32 => ss!(fast::div::<F32>),
        Minss_xmm_xmmm32 => ss!(fast::min::<F32>),
        Maxss_xmm_xmmm32 => ss!(fast::max::<F32>),
        Sqrtss_xmm_xmmm32 => ss!(sqrt::<F32>),
        Addsd_xmm_xmmm64 => sd!(fast::add::<F64>),
        Subsd_xmm_xmmm64 => sd!(fast::sub::<F64>),
        Mulsd_xmm_xmmm64 => sd!(fast::mul::<F64>),
        Divsd_xmm_xmmm64 => sd!(fast::div::<F64>),
        Minsd_xmm_xmmm64 => sd!(fast::min::<F64>),
        Maxsd_xmm_xmmm64 => sd!(fast::max::<F64>),
        Sqrtsd_xmm_xmmm64 => sd!(sqrt::<F64>),
        Addps_xmm_xmmm128 => quick_ps!(packed::add, fast::add::<F32>),
        Subps_xmm_xmmm128 => quick_ps!(packed::sub, fast::sub::<F32>),
        Mulps_xmm_xmmm128 => quick_ps!(packed::mul, fast::mul::<F32>),
        Divps_xmm_xmmm128 => quick_ps!(packed::div, fast::div::<F32>),
        Minps_xmm_xmmm128 => ps!(fast::min::<F32>),
        Maxps_xmm_xmmm128 => ps!(fast::max::<F32>),
        Sqrtps_xmm_xmmm128 => ps!(sqrt::<F32>),
        Addpd_xmm_xmmm128 => pd!(fast::add::<F64>),
        Subpd_xmm_xmmm128 => pd!(fast::sub::<F64>),
        Mulpd_xmm_xmmm128 => pd!(fast::mul::<F64>),
        Divpd_xmm_xmmm128 => pd!(fast::div::<F64>),
        Minpd_xmm_xmmm128 => pd!(fast::min::<F64>),
        Maxpd_xmm_xmmm128 => pd!(fast::max::<F64>),
        Sqrtpd_xmm_xmmm128 => pd!(sqrt::<F64>),
        Rcpss_xmm_xmmm32 => ss!(|_, _, b| approximate(b, false)),
        Rsqrtss_xmm_xmmm32 => ss!(|_, _, b| approximate(b, true)),
        Rcpps_xmm_xmmm128 => ps!(|_: &mut Env, _, b| approximate(b, false)),
        Rsqrtps_xmm_xmmm128 => ps!(|_: &mut Env, _, b| approximate(b, true)),
        Comiss_xmm_xmmm32 => comi!(src32, F32, true),
        Ucomiss_xmm_xmmm32 => comi!(src32, F32, false),
        Comisd_xmm_xmmm64 => comi!(src64, F64, true),
        Ucomisd_xmm_xmmm64 => comi!(src64, F64, false),
        Cmpss_xmm_xmmm32_imm8 => with_imm!(scalar32, cmp::<F32>),
        Cmpsd_xmm_xmmm64_imm8 => with_imm!(scalar64, cmp::<F64>),
        Cmpps_xmm_xmmm128_imm8 => {
            with_imm!(whole32, |env: &mut Env, a: [u64; 4], b: [u64; 4], imm| {
                std::array::from_fn(|k| cmp::<F32>(env, a[k], b[k], imm))
            })
        }
        Cmppd_xmm_xmmm128_imm8 => {
            with_imm!(whole64, |env: &mut Env, a: [u64; 2], b: [u64; 2], imm| {
                std::array::from_fn(|k| cmp::<F64>(env, a[k], b[k], imm))
            })
        }
        Roundss_xmm_xmmm32_imm8 => with_imm!(scalar32, round::<F32>),
        Roundsd_xmm_xmmm64_imm8 => with_imm!(scalar64, round::<F64>),
        Roundps_xmm_xmmm128_imm8 => {
            with_imm!(whole32, |env: &mut Env, _: [u64; 4], b: [u64; 4], imm| b
                .map(|x| round::<F32>(env, 0, x, imm)))
        }
        Roundpd_xmm_xmmm128_imm8 => {
            with_imm!(whole64, |env: &mut Env, _: [u64; 2], b: [u64; 2], imm| b
                .map(|x| round::<F64>(env, 0, x, imm)))
        }
        Haddps_xmm_xmmm128 => {
            handler!(|cpu, i| whole32(cpu, i, |env, a, b| pairs(env, a, b, fast::add::<F32>)))
        }
        Hsubps_xmm_xmmm128 => {
            handler!(|cpu, i| whole32(cpu, i, |env, a, b| pairs(env, a, b, fast::sub::<F32>)))
        }
        Haddpd_xmm_xmmm128 => handler!(|cpu, i| whole64(cpu, i, |env, a, b| {
            [
                fast::add::<F64>(env, a[0], a[1]),
                fast::add::<F64>(env, b[0], b[1]),
            ]
        })),
        Hsubpd_xmm_xmmm128 => handler!(|cpu, i| whole64(cpu, i, |env, a, b| {
            [
                fast::sub::<F64>(env, a[0], a[1]),
                fast::sub::<F64>(env, b[0], b[1]),
            ]
        })),
        Addsubps_xmm_xmmm128 => handler!(|cpu, i| whole32(cpu, i, |env, a, b| std::array::from_fn(|k| {
            if k % 2 == 0 {
                fast::sub::<F32>(env, a[k], b[k])
            } else {
                fast::add::<F32>(env, a[k], b[k])
            }
        }))),
        Addsubpd_xmm_xmmm128 => handler!(|cpu, i| whole64(cpu, i, |env, a, b| {
            [
                fast::sub::<F64>(env, a[0], b[0]),
                fast::add::<F64>(env, a[1], b[1]),
            ]
        })),
        Dpps_xmm_xmmm128_imm8 => with_imm!(whole32, dot::<F32, 4>),
        Dppd_xmm_xmmm128_imm8 => with_imm!(whole64, dot::<F64, 2>),
        _ => return None,
    })
}
