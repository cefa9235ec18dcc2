// SPDX-License-Identifier: Apache-2.0
//! Which changes of page tables concern the upper half of addresses, which the address spaces of a 64-bit guest's kernel have in common:
//! so that a flush takes what has changed, and leaves the rest.

use crate::mem::Mfn;
use std::sync::atomic::{AtomicU64, Ordering};

/// Changes that are remembered.
const KEPT: usize = 1024;
/// With more changes than this between two flushes, everything is flushed.
const MANY: u64 = 512;
/// In place of a frame: a change of which nobody knows what it concerns.
const ANY: u64 = u64::MAX;

/// The last changes of one domain's page tables, numbered. One thread adds at a time, the one that holds the memory lock; any may read.
pub(crate) struct Changes {
    head: AtomicU64,
    frames: Box<[AtomicU64]>,
}

impl Changes {
    pub(super) fn new() -> Changes {
        Changes {
            head: AtomicU64::new(0),
            frames: (0..KEPT).map(|_| AtomicU64::new(ANY)).collect(),
        }
    }

    /// An entry that mapped `mfn` has another value now.
    pub(super) fn add(&self, mfn: Mfn) {
        self.push(mfn.0);
    }

    /// Any translation may be another one now.
    pub(super) fn add_any(&self) {
        self.push(ANY);
    }

    fn push(&self, value: u64) {
        let head = self.head.load(Ordering::Relaxed);
        if let Some(slot) = self.frames.get(head as usize % KEPT) {
            slot.store(value, Ordering::SeqCst);
        }
        self.head.store(head + 1, Ordering::SeqCst);
    }

    /// How many there have been. What was changed before this is called is among them.
    pub(crate) fn count(&self) -> u64 {
        self.head.load(Ordering::SeqCst)
    }

    /// Appends the frames whose mappings were changed by changes `from..to`. False: anything may have changed.
    pub(crate) fn between(&self, from: u64, to: u64, frames: &mut Vec<Mfn>) -> bool {
        if to.wrapping_sub(from) > MANY {
            return false;
        }
        for n in from..to {
            match self
                .frames
                .get(n as usize % KEPT)
                .map(|f| f.load(Ordering::SeqCst))
            {
                None | Some(ANY) => return false,
                Some(mfn) => frames.push(Mfn(mfn)),
            }
        }
        // They have not been overwritten meanwhile: the slot of change `count` may be already.
        self.count() - from < KEPT as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(c: &Changes, from: u64) -> Option<Vec<Mfn>> {
        let mut frames = Vec::new();
        c.between(from, c.count(), &mut frames).then_some(frames)
    }

    #[test]
    fn changes_are_read_from_where_one_has_read_to() {
        let c = Changes::new();
        assert_eq!(between(&c, 0), Some(vec![]));
        c.add(Mfn(7));
        c.add(Mfn(9));
        assert_eq!(between(&c, 0), Some(vec![Mfn(7), Mfn(9)]));
        assert_eq!(between(&c, 1), Some(vec![Mfn(9)]));
        c.add_any();
        assert_eq!(between(&c, 1), None);
        c.add(Mfn(3));
        assert_eq!(between(&c, 3), Some(vec![Mfn(3)]));
    }

    #[test]
    fn who_is_far_behind_flushes_everything() {
        let c = Changes::new();
        (0..MANY).for_each(|n| c.add(Mfn(n)));
        assert_eq!(between(&c, 0).map(|f| f.len()), Some(MANY as usize));
        c.add(Mfn(1));
        assert_eq!(between(&c, 0), None);
        assert_eq!(between(&c, 1).map(|f| f.len()), Some(MANY as usize));
        // What was asked for may be overwritten before it is read.
        let to = c.count();
        (0..KEPT as u64).for_each(|n| c.add(Mfn(n)));
        assert!(!c.between(to - 1, to, &mut Vec::new()));
    }
}
