// SPDX-License-Identifier: Apache-2.0
//! The upper half of addresses of a 64-bit guest's kernel, which its address spaces have in common: their L4 tables are equal there.

use crate::abi::pte::{A, D, ENTRIES};
use crate::frames::Domain;
use crate::mem::Mfn;

/// L4 entries of the upper half.
const HALF: usize = ENTRIES / 2;

/// What a view shows in the upper half.
pub(super) struct Upper {
    /// The L4 entries, as they were after change `seen`.
    entries: Box<[u64; HALF]>,
    /// Changes of `Domain::upper_changes` that the view's translations know of.
    pub seen: u64,
}

impl Upper {
    /// What `l4` shows now.
    pub(super) fn of(domain: &Domain, l4: Mfn) -> Upper {
        // First: what changes while the entries are read is looked at again.
        let seen = domain.upper_changes.count();
        let mut bytes = [0u8; HALF * 8];
        let mut entries = Box::new([0; HALF]);
        // Outside memory every walk faults.
        domain
            .machine
            .mem
            .read(l4.maddr() + bytes.len() as u64, &mut bytes);
        for (entry, raw) in entries.iter_mut().zip(bytes.chunks_exact(8)) {
            // Which address space an access was made in is not to be seen later.
            *entry = raw.try_into().map_or(0, u64::from_le_bytes) & !(A | D);
        }
        Upper { entries, seen }
    }

    /// Whether translations of one serve the other.
    pub(super) fn is_like(&self, other: &Upper) -> bool {
        self.entries == other.entries
    }
}
