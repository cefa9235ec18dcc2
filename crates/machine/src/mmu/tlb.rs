// SPDX-License-Identifier: Apache-2.0
//! Entries of the software TLB.

use crate::mem::Mfn;

/// Entries of one view, direct mapped.
pub(crate) const TLB_SIZE: usize = 4096;
/// One translation. A tag is the negated page address, so that `va + tag` is the offset in the page when it matches:
/// one addition and one unsigned comparison check page, size and crossing.
#[repr(C, align(32))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct TlbEntry {
    pub neg_r: u64,
    pub neg_w: u64,
    pub neg_x: u64,
    /// Host address minus guest address.
    pub delta: u64,
}

#[inline(always)]
pub(crate) fn tlb_index(va: u64) -> usize {
    (va >> 12) as usize & (TLB_SIZE - 1)
}

/// A tag that no address with this index matches: that of a page with another index. Nor do the last bytes of an operand
/// that begins in a page with this index match it: the page is no neighbour.
#[inline(always)]
pub(super) fn invalid_tag(index: usize) -> u64 {
    (((index ^ (TLB_SIZE / 2)) as u64) << 12).wrapping_neg()
}

/// Whether an address lies in the upper half.
#[inline(always)]
pub(crate) fn is_upper(va: u64) -> bool {
    (va as i64) < 0
}

impl TlbEntry {
    /// What is at `index` when nothing is.
    pub(super) fn none(index: usize) -> TlbEntry {
        let tag = invalid_tag(index);
        TlbEntry {
            neg_r: tag,
            neg_w: tag,
            neg_x: tag,
            delta: 0,
        }
    }

    /// The host address of the frame that it shows.
    pub(super) fn host(&self) -> u64 {
        self.delta.wrapping_sub(self.neg_r)
    }

    /// The page that it translates; one of the lower half if none.
    pub(super) fn page(&self) -> u64 {
        self.neg_r.wrapping_neg()
    }
}

/// Translations of nothing.
pub(crate) fn empty_tlb() -> Vec<TlbEntry> {
    (0..TLB_SIZE).map(TlbEntry::none).collect()
}

/// What an engine keeps for each address space beside the translations, and forgets with them.
pub(crate) trait PerView {
    /// Nothing is kept yet.
    fn new() -> Self;
    /// The translations, which lie where the engine wants them.
    fn tlb(&mut self) -> &mut [TlbEntry];
    /// All translations of the view are forgotten.
    fn flush(&mut self);
    /// Those of the lower half of addresses are.
    fn flush_lower(&mut self);
    /// That of the page of `va` is.
    fn invalidate(&mut self, va: u64);
}

/// Which address space a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ViewKey {
    pub l4: Mfn,
    pub user: bool,
}
