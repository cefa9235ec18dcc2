// SPDX-License-Identifier: Apache-2.0
//! add or adc sbb and sub xor cmp test inc dec neg not, in registers and memory, with and without flags, and
//! comparisons fused with the conditional jump that follows.

use super::flow::follow;
use super::*;
use crate::cpu::block::Ext;
use crate::cpu::flags::{AUX_AF, AUX_CF, AUX_PO};

pub(crate) const ADD: u8 = 0;
pub(crate) const OR: u8 = 1;
pub(crate) const ADC: u8 = 2;
pub(crate) const SBB: u8 = 3;
pub(crate) const AND: u8 = 4;
pub(crate) const SUB: u8 = 5;
pub(crate) const XOR: u8 = 6;
pub(crate) const CMP: u8 = 7;
pub(crate) const TEST: u8 = 8;
pub(crate) const INC: u8 = 9;
pub(crate) const DEC: u8 = 10;
pub(crate) const NEG: u8 = 11;
pub(crate) const NOT: u8 = 12;

/// The result (its upper bits are meaningless for narrow types).
#[inline(always)]
fn calc<const O: u8>(a: u64, b: u64, c: u64) -> u64 {
    match O {
        ADD => a.wrapping_add(b),
        OR => a | b,
        ADC => a.wrapping_add(b).wrapping_add(c),
        SBB => a.wrapping_sub(b).wrapping_sub(c),
        AND | TEST => a & b,
        SUB | CMP => a.wrapping_sub(b),
        XOR => a ^ b,
        INC => a.wrapping_add(1),
        DEC => a.wrapping_sub(1),
        NEG => a.wrapping_neg(),
        _ => !a,
    }
}

/// Carries (or borrows) in the form of `Flags::aux`.
#[inline(always)]
fn pack<T: W>(c: u64) -> u64 {
    ((c << (64 - T::BITS)) & (AUX_CF | AUX_PO)) | (c & AUX_AF)
}

#[inline(always)]
unsafe fn set_flags<T: W, const O: u8>(cpu: *mut Cpu, a: u64, b: u64, r: u64) {
    by_contract!({
        if O == NOT {
            return;
        }
        (*cpu).flags.res = T::sext(r);
        let add = |a: u64, b: u64| (a & b) | ((a | b) & !r);
        let sub = |a: u64, b: u64| (!a & b) | ((!a | b) & r);
        // inc and dec leave CF alone.
        let keep = |aux: u64, old: u64| {
            let of = (aux ^ aux << 1) & AUX_CF;
            let cf = old & AUX_CF;
            (aux & AUX_AF) | cf | (cf ^ of) >> 1
        };
        (*cpu).flags.aux = match O {
            ADD | ADC => pack::<T>(add(a, b)),
            SUB | SBB | CMP => pack::<T>(sub(a, b)),
            NEG => pack::<T>(a | r),
            INC => keep(pack::<T>(add(a, 1)), (*cpu).flags.aux),
            DEC => keep(pack::<T>(sub(a, 1)), (*cpu).flags.aux),
            _ => 0,
        };
    })
}

#[inline(always)]
unsafe fn alu<T: W, const O: u8, const F: bool>(cpu: *mut Cpu, a: T, b: T) -> T {
    by_contract!({
        let (a, b) = (a.wide(), b.wide());
        let c = if O == ADC || O == SBB {
            (*cpu).flags.aux >> 63
        } else {
            0
        };
        let r = calc::<O>(a, b, c);
        if F {
            set_flags::<T, O>(cpu, a, b, r);
        }
        T::cut(r)
    })
}

const fn stores(o: u8) -> bool {
    o != CMP && o != TEST
}

pub(crate) unsafe fn rr<T: W, const O: u8, const F: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let r = alu::<T, O, F>(cpu, rd(cpu, (*op).dst), rd(cpu, (*op).src));
        if stores(O) {
            wr::<T>(cpu, (*op).dst, r);
        }
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn ri<T: W, const O: u8, const F: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let r = alu::<T, O, F>(cpu, rd(cpu, (*op).dst), T::cut((*op).imm));
        if stores(O) {
            wr::<T>(cpu, (*op).dst, r);
        }
        go!(cpu, op.add(1))
    })
}

