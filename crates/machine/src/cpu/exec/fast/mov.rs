// SPDX-License-Identifier: Apache-2.0
//! mov, movzx, movsx, lea, push, pop, leave, xchg of registers, sign extensions within rax and rdx.

use super::*;

pub(crate) unsafe fn rr<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        wr::<T>(cpu, (*op).dst, rd::<T>(cpu, (*op).src));
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn ri<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        wr::<T>(cpu, (*op).dst, T::cut((*op).imm));
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn rm<T: W, const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let v = ld!(T, cpu, op, ea::<X>(cpu, op));
        wr::<T>(cpu, (*op).dst, v);
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn mr<T: W, const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        st!(T, cpu, op, ea::<X>(cpu, op), rd::<T>(cpu, (*op).src));
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn mi<T: W, const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        st!(T, cpu, op, ea::<X>(cpu, op), T::cut((*op).imm));
        go!(cpu, op.add(1))
    })
}

/// movzx and movsx from `S` to `T`.
pub(crate) unsafe fn extend_r<S: W, T: W, const SIGN: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let v = rd::<S>(cpu, (*op).src).wide();
        wr::<T>(cpu, (*op).dst, T::cut(if SIGN { S::sext(v) } else { v }));
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn extend_m<S: W, T: W, const SIGN: bool, const X: bool>(
    cpu: *mut Cpu,
    op: *const Op,
) -> *const Op {
    by_contract!({
        let v = ld!(S, cpu, op, ea::<X>(cpu, op)).wide();
        wr::<T>(cpu, (*op).dst, T::cut(if SIGN { S::sext(v) } else { v }));
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn lea<T: W, const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        wr::<T>(cpu, (*op).dst, T::cut(ea::<X>(cpu, op)));
        go!(cpu, op.add(1))
    })
}

macro_rules! push {
    ($cpu:expr, $op:expr, $v:expr) => {{
        let sp = rd::<u64>($cpu, RSP).wrapping_sub(8);
        st!(u64, $cpu, $op, sp, $v);
        wr::<u64>($cpu, RSP, sp);
        go!($cpu, $op.add(1))
    }};
}

pub(crate) unsafe fn push_r(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({ push!(cpu, op, rd::<u64>(cpu, (*op).src)) })
}

pub(crate) unsafe fn push_i(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({ push!(cpu, op, (*op).imm) })
}

pub(crate) unsafe fn push_m<const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let v = ld!(u64, cpu, op, ea::<X>(cpu, op));
        push!(cpu, op, v)
    })
}

pub(crate) unsafe fn pop_r(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let sp = rd::<u64>(cpu, RSP);
        let v = ld!(u64, cpu, op, sp);
        wr::<u64>(cpu, RSP, sp.wrapping_add(8));
        wr::<u64>(cpu, (*op).dst, v);
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn leave(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let bp = rd::<u64>(cpu, RBP);
        let v = ld!(u64, cpu, op, bp);
        wr::<u64>(cpu, RSP, bp.wrapping_add(8));
        wr::<u64>(cpu, RBP, v);
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn xchg_rr<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let (a, b) = (rd::<T>(cpu, (*op).dst), rd::<T>(cpu, (*op).src));
        wr::<T>(cpu, (*op).dst, b);
        wr::<T>(cpu, (*op).src, a);
        go!(cpu, op.add(1))
    })
}

/// cwde and cdqe: from `S` to the `T` twice as wide, in rax.
pub(crate) unsafe fn widen_a<S: W, T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        wr::<T>(cpu, 0, T::cut(S::sext(rd::<S>(cpu, 0).wide())));
        go!(cpu, op.add(1))
    })
}

/// cdq and cqo.
pub(crate) unsafe fn widen_d<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let v = (T::sext(rd::<T>(cpu, 0).wide()) as i64 >> 63) as u64;
        wr::<T>(cpu, 16, T::cut(v));
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn bswap<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let v = rd::<T>(cpu, (*op).dst).wide().swap_bytes() >> (64 - T::BITS);
        wr::<T>(cpu, (*op).dst, T::cut(v));
        go!(cpu, op.add(1))
    })
}

pub(crate) fn pick_rm(size: usize, x: bool) -> Handler {
    if x {
        by_size!(size, rm::<T, true> as Handler)
    } else {
        by_size!(size, rm::<T, false> as Handler)
    }
}

pub(crate) fn pick_mr(size: usize, x: bool) -> Handler {
    if x {
        by_size!(size, mr::<T, true> as Handler)
    } else {
        by_size!(size, mr::<T, false> as Handler)
    }
}

pub(crate) fn pick_mi(size: usize, x: bool) -> Handler {
    if x {
        by_size!(size, mi::<T, true> as Handler)
    } else {
        by_size!(size, mi::<T, false> as Handler)
    }
}

/// movzx and movsx; `from` < `to` bytes. `mem`: `Some(has an index)`.
pub(crate) fn pick_extend(from: usize, to: usize, sign: bool, mem: Option<bool>) -> Option<Handler> {
    macro_rules! one {
        ($s:ty, $t:ty) => {
            Some(match (sign, mem) {
                (false, None) => extend_r::<$s, $t, false> as Handler,
                (true, None) => extend_r::<$s, $t, true> as Handler,
                (false, Some(false)) => extend_m::<$s, $t, false, false> as Handler,
                (true, Some(false)) => extend_m::<$s, $t, true, false> as Handler,
                (false, Some(true)) => extend_m::<$s, $t, false, true> as Handler,
                (true, Some(true)) => extend_m::<$s, $t, true, true> as Handler,
            })
        };
    }
    match (from, to) {
        (1, 2) => one!(u8, u16),
        (1, 4) => one!(u8, u32),
        (1, 8) => one!(u8, u64),
        (2, 4) => one!(u16, u32),
        (2, 8) => one!(u16, u64),
        (4, 8) => one!(u32, u64),
        _ => None,
    }
}
