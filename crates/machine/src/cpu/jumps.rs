// SPDX-License-Identifier: Apache-2.0
//! The jump cache of an address space: where the block at an address is.

use super::block::Op;
use super::region::{no_tag, Frame, Region, CODE_JUMPS, JUMP_SHIFT, REGION_BYTES};
use crate::mmu::tlb::{tlb_index, PerView, TlbEntry, TLB_SIZE};

/// Entries of one cache, direct mapped.
const JUMPS: usize = 1 << 13;

/// Memory of what is kept for one address space.
pub(crate) const VIEW_BYTES: usize = JUMPS * size_of::<Jump>() + REGION_BYTES;

/// Where the block at `rip` is.
#[derive(Clone, Copy)]
pub(crate) struct Jump {
    pub rip: u64,
    pub op: *const Op,
}

#[inline(always)]
pub(crate) fn jump_index(rip: u64) -> usize {
    (rip ^ rip >> 11) as usize & (JUMPS - 1)
}

/// An entry that no address with this index matches.
fn no_jump(index: usize) -> Jump {
    Jump {
        rip: u64::from(index == 0),
        op: std::ptr::null(),
    }
}

/// The jump cache of one address space.
pub(crate) struct Jumps {
    region: Region,
    /// Those of the region that were set: their indices, up to `TOUCHED_MAX`.
    touched: Vec<u16>,
    entries: Box<[Jump]>,
    /// Bit n: there may be jumps to a page with TLB index n.
    pages: [u64; TLB_SIZE / 64],
    /// What the blocks were decoded for.
    mode: u8,
}

impl Jumps {
    /// The entries, for handlers; they stay where they are as long as the view is current.
    pub(crate) fn entries(&mut self) -> *mut Jump {
        self.entries.as_mut_ptr()
    }

    /// From now on jumps lead to blocks of this mode.
    pub(crate) fn set_mode(&mut self, mode: u8) {
        if self.mode != mode {
            self.mode = mode;
            self.flush();
        }
    }

    /// There is a jump to the block at `rip` from now on.
    pub(crate) fn set(&mut self, rip: u64, op: *const Op) {
        self.entries[jump_index(rip)] = Jump { rip, op };
        let i = tlb_index(rip);
        self.pages[i / 64] |= 1 << (i % 64);
    }

    /// The frame of translated code.
    pub(crate) fn frame(&mut self) -> *mut Frame {
        self.region.frame()
    }

    /// The block at `rip` has translated code from now on, which begins at `code`.
    pub(crate) fn set_code(&mut self, rip: u64, code: u64) {
        let i = code_jump_index(rip);
        let (tags, codes) = self.region.jumps();
        tags[i] = rip.wrapping_neg();
        codes[i] = code;
        if self.touched.len() <= TOUCHED_MAX {
            self.touched.push(i as u16);
        }
        let i = tlb_index(rip);
        self.pages[i / 64] |= 1 << (i % 64);
    }

    /// Nothing leads to translated code at `rip` any more.
    pub(crate) fn forget_code(&mut self, rip: u64) {
        let i = code_jump_index(rip);
        let (tags, _) = self.region.jumps();
        if tags[i] == rip.wrapping_neg() {
            tags[i] = no_tag(i);
        }
    }

    fn flush_code(&mut self) {
        let (tags, _) = self.region.jumps();
        if self.touched.len() > TOUCHED_MAX {
            tags.iter_mut().enumerate().for_each(|(i, tag)| *tag = no_tag(i));
        } else {
            self.touched
                .iter()
                .for_each(|&i| tags[usize::from(i)] = no_tag(usize::from(i)));
        }
        self.touched.clear();
    }
}

/// More jumps to code than this, and a flush clears all.
const TOUCHED_MAX: usize = 4096;

/// Which of the region's jumps `rip` has.
pub(crate) fn code_jump_index(rip: u64) -> usize {
    (rip >> JUMP_SHIFT) as usize & (CODE_JUMPS - 1)
}

impl PerView for Jumps {
    fn new() -> Jumps {
        Jumps {
            region: Region::new(),
            touched: Vec::new(),
            entries: (0..JUMPS).map(no_jump).collect(),
            pages: [0; TLB_SIZE / 64],
            mode: 0,
        }
    }

    fn tlb(&mut self) -> &mut [TlbEntry] {
        self.region.tlb()
    }

    fn flush(&mut self) {
        if self.pages.iter().any(|&w| w != 0) {
            self.flush_code();
            let entries = self.entries.iter_mut().enumerate();
            entries.for_each(|(i, j)| *j = no_jump(i));
            self.pages = [0; TLB_SIZE / 64];
        }
    }

    fn invalidate(&mut self, index: usize) {
        if self.pages[index / 64] & 1 << (index % 64) != 0 {
            self.flush();
        }
    }
}