pub(crate) unsafe fn rm<T: W, const O: u8, const F: bool, const X: bool>(
    cpu: *mut Cpu,
    op: *const Op,
) -> *const Op {
    by_contract!({
        let b = ld!(T, cpu, op, ea::<X>(cpu, op));
        let r = alu::<T, O, F>(cpu, rd(cpu, (*op).dst), b);
        if stores(O) {
            wr::<T>(cpu, (*op).dst, r);
        }
        go!(cpu, op.add(1))
    })
}

/// Memory with a register (`I` false) or an immediate.
pub(crate) unsafe fn mx<T: W, const O: u8, const F: bool, const X: bool, const I: bool>(
    cpu: *mut Cpu,
    op: *const Op,
) -> *const Op {
    by_contract!({
        let va = ea::<X>(cpu, op);
        let b = if I { T::cut((*op).imm) } else { rd(cpu, (*op).src) };
        if stores(O) {
            let e = (*cpu).chain.tlb.add(crate::mmu::tlb::tlb_index(va));
            let size = u64::from(T::BITS) / 8;
            if (*e).neg_w.wrapping_add(va) > 4096 - size {
                return miss::write(cpu, op, va, size);
            }
            let p = va.wrapping_add((*e).delta) as *mut u8;
            alu::<T, O, F>(cpu, T::load(p), b).store(p);
        } else {
            let a = ld!(T, cpu, op, va);
            alu::<T, O, F>(cpu, a, b);
        }
        go!(cpu, op.add(1))
    })
}

/// The same, locked.
pub(crate) unsafe fn lock_mx<T: W, const O: u8, const X: bool, const I: bool>(
    cpu: *mut Cpu,
    op: *const Op,
) -> *const Op {
    by_contract!({
        let b = if I { T::cut((*op).imm) } else { rd(cpu, (*op).src) };
        let va = ea::<X>(cpu, op);
        let p = atomic!(T, cpu, va, lock_slow::<T, O>(cpu, op, va, b));
        let old = match O {
            ADD => T::atomic_add(p, b),
            SUB => T::atomic_add(p, T::cut(b.wide().wrapping_neg())),
            INC => T::atomic_add(p, T::cut(1)),
            DEC => T::atomic_add(p, T::cut(u64::MAX)),
            _ => {
                let c = (*cpu).flags.aux >> 63;
                let mut old = T::load(p);
                loop {
                    let seen = T::atomic_cas(p, old, T::cut(calc::<O>(old.wide(), b.wide(), c)));
                    if seen == old {
                        break old;
                    }
                    old = seen;
                }
            }
        };
        alu::<T, O, true>(cpu, old, b);
        go!(cpu, op.add(1))
    })
}

/// Over the end of a page an operand is its handler's: over the end of 4 GiB in 32-bit code the segment says which fault it is.
fn leaves_page<T: W>(va: u64) -> bool {
    (va & 0xfff) + u64::from(T::BITS) / 8 > 4096
}

#[cold]
#[inline(never)]
unsafe fn lock_slow<T: W, const O: u8>(cpu: *mut Cpu, op: *const Op, va: u64, b: T) -> *const Op {
    by_contract!({
        if leaves_page::<T>(va) {
            return miss::redo(cpu, op);
        }
        if !lock_cold::<T, O>(cpu, op, va, b) {
            return null();
        }
        go!(cpu, op.add(1))
    })
}

#[inline(never)]
unsafe fn lock_cold<T: W, const O: u8>(cpu: *mut Cpu, op: *const Op, va: u64, b: T) -> bool {
    by_contract!({
        (*cpu).rip = (*cpu).bases.page.wrapping_add((*op).off as u64);
        let c = (*cpu).flags.aux >> 63;
        match (*cpu).rmw::<T>(va, true, &mut |old| {
            Some(T::cut(calc::<O>(old.wide(), b.wide(), c)))
        }) {
            Ok(old) => {
                alu::<T, O, true>(cpu, old, b);
                true
            }
            Err(t) => {
                trap(cpu, op, t);
                false
            }
        }
    })
}

/// lock xadd, and xchg (always locked): the old value goes to the register.
pub(crate) unsafe fn exchange<T: W, const A: bool, const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let va = ea::<X>(cpu, op);
        let p = atomic!(T, cpu, va, exchange_slow::<T, A>(cpu, op, va));
        let b: T = rd(cpu, (*op).src);
        let old = if A {
            T::atomic_add(p, b)
        } else {
            T::atomic_swap(p, b)
        };
        if A {
            alu::<T, ADD, true>(cpu, old, b);
        }
        wr::<T>(cpu, (*op).src, old);
        go!(cpu, op.add(1))
    })
}

