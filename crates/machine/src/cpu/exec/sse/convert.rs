// SPDX-License-Identifier: Apache-2.0
//! Conversions between integers and floating point.

use super::mmx::{self, mm};
use super::mov::{rm32, rm64};
use super::{finish, gn, handler, lane as l, low32, low64, src128, src32, src64, x0};
use crate::cpu::exec::softfp::{fast, Env, F32};
use crate::cpu::fault::Trap;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction, OpKind};

/// `cvtsi2ss` and friends: `$wide` is the width of the integer.
macro_rules! from_gpr {
    ($read:ident, $signed:ty, $f:expr, $merge:ident, $t:ty) => {
        handler!(|cpu, i| {
            let v = $read(cpu, i)? as $signed;
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let r = $f(&mut env, i64::from(v));
            finish(cpu, &env)?;
            let d = x0(i);
            cpu.fpu.xmm[d] = $merge(cpu.fpu.xmm[d], r as $t);
            Ok(())
        })
    };
}
/// `cvt(t)ss2si` and friends into a general-purpose register of `$bits` bits.
macro_rules! to_gpr {
    ($src:ident, $f:path, $truncate:literal, $bits:literal) => {
        handler!(|cpu, i| {
            let v = u64::from($src(cpu, i)?);
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let r = $f(&mut env, v, $truncate, $bits);
            finish(cpu, &env)?;
            cpu.regs[gn(i.op0_register())] = if $bits == 32 {
                u64::from(r as u32)
            } else {
                r as u64
            };
            Ok(())
        })
    };
}
/// A conversion that writes the whole destination: `$f` gets the environment and the source.
macro_rules! whole {
    ($src:ident, $f:expr) => {
        handler!(|cpu, i| {
            let v = $src(cpu, i)?;
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let f = $f;
            let r = f(&mut env, v);
            finish(cpu, &env)?;
            cpu.fpu.xmm[x0(i)] = r;
            Ok(())
        })
    };
}

pub(crate) fn dq_to_ps(env: &mut Env, v: u128) -> u128 {
    l::from_dwords(l::idwords(v).map(|x| fast::from_int::<F32>(env, i64::from(x)) as u32))
}
pub(crate) fn dq_to_pd(env: &mut Env, v: u64) -> u128 {
    l::from_qwords([
        fast::f64_from_int(env, i64::from(v as i32)),
        fast::f64_from_int(env, i64::from((v >> 32) as i32)),
    ])
}
pub(crate) fn ps_to_dq(env: &mut Env, v: u128, truncate: bool) -> u128 {
    l::from_dwords(l::dwords(v).map(|x| fast::to_int::<F32>(env, u64::from(x), truncate, 32) as u32))
}
pub(crate) fn pd_to_dq(env: &mut Env, v: u128, truncate: bool) -> u128 {
    let q = l::qwords(v).map(|x| fast::f64_to_int(env, x, truncate, 32) as u32);
    l::from_dwords([q[0], q[1], 0, 0])
}
pub(crate) fn ps_to_pd(env: &mut Env, v: u64) -> u128 {
    l::from_qwords([
        fast::f32_to_f64(env, v & 0xffff_ffff),
        fast::f32_to_f64(env, v >> 32),
    ])
}
pub(crate) fn pd_to_ps(env: &mut Env, v: u128) -> u128 {
    let q = l::qwords(v).map(|x| fast::f64_to_f32(env, x) as u32);
    l::from_dwords([q[0], q[1], 0, 0])
}
/// Two packed singles to two packed integers.
fn ps_to_pi(env: &mut Env, v: u64, truncate: bool) -> u64 {
    let q = [v & 0xffff_ffff, v >> 32].map(|x| fast::to_int::<F32>(env, x, truncate, 32) as u32);
    u64::from(q[0]) | u64::from(q[1]) << 32
}

/// `cvt(t)ps2pi`, `cvt(t)pd2pi`: into an MMX register.
macro_rules! to_mm {
    ($src:ident, $f:expr) => {
        handler!(|cpu, i| {
            mmx::enter(cpu)?;
            let v = $src(cpu, i)?;
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let f = $f;
            let r: u64 = f(&mut env, v);
            // The switch to MMX comes before #XM, if there is one.
            mmx::touch(cpu);
            finish(cpu, &env)?;
            mmx::set(cpu, mm(i.op0_register()), r);
            Ok(())
        })
    };
}

