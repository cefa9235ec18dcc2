// SPDX-License-Identifier: Apache-2.0
//! The jump cache of an address space: where the block at an address is.

use super::block::Op;
use super::region::{no_tag, CodeJump, Frame, Region, CODE_JUMPS, JUMP_SHIFT, REGION_BYTES};
use crate::mmu::tlb::{is_upper, tlb_index, PerView, TlbEntry, TLB_SIZE};

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
    /// Those that were set, up to `ENTRIES_TOUCHED_MAX`.
    entries_touched: Vec<u16>,
    /// Pages that there may be jumps to, by TLB index: `NO_PAGE`, one, or `PAGES`.
    pages: Box<[u64]>,
    /// Indices of `pages` where there are some.
    pages_touched: Vec<u16>,
    /// Bit n: jumps to translated code of the page with TLB index n have been set.
    code_pages: [u64; TLB_SIZE / 64],
    /// There may be jumps to the lower half of addresses.
    lower: bool,
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
        let i = jump_index(rip);
        self.entries[i] = Jump { rip, op };
        if self.entries_touched.len() <= ENTRIES_TOUCHED_MAX {
            self.entries_touched.push(i as u16);
        }
        self.note_page(rip);
    }

    /// There are jumps to the page of `rip` from now on.
    pub(crate) fn note_page(&mut self, rip: u64) {
        let page = rip & !0xfff;
        let noted = &mut self.pages[tlb_index(rip)];
        if *noted == page {
            return;
        }
        if *noted == NO_PAGE {
            self.pages_touched.push(tlb_index(rip) as u16);
            *noted = page;
        } else {
            *noted = PAGES;
        }
        self.lower |= !is_upper(page);
    }

    /// The frame of translated code.
    pub(crate) fn frame(&mut self) -> *mut Frame {
        self.region.frame()
    }

    /// The frame has the translation of the page of the guest's stack.
    pub(crate) fn note_stack(&mut self, stack_pointer: u64) {
        self.region.note_stack(stack_pointer);
    }

    /// Nothing that calls have left is used for a return any more.
    pub(crate) fn forget_returns(&mut self) {
        self.region.forget_returns();
    }

    /// The block at `rip` has translated code from now on, which begins at `code`.
    pub(crate) fn set_code(&mut self, rip: u64, code: u64) {
        let i = code_jump_index(rip);
        self.region.jumps()[i] = CodeJump {
            tag: rip.wrapping_neg(),
            code,
        };
        if self.touched.len() <= TOUCHED_MAX {
            self.touched.push(i as u16);
        }
        self.note_page(rip);
    }

    /// The page of `rip` shows the code that has this key, as links to it ask.
    pub(crate) fn set_page(&mut self, rip: u64, key: i32) {
        let page = rip & !0xfff;
        self.region.pages()[tlb_index(rip)] = page.wrapping_neg().wrapping_sub(key as u64);
        self.note_page(rip);
    }

    /// Where the translated code at `rip` begins, if jumps lead there.
    pub(crate) fn code(&mut self, rip: u64) -> Option<u64> {
        let jump = &self.region.jumps()[code_jump_index(rip)];
        (jump.tag == rip.wrapping_neg()).then_some(jump.code)
    }

    /// Whether this is the first jump to translated code of a page since a flush; from now on there is one.
    pub(crate) fn first_to_page(&mut self, rip: u64) -> bool {
        let i = tlb_index(rip);
        let (word, bit) = (&mut self.code_pages[i / 64], 1 << (i % 64));
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    /// Nothing leads to translated code at `rip` any more.
    pub(crate) fn forget_code(&mut self, rip: u64) {
        let i = code_jump_index(rip);
        let jump = &mut self.region.jumps()[i];
        if jump.tag == rip.wrapping_neg() {
            jump.tag = no_tag(i);
        }
    }

    fn flush_code(&mut self) {
        let jumps = self.region.jumps();
        if self.touched.len() > TOUCHED_MAX {
            (jumps.iter_mut().enumerate()).for_each(|(i, jump)| jump.tag = no_tag(i));
        } else {
            self.touched
                .iter()
                .for_each(|&i| jumps[usize::from(i)].tag = no_tag(usize::from(i)));
        }
        self.touched.clear();
    }

    fn flush_entries(&mut self) {
        if self.entries_touched.len() > ENTRIES_TOUCHED_MAX {
            let entries = self.entries.iter_mut().enumerate();
            entries.for_each(|(i, j)| *j = no_jump(i));
        } else {
            self.entries_touched
                .iter()
                .for_each(|&i| self.entries[usize::from(i)] = no_jump(i.into()));
        }
        self.entries_touched.clear();
    }
}

/// More jumps to code than this, and a flush clears all.
const TOUCHED_MAX: usize = CODE_JUMPS / 8;

/// The same of jumps to blocks that are interpreted.
const ENTRIES_TOUCHED_MAX: usize = JUMPS / 4;

/// In place of a page that there are jumps to: no page. No page has either of these addresses.
const NO_PAGE: u64 = 1;
/// Several.
const PAGES: u64 = 2;

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
            entries_touched: Vec::new(),
            pages: vec![NO_PAGE; TLB_SIZE].into_boxed_slice(),
            pages_touched: Vec::new(),
            code_pages: [0; TLB_SIZE / 64],
            lower: false,
            mode: 0,
        }
    }

    fn tlb(&mut self) -> &mut [TlbEntry] {
        self.region.tlb()
    }

    fn flush(&mut self) {
        if self.pages_touched.is_empty() {
            return;
        }
        self.flush_code();
        self.forget_returns();
        self.flush_entries();
        for &i in &self.pages_touched {
            self.pages[usize::from(i)] = NO_PAGE;
            self.region.pages()[usize::from(i)] = 0;
        }
        self.pages_touched.clear();
        self.code_pages = [0; TLB_SIZE / 64];
        self.lower = false;
    }

    fn flush_lower(&mut self) {
        if self.lower {
            self.flush();
        }
    }

    fn invalidate(&mut self, va: u64) {
        let noted = self.pages[tlb_index(va)];
        if noted == PAGES || noted == va & !0xfff {
            self.flush();
        }
    }
}
