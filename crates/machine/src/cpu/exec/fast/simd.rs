// SPDX-License-Identifier: Apache-2.0
//! Packed integer and scalar floating-point instructions: the operations of [`crate::cpu::exec::sse`] on the operands of ops.
//!
//! Floating point is done here only while MXCSR and the operands leave no flag to raise; else by [`soft`] and its like,
//! which are functions of their own so that no handler has the address of a local in a callee's hands.

use super::lower::{is_mem, memory, reg_off, with, Low};
use super::vector::{check_fpu, low_load, low_store, no_fpu, xmm};
use super::*;
use crate::cpu::exec::softfp::{fast, Env, Format, F32, F64};
use crate::cpu::exec::sse::{finish, lane as l, permute};
use crate::cpu::regs::xmm_index;
use iced_x86::{Code, OpKind};

/// Loads an aligned m128, or leaves the handler.
macro_rules! ld128 {
    ($cpu:expr, $op:expr) => {{
        let va = ea::<true>($cpu, $op);
        if va & 15 != 0 {
            return op_gp($cpu, $op);
        }
        let e = (*$cpu).chain.tlb.add(crate::mmu::tlb::tlb_index(va));
        if (*e).neg_r.wrapping_add(va) > 4096 - 16 {
            return miss::read($cpu, $op, va, 16);
        }
        u128::load(va.wrapping_add((*e).delta) as *const u8)
    }};
}

/// Handlers of `op xmm, xmm` and `op xmm, m128` for a function of both.
macro_rules! both {
    ($f:path) => {{
        unsafe fn rr(cpu: *mut Cpu, op: *const Op) -> *const Op {
            by_contract!({
                check_fpu!(cpu, op);
                let d = xmm(cpu, (*op).dst);
                *d = $f(*d, *xmm(cpu, (*op).src));
                go!(cpu, op.add(1))
            })
        }
        unsafe fn rm(cpu: *mut Cpu, op: *const Op) -> *const Op {
            by_contract!({
                check_fpu!(cpu, op);
                let b = ld128!(cpu, op);
                let d = xmm(cpu, (*op).dst);
                *d = $f(*d, b);
                go!(cpu, op.add(1))
            })
        }
        (rr as Handler, rm as Handler)
    }};
}

/// The same with an immediate.
macro_rules! both_imm {
    ($f:path) => {{
        unsafe fn rr(cpu: *mut Cpu, op: *const Op) -> *const Op {
            by_contract!({
                check_fpu!(cpu, op);
                let d = xmm(cpu, (*op).dst);
                *d = $f(*d, *xmm(cpu, (*op).src), (*op).imm as u8);
                go!(cpu, op.add(1))
            })
        }
        unsafe fn rm(cpu: *mut Cpu, op: *const Op) -> *const Op {
            by_contract!({
                check_fpu!(cpu, op);
                let b = ld128!(cpu, op);
                let d = xmm(cpu, (*op).dst);
                *d = $f(*d, b, (*op).imm as u8);
                go!(cpu, op.add(1))
            })
        }
        (rr as Handler, rm as Handler)
    }};
}

/// A shift by an immediate.
macro_rules! shift {
    ($f:path) => {{
        unsafe fn ri(cpu: *mut Cpu, op: *const Op) -> *const Op {
            by_contract!({
                check_fpu!(cpu, op);
                let d = xmm(cpu, (*op).dst);
                *d = $f(*d, u128::from((*op).imm));
                go!(cpu, op.add(1))
            })
        }
        ri as Handler
    }};
}

pub(crate) unsafe fn byte_mask(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        let m = l::byte_mask(*xmm(cpu, (*op).src));
        wr::<u64>(cpu, (*op).dst, u64::from(m));
        go!(cpu, op.add(1))
    })
}

/// The low lane of an xmm register.
#[inline(always)]
unsafe fn low<T: W>(cpu: *mut Cpu, n: u8) -> u64 {
    by_contract!({ T::load(xmm(cpu, n).cast::<u8>()).wide() })
}
#[inline(always)]
unsafe fn set_low<T: W>(cpu: *mut Cpu, n: u8, v: u64) {
    by_contract!({
        T::cut(v).store(xmm(cpu, n).cast::<u8>());
    })
}

