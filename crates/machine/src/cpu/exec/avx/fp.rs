// SPDX-License-Identifier: Apache-2.0
//! Floating-point arithmetic, compares and rounding, packed and scalar.

use super::{get, handler, is_ymm, legacy, set, set_xmm, source, source_low};
use crate::cpu::exec::softfp::{fast, Env, Format, F32, F64};
use crate::cpu::exec::sse::fp::{approximate, dot, pairs, round, sqrt};
use crate::cpu::exec::sse::{finish, lane as l, low32, low64, packed as quick, xn};
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

/// A function of the halves of operand 1 and of operand `n`; all lanes raise their flags before one may end it.
#[inline(always)]
pub(super) fn packed(
    cpu: &mut Cpu,
    i: &Instruction,
    n: u32,
    f: impl Fn(&mut Env, u128, u128) -> u128,
) -> Exec {
    let d = i.op0_register();
    let wide = is_ymm(d);
    let b = source(cpu, i, n, wide)?;
    let a = get(cpu, i.op1_register());
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let low = f(&mut env, a[0], b[0]);
    let high = if wide { f(&mut env, a[1], b[1]) } else { 0 };
    finish(cpu, &env)?;
    set(cpu, d, [low, high]);
    Ok(())
}

#[inline(always)]
fn lanes32(env: &mut Env, a: u128, b: u128, f: impl Fn(&mut Env, u64, u64) -> u64) -> u128 {
    let (a, b) = (l::dwords(a), l::dwords(b));
    l::from_dwords(std::array::from_fn(|k| {
        f(env, u64::from(a[k]), u64::from(b[k])) as u32
    }))
}
#[inline(always)]
fn lanes64(env: &mut Env, a: u128, b: u128, f: impl Fn(&mut Env, u64, u64) -> u64) -> u128 {
    let (a, b) = (l::qwords(a), l::qwords(b));
    l::from_qwords(std::array::from_fn(|k| f(env, a[k], b[k])))
}

/// The low lane of operand 1 and of operand 2; the rest is operand 1's.
#[inline(always)]
fn scalar32(cpu: &mut Cpu, i: &Instruction, f: impl Fn(&mut Env, u64, u64) -> u64) -> Exec {
    let b = source_low::<u32>(cpu, i, 2)?;
    let a = cpu.fpu.xmm[xn(i.op1_register())];
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let r = f(&mut env, u64::from(a as u32), u64::from(b));
    finish(cpu, &env)?;
    set_xmm(cpu, i, low32(a, r as u32))
}
#[inline(always)]
fn scalar64(cpu: &mut Cpu, i: &Instruction, f: impl Fn(&mut Env, u64, u64) -> u64) -> Exec {
    let b = source_low::<u64>(cpu, i, 2)?;
    let a = cpu.fpu.xmm[xn(i.op1_register())];
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let r = f(&mut env, a as u64, b);
    finish(cpu, &env)?;
    set_xmm(cpu, i, low64(a, r))
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
        handler!(|cpu, i| packed(cpu, i, 2, |env, a, b| lanes32(env, a, b, $f)))
    };
}
macro_rules! pd {
    ($f:expr) => {
        handler!(|cpu, i| packed(cpu, i, 2, |env, a, b| lanes64(env, a, b, $f)))
    };
}
/// Packed single with a shortcut for all lanes of a half together.
macro_rules! quick_ps {
    ($quick:path, $f:expr) => {
        handler!(|cpu, i| packed(cpu, i, 2, |env, a, b| {
            match if env.fast { $quick(a, b) } else { None } {
                Some(r) => r,
                None => lanes32(env, a, b, $f),
            }
        }))
    };
}
/// Of one operand.
macro_rules! un_ps {
    ($f:expr) => {
        handler!(|cpu, i| packed(cpu, i, 1, |env, _, b| lanes32(env, b, b, $f)))
    };
}
macro_rules! un_pd {
    ($f:expr) => {
        handler!(|cpu, i| packed(cpu, i, 1, |env, _, b| lanes64(env, b, b, $f)))
    };
}
/// Any of these with an immediate: the function gets it last.
macro_rules! with_imm {
    (scalar $scalar:ident, $f:expr) => {
        handler!(|cpu, i| {
            let imm = i.immediate8();
            $scalar(cpu, i, |env, a, b| $f(env, a, b, imm))
        })
    };
    ($n:literal $lanes:ident, $f:expr) => {
        handler!(|cpu, i| {
            let imm = i.immediate8();
            packed(cpu, i, $n, |env, a, b| {
                $lanes(env, a, b, |env, x, y| $f(env, x, y, imm))
            })
        })
    };
}

fn cmp<F: Format>(env: &mut Env, a: u64, b: u64, imm: u8) -> u64 {
    if fast::predicate32::<F>(env, a, b, imm) {
        u64::MAX
    } else {
        0
    }
}

