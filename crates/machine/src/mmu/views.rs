// SPDX-License-Identifier: Apache-2.0
//! The software TLB of a vCPU: one set of translations per address space ("view"), so that the kernel/user switch of every
//! system call of a 64-bit PV guest flushes nothing. Its kernel's address spaces have one view for all that are equal in
//! the upper half, which outlives base loads and flushes: of these it forgets what page tables have changed meanwhile.

use super::parked::Parked;
use super::tlb::{invalid_tag, is_upper, tlb_index, PerView, TlbEntry, ViewKey, TLB_SIZE};
use super::upper::Upper;
use super::view::View;
use crate::frames::{flag, Domain};
use crate::mem::Mfn;
use std::sync::atomic::Ordering;

/// Views that are kept.
pub(crate) const VIEWS: usize = 16;

/// No node, in the lists of translations by frame.
const NONE: u32 = u32::MAX;
/// Set in `Node::prev`: the rest is a list's number.
const HEAD: u32 = 1 << 31;
/// Lists of translations by frame.
const LISTS: usize = 8192;

/// Place of a TLB entry (view * TLB_SIZE + index) in the list of those that may show the same frame. An entry stays in
/// its list until it is filled again.
#[derive(Clone, Copy)]
struct Node {
    next: u32,
    prev: u32,
}

const UNLINKED: Node = Node {
    next: NONE,
    prev: NONE,
};

/// All views of a vCPU.
pub(crate) struct Views<P> {
    list: Vec<View<P>>,
    current: usize,
    /// The one that was current before.
    last: usize,
    tick: u64,
    nodes: Vec<Node>,
    lists: Box<[u32]>,
    parked: Parked,
    /// How often translations were taken away.
    forgotten: u64,
    /// A view has one translation at a time: for tests.
    single: bool,
    /// Scratch: frames whose mappings have changed.
    changed: Vec<Mfn>,
}

impl<P: PerView> Views<P> {
    pub(crate) fn new() -> Self {
        Views {
            list: vec![View::new()],
            current: 0,
            last: 0,
            tick: 0,
            nodes: vec![UNLINKED; TLB_SIZE],
            lists: vec![NONE; LISTS].into_boxed_slice(),
            parked: Parked::default(),
            forgotten: 0,
            single: false,
            changed: Vec::new(),
        }
    }

    /// The entries of the current view; valid until the next call of a method that switches.
    pub(crate) fn current_tlb(&mut self) -> *mut TlbEntry {
        self.list[self.current].beside.tlb().as_mut_ptr()
    }

    /// What is kept beside the current view; it stays where it is as long as `current_tlb`.
    pub(crate) fn beside(&mut self) -> &mut P {
        &mut self.list[self.current].beside
    }

    /// What is kept beside each view.
    pub(crate) fn all_beside(&mut self) -> impl Iterator<Item = &mut P> {
        self.list.iter_mut().map(|v| &mut v.beside)
    }

    /// Another number than before, if a translation that was seen then may not be used any more.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// A view has one translation at a time from now on, as if all addresses shared an entry, or as many as there is room for.
    pub(crate) fn set_single(&mut self, on: bool) {
        self.single = on;
    }

    /// Whether the translations of two addresses take each other's place.
    pub(crate) fn share_entry(&self, a: u64, b: u64) -> bool {
        self.single || tlb_index(a) == tlb_index(b)
    }

    pub(crate) fn key(&self) -> Option<ViewKey> {
        self.list[self.current].key
    }

    /// Whether a translation of `va` serves other address spaces too, and outlives flushes.
    pub(crate) fn shares(&self, va: u64) -> bool {
        is_upper(va) && self.list[self.current].upper.is_some()
    }

    /// Makes the view of `key` current, reusing the least recently used one if there is none. With `base_load`, a view
    /// that was filled before page tables of `domain` changed is flushed. With `shared`, address spaces with equal upper halves have one view.
    pub(crate) fn switch(&mut self, key: ViewKey, domain: &Domain, base_load: bool, shared: bool) {
        self.forgotten += 1;
        self.tick += 1;
        let is_own = |v: &View<P>| v.key == Some(key) && v.upper.is_some() == shared;
        let before = std::mem::replace(&mut self.last, self.current);
        // A system call and its return go to and fro between two.
        let own = match self.list.get(before) {
            Some(v) if is_own(v) => Some(before),
            _ => self.list.iter().position(is_own),
        };
        if shared && (own.is_none() || base_load) {
            self.switch_shared(key, own, domain);
            return;
        }
        let generation = domain.pt_generation.load(Ordering::Acquire);
        let at = own.unwrap_or_else(|| self.room());
        let v = &mut self.list[at];
        v.used = self.tick;
        let flush = own.is_none() || v.stale || (base_load && v.generation != generation);
        if own.is_none() {
            v.upper = None;
        }
        if own.is_none() || base_load {
            v.generation = generation;
        }
        v.key = Some(key);
        if flush {
            v.flush();
        }
        self.current = at;
    }