/// A scalar operation with all its flags; false if it faults.
#[cold]
#[inline(never)]
unsafe fn soft<T: W>(cpu: *mut Cpu, op: *const Op, b: u64, f: fn(&mut Env, u64, u64) -> u64) -> bool {
    by_contract!({
        let mut env = Env::sse((*cpu).fpu.mxcsr);
        let r = f(&mut env, low::<T>(cpu, (*op).dst), b);
        match finish(&mut *cpu, &env) {
            Ok(()) => {
                set_low::<T>(cpu, (*op).dst, r);
                true
            }
            Err(t) => {
                trap(cpu, op, t);
                false
            }
        }
    })
}

/// Handlers of a scalar operation: `$attempt` gives the result if no flag can change, `$soft` always.
macro_rules! scalar {
    ($t:ty, $attempt:path, $soft:path) => {{
        #[inline(always)]
        unsafe fn run(cpu: *mut Cpu, op: *const Op, b: u64) -> bool {
            by_contract!({
                if Env::is_fast((*cpu).fpu.mxcsr) {
                    if let Some(r) = $attempt(low::<$t>(cpu, (*op).dst), b) {
                        set_low::<$t>(cpu, (*op).dst, r);
                        return true;
                    }
                }
                soft::<$t>(cpu, op, b, $soft)
            })
        }
        unsafe fn rr(cpu: *mut Cpu, op: *const Op) -> *const Op {
            by_contract!({
                check_fpu!(cpu, op);
                if !run(cpu, op, low::<$t>(cpu, (*op).src)) {
                    return null();
                }
                go!(cpu, op.add(1))
            })
        }
        unsafe fn rm(cpu: *mut Cpu, op: *const Op) -> *const Op {
            by_contract!({
                check_fpu!(cpu, op);
                let b = ld!($t, cpu, op, ea::<true>(cpu, op)).wide();
                if !run(cpu, op, b) {
                    return null();
                }
                go!(cpu, op.add(1))
            })
        }
        (rr as Handler, rm as Handler)
    }};
}

fn min<F: Format>(a: u64, b: u64) -> Option<u64> {
    (fast::plain::<F>(a) && fast::plain::<F>(b)).then(|| if F::less(a, b) { a } else { b })
}
fn max<F: Format>(a: u64, b: u64) -> Option<u64> {
    (fast::plain::<F>(a) && fast::plain::<F>(b)).then(|| if F::less(b, a) { a } else { b })
}

/// `comisd` and its like with all their flags.
#[cold]
#[inline(never)]
unsafe fn soft_compare<F: Format, const QUIET: bool>(cpu: *mut Cpu, op: *const Op, a: u64, b: u64) -> bool {
    by_contract!({
        match crate::cpu::exec::sse::compare::<F>(&mut *cpu, a, b, QUIET) {
            Ok(()) => true,
            Err(t) => {
                trap(cpu, op, t);
                false
            }
        }
    })
}

#[inline(always)]
unsafe fn run_compare<F: Format, const QUIET: bool>(cpu: *mut Cpu, op: *const Op, a: u64, b: u64) -> bool {
    by_contract!({
        if !(fast::plain::<F>(a) && fast::plain::<F>(b)) {
            return soft_compare::<F, QUIET>(cpu, op, a, b);
        }
        // See flags.rs: 1 is "not zero, odd parity"; bit 8 of the second word turns the parity of zero round.
        let equal = F::equal(a, b);
        (*cpu).flags.res = u64::from(!equal);
        (*cpu).flags.aux = if F::less(a, b) {
            3 << 62
        } else {
            u64::from(equal) << 8
        };
        true
    })
}

/// `comisd` (`QUIET`) and `ucomisd`.
unsafe fn compare_rr<T: W, F: Format, const QUIET: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        if !run_compare::<F, QUIET>(cpu, op, low::<T>(cpu, (*op).dst), low::<T>(cpu, (*op).src)) {
            return null();
        }
        go!(cpu, op.add(1))
    })
}
unsafe fn compare_rm<T: W, F: Format, const QUIET: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        let b = ld!(T, cpu, op, ea::<true>(cpu, op)).wide();
        if !run_compare::<F, QUIET>(cpu, op, low::<T>(cpu, (*op).dst), b) {
            return null();
        }
        go!(cpu, op.add(1))
    })
}

