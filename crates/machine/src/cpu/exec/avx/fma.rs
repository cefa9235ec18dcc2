// SPDX-License-Identifier: Apache-2.0
//! FMA: `a * b + c` with one rounding. The digits of a name say which operands are multiplied, and which is added.

use super::{get, handler, is_ymm, set, set_xmm, source, source_low};
use crate::cpu::exec::softfp::arith::Signs;
use crate::cpu::exec::softfp::{fast, Env, F32, F64};
use crate::cpu::exec::sse::{finish, lane as l, low32, low64, xn};
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::{Code, Instruction};

/// Factors and addend of the operands, as the form numbers them.
macro_rules! order {
    (132, $a:expr, $b:expr, $c:expr) => {
        ($a, $c, $b)
    };
    (213, $a:expr, $b:expr, $c:expr) => {
        ($b, $a, $c)
    };
    (231, $a:expr, $b:expr, $c:expr) => {
        ($b, $c, $a)
    };
}

const fn signs(product: bool, addend: bool) -> Signs {
    Signs { product, addend }
}
/// By lane, beginning with an even one.
type BySide = [Signs; 2];
const MADD: BySide = [signs(false, false); 2];
const MSUB: BySide = [signs(false, true); 2];
const NMADD: BySide = [signs(true, false); 2];
const NMSUB: BySide = [signs(true, true); 2];
const MADDSUB: BySide = [signs(false, true), signs(false, false)];
const MSUBADD: BySide = [signs(false, false), signs(false, true)];

#[inline(always)]
fn packed(cpu: &mut Cpu, i: &Instruction, f: impl Fn(&mut Env, u128, u128, u128) -> u128) -> Exec {
    let d = i.op0_register();
    let wide = is_ymm(d);
    let c = source(cpu, i, 2, wide)?;
    let (a, b) = (get(cpu, d), get(cpu, i.op1_register()));
    let mut env = Env::sse(cpu.fpu.mxcsr);
    let low = f(&mut env, a[0], b[0], c[0]);
    let high = if wide { f(&mut env, a[1], b[1], c[1]) } else { 0 };
    finish(cpu, &env)?;
    set(cpu, d, [low, high]);
    Ok(())
}

macro_rules! ps {
    ($order:tt $signs:ident) => {
        handler!(|cpu, i| packed(cpu, i, |env, a, b, c| {
            let (a, b, c) = (l::dwords(a), l::dwords(b), l::dwords(c));
            l::from_dwords(std::array::from_fn(|k| {
                let (x, y, z) = order!($order, a[k], b[k], c[k]);
                fast::mul_add::<F32>(env, x.into(), y.into(), z.into(), $signs[k & 1]) as u32
            }))
        }))
    };
}
macro_rules! pd {
    ($order:tt $signs:ident) => {
        handler!(|cpu, i| packed(cpu, i, |env, a, b, c| {
            let (a, b, c) = (l::qwords(a), l::qwords(b), l::qwords(c));
            l::from_qwords(std::array::from_fn(|k| {
                let (x, y, z) = order!($order, a[k], b[k], c[k]);
                fast::mul_add::<F64>(env, x, y, z, $signs[k & 1])
            }))
        }))
    };
}
macro_rules! scalar {
    ($t:ty, $format:ty, $merge:ident, $order:tt $signs:ident) => {
        handler!(|cpu, i| {
            let c = u64::from(source_low::<$t>(cpu, i, 2)?);
            let all = cpu.fpu.xmm[xn(i.op0_register())];
            let a = u64::from(all as $t);
            let b = u64::from(cpu.fpu.xmm[xn(i.op1_register())] as $t);
            let mut env = Env::sse(cpu.fpu.mxcsr);
            let (x, y, z) = order!($order, a, b, c);
            let r = fast::mul_add::<$format>(&mut env, x, y, z, $signs[0]);
            finish(cpu, &env)?;
            set_xmm(cpu, i, $merge(all, r as $t))
        })
    };
}
macro_rules! ss {
    ($order:tt $signs:ident) => {
        scalar!(u32, F32, low32, $order $signs)
    };
}
macro_rules! sd {
    ($order:tt $signs:ident) => {
        scalar!(u64, F64, low64, $order $signs)
    };
}