    /// A base load, where `own` was the view of `key` last.
    fn switch_shared(&mut self, key: ViewKey, own: Option<usize>, domain: &Domain) {
        let generation = domain.pt_generation.load(Ordering::Acquire);
        let upper = Upper::of(domain, key.l4);
        let like = |v: &View<P>| !v.stale && v.upper.as_ref().is_some_and(|u| u.is_like(&upper));
        let same = self.list.iter().position(like);
        let at = same.or(own).unwrap_or_else(|| self.room());
        if let Some(v) = own
            .filter(|&own| own != at)
            .and_then(|own| self.list.get_mut(own))
        {
            (v.key, v.upper, v.stale) = (None, None, true);
        }
        let v = &mut self.list[at];
        v.used = self.tick;
        let mut lower = Vec::new();
        if same.is_none() {
            v.flush();
            v.upper = Some(upper);
        } else if let Some(before) = v.key.filter(|&before| before != key) {
            self.parked.put(before, v.generation, v.lower());
            v.flush_lower();
            lower = self.parked.take(key, generation);
        } else if v.generation != generation {
            v.flush_lower();
        }
        v.key = Some(key);
        v.generation = generation;
        self.current = at;
        for (i, e) in lower {
            let (to, other) = self.list[at].entry(i, e.neg_r, e.delta);
            *to = e;
            if other {
                self.relink(at * TLB_SIZE + i, e.host() as *const u8);
            }
        }
        self.catch_up(at, domain);
    }

    /// The view for an address space that has none.
    fn room(&mut self) -> usize {
        if let Some(i) = self.list.iter().position(|v| v.key.is_none()) {
            return i;
        }
        if self.list.len() < VIEWS {
            self.list.push(View::new());
            self.nodes.resize(self.list.len() * TLB_SIZE, UNLINKED);
            return self.list.len() - 1;
        }
        (0..self.list.len())
            .min_by_key(|&i| self.list[i].used)
            .unwrap_or(0)
    }

    /// Flushes the views of `key` that were filled before page tables changed.
    pub(crate) fn refresh(&mut self, key: ViewKey, domain: &Domain) {
        for i in 0..self.list.len() {
            if self.list[i].key == Some(key) {
                self.refresh_at(i, domain);
            }
        }
    }

    /// Flushes every view that was filled before page tables changed.
    pub(crate) fn refresh_all(&mut self, domain: &Domain) {
        (0..self.list.len()).for_each(|i| self.refresh_at(i, domain));
    }

    fn refresh_at(&mut self, i: usize, domain: &Domain) {
        self.forgotten += 1;
        let generation = domain.pt_generation.load(Ordering::Acquire);
        let v = &mut self.list[i];
        let old = std::mem::replace(&mut v.generation, generation) != generation;
        let (Some(upper), Some(key)) = (&mut v.upper, v.key) else {
            if old && i == self.current {
                v.flush();
            } else {
                v.stale |= old;
            }
            return;
        };
        // An L4 that was not in use when its base was loaded may be another table now.
        let now = Upper::of(domain, key.l4);
        if upper.is_like(&now) {
            if old {
                v.flush_lower();
            }
            self.catch_up(i, domain);
        } else {
            *upper = now;
            v.flush();
        }
    }