/// An integer to a double, with all flags.
#[cold]
#[inline(never)]
unsafe fn soft_from_int(cpu: *mut Cpu, op: *const Op, v: i64) -> bool {
    by_contract!({
        let mut env = Env::sse((*cpu).fpu.mxcsr);
        let r = fast::from_int::<F64>(&mut env, v);
        match finish(&mut *cpu, &env) {
            Ok(()) => {
                set_low::<u64>(cpu, (*op).dst, r);
                true
            }
            Err(t) => {
                trap(cpu, op, t);
                false
            }
        }
    })
}

#[inline(always)]
unsafe fn run_from_int(cpu: *mut Cpu, op: *const Op, v: i64) -> bool {
    by_contract!({
        if v.unsigned_abs() > 1 << 53 {
            return soft_from_int(cpu, op, v);
        }
        set_low::<u64>(cpu, (*op).dst, (v as f64).to_bits());
        true
    })
}

/// `cvtsi2sd`
unsafe fn from_int_rr<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        if !run_from_int(cpu, op, T::sext(rd::<T>(cpu, (*op).src).wide()) as i64) {
            return null();
        }
        go!(cpu, op.add(1))
    })
}
unsafe fn from_int_rm<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        let v = ld!(T, cpu, op, ea::<true>(cpu, op));
        if !run_from_int(cpu, op, T::sext(v.wide()) as i64) {
            return null();
        }
        go!(cpu, op.add(1))
    })
}

/// A double cut to an integer, with all flags.
#[cold]
#[inline(never)]
unsafe fn soft_to_int<T: W>(cpu: *mut Cpu, op: *const Op, a: u64) -> bool {
    by_contract!({
        let mut env = Env::sse((*cpu).fpu.mxcsr);
        let r = fast::to_int::<F64>(&mut env, a, true, T::BITS);
        match finish(&mut *cpu, &env) {
            Ok(()) => {
                wr::<T>(cpu, (*op).dst, T::cut(r as u64));
                true
            }
            Err(t) => {
                trap(cpu, op, t);
                false
            }
        }
    })
}

#[inline(always)]
unsafe fn run_to_int<T: W>(cpu: *mut Cpu, op: *const Op, a: u64) -> bool {
    by_contract!({
        let x = f64::from_bits(a);
        if fast::plain::<F64>(a) && x.abs() < 2147483648.0 {
            let v = x as i64;
            if v as f64 == x || (*cpu).fpu.mxcsr & 0x1020 == 0x1020 {
                wr::<T>(cpu, (*op).dst, T::cut(v as u64));
                return true;
            }
        }
        soft_to_int::<T>(cpu, op, a)
    })
}

/// `cvttsd2si`
unsafe fn to_int_rr<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        if !run_to_int::<T>(cpu, op, low::<u64>(cpu, (*op).src)) {
            return null();
        }
        go!(cpu, op.add(1))
    })
}
unsafe fn to_int_rm<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        let a = ld!(u64, cpu, op, ea::<true>(cpu, op));
        if !run_to_int::<T>(cpu, op, a) {
            return null();
        }
        go!(cpu, op.add(1))
    })
}

/// `movss` and `movsd` between registers: the rest stays.
unsafe fn merge<T: W>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        check_fpu!(cpu, op);
        let v = low::<T>(cpu, (*op).src);
        set_low::<T>(cpu, (*op).dst, v);
        go!(cpu, op.add(1))
    })
}

/// Handlers for a register and a memory source.
type Pair = (Handler, Handler);

