// SPDX-License-Identifier: Apache-2.0
//! Conversions between integers and floating point, and of half precision.

use super::{get, handler, is_ymm, legacy, set, set_xmm, source, source_low};
use crate::cpu::exec::softfp::{fast, half, Env, F32};
use crate::cpu::exec::sse::convert as c;
use crate::cpu::exec::sse::{finish, gn, lane as l, low32, low64, xn};
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, Scalar, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

/// Lanes stay as wide as they are.
macro_rules! same {
    ($f:expr) => {
        handler!(|cpu, i| super::fp::packed(cpu, i, 1, |env, _, b| {
            let f = $f;
            f(env, b)
        }))
    };
}

/// Lanes of `T`, half as wide as those that `f` makes of 64 bits of them.
#[inline(always)]
fn widening<T: Scalar>(cpu: &mut Cpu, i: &Instruction, f: fn(&mut Env, u64) -> u128) -> Exec {
    super::check(cpu)?;
    let b: u128 = source_low::<T>(cpu, i, 1)?.into();
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let d = i.op0_register();
    let low = f(&mut env, b as u64);
    let high = if is_ymm(d) {
        f(&mut env, (b >> 64) as u64)
    } else {
        0
    };
    finish(cpu, &env)?;
    set(cpu, d, [low, high]);
    Ok(())
}

/// Lanes twice as wide as those that `f` makes 64 bits of.
#[inline(always)]
fn narrowing<const WIDE: bool>(cpu: &mut Cpu, i: &Instruction, f: fn(&mut Env, u128) -> u128) -> Exec {
    super::check(cpu)?;
    let b = source(cpu, i, 1, WIDE)?;
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let low = f(&mut env, b[0]);
    let high = if WIDE { f(&mut env, b[1]) } else { 0 };
    finish(cpu, &env)?;
    set_xmm(cpu, i, low | high << 64)
}

/// `vcvtsi2ss` and its like: the low lane from a general-purpose register or memory of `T`, the rest from operand 1.
macro_rules! from_gpr {
    ($unsigned:ty, $signed:ty, $f:expr, $merge:ident, $t:ty) => {
        handler!(|cpu, i| {
            let v = if i.op2_kind() == OpKind::Register {
                cpu.regs[gn(i.op2_register())] as $signed
            } else {
                let va = cpu.ea(i);
                cpu.read::<$unsigned>(va)? as $signed
            };
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let r = $f(&mut env, i64::from(v));
            finish(cpu, &env)?;
            let a = cpu.fpu.xmm[xn(i.op1_register())];
            set_xmm(cpu, i, $merge(a, r as $t))
        })
    };
}

/// Four halves to singles.
fn ph_to_ps(env: &mut Env, v: u64) -> u128 {
    l::from_dwords(std::array::from_fn(|k| {
        half::to_single(env, (v >> (16 * k)) as u16)
    }))
}
fn ps_to_ph(env: &mut Env, v: u128) -> u64 {
    l::dwords(v)
        .into_iter()
        .rev()
        .fold(0, |r, x| r << 16 | u64::from(half::from_single(env, x)))
}

/// `vcvtps2ph`: to a register or to memory, with a rounding mode of its own.
fn to_half(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let s = i.op1_register();
    let (v, wide) = (get(cpu, s), is_ymm(s));
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let imm = i.immediate8();
    if imm & 4 == 0 {
        env.rc = u32::from(imm & 3);
    }
    // Results are flushed neither here nor by the hardware.
    env.ftz = false;
    let low = ps_to_ph(&mut env, v[0]);
    let high = if wide { ps_to_ph(&mut env, v[1]) } else { 0 };
    // Flags come before a fault of the operand.
    finish(cpu, &env)?;
    let r = u128::from(low) | u128::from(high) << 64;
    if i.op0_kind() == OpKind::Register {
        return set_xmm(cpu, i, r);
    }
    let va = cpu.ea(i);
    if wide {
        cpu.write::<u128>(va, r)
    } else {
        cpu.write::<u64>(va, low)
    }
}