pub(super) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        VEX_Vfmadd132ps_xmm_xmm_xmmm128 | VEX_Vfmadd132ps_ymm_ymm_ymmm256 => ps!(132 MADD),
        VEX_Vfmadd132pd_xmm_xmm_xmmm128 | VEX_Vfmadd132pd_ymm_ymm_ymmm256 => pd!(132 MADD),
        VEX_Vfmadd132ss_xmm_xmm_xmmm32 => ss!(132 MADD),
        VEX_Vfmadd132sd_xmm_xmm_xmmm64 => sd!(132 MADD),
        VEX_Vfmadd213ps_xmm_xmm_xmmm128 | VEX_Vfmadd213ps_ymm_ymm_ymmm256 => ps!(213 MADD),
        VEX_Vfmadd213pd_xmm_xmm_xmmm128 | VEX_Vfmadd213pd_ymm_ymm_ymmm256 => pd!(213 MADD),
        VEX_Vfmadd213ss_xmm_xmm_xmmm32 => ss!(213 MADD),
        VEX_Vfmadd213sd_xmm_xmm_xmmm64 => sd!(213 MADD),
        VEX_Vfmadd231ps_xmm_xmm_xmmm128 | VEX_Vfmadd231ps_ymm_ymm_ymmm256 => ps!(231 MADD),
        VEX_Vfmadd231pd_xmm_xmm_xmmm128 | VEX_Vfmadd231pd_ymm_ymm_ymmm256 => pd!(231 MADD),
        VEX_Vfmadd231ss_xmm_xmm_xmmm32 => ss!(231 MADD),
        VEX_Vfmadd231sd_xmm_xmm_xmmm64 => sd!(231 MADD),
        VEX_Vfmsub132ps_xmm_xmm_xmmm128 | VEX_Vfmsub132ps_ymm_ymm_ymmm256 => ps!(132 MSUB),
        VEX_Vfmsub132pd_xmm_xmm_xmmm128 | VEX_Vfmsub132pd_ymm_ymm_ymmm256 => pd!(132 MSUB),
        VEX_Vfmsub132ss_xmm_xmm_xmmm32 => ss!(132 MSUB),
        VEX_Vfmsub132sd_xmm_xmm_xmmm64 => sd!(132 MSUB),
        VEX_Vfmsub213ps_xmm_xmm_xmmm128 | VEX_Vfmsub213ps_ymm_ymm_ymmm256 => ps!(213 MSUB),
        VEX_Vfmsub213pd_xmm_xmm_xmmm128 | VEX_Vfmsub213pd_ymm_ymm_ymmm256 => pd!(213 MSUB),
        VEX_Vfmsub213ss_xmm_xmm_xmmm32 => ss!(213 MSUB),
        VEX_Vfmsub213sd_xmm_xmm_xmmm64 => sd!(213 MSUB),
        VEX_Vfmsub231ps_xmm_xmm_xmmm128 | VEX_Vfmsub231ps_ymm_ymm_ymmm256 => ps!(231 MSUB),
        VEX_Vfmsub231pd_xmm_xmm_xmmm128 | VEX_Vfmsub231pd_ymm_ymm_ymmm256 => pd!(231 MSUB),
        VEX_Vfmsub231ss_xmm_xmm_xmmm32 => ss!(231 MSUB),
        VEX_Vfmsub231sd_xmm_xmm_xmmm64 => sd!(231 MSUB),
        VEX_Vfnmadd132ps_xmm_xmm_xmmm128 | VEX_Vfnmadd132ps_ymm_ymm_ymmm256 => ps!(132 NMADD),
        VEX_Vfnmadd132pd_xmm_xmm_xmmm128 | VEX_Vfnmadd132pd_ymm_ymm_ymmm256 => pd!(132 NMADD),
        VEX_Vfnmadd132ss_xmm_xmm_xmmm32 => ss!(132 NMADD),
        VEX_Vfnmadd132sd_xmm_xmm_xmmm64 => sd!(132 NMADD),
        VEX_Vfnmadd213ps_xmm_xmm_xmmm128 | VEX_Vfnmadd213ps_ymm_ymm_ymmm256 => ps!(213 NMADD),
        VEX_Vfnmadd213pd_xmm_xmm_xmmm128 | VEX_Vfnmadd213pd_ymm_ymm_ymmm256 => pd!(213 NMADD),
        VEX_Vfnmadd213ss_xmm_xmm_xmmm32 => ss!(213 NMADD),
        VEX_Vfnmadd213sd_xmm_xmm_xmmm64 => sd!(213 NMADD),
        VEX_Vfnmadd231ps_xmm_xmm_xmmm128 | VEX_Vfnmadd231ps_ymm_ymm_ymmm256 => ps!(231 NMADD),
        VEX_Vfnmadd231pd_xmm_xmm_xmmm128 | VEX_Vfnmadd231pd_ymm_ymm_ymmm256 => pd!(231 NMADD),
        VEX_Vfnmadd231ss_xmm_xmm_xmmm32 => ss!(231 NMADD),
        VEX_Vfnmadd231sd_xmm_xmm_xmmm64 => sd!(231 NMADD),
        VEX_Vfnmsub132ps_xmm_xmm_xmmm128 | VEX_Vfnmsub132ps_ymm_ymm_ymmm256 => ps!(132 NMSUB),
        VEX_Vfnmsub132pd_xmm_xmm_xmmm128 | VEX_Vfnmsub132pd_ymm_ymm_ymmm256 => pd!(132 NMSUB),
        VEX_Vfnmsub132ss_xmm_xmm_xmmm32 => ss!(132 NMSUB),
        VEX_Vfnmsub132sd_xmm_xmm_xmmm64 => sd!(132 NMSUB),
        VEX_Vfnmsub213ps_xmm_xmm_xmmm128 | VEX_Vfnmsub213ps_ymm_ymm_ymmm256 => ps!(213 NMSUB),
        VEX_Vfnmsub213pd_xmm_xmm_xmmm128 | VEX_Vfnmsub213pd_ymm_ymm_ymmm256 => pd!(213 NMSUB),
        VEX_Vfnmsub213ss_xmm_xmm_xmmm32 => ss!(213 NMSUB),
        VEX_Vfnmsub213sd_xmm_xmm_xmmm64 => sd!(213 NMSUB),
        VEX_Vfnmsub231ps_xmm_xmm_xmmm128 | VEX_Vfnmsub231ps_ymm_ymm_ymmm256 => ps!(231 NMSUB),
        VEX_Vfnmsub231pd_xmm_xmm_xmmm128 | VEX_Vfnmsub231pd_ymm_ymm_ymmm256 => pd!(231 NMSUB),
        VEX_Vfnmsub231ss_xmm_xmm_xmmm32 => ss!(231 NMSUB),
        VEX_Vfnmsub231sd_xmm_xmm_xmmm64 => sd!(231 NMSUB),
        VEX_Vfmaddsub132ps_xmm_xmm_xmmm128 | VEX_Vfmaddsub132ps_ymm_ymm_ymmm256 => ps!(132 MADDSUB),
        VEX_Vfmaddsub132pd_xmm_xmm_xmmm128 | VEX_Vfmaddsub132pd_ymm_ymm_ymmm256 => pd!(132 MADDSUB),
        VEX_Vfmaddsub213ps_xmm_xmm_xmmm128 | VEX_Vfmaddsub213ps_ymm_ymm_ymmm256 => ps!(213 MADDSUB),
        VEX_Vfmaddsub213pd_xmm_xmm_xmmm128 | VEX_Vfmaddsub213pd_ymm_ymm_ymmm256 => pd!(213 MADDSUB),
        VEX_Vfmaddsub231ps_xmm_xmm_xmmm128 | VEX_Vfmaddsub231ps_ymm_ymm_ymmm256 => ps!(231 MADDSUB),
        VEX_Vfmaddsub231pd_xmm_xmm_xmmm128 | VEX_Vfmaddsub231pd_ymm_ymm_ymmm256 => pd!(231 MADDSUB),
        VEX_Vfmsubadd132ps_xmm_xmm_xmmm128 | VEX_Vfmsubadd132ps_ymm_ymm_ymmm256 => ps!(132 MSUBADD),
        VEX_Vfmsubadd132pd_xmm_xmm_xmmm128 | VEX_Vfmsubadd132pd_ymm_ymm_ymmm256 => pd!(132 MSUBADD),
        VEX_Vfmsubadd213ps_xmm_xmm_xmmm128 | VEX_Vfmsubadd213ps_ymm_ymm_ymmm256 => ps!(213 MSUBADD),
        VEX_Vfmsubadd213pd_xmm_xmm_xmmm128 | VEX_Vfmsubadd213pd_ymm_ymm_ymmm256 => pd!(213 MSUBADD),
        VEX_Vfmsubadd231ps_xmm_xmm_xmmm128 | VEX_Vfmsubadd231ps_ymm_ymm_ymmm256 => ps!(231 MSUBADD),
        VEX_Vfmsubadd231pd_xmm_xmm_xmmm128 | VEX_Vfmsubadd231pd_ymm_ymm_ymmm256 => pd!(231 MSUBADD),
        _ => return None,
    })
}
