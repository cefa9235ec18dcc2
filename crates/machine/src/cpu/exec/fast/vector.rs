//! The 16-byte moves and logic that memcpy, strlen and compilers use most.

use super::*;

#[inline(always)]
pub(super) unsafe fn xmm(cpu: *mut Cpu, n: u8) -> *mut u128 {
    (*cpu).xmm.as_mut_ptr().add((n & 15) as usize)
}

#[cold]
#[inline(never)]
pub(super) unsafe fn no_fpu(cpu: *mut Cpu, op: *const Op) -> *const Op {
    trap(cpu, op, Trap::Fault(Fault::new(vec_no::NM)));
    null()
}

macro_rules! check_fpu {
    ($cpu:expr, $op:expr) => {
        if (*$cpu).ts {
            return no_fpu($cpu, $op);
        }
    };
}

pub(super) use check_fpu;

pub unsafe fn mov_rr(cpu: *mut Cpu, op: *const Op) -> *const Op {
    check_fpu!(cpu, op);
    *xmm(cpu, (*op).dst) = *xmm(cpu, (*op).src);
    go!(cpu, op.add(1))
}

/// `A`: must be aligned.
pub unsafe fn load<const A: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    check_fpu!(cpu, op);
    let va = ea::<true>(cpu, op);
    if A && va & 15 != 0 {
        return op_gp(cpu, op);
    }
    let e = (*cpu).tlb.add(crate::mmu::tlb::tlb_index(va));
    if (*e).neg_r.wrapping_add(va) > 4096 - 16 {
        return miss::read(cpu, op, va, 16);
    }
    *xmm(cpu, (*op).dst) = u128::load(va.wrapping_add((*e).delta) as *const u8);
    go!(cpu, op.add(1))
}

pub unsafe fn store<const A: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    check_fpu!(cpu, op);
    let va = ea::<true>(cpu, op);
    if A && va & 15 != 0 {
        return op_gp(cpu, op);
    }
    let e = (*cpu).tlb.add(crate::mmu::tlb::tlb_index(va));
    if (*e).neg_w.wrapping_add(va) > 4096 - 16 {
        return miss::write(cpu, op, va, 16);
    }
    (*xmm(cpu, (*op).src)).store(va.wrapping_add((*e).delta) as *mut u8);
    go!(cpu, op.add(1))
}

/// movd and movq into an xmm register: the rest becomes zero.
pub unsafe fn low_load<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    check_fpu!(cpu, op);
    let v = ld!(T, cpu, op, ea::<true>(cpu, op));
    *xmm(cpu, (*op).dst) = u128::from(v.wide());
    go!(cpu, op.add(1))
}

pub unsafe fn low_store<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    check_fpu!(cpu, op);
    let v = *xmm(cpu, (*op).src) as u64;
    st!(T, cpu, op, ea::<true>(cpu, op), T::cut(v));
    go!(cpu, op.add(1))
}

pub unsafe fn low_from_gpr<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    check_fpu!(cpu, op);
    *xmm(cpu, (*op).dst) = u128::from(rd::<T>(cpu, (*op).src).wide());
    go!(cpu, op.add(1))
}

pub unsafe fn low_to_gpr<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    check_fpu!(cpu, op);
    wr::<T>(cpu, (*op).dst, T::cut(*xmm(cpu, (*op).src) as u64));
    go!(cpu, op.add(1))
}

pub unsafe fn low_rr(cpu: *mut Cpu, op: *const Op) -> *const Op {
    check_fpu!(cpu, op);
    *xmm(cpu, (*op).dst) = u128::from(*xmm(cpu, (*op).src) as u64);
    go!(cpu, op.add(1))
}

/// pxor and its like (0), por (1), pand (2), pandn (3).
pub unsafe fn logic<const K: u8>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    check_fpu!(cpu, op);
    let b = *xmm(cpu, (*op).src);
    let a = xmm(cpu, (*op).dst);
    *a = match K {
        0 => *a ^ b,
        1 => *a | b,
        2 => *a & b,
        _ => !*a & b,
    };
    go!(cpu, op.add(1))
}
