// SPDX-License-Identifier: Apache-2.0
//! What translated code cannot do itself: TLB misses, instructions that the interpreter's handlers do, and finding the block that
//! execution goes on in.
// Sites are read from code memory, the frame and the CPU are given by translated code.
#![allow(unsafe_code)]

use super::repeat::COUNT_MAX;
use super::select::Vectors;
use super::signals::Running;
use super::thunk::{cooked_flags, raw_flags};
use super::x87;
use super::Handled;
use crate::abi::x86::{gpr, mxcsr};
use crate::cpu::block::Op;
use crate::cpu::debug::WATCHED;
use crate::cpu::decode::copy_code;
use crate::cpu::exec::fast::miss::Refill;
use crate::cpu::exec::{self, fast};
use crate::cpu::fault::{Fault, Trap};
use crate::cpu::region::{Frame, CODE_JUMPS, JUMP_SHIFT};
use crate::cpu::run::Above;
use crate::cpu::x87state::X87;
use crate::cpu::Cpu;
use crate::mmu::tlb::{tlb_index, TLB_SIZE};
use crate::mmu::walk::Access;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;

/// What a callout is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The operand at `va` is not in the TLB, or not in the way that is wanted. `a`: where to try again; `b`: the next instruction.
    Miss,
    /// Instruction `a` of the table is done by its handler. `b`: the next instruction.
    Exec,
    /// The same with the last instruction of a block.
    End,
    /// The block ends, and goes on at `va`.
    Jump,
    /// The block ends, and goes on at offset `a` of the page. `b`: the field of the jump that leads there.
    Link,
    /// The block ends, and goes on at offset `a` of the page in `va`. `b`: the field of the jump that leads there. A look-up of the
    /// jump table follows the site.
    Far,
    /// A return to `va`, which is offset `a` of a page. `b`: the field of the address of code that its call leaves.
    Return,
    /// The slice has no room for the block.
    Leave,
    /// The block is forgotten: its entry leads here.
    Dead,
    /// The page after the block's is not known to be the frame that its instruction crosses into. `a`: where to look again.
    Cross,
    /// The vector registers are wanted. `b`: where to go on with them.
    Vectors,
    /// The x87 registers are wanted. `b`: where to go on with them.
    X87,
}

/// A store.
pub(super) const WRITE: u8 = 1;
/// A store that the block may be left before.
pub(super) const LATE: u8 = 2;
/// The instruction ends its block.
pub(super) const BRANCH: u8 = 4;
/// Vector registers are wanted with their upper halves.
pub(super) const YMM: u8 = 8;
/// Of a miss: something that may leave the block comes before the first of the operands. The interpreter does it unless their page is in the TLB:
/// its accessed bit is not set for what may not happen.
pub(super) const EARLY: u8 = YMM;
/// Operands of several instructions: the interpreter does the rest of the block if they cannot be accessed all.
pub(super) const GROUP: u8 = 16;
/// In these bits, as a power of two: what an operand must be aligned to, or else takes the handler.
const ALIGNMENT: u8 = 0xe0;

/// The flags of a site whose operand must be aligned so.
pub(super) fn alignment(align: u8) -> u8 {
    (align.trailing_zeros() as u8) << ALIGNMENT.trailing_zeros()
}

/// What follows the call of a stub. `a` and `b`, where they are addresses, are relative to the site.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Site {
    pub kind: Kind,
    pub flags: u8,
    /// Of the instruction: as in [`Op`].
    pub left: u8,
    pub len: u8,
    pub off: u16,
    /// Bytes of the operand.
    pub size: u8,
    /// From the register whose page was looked up to the operand.
    pub disp: i8,
    pub block: u32,
    pub a: i32,
    pub b: i32,
}

pub(super) const SITE_BYTES: usize = size_of::<Site>();
const _: () = assert!(SITE_BYTES == 20);

impl Site {
    pub(super) fn to_bytes(self) -> [u8; SITE_BYTES] {
        // SAFETY: plain data without padding.
        unsafe { std::mem::transmute(self) }
    }
}

/// How translated code goes on.
#[derive(Clone, Copy)]
enum Next {
    /// At an address of the host's.
    At(u64),
    /// Back to the run loop; `rip` and the budget are right.
    Out,
}

/// The same, as `thunk::call` takes it: an address, or 0 to leave, and the frame.
#[repr(C)]
pub(super) struct Onward {
    code: u64,
    frame: *mut Frame,
}

