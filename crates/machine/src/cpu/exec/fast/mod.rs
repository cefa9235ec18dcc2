// SPDX-License-Identifier: Apache-2.0
//! Specialised handlers of frequent instruction forms, as a chain of tail calls.
//!
//! Every handler is given the CPU and the op that it belongs to, and ends in `go!` (next op), `enter!` (another block),
//! `jump!` (a block by its address) or null (back to the run loop). What is rare is in cold functions that return
//! plain values: a handler with the address of a local in a callee's hands would not end in a jump.
//!
//! What makes them sound is said once, at [`Handler`]; `by_contract!` refers to it.
//!
//! A memory operand that is not in the TLB: miss.rs.
// Handlers read ops and registers by raw pointers.
#![allow(unsafe_code)]

pub(crate) mod alu;
pub(crate) mod avx;
pub(crate) mod flow;
pub(crate) mod lower;
pub(crate) mod misc;
pub(crate) mod miss;
pub(crate) mod mov;
pub(crate) mod narrow;
pub(crate) mod shift;
pub(crate) mod simd;
pub(crate) mod string;
pub(crate) mod vector;

use crate::cpu::block::{Handler, Op};
use crate::cpu::fault::{vector as vec_no, Fault, Trap};
use crate::cpu::{Cpu, Scalar, SlowFn};
use iced_x86::{Instruction, Register};
use std::ptr::null;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicU8, Ordering};

#[cfg(target_endian = "big")]
compile_error!("registers are addressed by byte offset: little-endian hosts only");

/// The body of a handler, or of a function that handlers call with their own arguments.
macro_rules! by_contract {
    ($body:block) => {
        // SAFETY: the contract of `Handler`, which whoever calls this keeps: `cpu` and `op` may be read and written, `op` is
        // followed by what its handler expects, its operands name registers of `cpu`, and addresses in its TLB are guest RAM.
        unsafe { $body }
    };
}

/// Goes on with op `$op`.
macro_rules! go {
    ($cpu:expr, $op:expr) => {{
        let op: *const Op = $op;
        if cfg!(debug_assertions) {
            return op;
        }
        return ((*op).h)($cpu, op);
    }};
}

/// Goes on with the block that begins with `$op`, in the current page, if the slice has room for it.
macro_rules! enter {
    ($cpu:expr, $op:expr) => {{
        let op: *const Op = $op;
        let left = (*$cpu).budget.slice - (*op).left as i64;
        if left < 0 {
            (*$cpu).rip = (*$cpu).bases.page.wrapping_add((*op).off as u64);
            return std::ptr::null();
        }
        (*$cpu).budget.slice = left;
        go!($cpu, op)
    }};
}

/// Goes on at `$rip`.
macro_rules! jump {
    ($cpu:expr, $rip:expr) => {{
        let rip: u64 = $rip;
        let j = (*$cpu).chain.jumps.add($crate::cpu::jumps::jump_index(rip));
        if (*j).rip != rip {
            (*$cpu).rip = rip;
            return std::ptr::null();
        }
        (*$cpu).bases.page = rip & !0xfff;
        enter!($cpu, (*j).op)
    }};
}

/// Loads a `$t`; otherwise the op begins again with the translation filled in, or is done the slow way.
macro_rules! ld {
    ($t:ty, $cpu:expr, $op:expr, $va:expr) => {{
        let va: u64 = $va;
        let e = (*$cpu).chain.tlb.add($crate::mmu::tlb::tlb_index(va));
        if (*e).neg_r.wrapping_add(va) > 4096 - <$t as W>::BITS as u64 / 8 {
            return $crate::cpu::exec::fast::miss::read($cpu, $op, va, <$t as W>::BITS as u64 / 8);
        }
        <$t as $crate::cpu::Scalar>::load(va.wrapping_add((*e).delta) as *const u8)
    }};
}

