// SPDX-License-Identifier: Apache-2.0
//! What address spaces that have one view in common showed in the lower half when they were left: a switch back takes no walks.

use super::tlb::{invalid_tag, TlbEntry, ViewKey};
use super::views::VIEWS;

/// Translations that are kept of one address space: a kernel reaches little of its applications' memory at a time.
const EACH: usize = 64;

struct Lower {
    key: ViewKey,
    /// `Domain::pt_generation` for which the translations hold.
    generation: u64,
    /// With their indices.
    entries: Vec<(usize, TlbEntry)>,
}

/// The lower halves of address spaces that are not shown, the one that was left last at the end.
#[derive(Default)]
pub(super) struct Parked(Vec<Lower>);

impl Parked {
    /// Keeps what `key` showed.
    pub(super) fn put(
        &mut self,
        key: ViewKey,
        generation: u64,
        entries: impl Iterator<Item = (usize, TlbEntry)>,
    ) {
        let entries: Vec<_> = entries.take(EACH).collect();
        self.0.retain(|l| l.key != key);
        if entries.is_empty() {
            return;
        }
        if self.0.len() >= VIEWS {
            self.0.remove(0);
        }
        self.0.push(Lower {
            key,
            generation,
            entries,
        });
    }

    /// What `key` showed, if it holds for `generation`.
    pub(super) fn take(&mut self, key: ViewKey, generation: u64) -> Vec<(usize, TlbEntry)> {
        let Some(at) = self.0.iter().position(|l| l.key == key) else {
            return Vec::new();
        };
        let lower = self.0.remove(at);
        if lower.generation == generation {
            lower.entries
        } else {
            Vec::new()
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Forgets the page whose negated address is `tag`.
    pub(super) fn invalidate(&mut self, tag: u64) {
        for l in &mut self.0 {
            l.entries.retain(|(_, e)| e.neg_r != tag);
        }
    }

    /// Forgets translations to the frame at host address `host`, or takes their writability.
    pub(super) fn purge_frame(&mut self, host: *const u8, writable_only: bool) {
        for l in &mut self.0 {
            l.entries.retain_mut(|(i, e)| {
                let shows = e.host() == host as u64;
                if shows && writable_only {
                    e.neg_w = invalid_tag(*i);
                }
                !shows || writable_only
            });
        }
    }
}
