// SPDX-License-Identifier: Apache-2.0
//! The run loop: finds blocks, keeps the budget, looks at attention.
// The chain of handlers is entered.
#![allow(unsafe_code)]

use super::block::{key, Op, Slot};
use super::debug::WATCHED;
use super::descriptor_cache::MODE_STEPS;
use super::fault::Trap;
use super::jumps::{jump_index, Jump, Jumps};
use super::{Cpu, Stop};
use crate::frames::flag;
use crate::mem::Mfn;
use crate::mmu::tlb::{tlb_index, PerView, TlbEntry};
use crate::mmu::views::Views;
use crate::mmu::walk::Access;
use crate::shared::{attention, InGuest};
use std::sync::atomic::Ordering;

/// Instructions between two looks at `shared.attention`.
const SLICE: i64 = 4096;
/// The same while there is a translator, which runs through that many in less time.
const TRANSLATED_SLICE: i64 = 1 << 15;

/// A link of a running block that led nowhere yet: where it is, and the frame that its target must lie in.
#[derive(Clone, Copy)]
pub(crate) struct PendingLink {
    pub slot: *mut u64,
    pub mfn: u32,
}

/// How long [`Cpu::run`] goes on.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Budget {
    /// Instructions that may still run before attention is looked at. They are no part of `left`.
    pub(crate) slice: i64,
    /// Instructions left before `run` stops with [`Stop::Budget`].
    pub left: i64,
    /// `run` stops at the first block boundary where no more than this is left: cheaper than an exact stop.
    pub yield_at: i64,
}

/// The layer above, as translated code reaches it: it need not be left for what ends in guest code again.
#[derive(Clone, Copy)]
pub(crate) struct Above {
    /// Whose CPU runs.
    pub layer: *mut (),
    /// Does what is to be done about `Chain::leave`, and takes it away. False: `Cpu::run` must come back, with what is in
    /// `leave` then.
    pub serve: unsafe fn(*mut ()) -> bool,
}

/// The running chain of ops.
#[repr(C)]
pub(crate) struct Chain {
    /// Where a fast handler puts what it must not put into a register yet.
    pub(crate) scratch: u64,
    /// Translations of the current view.
    pub(crate) tlb: *mut TlbEntry,
    /// The jump cache of the current view.
    pub(crate) jumps: *mut Jump,
    /// The machine's memory as the host has it mapped.
    pub(crate) ram: *mut u8,
    /// Why the chain ended, if it was not to find the block at `rip`.
    pub(crate) leave: Option<Trap>,
    /// While code runs for a caller that has one.
    pub(crate) above: Option<Above>,
    /// The op that last began again because of a TLB miss, and the page it missed.
    pub(crate) last_miss: (usize, u64),
    pub(crate) pending: Option<PendingLink>,
    /// The one instruction that is run alone.
    pub(crate) step_ops: Vec<Slot>,
}

impl Chain {
    pub(crate) fn new(views: &mut Views<Jumps>, ram: *mut u8) -> Chain {
        Chain {
            scratch: 0,
            tlb: views.current_tlb(),
            jumps: views.beside().entries(),
            ram,
            leave: None,
            above: None,
            last_miss: (0, 0),
            pending: None,
            step_ops: Vec::new(),
        }
    }
}

impl Cpu {
    /// Runs guest code until something needs the layer above. Never panics on guest input.
    pub fn run(&mut self) -> Stop {
        let shared = self.shared.clone();
        let in_guest = shared.enter();
        self.chain.above = None;
        self.run_entered(&in_guest)
    }

    /// The same for a caller that counts as in the guest already, as long as it handles what stops the guest too.
    pub(crate) fn run_entered(&mut self, _in_guest: &InGuest<'_>) -> Stop {
        self.chain.leave = None;
        self.chain.pending = None;
        // What the hypervisor accessed meanwhile is not the cause of a fault of the guest's.
        self.access.noncanonical = false;
        self.refresh_mode();
        self.refuse_watched(true);
        let stop = self.run_blocks();
        self.refuse_watched(false);
        stop
    }

    fn run_blocks(&mut self) -> Stop {
        #[cfg(test)]
        assert!(!self.planted_bug, "planted");
        loop {
            self.budget.left += self.budget.slice;
            self.budget.slice = 0;
            let mut alone = false;
            match self.chain.leave.take() {
                Some(Trap::Fault(WATCHED)) => alone = true,
                Some(trap) => return Stop::Trap(trap),
                None => {}
            }
            let bits = self.shared.attention.load(Ordering::SeqCst);
            if bits != 0 {
                if bits & attention::PURGE != 0 {
                    self.chain.pending = None;
                    self.apply_purges();
                }
                if bits & !attention::PURGE != 0 {
                    return Stop::Attention;
                }
            }
            if self.must_forget_all() {
                self.chain.pending = None;
                self.code.forget_all = false;
                self.code.blocks.clear();
                if let Some(t) = self.code.translator.as_mut() {
                    t.clear();
                }
                self.views.all_beside().for_each(PerView::flush);
            }
            if self.budget_is_spent() {
                return Stop::Budget;
            }
            if alone || self.debugging() {
                match self.debug_step() {
                    None => continue,
                    Some(t) => return Stop::Trap(t),
                }
            }
            if self.seg.mode == MODE_STEPS || self.checks_alignment() {
                match self.step_slow() {
                    Ok(()) => continue,
                    Err(t) => return Stop::Trap(t),
                }
            }
            let found = match self.find() {
                Ok(f) => f,
                Err(t) => return Stop::Trap(t),
            };
            match found {
                // SAFETY: `op` is the first of a block in the arena, preceded by its header.
                Some(op) if unsafe { i64::from((*op).left) } <= self.budget.left => unsafe {
                    if let Some(p) = self.chain.pending.take() {
                        if (*op.sub(1)).imm as u32 == p.mfn {
                            *p.slot = op as u64;
                        }
                    }
                    let left = i64::from((*op).left);
                    self.take_slice(left);
                    self.budget.slice -= left;
                    self.chain(op);
                },
                _ => {
                    if let Err(t) = self.step() {
                        return Stop::Trap(t);
                    }
                }
            }
        }
    }

