// SPDX-License-Identifier: Apache-2.0
//! The forms of AVX that libraries' string functions and compilers use most: moves, logic, packed integers.
//!
//! Operands: `dst`; the number of the first source in `imm`; `src` or memory.

use super::lower::{is_mem, memory, reg_off, with, Low};
use super::vector::xmm;
use super::*;
use crate::cpu::exec::sse::lane as l;
use crate::cpu::regs::{xmm_index, ymm_index};
use iced_x86::{Code, OpKind};

/// The upper half of a ymm register.
#[inline(always)]
unsafe fn high(cpu: *mut Cpu, n: u8) -> *mut u128 {
    by_contract!({ (*cpu).fpu.ymm_hi.as_mut_ptr().add((n & 15) as usize) })
}

#[cold]
#[inline(never)]
unsafe fn refused(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let fault = if (*cpu).fpu.avx {
            Fault::new(vec_no::NM)
        } else {
            Fault::ud()
        };
        trap(cpu, op, Trap::Fault(fault));
        null()
    })
}

macro_rules! check {
    ($cpu:expr, $op:expr) => {
        if !(*$cpu).fpu.avx || (*$cpu).fpu.ts {
            return refused($cpu, $op);
        }
    };
}

/// Bytes of an operand.
const fn bytes(wide: bool) -> u64 {
    if wide {
        32
    } else {
        16
    }
}

/// Loads m128 or m256, or leaves the handler.
macro_rules! load {
    ($wide:expr, $cpu:expr, $op:expr, $va:expr) => {{
        let va = $va;
        let e = (*$cpu).chain.tlb.add(crate::mmu::tlb::tlb_index(va));
        if (*e).neg_r.wrapping_add(va) > 4096 - bytes($wide) {
            return miss::read($cpu, $op, va, bytes($wide));
        }
        let at = va.wrapping_add((*e).delta) as *const u8;
        [u128::load(at), if $wide { u128::load(at.add(16)) } else { 0 }]
    }};
}

unsafe fn mov_rr<const WIDE: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check!(cpu, op);
        *xmm(cpu, (*op).dst) = *xmm(cpu, (*op).src);
        *high(cpu, (*op).dst) = if WIDE { *high(cpu, (*op).src) } else { 0 };
        go!(cpu, op.add(1))
    })
}

unsafe fn mov_load<const WIDE: bool, const ALIGNED: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check!(cpu, op);
        let va = ea::<true>(cpu, op);
        if ALIGNED && va & (bytes(WIDE) - 1) != 0 {
            return op_gp(cpu, op);
        }
        let [low, upper] = load!(WIDE, cpu, op, va);
        *xmm(cpu, (*op).dst) = low;
        *high(cpu, (*op).dst) = upper;
        go!(cpu, op.add(1))
    })
}

unsafe fn mov_store<const WIDE: bool, const ALIGNED: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check!(cpu, op);
        let va = ea::<true>(cpu, op);
        if ALIGNED && va & (bytes(WIDE) - 1) != 0 {
            return op_gp(cpu, op);
        }
        let e = (*cpu).chain.tlb.add(crate::mmu::tlb::tlb_index(va));
        if (*e).neg_w.wrapping_add(va) > 4096 - bytes(WIDE) {
            return miss::write(cpu, op, va, bytes(WIDE));
        }
        let at = va.wrapping_add((*e).delta) as *mut u8;
        (*xmm(cpu, (*op).src)).store(at);
        if WIDE {
            (*high(cpu, (*op).src)).store(at.add(16));
        }
        go!(cpu, op.add(1))
    })
}

/// `vpmovmskb`
unsafe fn byte_mask<const WIDE: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check!(cpu, op);
        let mut m = l::byte_mask(*xmm(cpu, (*op).src));
        if WIDE {
            m |= l::byte_mask(*high(cpu, (*op).src)) << 16;
        }
        wr::<u64>(cpu, (*op).dst, u64::from(m));
        go!(cpu, op.add(1))
    })
}

