// SPDX-License-Identifier: Apache-2.0
//! `vmaskmov`, `vpmaskmov`: loads and stores of the elements whose mask has its sign set. The others are not touched, and
//! do not fault.

use super::{get, is_ymm, set, Ymm};
use crate::cpu::fault::Exec;
use crate::cpu::{Cpu, Scalar, SlowFn};
use iced_x86::{Code, Instruction};

/// Element `k` of a register.
pub(super) fn element<T: Scalar>(v: Ymm, k: usize) -> T {
    let at = k * T::SIZE;
    T::from_u128(v[at >> 4 & 1] >> (8 * (at & 15)))
}
pub(super) fn set_element<T: Scalar>(v: &mut Ymm, k: usize, x: T) {
    let at = k * T::SIZE;
    let (half, shift) = (&mut v[at >> 4 & 1], 8 * (at & 15));
    let mask = (u128::MAX >> (128 - 8 * T::SIZE)) << shift;
    *half = (*half & !mask) | x.into() << shift;
}
pub(super) fn selected<T: Scalar>(mask: Ymm, k: usize) -> bool {
    let x: u128 = element::<T>(mask, k).into();
    x >> (8 * T::SIZE - 1) != 0
}

fn count<T: Scalar>(wide: bool) -> usize {
    if wide {
        32 / T::SIZE
    } else {
        16 / T::SIZE
    }
}

/// The last byte of an operand of which something is used must have a canonical address.
fn check_last<T: Scalar>(cpu: &mut Cpu, va: u64, mask: Ymm, count: usize) -> Exec {
    if (0..count).any(|k| selected::<T>(mask, k)) {
        cpu.check_span(va, count * T::SIZE)?;
    }
    Ok(())
}

fn load<T: Scalar>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let d = i.op0_register();
    let mask = get(cpu, i.op1_register());
    let va = cpu.ea(i);
    let all = count::<T>(is_ymm(d));
    check_last::<T>(cpu, va, mask, all)?;
    let mut v = [0; 2];
    for k in (0..all).filter(|&k| selected::<T>(mask, k)) {
        set_element(&mut v, k, cpu.read::<T>(va.wrapping_add((k * T::SIZE) as u64))?);
    }
    set(cpu, d, v);
    Ok(())
}

fn store<T: Scalar>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let s = i.op2_register();
    let (mask, v) = (get(cpu, i.op1_register()), get(cpu, s));
    let va = cpu.ea(i);
    let all = count::<T>(is_ymm(s));
    let at = |k: usize| va.wrapping_add((k * T::SIZE) as u64);
    check_last::<T>(cpu, va, mask, all)?;
    // All of them can be stored, or none is.
    for k in (0..all).filter(|&k| selected::<T>(mask, k)) {
        cpu.dest_bytes(at(k))?;
        cpu.dest_bytes(at(k).wrapping_add(T::SIZE as u64 - 1))?;
    }
    for k in (0..all).filter(|&k| selected::<T>(mask, k)) {
        cpu.write::<T>(at(k), element(v, k))?;
    }
    Ok(())
}

pub(super) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        VEX_Vmaskmovps_xmm_xmm_m128
        | VEX_Vmaskmovps_ymm_ymm_m256
        | VEX_Vpmaskmovd_xmm_xmm_m128
        | VEX_Vpmaskmovd_ymm_ymm_m256 => load::<u32>,
        VEX_Vmaskmovpd_xmm_xmm_m128
        | VEX_Vmaskmovpd_ymm_ymm_m256
        | VEX_Vpmaskmovq_xmm_xmm_m128
        | VEX_Vpmaskmovq_ymm_ymm_m256 => load::<u64>,
        VEX_Vmaskmovps_m128_xmm_xmm
        | VEX_Vmaskmovps_m256_ymm_ymm
        | VEX_Vpmaskmovd_m128_xmm_xmm
        | VEX_Vpmaskmovd_m256_ymm_ymm => store::<u32>,
        VEX_Vmaskmovpd_m128_xmm_xmm
        | VEX_Vmaskmovpd_m256_ymm_ymm
        | VEX_Vpmaskmovq_m128_xmm_xmm
        | VEX_Vpmaskmovq_m256_ymm_ymm => store::<u64>,
        _ => return None,
    })
}
