// SPDX-License-Identifier: Apache-2.0
//! Stores to memory that some vCPU has decoded instructions from, and what this one does about them.

use super::block::BlockCache;
use super::translate::Translator;
use super::Cpu;
use crate::cpu::jumps::VIEW_BYTES;
use crate::frames::flag;
use crate::mem::Mfn;
use crate::shared::{Caller, Purge};

/// After so many slow stores to one frame it is taken for data and its blocks are dropped.
const STORES_BEFORE_DROP: u32 = 24;
/// A store this large is a page being reused.
const BIG_STORE: usize = 2048;

/// Decoded code, and stores to it.
#[derive(Default)]
pub(crate) struct CodeCache {
    pub(crate) blocks: BlockCache,
    /// Forget all blocks before the next one is run.
    pub(crate) forget_all: bool,
    /// Only slow handlers are used: the oracle of the fast ones.
    pub(crate) slow_only: bool,
    /// Makes host code of blocks that run often.
    pub(crate) translator: Option<Box<Translator>>,
    /// The frame with decoded code that was stored to last, and how often in a row.
    stored_to: Mfn,
    stores: u32,
}

impl Cpu {
    /// A store just changed a frame that has decoded instructions: the running block is left at its next instruction if
    /// it is among them.
    pub(crate) fn code_written(&mut self, mfn: Mfn, offset: u16, len: usize) {
        let end = (usize::from(offset) + len).min(4096) as u16;
        if self.code.stored_to != mfn {
            self.code.stored_to = mfn;
            self.code.stores = 0;
        }
        self.code.stores += 1;
        if len >= BIG_STORE || self.code.stores >= STORES_BEFORE_DROP {
            self.code.stores = 0;
            self.without_guest(|c| c.domain.machine.drop_code(mfn, Caller::Vcpu(&c.shared)));
        } else if self.domain.machine.code.hit(mfn, offset, end) {
            self.without_guest(|c| {
                c.domain
                    .machine
                    .code_changed(mfn, offset, end, Caller::Vcpu(&c.shared))
            });
        }
    }

    /// Does something that may wait for other vCPUs, which may in turn wait for this one.
    pub(crate) fn without_guest(&mut self, f: impl FnOnce(&mut Cpu)) {
        let shared = self.shared.clone();
        let outside = shared.leave();
        f(self);
        drop(outside);
        self.apply_purges();
    }

    /// Flushes the block cache whenever `slots` of it are taken (0: when it is full). For tests.
    pub fn set_code_limit(&mut self, slots: usize) {
        self.code.blocks.set_limit(slots);
    }

    /// The TLB holds one translation at a time, for tests: each access to another page than the last one misses.
    pub fn set_single_translation(&mut self, on: bool) {
        self.views.set_single(on);
        self.flush_tlb_all_views();
    }

    /// Memory that decoded code and translations take, in bytes.
    pub fn cached_bytes(&self) -> usize {
        let translated = self.code.translator.as_ref().map_or(0, |t| t.bytes());
        translated + self.code.blocks.bytes() + self.views.count() * VIEW_BYTES
    }

    /// Forgets decoded code and translations and gives their memory back; what is needed again is decoded again. The CPU is
    /// not in `run`.
    pub fn forget_cached(&mut self) {
        self.chain.pending = None;
        self.chain.last_miss = (0, 0);
        self.views.shrink();
        self.code.blocks.shrink();
        if let Some(t) = self.code.translator.as_mut() {
            t.shrink();
        }
        self.code.forget_all = false;
        self.view_changed();
    }

    pub(crate) fn forget_code(&mut self, mfn: Mfn, start: u16, end: u16) {
        self.code.blocks.forget(mfn, start, end);
        self.forget_translated();
        if let Some(t) = self
            .code
            .translator
            .as_mut()
            .filter(|_| (start, end) == (0, 4096))
        {
            t.forget_frame(mfn);
        }
    }

    /// What was translated of blocks that are forgotten is not entered any more.
    fn forget_translated(&mut self) {
        let CodeCache {
            blocks, translator, ..
        } = &mut self.code;
        let killed = blocks.killed.drain(..);
        if let Some(t) = translator {
            killed.for_each(|id| t.kill(id));
        }
    }

    /// Forgets every block; their memory is reused as soon as none is running.
    pub(crate) fn forget_all_code(&mut self) {
        self.code.blocks.kill_all();
        self.forget_translated();
        self.code.forget_all = true;
    }

    /// Before bytes of `mfn` are decoded: stores to it take the slow path from now on. True if this thread waited for
    /// others, so that translations must be looked at again.
    pub(crate) fn mark_code(&mut self, mfn: Mfn) -> bool {
        let frames = &self.domain.machine.frames;
        let mut before = frames.flags(mfn);
        if before & flag::CODE == 0 {
            before = frames.set_flags(mfn, flag::CODE);
        }
        if before & flag::TLB_W == 0 {
            return false;
        }
        self.without_guest(|c| {
            c.domain
                .machine
                .purge(Purge::Writable(mfn), Caller::Vcpu(&c.shared))
        });
        self.domain.machine.frames.clear_flags(mfn, flag::TLB_W);
        true
    }
}
