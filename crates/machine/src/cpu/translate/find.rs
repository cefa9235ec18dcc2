// SPDX-License-Identifier: Apache-2.0
//! Where the translated code of a guest's address is.
// Ops lie in the arena, translations in the view.
#![allow(unsafe_code)]

use super::{of_frame, NativeBlock};
use crate::cpu::block::key;
use crate::cpu::descriptor_cache::{MODE_LONG, MODE_STEPS};
use crate::cpu::jumps::jump_index;
use crate::cpu::region::RETURNS;
use crate::cpu::Cpu;
use crate::mem::Mfn;
use crate::mmu::tlb::tlb_index;

impl Cpu {
    /// The bits of a stack pointer that choose a return: those above the size of an address.
    pub(super) fn return_mask(&self) -> u64 {
        let wide = self.seg.mode == MODE_LONG;
        (RETURNS as u64 - 1) << if wide { 3 } else { 2 }
    }

    /// The translated code at an address, which jumps lead to from now on.
    pub(super) fn code_at(&mut self, rip: u64) -> Option<u64> {
        if self.seg.mode == MODE_STEPS {
            return None;
        }
        self.views.beside().set_mode(self.seg.mode);
        if let found @ Some(_) = self.views.beside().code(rip) {
            return found;
        }
        let id = self.native_at(rip)?;
        let t = self.code.translator.as_ref()?;
        let &NativeBlock {
            far, mfn, mode, key, ..
        } = t.blocks.get(id as usize)?;
        let jumps = self.views.beside();
        if jumps.first_to_page(rip) {
            // The others of the page are likely to be wanted, too.
            for &(off, far) in t.by_frame.get(&of_frame(mfn, mode)).into_iter().flatten() {
                jumps.set_code(rip & !0xfff | u64::from(off), far);
            }
        }
        jumps.set_code(rip, far);
        jumps.set_page(rip, key);
        Some(far)
    }

    /// The translated block at an address whose page can be executed, as the jump cache or the TLB has it.
    fn native_at(&mut self, rip: u64) -> Option<u32> {
        // SAFETY: the index is in range, and `jumps` points to the current view's.
        let jump = unsafe { *self.chain.jumps.add(jump_index(rip)) };
        if jump.rip == rip {
            // SAFETY: jumps lead to first ops of blocks in the arena.
            return unsafe { (*jump.op).translated() };
        }
        // SAFETY: the index is in range, and `tlb` points to the current view.
        let e = unsafe { *self.chain.tlb.add(tlb_index(rip)) };
        if e.neg_x.wrapping_add(rip) >= 4096 {
            return None;
        }
        let mfn = Mfn(rip.wrapping_add(e.delta).wrapping_sub(self.chain.ram as u64) >> 12);
        self.native(mfn, rip)
    }

    pub(super) fn native(&self, mfn: Mfn, offset: u64) -> Option<u32> {
        let op = self.code.blocks.get(key(mfn, offset, self.seg.mode))?;
        // SAFETY: as in `native_at`, of the map.
        unsafe { (*op).translated() }
    }
}