/// Whether code that uses the vector registers can run translated: with exceptions unmasked it would be the host that is
/// interrupted.
fn vectors_allowed(c: &Cpu) -> bool {
    !c.fpu.ts && c.fpu.mxcsr & mxcsr::MASKS == mxcsr::MASKS
}

/// Does what the site asks for, and what the layer above does about a trap.
///
/// # Safety
/// Called by `thunk::call` only: all state of the guest is in `cpu` and `frame`, and nobody holds a reference to them.
pub(super) unsafe extern "C" fn callout(cpu: *mut Cpu, site: *const Site, frame: *mut Frame) -> Onward {
    // A panic must not unwind through translated code, which has no tables for it.
    let next = catch_unwind(AssertUnwindSafe(|| {
        let next = {
            // SAFETY: the contract above; sites lie in code memory, at no particular alignment.
            let (c, f, s) = unsafe { (&mut *cpu, &mut *frame, site.read_unaligned()) };
            c.budget.slice = f.slice;
            c.bases.page = f.page;
            match c.serve(s, site as u64, f) {
                Next::At(code) => {
                    // What a handler has forgotten may be remembered by the rest of the block.
                    c.views.beside().note_page(c.bases.page);
                    c.note_stack();
                    f.slice = c.budget.slice;
                    f.fs = c.bases.fs;
                    f.gs = c.bases.gs;
                    return Onward { code, frame };
                }
                Next::Out => {
                    c.fetch_x87(f);
                    c.hand_up()
                }
            }
        };
        // SAFETY: the references are gone; the layer above reaches the CPU by its own way to it.
        let goes_on = next.is_some_and(|above| unsafe { (above.serve)(above.layer) });
        // SAFETY: as above; the frame of the view before is there as long as the CPU.
        let (c, host_stack) = unsafe { (&mut *cpu, (*frame).host_stack) };
        match goes_on {
            true => c.go_on(host_stack),
            false => None,
        }
        .unwrap_or(Onward { code: 0, frame })
    }));
    next.unwrap_or_else(|payload| {
        // SAFETY: as above.
        let (c, f) = unsafe { (&mut *cpu, &mut *frame) };
        c.fetch_x87(f);
        if let Some(t) = c.code.translator.as_mut() {
            t.panic = Some(payload);
        }
        Onward { code: 0, frame }
    })
}

impl Cpu {
    /// Runs the translated block whose body is at `code`, until something leaves translated code.
    ///
    /// # Safety
    /// `code` must be the body of a live block that suits `rip`, its cost taken from the slice.
    pub(crate) unsafe fn enter_code(&mut self, code: u64) {
        // SAFETY: the frame lies in the current view's region.
        let f = unsafe { &mut *self.views.beside().frame() };
        self.fill_frame(f);
        self.views.beside().note_page(self.bases.page);
        f.page = self.bases.page;
        let running = Running::new(self);
        // SAFETY: the caller's promise; the frame is filled in.
        unsafe { super::thunk::enter(self, f, code) };
        drop(running);
        if let Some(payload) = self.code.translator.as_mut().and_then(|t| t.panic.take()) {
            std::panic::resume_unwind(payload);
        }
    }

    /// What the frame has of the CPU.
    fn fill_frame(&mut self, f: &mut Frame) {
        if f.callout == 0 {
            fill_in(f);
            self.views.beside().forget_returns();
        }
        f.slice = self.budget.slice;
        f.return_mask = self.return_mask();
        (f.vectors_away, f.ymm_away, f.x87_away) = (1, 1, 1);
        f.fs = self.bases.fs;
        f.gs = self.bases.gs;
        self.give_flags(f);
        f.cpu = self as *mut Cpu as u64;
        self.note_stack();
    }

    /// The frame of the current view has the translation of the page of the stack.
    fn note_stack(&mut self) {
        let stack_pointer = self.regs[gpr::RSP];
        self.views.beside().note_stack(stack_pointer);
    }

    /// The frame has the flags of the CPU.
    fn give_flags(&self, f: &mut Frame) {
        f.count_mask = self.count_mask();
        f.flags = raw_flags(self.arith_flags());
    }