/// `vpbroadcastb` and its like of a register.
unsafe fn broadcast<T: W, const WIDE: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check!(cpu, op);
        let v = u128::from(T::cut(*xmm(cpu, (*op).src) as u64).wide());
        let v = v.wrapping_mul(u128::MAX / (u128::MAX >> (128 - T::BITS)));
        *xmm(cpu, (*op).dst) = v;
        *high(cpu, (*op).dst) = if WIDE { v } else { 0 };
        go!(cpu, op.add(1))
    })
}

/// `vmovd` and `vmovq` from a general-purpose register.
unsafe fn low_from_gpr<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check!(cpu, op);
        *xmm(cpu, (*op).dst) = u128::from(rd::<T>(cpu, (*op).src).wide());
        *high(cpu, (*op).dst) = 0;
        go!(cpu, op.add(1))
    })
}

unsafe fn zero_upper(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check!(cpu, op);
        (*cpu).fpu.ymm_hi = [0; 16];
        go!(cpu, op.add(1))
    })
}

/// Handlers of `op d, a, b` and `op d, a, memory` for a function of halves: xmm, ymm.
macro_rules! both {
    ($f:path) => {{
        unsafe fn rr<const WIDE: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
            by_contract!({
                check!(cpu, op);
                let (a, b) = ((*op).imm as u8, (*op).src);
                let low = $f(*xmm(cpu, a), *xmm(cpu, b));
                *high(cpu, (*op).dst) = if WIDE { $f(*high(cpu, a), *high(cpu, b)) } else { 0 };
                *xmm(cpu, (*op).dst) = low;
                go!(cpu, op.add(1))
            })
        }
        unsafe fn rm<const WIDE: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
            by_contract!({
                check!(cpu, op);
                let [low, upper] = load!(WIDE, cpu, op, ea::<true>(cpu, op));
                let a = (*op).imm as u8;
                let low = $f(*xmm(cpu, a), low);
                *high(cpu, (*op).dst) = if WIDE { $f(*high(cpu, a), upper) } else { 0 };
                *xmm(cpu, (*op).dst) = low;
                go!(cpu, op.add(1))
            })
        }
        [[rr::<false> as Handler, rm::<false>], [rr::<true>, rm::<true>]]
    }};
}

/// By width, then for a register and for memory.
type Forms = [[Handler; 2]; 2];

fn packed(code: Code) -> Option<Forms> {
    use Code::*;
    Some(match code {
        VEX_Vpxor_xmm_xmm_xmmm128
        | VEX_Vpxor_ymm_ymm_ymmm256
        | VEX_Vxorps_xmm_xmm_xmmm128
        | VEX_Vxorps_ymm_ymm_ymmm256 => both!(l::pxor),
        VEX_Vpor_xmm_xmm_xmmm128 | VEX_Vpor_ymm_ymm_ymmm256 => both!(l::por),
        VEX_Vpand_xmm_xmm_xmmm128 | VEX_Vpand_ymm_ymm_ymmm256 => both!(l::pand),
        VEX_Vpandn_xmm_xmm_xmmm128 | VEX_Vpandn_ymm_ymm_ymmm256 => both!(l::pandn),
        VEX_Vpcmpeqb_xmm_xmm_xmmm128 | VEX_Vpcmpeqb_ymm_ymm_ymmm256 => both!(l::pcmpeqb),
        VEX_Vpcmpeqd_xmm_xmm_xmmm128 | VEX_Vpcmpeqd_ymm_ymm_ymmm256 => both!(l::pcmpeqd),
        VEX_Vpcmpgtb_xmm_xmm_xmmm128 | VEX_Vpcmpgtb_ymm_ymm_ymmm256 => both!(l::pcmpgtb),
        VEX_Vpminub_xmm_xmm_xmmm128 | VEX_Vpminub_ymm_ymm_ymmm256 => both!(l::pminub),
        VEX_Vpmaxub_xmm_xmm_xmmm128 | VEX_Vpmaxub_ymm_ymm_ymmm256 => both!(l::pmaxub),
        VEX_Vpsubb_xmm_xmm_xmmm128 | VEX_Vpsubb_ymm_ymm_ymmm256 => both!(l::psubb),
        VEX_Vpaddb_xmm_xmm_xmmm128 | VEX_Vpaddb_ymm_ymm_ymmm256 => both!(l::paddb),
        VEX_Vpaddd_xmm_xmm_xmmm128 | VEX_Vpaddd_ymm_ymm_ymmm256 => both!(l::paddd),
        VEX_Vpaddq_xmm_xmm_xmmm128 | VEX_Vpaddq_ymm_ymm_ymmm256 => both!(l::paddq),
        _ => return None,
    })
}