#[cold]
#[inline(never)]
unsafe fn exchange_slow<T: W, const A: bool>(cpu: *mut Cpu, op: *const Op, va: u64) -> *const Op {
    by_contract!({
        if leaves_page::<T>(va) {
            return miss::redo(cpu, op);
        }
        if !exchange_cold::<T, A>(cpu, op, va) {
            return null();
        }
        go!(cpu, op.add(1))
    })
}

#[inline(never)]
unsafe fn exchange_cold<T: W, const A: bool>(cpu: *mut Cpu, op: *const Op, va: u64) -> bool {
    by_contract!({
        (*cpu).rip = (*cpu).bases.page.wrapping_add((*op).off as u64);
        let b: T = rd(cpu, (*op).src);
        let new = |old: T| {
            if A {
                T::cut(old.wide().wrapping_add(b.wide()))
            } else {
                b
            }
        };
        match (*cpu).rmw::<T>(va, true, &mut |old| Some(new(old))) {
            Ok(old) => {
                if A {
                    alu::<T, ADD, true>(cpu, old, b);
                }
                wr::<T>(cpu, (*op).src, old);
                true
            }
            Err(t) => {
                trap(cpu, op, t);
                false
            }
        }
    })
}

/// cmpxchg, locked or not, with `[mem], src`.
pub(crate) unsafe fn cmpxchg<T: W, const L: bool, const X: bool>(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let va = ea::<X>(cpu, op);
        let p = atomic!(T, cpu, va, cmpxchg_slow::<T, L>(cpu, op, va));
        let want: T = rd(cpu, 0);
        let new: T = rd(cpu, (*op).src);
        let old = if L {
            T::atomic_cas(p, want, new)
        } else {
            let old = T::load(p);
            if old == want {
                new.store(p);
            }
            old
        };
        alu::<T, CMP, true>(cpu, want, old);
        if old != want {
            wr::<T>(cpu, 0, old);
        }
        go!(cpu, op.add(1))
    })
}

#[cold]
#[inline(never)]
unsafe fn cmpxchg_slow<T: W, const L: bool>(cpu: *mut Cpu, op: *const Op, va: u64) -> *const Op {
    by_contract!({
        if leaves_page::<T>(va) {
            return miss::redo(cpu, op);
        }
        if !cmpxchg_cold::<T, L>(cpu, op, va) {
            return null();
        }
        go!(cpu, op.add(1))
    })
}

#[inline(never)]
unsafe fn cmpxchg_cold<T: W, const L: bool>(cpu: *mut Cpu, op: *const Op, va: u64) -> bool {
    by_contract!({
        (*cpu).rip = (*cpu).bases.page.wrapping_add((*op).off as u64);
        let want: T = rd(cpu, 0);
        let new: T = rd(cpu, (*op).src);
        match (*cpu).rmw::<T>(va, L, &mut |old| Some(if old == want { new } else { old })) {
            Ok(old) => {
                alu::<T, CMP, true>(cpu, want, old);
                if old != want {
                    wr::<T>(cpu, 0, old);
                }
                true
            }
            Err(t) => {
                trap(cpu, op, t);
                false
            }
        }
    })
}

/// Condition `C` of `cmp a, b`, or of `test` with the result `a & b` (`O`).
#[inline(always)]
fn compare<T: W, const O: u8, const C: u8>(a: u64, b: u64) -> bool {
    let (ua, ub, sa, sb) = if O == CMP {
        (a, b, T::sext(a) as i64, T::sext(b) as i64)
    } else {
        (a & b, 0, T::sext(a & b) as i64, 0)
    };
    let v = match C >> 1 {
        1 => ua < ub,
        2 => ua == ub,
        3 => ua <= ub,
        4 => (T::sext(ua.wrapping_sub(ub)) as i64) < 0,
        6 => sa < sb,
        _ => sa <= sb,
    };
    v != (C & 1 != 0)
}