    /// Who is asked about the trap that translated code was left with; the budget is as the run loop leaves it then.
    fn hand_up(&mut self) -> Option<Above> {
        let above = self.chain.above?;
        match self.chain.leave {
            None | Some(Trap::Fault(WATCHED)) => return None,
            _ if self.debug.armed() => return None,
            Some(_) => {}
        }
        self.budget.left += std::mem::take(&mut self.budget.slice);
        Some(above)
    }

    /// Goes on with translated code at `rip`, which may be another view's, after what the layer above has done; `None`: it is
    /// for the run loop.
    fn go_on(&mut self, host_stack: u64) -> Option<Onward> {
        self.access.noncanonical = false;
        self.refresh_mode();
        let wanted = self.shared.attention.load(Ordering::SeqCst) != 0;
        if wanted || self.budget_is_spent() || self.must_forget_all() {
            return None;
        }
        if self.checks_alignment() || self.debugging() {
            return None;
        }
        self.rip &= self.bases.mask;
        let code = self.code_at(self.rip)?;
        self.take_slice(0);
        let frame = self.views.beside().frame();
        // SAFETY: the frame lies in the current view's region.
        let f = unsafe { &mut *frame };
        self.fill_frame(f);
        f.va = self.rip;
        f.host_stack = host_stack;
        Some(Onward { code, frame })
    }

    fn serve(&mut self, s: Site, at: u64, f: &mut Frame) -> Next {
        let there = |rel: i32| at.wrapping_add(rel as i64 as u64);
        let mut fault = None;
        let forgotten = self.views.forgotten();
        // What goes on at once, with the flags where they are.
        match s.kind {
            Kind::Miss => match self.missed(s, at, f.va) {
                // Deltas that the block has found out before may be others now.
                Ok(Refill::Again) if self.views.forgotten() != forgotten => {
                    self.set_arith_flags(cooked_flags(f.flags));
                    return self.leave_before(s);
                }
                Ok(Refill::Again) if (f.va ^ f.va.wrapping_sub(s.disp as i64 as u64)) < 4096 => {
                    return Next::At(there(s.a));
                }
                Ok(Refill::Again) => {
                    if let Some(rest) = self.rest(s, at, f.va) {
                        return Next::At(rest);
                    }
                    // SAFETY: the index is in range, and `tlb` points to the current view.
                    f.delta = unsafe { (*self.chain.tlb.add(tlb_index(f.va))).delta };
                    return Next::At(at + SITE_BYTES as u64);
                }
                Ok(Refill::Slow) => {}
                Err(found) => fault = Some(found),
            },
            Kind::Vectors if vectors_allowed(self) && (s.flags & YMM == 0 || self.fpu.avx) => {
                f.vectors_away = 0;
                if s.flags & YMM != 0 {
                    f.ymm_away = 0;
                }
                return Next::At(there(s.b));
            }
            Kind::X87 if self.lend_x87(f) => return Next::At(there(s.b)),
            Kind::Cross if self.crosses(s) => return Next::At(there(s.a)),
            Kind::Link => {
                if let Some(near) = self.link(s.block, u64::from(s.a as u32), there(s.b), at) {
                    return Next::At(near);
                }
            }
            _ => {}
        }
        self.set_arith_flags(cooked_flags(f.flags));
        match s.kind {
            Kind::Miss if s.flags & GROUP != 0 => {
                let rest = if fault.is_none() {
                    self.rest(s, at, f.va)
                } else {
                    None
                };
                rest.map_or_else(|| self.interpret_from(s), Next::At)
            }
            Kind::Miss => match fault {
                None => {
                    let insn = self.decoded(s, at);
                    self.execute(s, insn, there(s.b), f)
                }
                Some(fault) => {
                    self.leave_at(s, fault.into());
                    Next::Out
                }
            },
            Kind::Exec | Kind::End => {
                let t = self.code.translator.as_ref();
                let handled = t.and_then(|t| t.handled.get(s.a as usize).copied());
                self.execute(s, handled, there(s.b), f)
            }
            Kind::Jump => {
                self.rip = f.va;
                self.dispatch(f)
            }
            Kind::Far => {
                self.rip = f.va.wrapping_add(s.a as u64);
                let next = self.dispatch(f);
                if let Next::At(far) = next {
                    self.link_far(far, there(s.b), at);
                }
                next
            }
            Kind::Link => {
                self.rip = self.bases.page.wrapping_add(u64::from(s.a as u32));
                Next::Out
            }
            Kind::Return => {
                self.rip = f.va;
                let next = self.dispatch(f);
                if let (Next::At(far), Some(t)) = (next, self.code.translator.as_mut()) {
                    t.link_return(s, far, there(s.b), at);
                }
                next
            }
            Kind::Leave => self.leave_before(s),
            Kind::Dead => {
                self.rip = self.bases.page.wrapping_add(u64::from(s.off));
                let rip = self.rip;
                self.views.beside().forget_code(rip);
                Next::Out
            }
            Kind::Vectors | Kind::X87 | Kind::Cross => self.interpret_from(s),
        }
    }

