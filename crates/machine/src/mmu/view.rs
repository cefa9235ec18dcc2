// SPDX-License-Identifier: Apache-2.0
//! One set of translations.

use super::tlb::{invalid_tag, is_upper, PerView, TlbEntry, ViewKey, TLB_SIZE};
use super::upper::Upper;

/// More filled entries than this, and a flush looks at the whole array.
const TOUCHED_MAX: usize = 1024;

/// Indices of entries that were filled, for one half of addresses. Past `TOUCHED_MAX` they may be any.
type Touched = Vec<u16>;

/// The translations of one address space; of a 64-bit guest's kernel, of all that have an equal upper half, one at a time.
pub(super) struct View<P> {
    pub key: Option<ViewKey>,
    /// With it, a switch to an address space with an equal one takes the lower half alone.
    pub upper: Option<Upper>,
    /// Must be flushed before it is used again.
    pub stale: bool,
    /// `Domain::pt_generation` when it was last made current by a base load.
    pub generation: u64,
    pub used: u64,
    lower_touched: Touched,
    upper_touched: Touched,
    pub beside: P,
}

impl<P: PerView> View<P> {
    pub(super) fn new() -> View<P> {
        View {
            key: None,
            upper: None,
            stale: false,
            generation: 0,
            used: 0,
            lower_touched: Vec::new(),
            upper_touched: Vec::new(),
            beside: P::new(),
        }
    }

    pub(super) fn clear(&mut self, i: usize) {
        if let Some(e) = self.beside.tlb().get_mut(i) {
            *e = TlbEntry::none(i);
        }
    }

    /// Forgets all translations but one; what was found by them stays right.
    pub(super) fn clear_all_but(&mut self, kept: usize) {
        (0..TLB_SIZE).filter(|&i| i != kept).for_each(|i| self.clear(i));
        for touched in [&mut self.lower_touched, &mut self.upper_touched] {
            touched.retain(|&i| usize::from(i) == kept);
        }
    }

    pub(super) fn flush(&mut self) {
        self.beside.flush();
        if self.lower_touched.len().max(self.upper_touched.len()) > TOUCHED_MAX {
            (0..TLB_SIZE).for_each(|i| self.clear(i));
        } else {
            let tlb = self.beside.tlb();
            for &i in self.lower_touched.iter().chain(&self.upper_touched) {
                if let Some(e) = tlb.get_mut(usize::from(i)) {
                    *e = TlbEntry::none(i.into());
                }
            }
        }
        self.lower_touched.clear();
        self.upper_touched.clear();
        self.stale = false;
    }

    /// Forgets what it shows in the lower half.
    pub(super) fn flush_lower(&mut self) {
        self.beside.flush_lower();
        let tlb = self.beside.tlb();
        let mut clear = |i: usize| {
            if let Some(e) = tlb.get_mut(i).filter(|e| !is_upper(e.page())) {
                *e = TlbEntry::none(i);
            }
        };
        if self.lower_touched.len() > TOUCHED_MAX {
            (0..TLB_SIZE).for_each(clear);
        } else {
            self.lower_touched.iter().for_each(|&i| clear(i.into()));
        }
        self.lower_touched.clear();
    }

    /// What it shows in the lower half, with indices, unless that is much.
    pub(super) fn lower(&mut self) -> impl Iterator<Item = (usize, TlbEntry)> + '_ {
        let View {
            beside,
            lower_touched,
            ..
        } = self;
        let few = lower_touched.len() <= TOUCHED_MAX;
        let tlb = beside.tlb();
        let entries = lower_touched.iter().filter(move |_| few).filter_map(|&i| {
            let i = usize::from(i);
            tlb.get(i).map(|e| (i, *e))
        });
        entries.filter(|(i, e)| !is_upper(e.page()) && e.neg_r != invalid_tag(*i))
    }

    /// Fills entry `i` with the page whose negated address is `tag`, and gives it; true if it is of another page than
    /// before.
    pub(super) fn entry(&mut self, i: usize, tag: u64, delta: u64) -> (&mut TlbEntry, bool) {
        let e = &mut self.beside.tlb()[i];
        let other = e.neg_r != tag || e.delta != delta;
        if other {
            let bad = invalid_tag(i);
            let upper = is_upper(tag.wrapping_neg());
            if e.neg_r == bad || is_upper(e.page()) != upper {
                let touched = if upper {
                    &mut self.upper_touched
                } else {
                    &mut self.lower_touched
                };
                if touched.len() <= TOUCHED_MAX {
                    touched.push(i as u16);
                }
            }
            *e = TlbEntry {
                neg_r: tag,
                neg_w: bad,
                neg_x: bad,
                delta,
            };
        }
        (e, other)
    }
}
