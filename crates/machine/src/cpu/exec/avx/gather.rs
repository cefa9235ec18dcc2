// SPDX-License-Identifier: Apache-2.0
//! Gathers: elements loaded from a base and a register of indices, where the mask has its sign set.
//!
//! An element is done when it is in the destination and gone from the mask, so that the instruction goes on where it was
//! after a fault.

use super::masked::{element, selected, set_element};
use super::{get, is_ymm, set, Ymm};
use crate::cpu::exec::sse::xn;
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::regs::gpr_index;
use crate::cpu::{Cpu, Scalar, SlowFn};
use iced_x86::{Code, Instruction, Register};

/// Linear address for an index.
fn address(cpu: &Cpu, i: &Instruction, index: i64) -> u64 {
    let base = i.memory_base();
    let mut off = i
        .memory_displacement64()
        .wrapping_add((index as u64).wrapping_mul(u64::from(i.memory_index_scale())));
    if base != Register::None {
        off = off.wrapping_add(cpu.regs[gpr_index(base) & 15]);
    }
    let narrow = base.size() == 4 || base == Register::None && i.memory_displ_size() == 4;
    let off = if narrow || cpu.seg.code32 {
        off & 0xffff_ffff
    } else {
        off
    };
    cpu.operand_va(i, 1, i.memory_segment(), off, 0)
}

/// The first `len` bytes of a register, zeros above them.
fn above_cleared(v: Ymm, len: usize) -> Ymm {
    [0, 16].map(|first| {
        let kept = len.saturating_sub(first).min(16);
        v[first / 16] & u128::MAX.checked_shr(128 - 8 * kept as u32).unwrap_or(0)
    })
}

/// `T` are the elements, indices have 32 or (`QWORDS`) 64 bits.
fn gather<T: Scalar, const QWORDS: bool>(cpu: &mut Cpu, i: &Instruction) -> Exec {
    super::check(cpu)?;
    let (d, m) = (i.op0_register(), i.op2_register());
    let index = i.memory_index();
    if xn(d) == xn(m) || xn(d) == xn(index) || xn(m) == xn(index) {
        return Err(Fault::ud().into());
    }
    let indices: Ymm = get(cpu, index);
    let bytes = |r: Register| if is_ymm(r) { 32 } else { 16 };
    let count = (bytes(index) / if QWORDS { 8 } else { 4 }).min(bytes(d) / T::SIZE);
    let mask = get(cpu, m);
    let mut result = get(cpu, d);
    // In a mask that is in use an element is all ones or all zeros.
    let mut left: Ymm = [0; 2];
    let all_ones = T::from_u128(u128::MAX);
    let masks = bytes(d).max(bytes(index)) / T::SIZE;
    for k in (0..masks).filter(|&k| selected::<T>(mask, k)) {
        set_element(&mut left, k, all_ones);
    }
    let all = left;
    for k in (0..count).filter(|&k| selected::<T>(mask, k)) {
        let index = if QWORDS {
            element::<u64>(indices, k) as i64
        } else {
            i64::from(element::<u32>(indices, k) as i32)
        };
        let va = address(cpu, i, index);
        match cpu.read::<T>(va) {
            Ok(v) => {
                set_element(&mut result, k, v);
                set_element(&mut left, k, T::from_u128(0));
            }
            Err(fault) => {
                // What processors do: with one element done, what is above them is gone, but for dwords by qwords.
                if left != all {
                    let end = if QWORDS && T::SIZE == 4 {
                        bytes(i.memory_index())
                    } else {
                        count * T::SIZE
                    };
                    set(cpu, d, above_cleared(result, end));
                }
                set(cpu, m, left);
                return Err(fault);
            }
        }
    }
    set(cpu, d, above_cleared(result, count * T::SIZE));
    set(cpu, m, [0; 2]);
    Ok(())
}

pub(super) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        VEX_Vpgatherdd_xmm_vm32x_xmm
        | VEX_Vpgatherdd_ymm_vm32y_ymm
        | VEX_Vgatherdps_xmm_vm32x_xmm
        | VEX_Vgatherdps_ymm_vm32y_ymm => gather::<u32, false>,
        VEX_Vpgatherdq_xmm_vm32x_xmm
        | VEX_Vpgatherdq_ymm_vm32x_ymm
        | VEX_Vgatherdpd_xmm_vm32x_xmm
        | VEX_Vgatherdpd_ymm_vm32x_ymm => gather::<u64, false>,
        VEX_Vpgatherqd_xmm_vm64x_xmm
        | VEX_Vpgatherqd_xmm_vm64y_xmm
        | VEX_Vgatherqps_xmm_vm64x_xmm
        | VEX_Vgatherqps_xmm_vm64y_xmm => gather::<u32, true>,
        VEX_Vpgatherqq_xmm_vm64x_xmm
        | VEX_Vpgatherqq_ymm_vm64y_ymm
        | VEX_Vgatherqpd_xmm_vm64x_xmm
        | VEX_Vgatherqpd_ymm_vm64y_ymm => gather::<u64, true>,
        _ => return None,
    })
}