/// `vhaddps` and `vhsubps` of one half.
#[inline(always)]
fn horizontal(env: &mut Env, a: u128, b: u128, f: impl Fn(&mut Env, u64, u64) -> u64) -> u128 {
    let r = pairs(env, l::dwords(a).map(u64::from), l::dwords(b).map(u64::from), f);
    l::from_dwords(r.map(|x| x as u32))
}

pub(super) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        VEX_Vaddss_xmm_xmm_xmmm32 => ss!(fast::add::<F32>),
        VEX_Vaddsd_xmm_xmm_xmmm64 => sd!(fast::add::<F64>),
        VEX_Vaddps_xmm_xmm_xmmm128 | VEX_Vaddps_ymm_ymm_ymmm256 => quick_ps!(quick::add, fast::add::<F32>),
        VEX_Vaddpd_xmm_xmm_xmmm128 | VEX_Vaddpd_ymm_ymm_ymmm256 => pd!(fast::add::<F64>),
        VEX_Vsubss_xmm_xmm_xmmm32 => ss!(fast::sub::<F32>),
        VEX_Vsubsd_xmm_xmm_xmmm64 => sd!(fast::sub::<F64>),
        VEX_Vsubps_xmm_xmm_xmmm128 | VEX_Vsubps_ymm_ymm_ymmm256 => quick_ps!(quick::sub, fast::sub::<F32>),
        VEX_Vsubpd_xmm_xmm_xmmm128 | VEX_Vsubpd_ymm_ymm_ymmm256 => pd!(fast::sub::<F64>),
        VEX_Vmulss_xmm_xmm_xmmm32 => ss!(fast::mul::<F32>),
        VEX_Vmulsd_xmm_xmm_xmmm64 => sd!(fast::mul::<F64>),
        VEX_Vmulps_xmm_xmm_xmmm128 | VEX_Vmulps_ymm_ymm_ymmm256 => quick_ps!(quick::mul, fast::mul::<F32>),
        VEX_Vmulpd_xmm_xmm_xmmm128 | VEX_Vmulpd_ymm_ymm_ymmm256 => pd!(fast::mul::<F64>),
        VEX_Vdivss_xmm_xmm_xmmm32 => ss!(fast::div::<F32>),
        VEX_Vdivsd_xmm_xmm_xmmm64 => sd!(fast::div::<F64>),
        VEX_Vdivps_xmm_xmm_xmmm128 | VEX_Vdivps_ymm_ymm_ymmm256 => quick_ps!(quick::div, fast::div::<F32>),
        VEX_Vdivpd_xmm_xmm_xmmm128 | VEX_Vdivpd_ymm_ymm_ymmm256 => pd!(fast::div::<F64>),
        VEX_Vminss_xmm_xmm_xmmm32 => ss!(fast::min::<F32>),
        VEX_Vminsd_xmm_xmm_xmmm64 => sd!(fast::min::<F64>),
        VEX_Vminps_xmm_xmm_xmmm128 | VEX_Vminps_ymm_ymm_ymmm256 => ps!(fast::min::<F32>),
        VEX_Vminpd_xmm_xmm_xmmm128 | VEX_Vminpd_ymm_ymm_ymmm256 => pd!(fast::min::<F64>),
        VEX_Vmaxss_xmm_xmm_xmmm32 => ss!(fast::max::<F32>),
        VEX_Vmaxsd_xmm_xmm_xmmm64 => sd!(fast::max::<F64>),
        VEX_Vmaxps_xmm_xmm_xmmm128 | VEX_Vmaxps_ymm_ymm_ymmm256 => ps!(fast::max::<F32>),
        VEX_Vmaxpd_xmm_xmm_xmmm128 | VEX_Vmaxpd_ymm_ymm_ymmm256 => pd!(fast::max::<F64>),
        VEX_Vsqrtss_xmm_xmm_xmmm32 => ss!(sqrt::<F32>),
        VEX_Vsqrtsd_xmm_xmm_xmmm64 => sd!(sqrt::<F64>),
        VEX_Vsqrtps_xmm_xmmm128 | VEX_Vsqrtps_ymm_ymmm256 => un_ps!(sqrt::<F32>),
        VEX_Vsqrtpd_xmm_xmmm128 | VEX_Vsqrtpd_ymm_ymmm256 => un_pd!(sqrt::<F64>),
        VEX_Vrcpss_xmm_xmm_xmmm32 => ss!(|_, _, b| approximate(b, false)),
        VEX_Vrsqrtss_xmm_xmm_xmmm32 => ss!(|_, _, b| approximate(b, true)),
        VEX_Vrcpps_xmm_xmmm128 | VEX_Vrcpps_ymm_ymmm256 => un_ps!(|_, _, b| approximate(b, false)),
        VEX_Vrsqrtps_xmm_xmmm128 | VEX_Vrsqrtps_ymm_ymmm256 => un_ps!(|_, _, b| approximate(b, true)),
        VEX_Vcomiss_xmm_xmmm32 => legacy!(Comiss_xmm_xmmm32),
        VEX_Vucomiss_xmm_xmmm32 => legacy!(Ucomiss_xmm_xmmm32),
        VEX_Vcomisd_xmm_xmmm64 => legacy!(Comisd_xmm_xmmm64),
        VEX_Vucomisd_xmm_xmmm64 => legacy!(Ucomisd_xmm_xmmm64),
        VEX_Vcmpss_xmm_xmm_xmmm32_imm8 => with_imm!(scalar scalar32, cmp::<F32>),
        VEX_Vcmpsd_xmm_xmm_xmmm64_imm8 => with_imm!(scalar scalar64, cmp::<F64>),
        VEX_Vcmpps_xmm_xmm_xmmm128_imm8 | VEX_Vcmpps_ymm_ymm_ymmm256_imm8 => with_imm!(2 lanes32, cmp::<F32>),
        VEX_Vcmppd_xmm_xmm_xmmm128_imm8 | VEX_Vcmppd_ymm_ymm_ymmm256_imm8 => with_imm!(2 lanes64, cmp::<F64>),
        VEX_Vroundss_xmm_xmm_xmmm32_imm8 => with_imm!(scalar scalar32, round::<F32>),
        VEX_Vroundsd_xmm_xmm_xmmm64_imm8 => with_imm!(scalar scalar64, round::<F64>),
        VEX_Vroundps_xmm_xmmm128_imm8 | VEX_Vroundps_ymm_ymmm256_imm8 => {
            with_imm!(1 lanes32, |env: &mut Env, _, b, imm| round::<F32>(env, b, b, imm))
        }
        VEX_Vroundpd_xmm_xmmm128_imm8 | VEX_Vroundpd_ymm_ymmm256_imm8 => {
            with_imm!(1 lanes64, |env: &mut Env, _, b, imm| round::<F64>(env, b, b, imm))
        }
        VEX_Vhaddps_xmm_xmm_xmmm128 | VEX_Vhaddps_ymm_ymm_ymmm256 => {
            handler!(|cpu, i| packed(cpu, i, 2, |env, a, b| horizontal(env, a, b, fast::add::<F32>)))
        }
        VEX_Vhaddpd_xmm_xmm_xmmm128 | VEX_Vhaddpd_ymm_ymm_ymmm256 => {
            handler!(|cpu, i| packed(cpu, i, 2, |env, a, b| {
                let (a, b) = (l::qwords(a), l::qwords(b));
                l::from_qwords([
                    fast::add::<F64>(env, a[0], a[1]),
                    fast::add::<F64>(env, b[0], b[1]),
                ])
            }))
        }
        VEX_Vhsubps_xmm_xmm_xmmm128 | VEX_Vhsubps_ymm_ymm_ymmm256 => {
            handler!(|cpu, i| packed(cpu, i, 2, |env, a, b| horizontal(env, a, b, fast::sub::<F32>)))
        }
        VEX_Vhsubpd_xmm_xmm_xmmm128 | VEX_Vhsubpd_ymm_ymm_ymmm256 => {
            handler!(|cpu, i| packed(cpu, i, 2, |env, a, b| {
                let (a, b) = (l::qwords(a), l::qwords(b));
                l::from_qwords([
                    fast::sub::<F64>(env, a[0], a[1]),
                    fast::sub::<F64>(env, b[0], b[1]),
                ])
            }))
        }
        VEX_Vaddsubps_xmm_xmm_xmmm128 | VEX_Vaddsubps_ymm_ymm_ymmm256 => {
            handler!(|cpu, i| packed(cpu, i, 2, |env, a, b| {
                let (a, b) = (l::dwords(a).map(u64::from), l::dwords(b).map(u64::from));
                l::from_dwords(std::array::from_fn(|k| {
                    let f = if k % 2 == 0 {
                        fast::sub::<F32>
                    } else {
                        fast::add::<F32>
                    };
                    f(env, a[k], b[k]) as u32
                }))
            }))
        }
        VEX_Vaddsubpd_xmm_xmm_xmmm128 | VEX_Vaddsubpd_ymm_ymm_ymmm256 => {
            handler!(|cpu, i| packed(cpu, i, 2, |env, a, b| {
                let (a, b) = (l::qwords(a), l::qwords(b));
                l::from_qwords([
                    fast::sub::<F64>(env, a[0], b[0]),
                    fast::add::<F64>(env, a[1], b[1]),
                ])
            }))
        }
        VEX_Vdpps_xmm_xmm_xmmm128_imm8 | VEX_Vdpps_ymm_ymm_ymmm256_imm8 => handler!(|cpu, i| {
            let imm = i.immediate8();
            packed(cpu, i, 2, |env, a, b| {
                let (a, b) = (l::dwords(a).map(u64::from), l::dwords(b).map(u64::from));
                l::from_dwords(dot::<F32, 4>(env, a, b, imm).map(|x| x as u32))
            })
        }),
        VEX_Vdppd_xmm_xmm_xmmm128_imm8 => handler!(|cpu, i| {
            let imm = i.immediate8();
            packed(cpu, i, 2, |env, a, b| {
                l::from_qwords(dot::<F64, 2>(env, l::qwords(a), l::qwords(b), imm))
            })
        }),
        _ => return None,
    })
}
