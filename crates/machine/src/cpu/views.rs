// SPDX-License-Identifier: Apache-2.0
//! Address spaces: base switches, TLB flushes, and what other threads ask this vCPU to forget.

use super::platform::Mode;
use super::Cpu;
use crate::mem::Mfn;
use crate::mmu::tlb::ViewKey;
use crate::shared::Purge;

impl Cpu {
    /// Makes `l4` the page table. `generation_check`: this is a load of a new base (as of CR3), after which changed
    /// page tables must be seen; without it, a kernel/user switch within one process, which flushes nothing.
    pub fn set_base(&mut self, l4: Mfn, generation_check: bool) {
        let key = ViewKey {
            l4,
            user: self.cpl == 3,
        };
        // Address spaces of a kernel have much in common, those of applications nothing.
        let shared = self.platform.mode == Mode::Long && self.access.table_stores;
        self.views.switch(key, &self.domain, generation_check, shared);
        self.view_changed();
    }

    /// Another privilege level. In long mode there is none: only the layer above tells kernel and applications apart.
    pub fn set_cpl(&mut self, cpl: u8) {
        if self.cpl == cpl || self.platform.mode == Mode::Long {
            return;
        }
        self.cpl = cpl;
        self.access.table_stores = cpl < 3;
        if let Some(base) = self.base() {
            self.set_base(base, false);
        }
    }

    /// The page table in use, if one was set.
    pub fn base(&self) -> Option<Mfn> {
        self.views.key().map(|k| k.l4)
    }

    /// Flushes the view of `l4` (when it is next used) if page tables have changed since its base was last loaded.
    pub fn refresh_view(&mut self, l4: Mfn) {
        for user in [false, true] {
            self.views.refresh(ViewKey { l4, user }, &self.domain);
        }
        self.view_changed();
    }

    /// Forgets every translation of every view.
    pub fn flush_tlb_all_views(&mut self) {
        self.views.flush_all();
        self.view_changed();
    }

    /// Forgets every translation of the current view.
    pub fn flush_tlb_view(&mut self) {
        self.views.flush_current();
        self.view_changed();
    }

    /// Forgets the translation of one page, in every view.
    pub fn invlpg(&mut self, va: u64) {
        self.views.invlpg(va);
    }

    pub(super) fn view_changed(&mut self) {
        self.chain.tlb = self.views.current_tlb();
        self.chain.jumps = self.views.beside().entries();
    }

    /// Does what other threads queued with `Machine::purge`. Called at block boundaries, and by whoever has waited
    /// with `in_guest` cleared.
    pub fn apply_purges(&mut self) {
        while self.shared.purge_pending() {
            match self.shared.take_purges() {
                None => {
                    self.flush_tlb_all_views();
                    self.forget_all_code();
                }
                Some(list) => list.into_iter().for_each(|p| self.apply_purge(p)),
            }
            if self.shared.finish_purges() {
                break;
            }
        }
    }

    pub(crate) fn apply_purge(&mut self, p: Purge) {
        match p {
            Purge::AllTlb => self.flush_tlb_all_views(),
            Purge::Stale => {
                self.views.refresh_all(&self.domain);
                self.view_changed();
            }
            Purge::Page(va) => self.invlpg(va),
            // Frame 0 is never mapped: a barrier.
            Purge::Frame(Mfn(0)) => {}
            Purge::Writable(mfn) | Purge::Frame(mfn) => {
                let writable_only = matches!(p, Purge::Writable(_));
                if let Some(host) = self.domain.machine.mem.frame(mfn) {
                    self.views.purge_frame(host, writable_only);
                }
                if !writable_only {
                    self.forget_code(mfn, 0, 4096);
                }
            }
            Purge::Code { mfn, start, end } => self.forget_code(mfn, start, end),
        }
    }
}