/// cmp or test, fused with the jcc that follows. `K`: 0 two registers, 1 register and immediate, 2 memory and
/// immediate, 3 register and memory, 4 memory and register.
pub(crate) unsafe fn fused<T: W, const O: u8, const C: u8, const K: u8>(
    cpu: *mut Cpu,
    op: *const Op,
) -> *const Op {
    by_contract!({
        let ext = op.add(1).cast::<Ext>();
        let (a, b): (T, T) = match K {
            0 => (rd(cpu, (*op).dst), rd(cpu, (*op).src)),
            1 => (rd(cpu, (*op).dst), T::cut((*ext).imm as i64 as u64)),
            2 => (
                ld!(T, cpu, op, ea::<false>(cpu, op)),
                T::cut((*ext).imm as i64 as u64),
            ),
            3 => {
                let b = ld!(T, cpu, op, ea::<false>(cpu, op));
                (rd(cpu, (*op).dst), b)
            }
            _ => {
                let a = ld!(T, cpu, op, ea::<false>(cpu, op));
                (a, rd(cpu, (*op).dst))
            }
        };
        let (a, b) = (a.wide(), b.wide());
        set_flags::<T, O>(cpu, a, b, calc::<O>(a, b, 0));
        if compare::<T, O, C>(a, b) {
            let l = (*op).imm as *const Op;
            if !l.is_null() {
                enter!(cpu, l)
            }
            return follow(cpu, op, true);
        }
        let l = (*ext).fall as *const Op;
        if !l.is_null() {
            enter!(cpu, l)
        }
        follow(cpu, op, false)
    })
}

/// Expands `$f` for each ALU operation that a two-operand form can have.
macro_rules! by_op {
    ($o:expr, $live:expr, $f:ident $(, $x:tt)*) => {
        match ($o, $live) {
            (ADD, false) => $f::<T, ADD, false $(, $x)*> as Handler,
            (OR, false) => $f::<T, OR, false $(, $x)*> as Handler,
            (AND, false) => $f::<T, AND, false $(, $x)*> as Handler,
            (SUB, false) => $f::<T, SUB, false $(, $x)*> as Handler,
            (XOR, false) => $f::<T, XOR, false $(, $x)*> as Handler,
            (ADD, true) => $f::<T, ADD, true $(, $x)*> as Handler,
            (OR, true) => $f::<T, OR, true $(, $x)*> as Handler,
            (AND, true) => $f::<T, AND, true $(, $x)*> as Handler,
            (SUB, true) => $f::<T, SUB, true $(, $x)*> as Handler,
            (XOR, true) => $f::<T, XOR, true $(, $x)*> as Handler,
            (ADC, _) => $f::<T, ADC, true $(, $x)*> as Handler,
            (SBB, _) => $f::<T, SBB, true $(, $x)*> as Handler,
            (CMP, _) => $f::<T, CMP, true $(, $x)*> as Handler,
            _ => $f::<T, TEST, true $(, $x)*> as Handler,
        }
    };
}

pub(crate) fn pick_rr(o: u8, size: usize, live: bool) -> Handler {
    by_size!(size, by_op!(o, live, rr))
}

pub(crate) fn pick_ri(o: u8, size: usize, live: bool) -> Handler {
    by_size!(size, by_op!(o, live, ri))
}

pub(crate) fn pick_rm(o: u8, size: usize, live: bool, x: bool) -> Handler {
    if x {
        by_size!(size, by_op!(o, live, rm, true))
    } else {
        by_size!(size, by_op!(o, live, rm, false))
    }
}

pub(crate) fn pick_mx(o: u8, size: usize, live: bool, x: bool, imm: bool) -> Handler {
    match (x, imm) {
        (false, false) => by_size!(size, by_op!(o, live, mx, false, false)),
        (false, true) => by_size!(size, by_op!(o, live, mx, false, true)),
        (true, false) => by_size!(size, by_op!(o, live, mx, true, false)),
        (true, true) => by_size!(size, by_op!(o, live, mx, true, true)),
    }
}

/// inc dec neg not: in a register.
pub(crate) fn pick_r(o: u8, size: usize, live: bool) -> Handler {
    by_size!(
        size,
        match (o, live) {
            (INC, true) => rr::<T, INC, true> as Handler,
            (INC, false) => rr::<T, INC, false> as Handler,
            (DEC, true) => rr::<T, DEC, true> as Handler,
            (DEC, false) => rr::<T, DEC, false> as Handler,
            (NEG, true) => rr::<T, NEG, true> as Handler,
            (NEG, false) => rr::<T, NEG, false> as Handler,
            _ => rr::<T, NOT, false> as Handler,
        }
    )
}