    /// Forgets translations of a view's upper half that page tables have changed since it last did this.
    fn catch_up(&mut self, at: usize, domain: &Domain) {
        let to = domain.upper_changes.count();
        let Some(upper) = &mut self.list[at].upper else {
            return;
        };
        let from = std::mem::replace(&mut upper.seen, to);
        if from == to {
            return;
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.clear();
        if domain.upper_changes.between(from, to, &mut changed) {
            for &mfn in &changed {
                let Some(host) = domain.machine.mem.frame(mfn) else {
                    continue;
                };
                self.each_of(host, |i, view, index| {
                    if i == at && is_upper(view.beside.tlb()[index].page()) {
                        view.clear(index);
                    }
                });
                // Jumps to it outlive its translations.
                if domain.machine.frames.flags(mfn) & flag::CODE != 0 {
                    self.list[at].beside.flush();
                }
            }
        } else {
            self.list[at].flush();
        }
        self.changed = changed;
    }

    /// Fills the entry of `va` in the current view with the frame at `host`; adds to what the entry allows if it is of
    /// the same page.
    pub(crate) fn fill(&mut self, va: u64, host: *mut u8, write: bool, fetch: bool) {
        let page = va & !0xfff;
        let i = tlb_index(va);
        let tag = page.wrapping_neg();
        let delta = (host as u64).wrapping_sub(page);
        if self.single {
            self.list[self.current].clear_all_but(i);
        }
        let (e, other) = self.list[self.current].entry(i, tag, delta);
        if write {
            e.neg_w = tag;
        }
        if fetch {
            e.neg_x = tag;
        }
        if other {
            self.relink(self.current * TLB_SIZE + i, host);
        }
    }

    /// Moves a node to the list of the frame at `host`.
    fn relink(&mut self, id: usize, host: *const u8) {
        let Node { next, prev } = self.nodes[id];
        if prev != NONE {
            if prev & HEAD != 0 {
                self.lists[(prev & !HEAD) as usize] = next;
            } else {
                self.nodes[prev as usize].next = next;
            }
            if next != NONE {
                self.nodes[next as usize].prev = prev;
            }
        }
        let list = list_of(host);
        let first = std::mem::replace(&mut self.lists[list], id as u32);
        self.nodes[id] = Node {
            next: first,
            prev: HEAD | list as u32,
        };
        if first != NONE {
            self.nodes[first as usize].prev = id as u32;
        }
    }

    /// How many views take memory.
    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    /// Forgets everything, and gives the memory of all views but the current one back.
    pub(crate) fn shrink(&mut self) {
        let v = &mut self.list[self.current];
        let (key, generation, upper) = (v.key, v.generation, v.upper.take());
        *self = Views {
            tick: self.tick,
            forgotten: self.forgotten + 1,
            single: self.single,
            ..Views::new()
        };
        let v = &mut self.list[0];
        (v.key, v.generation, v.upper) = (key, generation, upper);
    }

    /// Flushes every view.
    pub(crate) fn flush_all(&mut self) {
        self.forgotten += 1;
        self.parked.clear();
        for (i, v) in self.list.iter_mut().enumerate() {
            if i == self.current {
                v.flush();
            } else {
                v.stale = true;
            }
        }
    }

    /// Flushes the current view.
    pub(crate) fn flush_current(&mut self) {
        self.forgotten += 1;
        self.parked.clear();
        self.list[self.current].flush();
    }

    /// Forgets one page in every view.
    pub(crate) fn invlpg(&mut self, va: u64) {
        self.forgotten += 1;
        let i = tlb_index(va);
        let tag = (va & !0xfff).wrapping_neg();
        self.parked.invalidate(tag);
        for v in self.list.iter_mut() {
            if v.beside.tlb()[i].neg_r == tag {
                v.clear(i);
            }
            // It may outlive the entry.
            v.beside.invalidate(va);
        }
    }

    /// Takes away translations to the frame at host address `host` (only their writability if `writable_only`). What
    /// is kept beside the views stays: the caller forgets it.
    pub(crate) fn purge_frame(&mut self, host: *const u8, writable_only: bool) {
        self.forgotten += 1;
        self.parked.purge_frame(host, writable_only);
        self.each_of(host, |_, view, i| {
            if writable_only {
                view.beside.tlb()[i].neg_w = invalid_tag(i);
            } else {
                view.clear(i);
            }
        });
    }

    /// Calls `f` with each translation to the frame at `host`: number of the view, the view, index.
    fn each_of(&mut self, host: *const u8, mut f: impl FnMut(usize, &mut View<P>, usize)) {
        let mut id = self.lists[list_of(host)];
        while id != NONE {
            let (view, i) = (id as usize / TLB_SIZE, id as usize % TLB_SIZE);
            if let Some(v) = self.list.get_mut(view) {
                let e = v.beside.tlb()[i];
                if e.neg_r != invalid_tag(i) && e.host() == host as u64 {
                    f(view, v, i);
                }
            }
            id = self.nodes[id as usize].next;
        }
    }
}

fn list_of(host: *const u8) -> usize {
    let page = host as usize >> 12;
    (page ^ page >> 13) & (LISTS - 1)
}

impl<P: PerView> Default for Views<P> {
    fn default() -> Self {
        Self::new()
    }
}
