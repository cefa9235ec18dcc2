// SPDX-License-Identifier: Apache-2.0
//! The software TLB: one set of translations per address space ("view"), so that the kernel/user switch of every
//! system call of a 64-bit PV guest flushes nothing.

use crate::mem::Mfn;

/// Entries of one view, direct mapped.
pub(crate) const TLB_SIZE: usize = 4096;
/// Views that are kept.
pub(crate) const VIEWS: usize = 16;
/// More filled entries than this, and a flush clears the whole array.
const TOUCHED_MAX: usize = 1024;

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
fn invalid_tag(index: usize) -> u64 {
    (((index ^ (TLB_SIZE / 2)) as u64) << 12).wrapping_neg()
}

/// Translations of nothing.
pub(crate) fn empty_tlb() -> Vec<TlbEntry> {
    (0..TLB_SIZE)
        .map(|i| TlbEntry {
            neg_r: invalid_tag(i),
            neg_w: invalid_tag(i),
            neg_x: invalid_tag(i),
            delta: 0,
        })
        .collect()
}

/// What an engine keeps for each address space beside the translations, and forgets with them.
pub(crate) trait PerView {
    /// Nothing is kept yet.
    fn new() -> Self;
    /// The translations, which lie where the engine wants them.
    fn tlb(&mut self) -> &mut [TlbEntry];
    /// All translations of the view are forgotten.
    fn flush(&mut self);
    /// The translation of the page with TLB index `index` is forgotten.
    fn invalidate(&mut self, index: usize);
}

/// Which address space a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ViewKey {
    pub l4: Mfn,
    pub user: bool,
}

struct View<P> {
    key: Option<ViewKey>,
    /// Must be flushed before it is used again.
    stale: bool,
    /// `Domain::pt_generation` when it was last made current by a base load.
    generation: u64,
    used: u64,
    touched: Vec<u16>,
    beside: P,
}

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

impl<P: PerView> View<P> {
    fn new() -> View<P> {
        View {
            key: None,
            stale: false,
            generation: 0,
            used: 0,
            touched: Vec::new(),
            beside: P::new(),
        }
    }

    fn clear(&mut self, i: usize) {
        let tag = invalid_tag(i);
        if let Some(e) = self.beside.tlb().get_mut(i) {
            *e = TlbEntry {
                neg_r: tag,
                neg_w: tag,
                neg_x: tag,
                delta: 0,
            };
        }
    }

    fn flush(&mut self) {
        self.beside.flush();
        if self.touched.len() > TOUCHED_MAX {
            (0..TLB_SIZE).for_each(|i| self.clear(i));
            self.touched.clear();
        } else {
            let mut touched = std::mem::take(&mut self.touched);
            touched.iter().for_each(|&i| self.clear(i as usize));
            touched.clear();
            self.touched = touched;
        }
        self.stale = false;
    }
}

/// All views of a vCPU.
pub(crate) struct Views<P> {
    list: Vec<View<P>>,
    current: usize,
    tick: u64,
    nodes: Vec<Node>,
    lists: Box<[u32]>,
}

impl<P: PerView> Views<P> {
    pub(crate) fn new() -> Self {
        Views {
            list: vec![View::new()],
            current: 0,
            tick: 0,
            nodes: vec![UNLINKED; TLB_SIZE],
            lists: vec![NONE; LISTS].into_boxed_slice(),
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

    pub(crate) fn key(&self) -> Option<ViewKey> {
        self.list[self.current].key
    }

    /// Makes the view of `key` current, reusing the least recently used one if there is none. With `base_load`, a view
    /// older than `generation` is flushed. Returns true if what was in the view before is gone.
    pub(crate) fn switch(&mut self, key: ViewKey, generation: u64, base_load: bool) -> bool {
        self.tick += 1;
        let found = self.list.iter().position(|v| v.key == Some(key));
        let at = found.unwrap_or_else(|| {
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
        });
        let v = &mut self.list[at];
        v.used = self.tick;
        let flush = found.is_none() || v.stale || (base_load && v.generation != generation);
        if found.is_none() || base_load {
            v.generation = generation;
        }
        v.key = Some(key);
        if flush {
            v.flush();
        }
        self.current = at;
        flush
    }

    /// Flushes the view of `key`, if there is one and it is older than `generation`.
    pub(crate) fn refresh(&mut self, key: ViewKey, generation: u64) {
        let current = self.current;
        let found = self.list.iter_mut().enumerate().find(|(_, v)| v.key == Some(key));
        if let Some((i, v)) = found.filter(|(_, v)| v.generation != generation) {
            v.generation = generation;
            if i == current {
                v.flush();
            } else {
                v.stale = true;
            }
        }
    }

    /// Flushes every view that is older than `generation`.
    pub(crate) fn refresh_all(&mut self, generation: u64) {
        let current = self.current;
        for (i, v) in self.list.iter_mut().enumerate() {
            if v.generation == generation {
                continue;
            }
            v.generation = generation;
            if i == current {
                v.flush();
            } else {
                v.stale = true;
            }
        }
    }

    /// Fills the entry of `va` in the current view with the frame at `host`; adds to what the entry allows if it is of
    /// the same page.
    pub(crate) fn fill(&mut self, va: u64, host: *mut u8, write: bool, fetch: bool) {
        let page = va & !0xfff;
        let i = tlb_index(va);
        let tag = page.wrapping_neg();
        let bad = invalid_tag(i);
        let v = &mut self.list[self.current];
        let e = &mut v.beside.tlb()[i];
        let delta = (host as u64).wrapping_sub(page);
        if e.neg_r != tag || e.delta != delta {
            if e.neg_r == bad && v.touched.len() <= TOUCHED_MAX {
                v.touched.push(i as u16);
            }
            *e = TlbEntry {
                neg_r: tag,
                neg_w: bad,
                neg_x: bad,
                delta,
            };
            self.relink(self.current * TLB_SIZE + i, host);
        }
        let e = &mut self.list[self.current].beside.tlb()[i];
        if write {
            e.neg_w = tag;
        }
        if fetch {
            e.neg_x = tag;
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
        let View { key, generation, .. } = self.list[self.current];
        *self = Views {
            tick: self.tick,
            ..Views::new()
        };
        self.list[0].key = key;
        self.list[0].generation = generation;
    }

    /// Flushes every view.
    pub(crate) fn flush_all(&mut self) {
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
        self.list[self.current].flush();
    }

    /// Forgets one page in every view.
    pub(crate) fn invlpg(&mut self, va: u64) {
        let i = tlb_index(va);
        let tag = (va & !0xfff).wrapping_neg();
        for v in self.list.iter_mut() {
            if v.beside.tlb()[i].neg_r == tag {
                v.clear(i);
            }
            // It may outlive the entry.
            v.beside.invalidate(i);
        }
    }

    /// Takes away translations to the frame at host address `host` (only their writability if `writable_only`). What
    /// is kept beside the views stays: the caller forgets it.
    pub(crate) fn purge_frame(&mut self, host: *const u8, writable_only: bool) {
        let mut id = self.lists[list_of(host)];
        while id != NONE {
            let (view, i) = (id as usize / TLB_SIZE, id as usize % TLB_SIZE);
            if let Some(v) = self.list.get_mut(view) {
                let bad = invalid_tag(i);
                let e = &mut v.beside.tlb()[i];
                if e.neg_r != bad && e.delta.wrapping_sub(e.neg_r) == host as u64 {
                    if writable_only {
                        e.neg_w = bad;
                    } else {
                        v.clear(i);
                    }
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
