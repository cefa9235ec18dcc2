// SPDX-License-Identifier: Apache-2.0
//! Shifts and rotates of registers and memory by a constant or cl. Undefined flags as in exec/shift.rs.

use super::*;
use crate::cpu::flags::{AUX_AF, AUX_CF, AUX_PO};

pub(crate) const ROL: u8 = 0;
pub(crate) const ROR: u8 = 1;
pub(crate) const SHL: u8 = 4;
pub(crate) const SHR: u8 = 5;
pub(crate) const SAR: u8 = 7;

/// Shifts by `n`, which is not 0 and less than the width for types under 32 bits.
#[inline(always)]
unsafe fn shift<T: W, const O: u8, const F: bool>(cpu: *mut Cpu, a: T, n: u32) -> T {
    by_contract!({
        let a = a.wide();
        let top = T::BITS - 1;
        let n = n & 63;
        let (r, cf) = match O {
            ROL => {
                let n = n % T::BITS;
                let r = (a << n) | (a >> ((T::BITS - n) & 63));
                let r = if n == 0 { a } else { r };
                (r, r & 1)
            }
            ROR => {
                let n = n % T::BITS;
                let r = (a >> n) | (a << ((T::BITS - n) & 63));
                let r = if n == 0 { a } else { r };
                (r, r >> top & 1)
            }
            SHL => (a << n, a >> ((T::BITS - n) & 63) & 1),
            SHR => (a >> n, a >> (n - 1) & 1),
            _ => {
                let s = T::sext(a) as i64;
                ((s >> n) as u64, (s >> (n - 1)) as u64 & 1)
            }
        };
        if F {
            // Bit 62 of Flags::aux is CF xor OF.
            let msb = r >> top & 1;
            let carry_in = match O {
                ROL | SHL => msb,
                ROR | SHR => cf ^ msb ^ (r >> (top - 1) & 1),
                _ => cf,
            };
            let aux = cf << 63 | carry_in << 62;
            if O == ROL || O == ROR {
                (*cpu).flags.aux = (*cpu).flags.aux & !(AUX_CF | AUX_PO) | aux;
            } else {
                (*cpu).flags.res = T::sext(r);
                (*cpu).flags.aux = aux | AUX_AF;
            }
        }
        T::cut(r)
    })
}

pub(crate) unsafe fn reg_imm<T: W, const O: u8, const F: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let r = shift::<T, O, F>(cpu, rd(cpu, (*op).dst), (*op).imm as u32);
        wr::<T>(cpu, (*op).dst, r);
        go!(cpu, op.add(1))
    })
}

/// By cl; only 32 and 64 bits. A count of 0 changes nothing but the upper half.
pub(crate) unsafe fn reg_cl<T: W, const O: u8>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let n = rd::<u8>(cpu, 8) as u32 & (T::BITS - 1);
        let a: T = rd(cpu, (*op).dst);
        let r = if n == 0 { a } else { shift::<T, O, true>(cpu, a, n) };
        wr::<T>(cpu, (*op).dst, r);
        go!(cpu, op.add(1))
    })
}

/// shlx, shrx, sarx are hidden; rorx too.
macro_rules! by_shift {
    ($o:expr, $live:expr) => {
        match ($o, $live) {
            (ROL, true) => Some(reg_imm::<T, ROL, true> as Handler),
            (ROL, false) => Some(reg_imm::<T, ROL, false> as Handler),
            (ROR, true) => Some(reg_imm::<T, ROR, true> as Handler),
            (ROR, false) => Some(reg_imm::<T, ROR, false> as Handler),
            (SHL, true) => Some(reg_imm::<T, SHL, true> as Handler),
            (SHL, false) => Some(reg_imm::<T, SHL, false> as Handler),
            (SHR, true) => Some(reg_imm::<T, SHR, true> as Handler),
            (SHR, false) => Some(reg_imm::<T, SHR, false> as Handler),
            (SAR, true) => Some(reg_imm::<T, SAR, true> as Handler),
            (SAR, false) => Some(reg_imm::<T, SAR, false> as Handler),
            _ => None,
        }
    };
}

pub(crate) fn pick_imm(o: u8, size: usize, live: bool) -> Option<Handler> {
    by_size!(size, by_shift!(o, live))
}

pub(crate) fn pick_cl(o: u8, size: usize) -> Option<Handler> {
    macro_rules! one {
        ($t:ty) => {
            match o {
                ROL => Some(reg_cl::<$t, ROL> as Handler),
                ROR => Some(reg_cl::<$t, ROR> as Handler),
                SHL => Some(reg_cl::<$t, SHL> as Handler),
                SHR => Some(reg_cl::<$t, SHR> as Handler),
                SAR => Some(reg_cl::<$t, SAR> as Handler),
                _ => None,
            }
        };
    }
    match size {
        4 => one!(u32),
        8 => one!(u64),
        _ => None,
    }
}