/// The source of `cvtpi2ps` and `cvtpi2pd`: only a register makes the switch to MMX.
fn packed(cpu: &mut Cpu, i: &Instruction) -> Result<u64, Trap> {
    if i.op1_kind() != OpKind::Register {
        return mmx::src64(cpu, i);
    }
    mmx::enter(cpu)?;
    mmx::touch(cpu);
    mmx::src64(cpu, i)
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Cvtsi2ss_xmm_rm32 => from_gpr!(rm32, i32, fast::from_int::<F32>, low32, u32),
        Cvtsi2ss_xmm_rm64 => from_gpr!(rm64, i64, fast::from_int::<F32>, low32, u32),
        Cvtsi2sd_xmm_rm32 => from_gpr!(rm32, i32, fast::f64_from_int, low64, u64),
        Cvtsi2sd_xmm_rm64 => from_gpr!(rm64, i64, fast::f64_from_int, low64, u64),
        Cvtss2si_r32_xmmm32 => to_gpr!(src32, fast::to_int::<F32>, false, 32),
        Cvtss2si_r64_xmmm32 => to_gpr!(src32, fast::to_int::<F32>, false, 64),
        Cvttss2si_r32_xmmm32 => to_gpr!(src32, fast::to_int::<F32>, true, 32),
        Cvttss2si_r64_xmmm32 => to_gpr!(src32, fast::to_int::<F32>, true, 64),
        Cvtsd2si_r32_xmmm64 => to_gpr!(src64, fast::f64_to_int, false, 32),
        Cvtsd2si_r64_xmmm64 => to_gpr!(src64, fast::f64_to_int, false, 64),
        Cvttsd2si_r32_xmmm64 => to_gpr!(src64, fast::f64_to_int, true, 32),
        Cvttsd2si_r64_xmmm64 => to_gpr!(src64, fast::f64_to_int, true, 64),
        Cvtss2sd_xmm_xmmm32 => handler!(|cpu, i| {
            let v = u64::from(src32(cpu, i)?);
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let r = fast::f32_to_f64(&mut env, v);
            finish(cpu, &env)?;
            let d = x0(i);
            cpu.fpu.xmm[d] = low64(cpu.fpu.xmm[d], r);
            Ok(())
        }),
        Cvtsd2ss_xmm_xmmm64 => handler!(|cpu, i| {
            let v = src64(cpu, i)?;
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let r = fast::f64_to_f32(&mut env, v);
            finish(cpu, &env)?;
            let d = x0(i);
            cpu.fpu.xmm[d] = low32(cpu.fpu.xmm[d], r as u32);
            Ok(())
        }),
        Cvtps2pd_xmm_xmmm64 => whole!(src64, ps_to_pd),
        Cvtpd2ps_xmm_xmmm128 => whole!(src128, pd_to_ps),
        Cvtdq2ps_xmm_xmmm128 => whole!(src128, dq_to_ps),
        Cvtdq2pd_xmm_xmmm64 => whole!(src64, dq_to_pd),
        Cvtps2dq_xmm_xmmm128 => whole!(src128, |e: &mut Env, v| ps_to_dq(e, v, false)),
        Cvttps2dq_xmm_xmmm128 => whole!(src128, |e: &mut Env, v| ps_to_dq(e, v, true)),
        Cvtpd2dq_xmm_xmmm128 => whole!(src128, |e: &mut Env, v| pd_to_dq(e, v, false)),
        Cvttpd2dq_xmm_xmmm128 => whole!(src128, |e: &mut Env, v| pd_to_dq(e, v, true)),
        Cvtps2pi_mm_xmmm64 => to_mm!(src64, |e: &mut Env, v| ps_to_pi(e, v, false)),
        Cvttps2pi_mm_xmmm64 => to_mm!(src64, |e: &mut Env, v| ps_to_pi(e, v, true)),
        Cvtpd2pi_mm_xmmm128 => to_mm!(src128, |e: &mut Env, v| pd_to_dq(e, v, false) as u64),
        Cvttpd2pi_mm_xmmm128 => to_mm!(src128, |e: &mut Env, v| pd_to_dq(e, v, true) as u64),
        Cvtpi2ps_xmm_mmm64 => handler!(|cpu, i| {
            let v = packed(cpu, i)?;
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let r = dq_to_ps(&mut env, u128::from(v)) as u64;
            finish(cpu, &env)?;
            let d = x0(i);
            cpu.fpu.xmm[d] = low64(cpu.fpu.xmm[d], r);
            Ok(())
        }),
        Cvtpi2pd_xmm_mmm64 => handler!(|cpu, i| {
            let v = packed(cpu, i)?;
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let r = dq_to_pd(&mut env, v);
            finish(cpu, &env)?;
            cpu.fpu.xmm[x0(i)] = r;
            Ok(())
        }),
        _ => return None,
    })
}