/// inc dec neg not: in memory.
pub(crate) fn pick_m(o: u8, size: usize, x: bool) -> Handler {
    macro_rules! one {
        ($x:literal) => {
            by_size!(
                size,
                match o {
                    INC => mx::<T, INC, true, $x, true> as Handler,
                    DEC => mx::<T, DEC, true, $x, true> as Handler,
                    NEG => mx::<T, NEG, true, $x, true> as Handler,
                    _ => mx::<T, NOT, false, $x, true> as Handler,
                }
            )
        };
    }
    if x {
        one!(true)
    } else {
        one!(false)
    }
}

pub(crate) fn pick_lock(o: u8, size: usize, x: bool, imm: bool) -> Option<Handler> {
    macro_rules! one {
        ($x:literal, $i:literal) => {
            by_size!(
                size,
                match o {
                    ADD => Some(lock_mx::<T, ADD, $x, $i> as Handler),
                    OR => Some(lock_mx::<T, OR, $x, $i> as Handler),
                    AND => Some(lock_mx::<T, AND, $x, $i> as Handler),
                    SUB => Some(lock_mx::<T, SUB, $x, $i> as Handler),
                    XOR => Some(lock_mx::<T, XOR, $x, $i> as Handler),
                    INC => Some(lock_mx::<T, INC, $x, $i> as Handler),
                    DEC => Some(lock_mx::<T, DEC, $x, $i> as Handler),
                    _ => None,
                }
            )
        };
    }
    match (x, imm) {
        (false, false) => one!(false, false),
        (false, true) => one!(false, true),
        (true, false) => one!(true, false),
        (true, true) => one!(true, true),
    }
}

pub(crate) fn pick_exchange(add: bool, size: usize, x: bool) -> Handler {
    match (add, x) {
        (false, false) => by_size!(size, exchange::<T, false, false> as Handler),
        (false, true) => by_size!(size, exchange::<T, false, true> as Handler),
        (true, false) => by_size!(size, exchange::<T, true, false> as Handler),
        (true, true) => by_size!(size, exchange::<T, true, true> as Handler),
    }
}

pub(crate) fn pick_cmpxchg(lock: bool, size: usize, x: bool) -> Handler {
    match (lock, x) {
        (false, false) => by_size!(size, cmpxchg::<T, false, false> as Handler),
        (false, true) => by_size!(size, cmpxchg::<T, false, true> as Handler),
        (true, false) => by_size!(size, cmpxchg::<T, true, false> as Handler),
        (true, true) => by_size!(size, cmpxchg::<T, true, true> as Handler),
    }
}

/// A comparison fused with jcc of condition `cc`; `k` as in `fused`.
pub(crate) fn pick_fused(test: bool, size: usize, cc: u8, k: u8) -> Option<Handler> {
    macro_rules! one {
        ($t:ty, $o:expr, $k:literal) => {
            by_cond!(cc, {
                if matches!(C >> 1, 0 | 5) {
                    None
                } else {
                    Some(fused::<$t, $o, C, $k> as Handler)
                }
            })
        };
    }
    match (test, size, k) {
        (false, 1, 1) => one!(u8, CMP, 1),
        (false, 1, 0) => one!(u8, CMP, 0),
        (false, 4, 0) => one!(u32, CMP, 0),
        (false, 4, 1) => one!(u32, CMP, 1),
        (false, 8, 0) => one!(u64, CMP, 0),
        (false, 8, 1) => one!(u64, CMP, 1),
        (false, 1, 2) => one!(u8, CMP, 2),
        (false, 4, 2) => one!(u32, CMP, 2),
        (false, 8, 2) => one!(u64, CMP, 2),
        (false, 4, 3) => one!(u32, CMP, 3),
        (false, 8, 3) => one!(u64, CMP, 3),
        (false, 4, 4) => one!(u32, CMP, 4),
        (false, 8, 4) => one!(u64, CMP, 4),
        (true, 1, 0) => one!(u8, TEST, 0),
        (true, 1, 1) => one!(u8, TEST, 1),
        (true, 4, 0) => one!(u32, TEST, 0),
        (true, 4, 1) => one!(u32, TEST, 1),
        (true, 8, 0) => one!(u64, TEST, 0),
        (true, 8, 1) => one!(u64, TEST, 1),
        (true, 1, 2) => one!(u8, TEST, 2),
        (true, 4, 2) => one!(u32, TEST, 2),
        _ => None,
    }
}