fn integer(code: Code) -> Option<Pair> {
    use Code::*;
    Some(match code {
        Paddb_xmm_xmmm128 => both!(l::paddb),
        Paddw_xmm_xmmm128 => both!(l::paddw),
        Paddd_xmm_xmmm128 => both!(l::paddd),
        Paddq_xmm_xmmm128 => both!(l::paddq),
        Psubb_xmm_xmmm128 => both!(l::psubb),
        Psubw_xmm_xmmm128 => both!(l::psubw),
        Psubd_xmm_xmmm128 => both!(l::psubd),
        Psubq_xmm_xmmm128 => both!(l::psubq),
        Psubusb_xmm_xmmm128 => both!(l::psubusb),
        Pminub_xmm_xmmm128 => both!(l::pminub),
        Pmaxub_xmm_xmmm128 => both!(l::pmaxub),
        Pcmpeqb_xmm_xmmm128 => both!(l::pcmpeqb),
        Pcmpeqw_xmm_xmmm128 => both!(l::pcmpeqw),
        Pcmpeqd_xmm_xmmm128 => both!(l::pcmpeqd),
        Pcmpgtb_xmm_xmmm128 => both!(l::pcmpgtb),
        Pcmpgtw_xmm_xmmm128 => both!(l::pcmpgtw),
        Pcmpgtd_xmm_xmmm128 => both!(l::pcmpgtd),
        Pmullw_xmm_xmmm128 => both!(l::pmullw),
        Pmuludq_xmm_xmmm128 => both!(l::pmuludq),
        Pmaddwd_xmm_xmmm128 => both!(l::pmaddwd),
        Punpcklbw_xmm_xmmm128 => both!(l::punpcklbw),
        Punpckhbw_xmm_xmmm128 => both!(l::punpckhbw),
        Punpcklwd_xmm_xmmm128 => both!(l::punpcklwd),
        Punpckhwd_xmm_xmmm128 => both!(l::punpckhwd),
        Punpckldq_xmm_xmmm128 | Unpcklps_xmm_xmmm128 => both!(l::punpckldq),
        Punpckhdq_xmm_xmmm128 | Unpckhps_xmm_xmmm128 => both!(l::punpckhdq),
        Punpcklqdq_xmm_xmmm128 | Unpcklpd_xmm_xmmm128 => both!(l::punpcklqdq),
        Punpckhqdq_xmm_xmmm128 | Unpckhpd_xmm_xmmm128 => both!(l::punpckhqdq),
        Packuswb_xmm_xmmm128 => both!(l::packuswb),
        Packssdw_xmm_xmmm128 => both!(l::packssdw),
        Pand_xmm_xmmm128 | Andps_xmm_xmmm128 | Andpd_xmm_xmmm128 => both!(l::pand),
        Pandn_xmm_xmmm128 | Andnps_xmm_xmmm128 | Andnpd_xmm_xmmm128 => both!(l::pandn),
        Por_xmm_xmmm128 | Orps_xmm_xmmm128 | Orpd_xmm_xmmm128 => both!(l::por),
        Pxor_xmm_xmmm128 | Xorps_xmm_xmmm128 | Xorpd_xmm_xmmm128 => both!(l::pxor),
        _ => return None,
    })
}

fn with_immediate(code: Code) -> Option<Pair> {
    use Code::*;
    Some(match code {
        Pshufd_xmm_xmmm128_imm8 => both_imm!(permute::pshufd),
        Pshufhw_xmm_xmmm128_imm8 => both_imm!(permute::pshufhw),
        Shufps_xmm_xmmm128_imm8 => both_imm!(permute::shufps),
        Shufpd_xmm_xmmm128_imm8 => both_imm!(permute::shufpd),
        Palignr_xmm_xmmm128_imm8 => both_imm!(permute::palignr),
        _ => return None,
    })
}

fn shift_by_immediate(code: Code) -> Option<Handler> {
    use Code::*;
    Some(match code {
        Psllw_xmm_imm8 => shift!(l::psllw),
        Pslld_xmm_imm8 => shift!(l::pslld),
        Psllq_xmm_imm8 => shift!(l::psllq),
        Pslldq_xmm_imm8 => shift!(l::pslldq),
        Psrlw_xmm_imm8 => shift!(l::psrlw),
        Psrld_xmm_imm8 => shift!(l::psrld),
        Psrlq_xmm_imm8 => shift!(l::psrlq),
        Psrldq_xmm_imm8 => shift!(l::psrldq),
        Psraw_xmm_imm8 => shift!(l::psraw),
        Psrad_xmm_imm8 => shift!(l::psrad),
        _ => return None,
    })
}