    /// Leaves the rest of the block to the interpreter.
    fn interpret_from(&mut self, s: Site) -> Next {
        if let Some(t) = self.code.translator.as_mut() {
            t.interpret_once = true;
            #[cfg(test)]
            {
                t.interpreted += 1;
            }
        }
        self.leave_before(s)
    }

    /// Does an instruction by its handler, and goes on after it: at `next`, unless it ends its block.
    fn execute(&mut self, s: Site, handled: Option<Handled>, next: u64, f: &mut Frame) -> Next {
        let op = as_op(s);
        let forgotten = self.views.forgotten();
        if f.x87_away == 0 && !handled.as_ref().is_some_and(x87::is_left_alone) {
            self.fetch_x87(f);
        }
        self.rip = self.bases.page.wrapping_add(u64::from(s.off));
        self.next_rip = self.rip.wrapping_add(u64::from(s.len)) & self.bases.mask;
        let done = match handled {
            Some(Handled::Slow(insn, handler)) => {
                let result = handler(self, &insn);
                // SAFETY: `op` gives what is asked of one: its offset and the rest of the block's budget.
                unsafe { fast::finish(self, &op, result) }
            }
            // SAFETY: as above.
            Some(Handled::Repeat(repeat)) => unsafe { repeat(self, &op) },
            // Its frame has other bytes now: the block will be forgotten at the next boundary.
            None => return self.leave_before(s),
        };
        if !done {
            return Next::Out;
        }
        if f.vectors_away == 0 && !vectors_allowed(self) {
            (f.vectors_away, f.ymm_away) = (1, 1);
        }
        if s.kind == Kind::End || s.flags & BRANCH != 0 {
            self.rip = self.next_rip;
            self.budget.slice += i64::from(s.left) - 1;
            return self.dispatch(f);
        }
        let t = self.code.translator.as_ref();
        let (dead, x87) = match t.and_then(|t| t.blocks.get(s.block as usize)) {
            // SAFETY: blocks of the table have their ops in the arena, which lives as long as they do.
            Some(b) => unsafe {
                let vectors = b.vectors != Vectors::None && f.vectors_away != 0;
                ((*b.op).dead != 0 || vectors, b.x87)
            },
            None => (true, false),
        };
        let dead = dead || x87 && !self.lend_x87(f);
        if dead || self.views.forgotten() != forgotten {
            self.rip = self.next_rip;
            self.budget.slice += i64::from(s.left) - 1;
            return Next::Out;
        }
        self.give_flags(f);
        Next::At(next)
    }

    /// Goes on with the translated block at `rip`, if there is one.
    fn dispatch(&mut self, f: &mut Frame) -> Next {
        if self.debugging() {
            return Next::Out;
        }
        let rip = self.rip;
        let Some(far) = self.code_at(rip) else {
            return Next::Out;
        };
        self.give_flags(f);
        f.va = rip;
        Next::At(far)
    }

    /// Lets the jump of `block` whose field is at `field`, and whose site is `site`, lead to the translated block at an offset of
    /// its page. `None`: there is none.
    fn link(&mut self, block: u32, offset: u64, field: u64, site: u64) -> Option<u64> {
        let mfn = self.code.translator.as_ref()?.blocks.get(block as usize)?.mfn;
        let id = self.native(mfn, offset)?;
        self.code.translator.as_mut()?.link(id, field, site)
    }

    /// Lets the jump to `rip` from another page, whose field is at `field` and whose site is `site`, lead to the block there,
    /// whose code begins at `far`, as long as the page shows the code of the same frame.
    fn link_far(&mut self, far: u64, field: u64, site: u64) {
        let key = self
            .code
            .translator
            .as_mut()
            .and_then(|t| t.link_far(far, field, site));
        if let Some(key) = key {
            self.views.beside().set_page(self.rip, key);
        }
    }

