// SPDX-License-Identifier: Apache-2.0
//! The 16-byte moves and logic that memcpy, strlen and compilers use most.

use super::lower::{is_mem, memory, reg_off, with, Low};
use super::*;
use crate::cpu::regs::xmm_index;
use iced_x86::{Code, EncodingKind, OpKind};

#[inline(always)]
pub(super) unsafe fn xmm(cpu: *mut Cpu, n: u8) -> *mut u128 {
    by_contract!({ (*cpu).fpu.xmm.as_mut_ptr().add((n & 15) as usize) })
}

#[cold]
#[inline(never)]
pub(super) unsafe fn no_fpu(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        trap(cpu, op, Trap::Fault(Fault::new(vec_no::NM)));
        null()
    })
}

macro_rules! check_fpu {
    ($cpu:expr, $op:expr) => {
        if (*$cpu).fpu.ts {
            return no_fpu($cpu, $op);
        }
    };
}

pub(super) use check_fpu;

pub(crate) unsafe fn mov_rr(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        *xmm(cpu, (*op).dst) = *xmm(cpu, (*op).src);
        go!(cpu, op.add(1))
    })
}

/// `A`: must be aligned.
pub(crate) unsafe fn load<const A: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        let va = ea::<true>(cpu, op);
        if A && va & 15 != 0 {
            return op_gp(cpu, op);
        }
        let e = (*cpu).chain.tlb.add(crate::mmu::tlb::tlb_index(va));
        if (*e).neg_r.wrapping_add(va) > 4096 - 16 {
            return miss::read(cpu, op, va, 16);
        }
        *xmm(cpu, (*op).dst) = u128::load(va.wrapping_add((*e).delta) as *const u8);
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn store<const A: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        let va = ea::<true>(cpu, op);
        if A && va & 15 != 0 {
            return op_gp(cpu, op);
        }
        let e = (*cpu).chain.tlb.add(crate::mmu::tlb::tlb_index(va));
        if (*e).neg_w.wrapping_add(va) > 4096 - 16 {
            return miss::write(cpu, op, va, 16);
        }
        (*xmm(cpu, (*op).src)).store(va.wrapping_add((*e).delta) as *mut u8);
        go!(cpu, op.add(1))
    })
}

/// movd and movq into an xmm register: the rest becomes zero.
pub(crate) unsafe fn low_load<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        let v = ld!(T, cpu, op, ea::<true>(cpu, op));
        *xmm(cpu, (*op).dst) = u128::from(v.wide());
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn low_store<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        let v = *xmm(cpu, (*op).src) as u64;
        st!(T, cpu, op, ea::<true>(cpu, op), T::cut(v));
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn low_from_gpr<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        *xmm(cpu, (*op).dst) = u128::from(rd::<T>(cpu, (*op).src).wide());
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn low_to_gpr<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        wr::<T>(cpu, (*op).dst, T::cut(*xmm(cpu, (*op).src) as u64));
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn low_rr(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        *xmm(cpu, (*op).dst) = u128::from(*xmm(cpu, (*op).src) as u64);
        go!(cpu, op.add(1))
    })
}

/// pxor and its like (0), por (1), pand (2), pandn (3).
pub(crate) unsafe fn logic<const K: u8>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
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
    })
}

/// The fast form of a move or of logic of xmm registers.
pub(crate) fn lower(i: &Instruction) -> Option<Low> {
    use Code as C;
    let mut op = Op::new(op_nop);
    let (dst, src) = (i.op0_register(), i.op1_register());
    let both = |h: Handler, mut op: Op| {
        if i.op1_kind() != OpKind::Register {
            return None;
        }
        (op.dst, op.src) = (xmm_index(dst) as u8, xmm_index(src) as u8);
        with(h, op)
    };
    let (load, store): (Handler, Handler) = match i.code() {
        C::Movups_xmm_xmmm128
        | C::Movupd_xmm_xmmm128
        | C::Movdqu_xmm_xmmm128
        | C::Lddqu_xmm_m128
        | C::Movups_xmmm128_xmm
        | C::Movupd_xmmm128_xmm
        | C::Movdqu_xmmm128_xmm => (load::<false>, store::<false>),
        C::Movaps_xmm_xmmm128
        | C::Movapd_xmm_xmmm128
        | C::Movdqa_xmm_xmmm128
        | C::Movaps_xmmm128_xmm
        | C::Movapd_xmmm128_xmm
        | C::Movdqa_xmmm128_xmm
        | C::Movntdq_m128_xmm
        | C::Movntps_m128_xmm => (load::<true>, store::<true>),
        C::Movq_xmm_xmmm64 | C::Movq_xmmm64_xmm if dst.is_xmm() && src.is_xmm() => return both(low_rr, op),
        C::Movq_xmm_xmmm64 | C::Movq_xmm_rm64 | C::Movq_xmmm64_xmm | C::Movq_rm64_xmm
            if is_mem(i, 0) || is_mem(i, 1) =>
        {
            (low_load::<u64>, low_store::<u64>)
        }
        C::Movd_xmm_rm32 | C::Movd_rm32_xmm if is_mem(i, 0) || is_mem(i, 1) => {
            (low_load::<u32>, low_store::<u32>)
        }
        C::Movd_xmm_rm32 | C::Movq_xmm_rm64 => {
            (op.dst, op.src) = (xmm_index(dst) as u8, reg_off(src));
            return with(
                if src.size() == 8 {
                    low_from_gpr::<u64>
                } else {
                    low_from_gpr::<u32>
                },
                op,
            );
        }
        C::Movd_rm32_xmm | C::Movq_rm64_xmm => {
            (op.dst, op.src) = (reg_off(dst), xmm_index(src) as u8);
            return with(
                if dst.size() == 8 {
                    low_to_gpr::<u64>
                } else {
                    low_to_gpr::<u32>
                },
                op,
            );
        }
        C::Pxor_xmm_xmmm128 | C::Xorps_xmm_xmmm128 | C::Xorpd_xmm_xmmm128 => return both(logic::<0>, op),
        C::Por_xmm_xmmm128 | C::Orps_xmm_xmmm128 | C::Orpd_xmm_xmmm128 => return both(logic::<1>, op),
        C::Pand_xmm_xmmm128 | C::Andps_xmm_xmmm128 | C::Andpd_xmm_xmmm128 => return both(logic::<2>, op),
        C::Pandn_xmm_xmmm128 | C::Andnps_xmm_xmmm128 | C::Andnpd_xmm_xmmm128 => return both(logic::<3>, op),
        _ if i.encoding() == EncodingKind::VEX => return super::avx::lower(i),
        _ => return super::simd::lower(i),
    };
    if is_mem(i, 1) {
        memory(i, &mut op)?;
        op.dst = xmm_index(dst) as u8;
        return with(load, op);
    }
    if is_mem(i, 0) {
        memory(i, &mut op)?;
        op.src = xmm_index(src) as u8;
        return with(store, op);
    }
    both(mov_rr, op)
}