    /// No block may begin: its instructions are not there, or the caller wants to be asked.
    pub(crate) fn budget_is_spent(&self) -> bool {
        self.budget.left <= self.budget.yield_at.max(0)
    }

    /// Blocks are forgotten before the next one begins.
    pub(crate) fn must_forget_all(&self) -> bool {
        self.code.forget_all || self.code.blocks.full()
    }

    /// Moves what may run before attention is looked at again from the budget into the slice: `least` at any rate.
    pub(crate) fn take_slice(&mut self, least: i64) {
        let most = if self.code.translator.is_some() {
            TRANSLATED_SLICE
        } else {
            SLICE
        };
        let left = self.budget.left;
        self.budget.slice = left.min(most).min(least.max(left - self.budget.yield_at));
        self.budget.left -= self.budget.slice;
    }

    /// Runs ops from `op` on, until one gives null.
    ///
    /// # Safety
    /// `op` must be an op of a live block that suits `rip`, its cost taken from `slice`.
    unsafe fn chain(&mut self, op: *const Op) {
        self.bases.page = self.rip & !0xfff;
        let cpu: *mut Cpu = self;
        let mut op = op;
        while !op.is_null() {
            // SAFETY: handlers are given the op that they belong to.
            op = unsafe { ((*op).h)(cpu, op) };
        }
    }

    /// One instruction, decoded afresh: near the end of the budget, and in frames whose code is not kept.
    pub(crate) fn step(&mut self) -> Result<(), Trap> {
        self.chain.pending = None;
        let (draft, _) = self.decode_block(self.rip, 1, false)?;
        self.chain.step_ops = draft.ops;
        self.budget.left -= 1;
        self.budget.slice = 0;
        // SAFETY: `step_ops` lives until the next step; a block of one instruction costs one.
        unsafe { self.chain(self.chain.step_ops.as_ptr().add(1).cast()) };
        self.chain.pending = None;
        Ok(())
    }

    /// Whether decoded code of a frame is kept: nobody writes there without notice.
    fn keeps_code(&self, mfn: Mfn) -> bool {
        self.domain.machine.frames.flags(mfn) & flag::UNKEPT == 0
    }

    /// The block at `rip`; `None` if its instructions must be decoded each time, or there is none.
    fn find(&mut self) -> Result<Option<*const Op>, Trap> {
        self.rip &= self.bases.mask;
        self.views.beside().set_mode(self.seg.mode);
        let rip = self.rip;
        // SAFETY: `jumps` points to the current view's table, the index is in range.
        let slot = unsafe { *self.chain.jumps.add(jump_index(rip)) };
        if slot.rip == rip {
            // SAFETY: jump entries point to blocks in the arena.
            if unsafe { (*slot.op).dead } == 0 {
                return Ok(Some(slot.op));
            }
        }
        // SAFETY: in range; `tlb` points to the current view.
        let e = unsafe { *self.chain.tlb.add(tlb_index(rip)) };
        let mfn = if e.neg_x.wrapping_add(rip) < 4096 {
            Mfn(rip.wrapping_add(e.delta).wrapping_sub(self.chain.ram as u64) >> 12)
        } else {
            self.translate(rip, Access::Fetch)?.mfn
        };
        let k = key(mfn, rip, self.seg.mode);
        let op = match self.code.blocks.get(k) {
            Some(op) => op,
            None => {
                if !self.keeps_code(mfn) {
                    return Ok(None);
                }
                let (draft, mfn) = self.decode_block(rip, usize::MAX, true)?;
                // Who writes there from now on finds the frames marked, and has forgotten what is in them.
                let kept = self.keeps_code(mfn) && draft.second.is_none_or(|(mfn, ..)| self.keeps_code(mfn));
                if draft.invalid || !kept {
                    return Ok(None);
                }
                let start = (rip & 0xfff) as u16;
                let k = key(mfn, rip, self.seg.mode);
                self.code
                    .blocks
                    .insert(k, &draft.ops, mfn, start, draft.end, draft.second)
            }
        };
        self.views.beside().set(rip, op);
        Ok(Some(op))
    }
}
