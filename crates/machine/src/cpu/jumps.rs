// SPDX-License-Identifier: Apache-2.0
//! The jump cache of an address space: where the block at an address is.

use super::block::Op;
use crate::mmu::tlb::{tlb_index, PerView, TLB_SIZE};

/// Entries of one cache, direct mapped.
const JUMPS: usize = 1 << 13;

/// Memory of one cache.
pub(crate) const JUMPS_BYTES: usize = JUMPS * size_of::<Jump>();

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
}

impl PerView for Jumps {
    fn new() -> Jumps {
        Jumps {
            entries: (0..JUMPS).map(no_jump).collect(),
            pages: [0; TLB_SIZE / 64],
            mode: 0,
        }
    }

    fn flush(&mut self) {
        if self.pages.iter().any(|&w| w != 0) {
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