fn float(code: Code) -> Option<Pair> {
    use Code::*;
    Some(match code {
        Addsd_xmm_xmmm64 => scalar!(u64, fast::try_add::<F64>, fast::add_slow::<F64>),
        Subsd_xmm_xmmm64 => scalar!(u64, fast::try_sub::<F64>, fast::sub_slow::<F64>),
        Mulsd_xmm_xmmm64 => scalar!(u64, fast::try_mul::<F64>, fast::mul_slow::<F64>),
        Divsd_xmm_xmmm64 => scalar!(u64, fast::try_div::<F64>, fast::div_slow::<F64>),
        Sqrtsd_xmm_xmmm64 => scalar!(u64, fast::try_sqrt::<F64>, fast::sqrt_slow::<F64>),
        Minsd_xmm_xmmm64 => scalar!(u64, min::<F64>, fast::min::<F64>),
        Maxsd_xmm_xmmm64 => scalar!(u64, max::<F64>, fast::max::<F64>),
        Addss_xmm_xmmm32 => scalar!(u32, fast::try_add::<F32>, fast::add_slow::<F32>),
        Subss_xmm_xmmm32 => scalar!(u32, fast::try_sub::<F32>, fast::sub_slow::<F32>),
        Mulss_xmm_xmmm32 => scalar!(u32, fast::try_mul::<F32>, fast::mul_slow::<F32>),
        Divss_xmm_xmmm32 => scalar!(u32, fast::try_div::<F32>, fast::div_slow::<F32>),
        Sqrtss_xmm_xmmm32 => scalar!(u32, fast::try_sqrt::<F32>, fast::sqrt_slow::<F32>),
        Minss_xmm_xmmm32 => scalar!(u32, min::<F32>, fast::min::<F32>),
        Maxss_xmm_xmmm32 => scalar!(u32, max::<F32>, fast::max::<F32>),
        Comisd_xmm_xmmm64 => (compare_rr::<u64, F64, true>, compare_rm::<u64, F64, true>),
        Ucomisd_xmm_xmmm64 => (compare_rr::<u64, F64, false>, compare_rm::<u64, F64, false>),
        Comiss_xmm_xmmm32 => (compare_rr::<u32, F32, true>, compare_rm::<u32, F32, true>),
        Ucomiss_xmm_xmmm32 => (compare_rr::<u32, F32, false>, compare_rm::<u32, F32, false>),
        Movss_xmm_xmmm32 => (merge::<u32>, low_load::<u32>),
        Movsd_xmm_xmmm64 => (merge::<u64>, low_load::<u64>),
        _ => return None,
    })
}

pub(super) fn lower(i: &Instruction) -> Option<Low> {
    use Code::*;
    let mut op = Op::new(op_nop);
    let (dst, src) = (i.op0_register(), i.op1_register());
    let code = i.code();
    // With a general-purpose register on one side.
    let mixed: Option<(Pair, bool)> = match code {
        Cvtsi2sd_xmm_rm32 => Some(((from_int_rr::<u32>, from_int_rm::<u32>), true)),
        Cvtsi2sd_xmm_rm64 => Some(((from_int_rr::<u64>, from_int_rm::<u64>), true)),
        Cvttsd2si_r32_xmmm64 => Some(((to_int_rr::<u32>, to_int_rm::<u32>), false)),
        Cvttsd2si_r64_xmmm64 => Some(((to_int_rr::<u64>, to_int_rm::<u64>), false)),
        Pmovmskb_r32_xmm | Pmovmskb_r64_xmm => Some(((byte_mask, op_ud), false)),
        _ => None,
    };
    if let Some(((rr, rm), to_xmm)) = mixed {
        op.dst = if to_xmm {
            xmm_index(dst) as u8
        } else {
            reg_off(dst)
        };
        if is_mem(i, 1) {
            memory(i, &mut op)?;
            return with(rm, op);
        }
        op.src = if to_xmm {
            reg_off(src)
        } else {
            xmm_index(src) as u8
        };
        return with(rr, op);
    }
    if is_mem(i, 0) {
        let store: Handler = match code {
            Movss_xmmm32_xmm => low_store::<u32>,
            Movsd_xmmm64_xmm => low_store::<u64>,
            _ => return None,
        };
        memory(i, &mut op)?;
        op.src = xmm_index(src) as u8;
        return with(store, op);
    }
    op.dst = xmm_index(dst) as u8;
    if let Some(h) = shift_by_immediate(code) {
        op.imm = u64::from(i.immediate8());
        return with(h, op);
    }
    if i.op2_kind() == OpKind::Immediate8 {
        op.imm = u64::from(i.immediate8());
    }
    let (rr, rm) = integer(code)
        .or_else(|| float(code))
        .or_else(|| with_immediate(code))?;
    if is_mem(i, 1) {
        memory(i, &mut op)?;
        return with(rm, op);
    }
    op.src = xmm_index(src) as u8;
    with(rr, op)
}
