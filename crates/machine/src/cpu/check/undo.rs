// SPDX-License-Identifier: Apache-2.0
//! Frames as they were before a slice, for those that are stored to.

use crate::frames::{flag, Machine};
use crate::mem::{Mfn, PhysMem, PAGE_SIZE};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

type Page = [u8; PAGE_SIZE as usize];

/// Frames that a run has changed, as it has left them.
pub(super) type Changes = BTreeMap<Mfn, Box<Page>>;

/// A word of memory after either run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Difference {
    pub maddr: u64,
    pub first: u64,
    pub second: u64,
}

/// Which frames translations allow stores to, and what was in those that may have been stored to.
#[derive(Default)]
pub(super) struct Undo {
    granted: BTreeSet<Mfn>,
    before: Changes,
}

fn read(mem: &PhysMem, mfn: Mfn) -> Box<Page> {
    let mut page = Box::new([0; PAGE_SIZE as usize]);
    mem.read(mfn.maddr(), page.as_mut_slice());
    page
}

/// The first and the last byte that differ, if any do.
fn changed(a: &Page, b: &Page) -> Option<Range<u16>> {
    let differs = |n: &usize| a[*n] != b[*n];
    let first = (0..a.len()).find(differs)?;
    let last = (0..a.len()).rfind(differs)?;
    Some(first as u16..last as u16 + 1)
}

fn word(page: &Page, n: usize) -> u64 {
    let bytes = page.get(n * 8..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Undo {
    /// Stores to a frame are allowed from now on; what it has now is `kept` for its way back.
    pub(super) fn note(&mut self, mem: &PhysMem, mfn: Mfn, kept: bool) {
        self.granted.insert(mfn);
        if kept {
            self.before.entry(mfn).or_insert_with(|| read(mem, mfn));
        }
    }

    /// Another slice begins: gives the frames that stores are allowed to.
    pub(super) fn begin(&mut self) -> BTreeSet<Mfn> {
        self.before.clear();
        std::mem::take(&mut self.granted)
    }

    /// Makes memory what it was; gives what it has been, and which bytes of frames with decoded code have changed.
    pub(super) fn put_back(&self, machine: &Machine) -> (Changes, Vec<(Mfn, Range<u16>)>) {
        let mut changes = Changes::new();
        let mut code = Vec::new();
        for (&mfn, before) in &self.before {
            let now = read(&machine.mem, mfn);
            let Some(range) = changed(before, &now) else {
                continue;
            };
            machine.mem.write(mfn.maddr(), before.as_slice());
            if machine.frames.flags(mfn) & flag::CODE != 0 {
                code.push((mfn, range));
            }
            changes.insert(mfn, now);
        }
        (changes, code)
    }

    /// Words in which memory is not now what the first run has left in it.
    pub(super) fn differences<'a>(
        &'a self,
        mem: &'a PhysMem,
        first: &'a Changes,
    ) -> impl Iterator<Item = Difference> + 'a {
        self.before.iter().flat_map(move |(&mfn, before)| {
            let first = first.get(&mfn).unwrap_or(before);
            let second = read(mem, mfn);
            let words = if **first == *second {
                0
            } else {
                PAGE_SIZE as usize / 8
            };
            let all = (0..words).map(move |n| Difference {
                maddr: mfn.maddr() + n as u64 * 8,
                first: word(first, n),
                second: word(&second, n),
            });
            all.filter(|d| d.first != d.second)
        })
    }
}