/// Load and store of whole registers; whether they must be aligned.
fn moves(code: Code) -> Option<[Handler; 2]> {
    use Code::*;
    Some(match code {
        VEX_Vmovdqu_xmm_xmmm128
        | VEX_Vmovdqu_xmmm128_xmm
        | VEX_Vmovups_xmm_xmmm128
        | VEX_Vmovups_xmmm128_xmm => [mov_load::<false, false>, mov_store::<false, false>],
        VEX_Vmovdqu_ymm_ymmm256
        | VEX_Vmovdqu_ymmm256_ymm
        | VEX_Vmovups_ymm_ymmm256
        | VEX_Vmovups_ymmm256_ymm => [mov_load::<true, false>, mov_store::<true, false>],
        VEX_Vmovdqa_xmm_xmmm128
        | VEX_Vmovdqa_xmmm128_xmm
        | VEX_Vmovaps_xmm_xmmm128
        | VEX_Vmovaps_xmmm128_xmm => [mov_load::<false, true>, mov_store::<false, true>],
        VEX_Vmovdqa_ymm_ymmm256
        | VEX_Vmovdqa_ymmm256_ymm
        | VEX_Vmovaps_ymm_ymmm256
        | VEX_Vmovaps_ymmm256_ymm => [mov_load::<true, true>, mov_store::<true, true>],
        _ => return None,
    })
}

fn vector(r: iced_x86::Register) -> u8 {
    (xmm_index(r) | ymm_index(r)) as u8
}

/// The fast form of an instruction of AVX. Of 32-bit code none has one: it can name eight registers only.
pub(super) fn lower(i: &Instruction) -> Option<Low> {
    use Code::*;
    let mut op = Op::new(op_nop);
    if i.code_size() != iced_x86::CodeSize::Code64 {
        return None;
    }
    if i.code() == VEX_Vzeroupper {
        return with(zero_upper, op);
    }
    let (dst, src) = (i.op0_register(), i.op1_register());
    let wide = dst.is_ymm() || src.is_ymm();
    if let Some([load, store]) = moves(i.code()) {
        if is_mem(i, 0) {
            memory(i, &mut op)?;
            op.src = vector(src);
            return with(store, op);
        }
        op.dst = vector(dst);
        if is_mem(i, 1) {
            memory(i, &mut op)?;
            return with(load, op);
        }
        op.src = vector(src);
        return with(if wide { mov_rr::<true> } else { mov_rr::<false> }, op);
    }
    if let Some(forms) = packed(i.code()) {
        let [rr, rm] = forms[usize::from(wide)];
        (op.dst, op.imm) = (vector(dst), u64::from(vector(src)));
        if is_mem(i, 2) {
            memory(i, &mut op)?;
            return with(rm, op);
        }
        op.src = vector(i.op2_register());
        return with(rr, op);
    }
    if i.op1_kind() != OpKind::Register {
        return None;
    }
    let h: Handler = match i.code() {
        VEX_Vpmovmskb_r32_xmm | VEX_Vpmovmskb_r64_xmm => byte_mask::<false>,
        VEX_Vpmovmskb_r32_ymm | VEX_Vpmovmskb_r64_ymm => byte_mask::<true>,
        VEX_Vpbroadcastb_xmm_xmmm8 => broadcast::<u8, false>,
        VEX_Vpbroadcastb_ymm_xmmm8 => broadcast::<u8, true>,
        VEX_Vpbroadcastd_xmm_xmmm32 => broadcast::<u32, false>,
        VEX_Vpbroadcastd_ymm_xmmm32 => broadcast::<u32, true>,
        VEX_Vmovd_xmm_rm32 => low_from_gpr::<u32>,
        VEX_Vmovq_xmm_rm64 => low_from_gpr::<u64>,
        _ => return None,
    };
    op.dst = if dst.is_gpr() { reg_off(dst) } else { vector(dst) };
    op.src = if src.is_gpr() { reg_off(src) } else { vector(src) };
    with(h, op)
}