/// Stores a `$t`, likewise.
macro_rules! st {
    ($t:ty, $cpu:expr, $op:expr, $va:expr, $v:expr) => {{
        let va: u64 = $va;
        let v: $t = $v;
        let e = (*$cpu).chain.tlb.add($crate::mmu::tlb::tlb_index(va));
        if (*e).neg_w.wrapping_add(va) > 4096 - <$t as W>::BITS as u64 / 8 {
            return $crate::cpu::exec::fast::miss::write($cpu, $op, va, <$t as W>::BITS as u64 / 8);
        }
        <$t as $crate::cpu::Scalar>::store(v, va.wrapping_add((*e).delta) as *mut u8);
    }};
}

/// The host address for an aligned atomic operation on a `$t` at `$va`; otherwise `$slow` is returned.
macro_rules! atomic {
    ($t:ty, $cpu:expr, $va:expr, $slow:expr) => {{
        let va: u64 = $va;
        let e = (*$cpu).chain.tlb.add($crate::mmu::tlb::tlb_index(va));
        let size = <$t as W>::BITS as u64 / 8;
        if (*e).neg_w.wrapping_add(va) >= 4096 || va & (size - 1) != 0 {
            return $slow;
        }
        va.wrapping_add((*e).delta) as *mut u8
    }};
}

/// Evaluates an expression with `T` standing for the type of `$size` bytes; `None` for other sizes.
macro_rules! by_size {
    ($size:expr, $e:expr) => {
        match $size {
            1 => {
                #[allow(dead_code)]
                type T = u8;
                $e
            }
            2 => {
                #[allow(dead_code)]
                type T = u16;
                $e
            }
            4 => {
                #[allow(dead_code)]
                type T = u32;
                $e
            }
            _ => {
                #[allow(dead_code)]
                type T = u64;
                $e
            }
        }
    };
}