pub(super) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        VEX_Vcvtsi2ss_xmm_xmm_rm32 => from_gpr!(u32, i32, fast::from_int::<F32>, low32, u32),
        VEX_Vcvtsi2ss_xmm_xmm_rm64 => from_gpr!(u64, i64, fast::from_int::<F32>, low32, u32),
        VEX_Vcvtsi2sd_xmm_xmm_rm32 => from_gpr!(u32, i32, fast::f64_from_int, low64, u64),
        VEX_Vcvtsi2sd_xmm_xmm_rm64 => from_gpr!(u64, i64, fast::f64_from_int, low64, u64),
        VEX_Vcvtss2si_r32_xmmm32 => legacy!(Cvtss2si_r32_xmmm32),
        VEX_Vcvtss2si_r64_xmmm32 => legacy!(Cvtss2si_r64_xmmm32),
        VEX_Vcvtsd2si_r32_xmmm64 => legacy!(Cvtsd2si_r32_xmmm64),
        VEX_Vcvtsd2si_r64_xmmm64 => legacy!(Cvtsd2si_r64_xmmm64),
        VEX_Vcvttss2si_r32_xmmm32 => legacy!(Cvttss2si_r32_xmmm32),
        VEX_Vcvttss2si_r64_xmmm32 => legacy!(Cvttss2si_r64_xmmm32),
        VEX_Vcvttsd2si_r32_xmmm64 => legacy!(Cvttsd2si_r32_xmmm64),
        VEX_Vcvttsd2si_r64_xmmm64 => legacy!(Cvttsd2si_r64_xmmm64),
        VEX_Vcvtss2sd_xmm_xmm_xmmm32 => handler!(|cpu, i| {
            let b = u64::from(source_low::<u32>(cpu, i, 2)?);
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let r = fast::f32_to_f64(&mut env, b);
            finish(cpu, &env)?;
            let a = cpu.fpu.xmm[xn(i.op1_register())];
            set_xmm(cpu, i, low64(a, r))
        }),
        VEX_Vcvtsd2ss_xmm_xmm_xmmm64 => handler!(|cpu, i| {
            let b = source_low::<u64>(cpu, i, 2)?;
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let r = fast::f64_to_f32(&mut env, b);
            finish(cpu, &env)?;
            let a = cpu.fpu.xmm[xn(i.op1_register())];
            set_xmm(cpu, i, low32(a, r as u32))
        }),
        VEX_Vcvtps2pd_xmm_xmmm64 => |cpu, i| widening::<u64>(cpu, i, c::ps_to_pd),
        VEX_Vcvtps2pd_ymm_xmmm128 => |cpu, i| widening::<u128>(cpu, i, c::ps_to_pd),
        VEX_Vcvtdq2pd_xmm_xmmm64 => |cpu, i| widening::<u64>(cpu, i, c::dq_to_pd),
        VEX_Vcvtdq2pd_ymm_xmmm128 => |cpu, i| widening::<u128>(cpu, i, c::dq_to_pd),
        VEX_Vcvtph2ps_xmm_xmmm64 => |cpu, i| widening::<u64>(cpu, i, ph_to_ps),
        VEX_Vcvtph2ps_ymm_xmmm128 => |cpu, i| widening::<u128>(cpu, i, ph_to_ps),
        VEX_Vcvtpd2ps_xmm_xmmm128 => |cpu, i| narrowing::<false>(cpu, i, c::pd_to_ps),
        VEX_Vcvtpd2ps_xmm_ymmm256 => |cpu, i| narrowing::<true>(cpu, i, c::pd_to_ps),
        VEX_Vcvtpd2dq_xmm_xmmm128 => |cpu, i| narrowing::<false>(cpu, i, |e, v| c::pd_to_dq(e, v, false)),
        VEX_Vcvtpd2dq_xmm_ymmm256 => |cpu, i| narrowing::<true>(cpu, i, |e, v| c::pd_to_dq(e, v, false)),
        VEX_Vcvttpd2dq_xmm_xmmm128 => |cpu, i| narrowing::<false>(cpu, i, |e, v| c::pd_to_dq(e, v, true)),
        VEX_Vcvttpd2dq_xmm_ymmm256 => |cpu, i| narrowing::<true>(cpu, i, |e, v| c::pd_to_dq(e, v, true)),
        VEX_Vcvtdq2ps_xmm_xmmm128 | VEX_Vcvtdq2ps_ymm_ymmm256 => same!(c::dq_to_ps),
        VEX_Vcvtps2dq_xmm_xmmm128 | VEX_Vcvtps2dq_ymm_ymmm256 => {
            same!(|e: &mut Env, v| c::ps_to_dq(e, v, false))
        }
        VEX_Vcvttps2dq_xmm_xmmm128 | VEX_Vcvttps2dq_ymm_ymmm256 => {
            same!(|e: &mut Env, v| c::ps_to_dq(e, v, true))
        }
        VEX_Vcvtps2ph_xmmm64_xmm_imm8 | VEX_Vcvtps2ph_xmmm128_ymm_imm8 => to_half,
        _ => return None,
    })
}
