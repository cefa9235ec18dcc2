// SPDX-License-Identifier: Apache-2.0
//! imul, mul, div, bit tests and scans. Undefined flags as in exec/muldiv.rs and exec/bits.rs.

use super::*;
use crate::cpu::flags::{AUX_CF, AUX_PO};

/// CF and OF both `v`; the other flags stay.
#[inline(always)]
unsafe fn set_cf_of(cpu: *mut Cpu, v: bool) {
    by_contract!({
        let aux = (*cpu).flags.aux & !(AUX_CF | AUX_PO);
        (*cpu).flags.aux = aux | if v { AUX_CF } else { 0 };
    })
}

#[inline(always)]
unsafe fn product<T: W>(cpu: *mut Cpu, a: T, b: T) -> T {
    by_contract!({
        let p = i128::from(T::sext(a.wide()) as i64) * i128::from(T::sext(b.wide()) as i64);
        let r = p as u64;
        set_cf_of(cpu, i128::from(T::sext(r) as i64) != p);
        T::cut(r)
    })
}

pub(crate) unsafe fn imul_rr<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let r = product::<T>(cpu, rd(cpu, (*op).dst), rd(cpu, (*op).src));
        wr::<T>(cpu, (*op).dst, r);
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn imul_rm<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let b = ld!(T, cpu, op, ea::<true>(cpu, op));
        let r = product::<T>(cpu, rd(cpu, (*op).dst), b);
        wr::<T>(cpu, (*op).dst, r);
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn imul_rri<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let r = product::<T>(cpu, rd(cpu, (*op).src), T::cut((*op).imm));
        wr::<T>(cpu, (*op).dst, r);
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn imul_rmi<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let b = ld!(T, cpu, op, ea::<true>(cpu, op));
        let r = product::<T>(cpu, b, T::cut((*op).imm));
        wr::<T>(cpu, (*op).dst, r);
        go!(cpu, op.add(1))
    })
}

/// mul of rax by a register.
pub(crate) unsafe fn mul_r<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let p = u128::from(rd::<T>(cpu, 0).wide()) * u128::from(rd::<T>(cpu, (*op).src).wide());
        let high = T::cut((p >> T::BITS) as u64);
        wr::<T>(cpu, 0, T::cut(p as u64));
        wr::<T>(cpu, 16, high);
        set_cf_of(cpu, high.wide() != 0);
        go!(cpu, op.add(1))
    })
}

/// bt of a register by a register (`I` false) or a constant.
pub(crate) unsafe fn bt<T: W, const I: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let n = if I {
            (*op).imm
        } else {
            rd::<T>(cpu, (*op).src).wide()
        };
        let bit = rd::<T>(cpu, (*op).dst).wide() >> (n & u64::from(T::BITS - 1)) & 1;
        // Only CF changes: OF is CF xor bit 62, so both bits do.
        let aux = (*cpu).flags.aux;
        if (aux >> 63) != bit {
            (*cpu).flags.aux = aux ^ (AUX_CF | AUX_PO);
        }
        go!(cpu, op.add(1))
    })
}

pub(crate) fn pick_imul(size: usize, mem: bool, imm: bool) -> Option<Handler> {
    macro_rules! one {
        ($t:ty) => {
            Some(match (mem, imm) {
                (false, false) => imul_rr::<$t> as Handler,
                (false, true) => imul_rri::<$t> as Handler,
                (true, false) => imul_rm::<$t> as Handler,
                (true, true) => imul_rmi::<$t> as Handler,
            })
        };
    }
    match size {
        4 => one!(u32),
        8 => one!(u64),
        _ => None,
    }
}