/// Evaluates an expression with `C` standing for the condition code `$cc` (0..15).
macro_rules! by_cond {
    ($cc:expr, $e:expr) => {
        by_cond!(@ $cc, $e, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $cc:expr, $e:expr, $($n:literal)*) => {
        match $cc {
            $($n => { const C: u8 = $n; $e })*
            _ => { const C: u8 = 15; $e }
        }
    };
}

pub(crate) use {atomic, by_cond, by_contract, by_size, enter, go, jump, ld, st};

/// The operand types of fast handlers.
pub(crate) trait W: Scalar {
    const BITS: u32;
    fn wide(self) -> u64;
    fn cut(v: u64) -> Self;
    /// Sign-extended to 64 bits.
    fn sext(v: u64) -> u64;
    /// Adds atomically; gives the old value.
    ///
    /// # Safety
    /// Of all of these: `p` must be aligned and point into guest RAM.
    unsafe fn atomic_add(p: *mut u8, v: Self) -> Self;
    unsafe fn atomic_swap(p: *mut u8, v: Self) -> Self;
    /// Stores `new` if it finds `old`; gives what it found.
    unsafe fn atomic_cas(p: *mut u8, old: Self, new: Self) -> Self;
}

macro_rules! w {
    ($($t:ty, $s:ty, $a:ty);*) => {$(
        impl W for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn wide(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn cut(v: u64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn sext(v: u64) -> u64 {
                v as $s as i64 as u64
            }
            #[inline(always)]
            unsafe fn atomic_add(p: *mut u8, v: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { (*p.cast::<$a>()).fetch_add(v, Ordering::SeqCst) }
            }
            #[inline(always)]
            unsafe fn atomic_swap(p: *mut u8, v: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { (*p.cast::<$a>()).swap(v, Ordering::SeqCst) }
            }
            #[inline(always)]
            unsafe fn atomic_cas(p: *mut u8, old: Self, new: Self) -> Self {
                // SAFETY: the caller's promise.
                let word = unsafe { &*p.cast::<$a>() };
                match word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(v) | Err(v) => v,
                }
            }
        }
    )*};
}
w!(u8, i8, AtomicU8; u16, i16, AtomicU16; u32, i32, AtomicU32; u64, i64, AtomicU64);

/// The register at byte offset `off` of the CPU.
#[inline(always)]
pub(crate) unsafe fn rd<T: W>(cpu: *const Cpu, off: u8) -> T {
    by_contract!({ T::load(cpu.cast::<u8>().add(off as usize)) })
}

/// Writes a register: 32 bits clear the upper half, fewer merge.
#[inline(always)]
pub(crate) unsafe fn wr<T: W>(cpu: *mut Cpu, off: u8, v: T) {
    by_contract!({
        let p = cpu.cast::<u8>().add(off as usize);
        if T::BITS == 32 {
            v.wide().store(p);
        } else {
            v.store(p);
        }
    })
}

/// The linear address of the memory operand; `X`: it has an index.
#[inline(always)]
pub(crate) unsafe fn ea<const X: bool>(cpu: *const Cpu, op: *const Op) -> u64 {
    by_contract!({
        let mut va = rd::<u64>(cpu, (*op).base).wrapping_add((*op).disp as i64 as u64);
        if X {
            va = va.wrapping_add(rd::<u64>(cpu, (*op).index) << ((*op).scale & 3));
        }
        va & (*cpu).bases.mask
    })
}

/// Byte offsets of rsp and rbp, whose addresses belong to the stack segment.
const RSP: u8 = 4 * 8;
const RBP: u8 = 5 * 8;

/// Leaves the chain at `op` with `t`: nothing of the op has happened.
#[cold]
#[inline(never)]
pub(crate) unsafe fn trap(cpu: *mut Cpu, op: *const Op, t: Trap) {
    by_contract!({
        let c = &mut *cpu;
        c.rip = c.bases.page.wrapping_add((*op).off as u64);
        c.budget.slice += (*op).left as i64;
        let t = if c.access.noncanonical {
            let insn = miss::fetch(c).ok();
            insn.map_or(t, |i| c.noncanonical_fault(t, &i))
        } else {
            t
        };
        c.chain.leave = Some(t);
    })
}

impl Cpu {
    /// The fault of `i`, which raised `t`: #SS instead of #GP if an operand in the stack segment was not canonical. The only
    /// place that decides: an op does not say whether its base register was used with another segment.
    pub(crate) fn noncanonical_fault(&mut self, t: Trap, i: &Instruction) -> Trap {
        let noncanonical = std::mem::take(&mut self.access.noncanonical) && !self.seg.code32;
        if noncanonical && t == Trap::Fault(Fault::gp()) && stack_segment(i) {
            return Fault::with_code(vec_no::SS, 0).into();
        }
        t
    }
}

/// True if a non-canonical operand of `i` raises #SS instead of #GP.
fn stack_segment(i: &Instruction) -> bool {
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == iced_x86::OpKind::Memory);
    if memory {
        // In 64-bit mode the other prefixes are ignored.
        let base = i.memory_base().full_register();
        !matches!(i.memory_segment(), Register::FS | Register::GS)
            && matches!(base, Register::RSP | Register::RBP)
    } else {
        i.is_stack_instruction()
    }
}

/// Calls the slow handler of `op`; false if the chain must end.
#[inline(never)]
unsafe fn call_slow(cpu: *mut Cpu, op: *const Op) -> bool {
    by_contract!({
        let c = &mut *cpu;
        // SAFETY: `imm` of a slow op was made from a SlowFn.
        let f: SlowFn = std::mem::transmute::<usize, SlowFn>((*op).imm as usize);
        let insn = &*op.add(1).cast::<Instruction>();
        c.rip = c.bases.page.wrapping_add((*op).off as u64);
        c.next_rip = c.rip.wrapping_add((*op).len as u64) & c.bases.mask;
        finish(cpu, op, f(c, insn))
    })
}

/// After an instruction of the slow kind: false if the chain must end.
#[inline(always)]
pub(crate) unsafe fn finish(cpu: *mut Cpu, op: *const Op, result: Result<(), Trap>) -> bool {
    by_contract!({
        match result {
            Ok(()) => true,
            Err(t @ (Trap::EndBlock | Trap::Syscall | Trap::Sysenter | Trap::SoftInt { .. })) => {
                let c = &mut *cpu;
                c.rip = c.next_rip;
                c.budget.slice += (*op).left as i64 - 1;
                c.chain.leave = (t != Trap::EndBlock).then_some(t);
                false
            }
            Err(t) => {
                trap(cpu, op, t);
                false
            }
        }
    })
}