    /// Whether the next page is the frame that the block of `s` crosses into, now that its translation is filled in.
    fn crosses(&mut self, s: Site) -> bool {
        let t = self.code.translator.as_ref();
        let Some(second) = t.and_then(|t| t.blocks.get(s.block as usize)?.second) else {
            return false;
        };
        self.rip = self.bases.page.wrapping_add(u64::from(s.off));
        let va = self.bases.page.wrapping_add(4096) & self.bases.mask;
        if self.translate(va, Access::Fetch).is_err() {
            return false;
        }
        // SAFETY: the index is in range, and `tlb` points to the current view.
        let e = unsafe { *self.chain.tlb.add(tlb_index(va)) };
        e.neg_x.wrapping_add(va) == 0 && va.wrapping_add(e.delta) == second
    }

    /// What a count of a repeated instruction must have no bits of.
    fn count_mask(&self) -> u64 {
        if self.df() {
            !0
        } else {
            !(COUNT_MAX - 1)
        }
    }

    /// Leaves before an instruction: nothing of it has happened.
    fn leave_before(&mut self, s: Site) -> Next {
        self.rip = self.bases.page.wrapping_add(u64::from(s.off));
        self.budget.slice += i64::from(s.left);
        Next::Out
    }

    fn leave_at(&mut self, s: Site, trap: Trap) {
        let op = as_op(s);
        // SAFETY: as in `serve`.
        unsafe { fast::trap(self, &op, trap) };
    }

    fn missed(&mut self, s: Site, at: u64, va: u64) -> Result<Refill, Fault> {
        self.rip = self.bases.page.wrapping_add(u64::from(s.off));
        let size = u64::from(s.size);
        let align = 1u64 << (s.flags >> ALIGNMENT.trailing_zeros());
        if va & (align - 1) != 0 {
            return Ok(Refill::Slow);
        }
        if s.flags & EARLY != 0 {
            // SAFETY: as below.
            let e = unsafe { *self.chain.tlb.add(tlb_index(va)) };
            let tag = if s.flags & WRITE != 0 { e.neg_w } else { e.neg_r };
            if tag.wrapping_add(va) > 4096 - size {
                return Ok(Refill::Slow);
            }
        }
        let late = s.flags & LATE != 0;
        let access = match s.flags & WRITE {
            WRITE if !late => Access::Write,
            _ => Access::Read,
        };
        let refilled = self.refill(at as usize, va, size, access)?;
        // SAFETY: the index is in range, and `tlb` points to the current view.
        let e = unsafe { *self.chain.tlb.add(tlb_index(va)) };
        Ok(match late && e.neg_w.wrapping_add(va) >= 4096 {
            true => Refill::Slow,
            false => refilled,
        })
    }

    /// The instruction of a site, as it was when its block was decoded.
    pub(super) fn decode_again(&self, s: Site) -> Option<Handled> {
        let block = self.code.translator.as_ref()?.blocks.get(s.block as usize)?;
        let frame = self.domain.machine.mem.frame(block.mfn)?;
        let mut bytes = [0u8; 15];
        let bytes = bytes.get_mut(..usize::from(s.len))?;
        copy_code(frame, usize::from(s.off), block.second, bytes)?;
        let insn = self.decode(bytes, u64::from(s.off)).ok()?;
        if insn.len() != usize::from(s.len) {
            return None;
        }
        Some(Handled::Slow(insn, exec::lookup(insn.code())?))
    }
}

/// What is the same in every frame.
fn fill_in(f: &mut Frame) {
    f.index_mask = (TLB_SIZE as u64 - 1) << 12;
    f.lost = super::thunk::lost as *const () as u64;
    f.jump_mask = (CODE_JUMPS as u64 - 1) << JUMP_SHIFT;
    f.canonical_mask = 0x1fffe;
    f.callout = super::thunk::call as *const () as u64;
    f.clock = super::thunk::clock as *const () as u64;
    f.host_mxcsr = mxcsr::INITIAL;
    f.control = X87::default().control.into();
    for (n, mask) in f.page_masks.iter_mut().enumerate() {
        *mask = !0xfff | ((1 << n) - 1);
    }
}

/// What `finish` and `trap` look at.
fn as_op(s: Site) -> Op {
    let mut op = Op::new(fast::op_leave);
    (op.off, op.left, op.len) = (s.off, s.left, s.len);
    op
}