/// An instruction without a fast handler.
pub(crate) unsafe fn op_slow(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        if !call_slow(cpu, op) {
            return null();
        }
        go!(cpu, op.add(3))
    })
}

/// The same at the end of a block: it may have branched.
pub(crate) unsafe fn op_slow_end(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        if !call_slow(cpu, op) {
            return null();
        }
        jump!(cpu, (*cpu).next_rip)
    })
}

/// Before a block that is not translated yet: counts its runs.
pub(crate) unsafe fn op_count(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let left = (*op).imm.saturating_sub(1);
        (*op.cast_mut()).imm = left;
        if left == 0 {
            translate(cpu, op);
            go!(cpu, op)
        }
        go!(cpu, op.add(1))
    })
}

#[cold]
#[inline(never)]
unsafe fn translate(cpu: *mut Cpu, op: *const Op) {
    by_contract!({ (*cpu).translate_block(op.cast_mut()) })
}

/// Before a block that is translated.
pub(crate) unsafe fn op_translated(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        if run_translated(cpu, op) {
            return null();
        }
        go!(cpu, op.add(1))
    })
}

/// False: the block is to be interpreted.
#[inline(never)]
unsafe fn run_translated(cpu: *mut Cpu, op: *const Op) -> bool {
    by_contract!({
        // The code may be that of a longer block.
        let (mut interpret, mut more) = (true, 0);
        if let Some(t) = (*cpu).code.translator.as_mut() {
            more = t.more((*op).disp as u32);
            interpret = t.interpret_once()
                || more > (*cpu).budget.slice
                || (*cpu).check.as_ref().is_some_and(|c| c.interprets());
        }
        if !interpret {
            (*cpu).chain.pending = None;
            (*cpu).budget.slice -= more;
            (*cpu).enter_code((*op).imm);
        }
        !interpret
    })
}

/// In place of the ops of a forgotten block.
pub(crate) unsafe fn op_leave(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        (*cpu).rip = (*cpu).bases.page.wrapping_add((*op).off as u64);
        (*cpu).budget.slice += (*op).left as i64;
        null()
    })
}

pub(crate) unsafe fn op_nop(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({ go!(cpu, op.add(1)) })
}

#[cold]
#[inline(never)]
pub(crate) unsafe fn op_ud(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        trap(cpu, op, Trap::Fault(Fault::ud()));
        null()
    })
}

#[cold]
#[inline(never)]
pub(crate) unsafe fn op_gp(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        (*cpu).access.noncanonical = false;
        trap(cpu, op, Trap::Fault(Fault::gp()));
        null()
    })
}

/// Before an instruction that crosses into the next page: that must still be the frame it was decoded from.
pub(crate) unsafe fn op_cross(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        let va = (*cpu).bases.page.wrapping_add(4096);
        let e = (*cpu).chain.tlb.add(crate::mmu::tlb::tlb_index(va));
        if ((*e).neg_x.wrapping_add(va) != 0 || va.wrapping_add((*e).delta) != (*op).imm)
            && !cross_slow(cpu, op, va)
        {
            return null();
        }
        go!(cpu, op.add(1))
    })
}

/// Where the host has the page that the block of `op` crosses into, if `op` checks it.
///
/// # Safety
/// `op` must be an op of a live block.
pub(crate) unsafe fn crosses_into(op: *const Op) -> Option<u64> {
    by_contract!({ ((*op).h as usize == op_cross as *const () as usize).then_some((*op).imm) })
}

#[cold]
#[inline(never)]
unsafe fn cross_slow(cpu: *mut Cpu, op: *const Op, va: u64) -> bool {
    by_contract!({
        let c = &mut *cpu;
        match c.translate(va, crate::mmu::walk::Access::Fetch) {
            Err(f) => {
                trap(cpu, op, Trap::Fault(f));
                false
            }
            Ok(p) if p.host as u64 == (*op).imm => true,
            Ok(_) => {
                let mfn = crate::mem::Mfn(u64::from((*op).disp as u32));
                let off = (*op).off;
                c.forget_code(mfn, off, off + 1);
                op_leave(cpu, op);
                false
            }
        }
    })
}
