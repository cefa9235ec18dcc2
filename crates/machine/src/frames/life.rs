// SPDX-License-Identifier: Apache-2.0
//! Whether a domain lives, in one place for the frame table and for its vCPUs.

use std::sync::atomic::{AtomicU8, Ordering};

/// How far the end of a domain has come. Read without the frame table's lock by vCPUs on their way into the guest; who
/// holds the lock and has seen that the domain is not dying completes what it does before frames are given back.
#[derive(Debug, Default)]
pub(super) struct Life(AtomicU8);

const DYING: u8 = 1;
const ENDED: u8 = 2;

impl Life {
    /// That of a domain that never was.
    pub(super) fn over() -> Life {
        Life(AtomicU8::new(ENDED))
    }

    pub(super) fn is_dying(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    pub(super) fn begin_end(&self) {
        self.0.fetch_max(DYING, Ordering::SeqCst);
    }

    /// True for the first who calls it: the one that gives back what the domain has.
    pub(super) fn end(&self) -> bool {
        self.0.swap(ENDED, Ordering::SeqCst) != ENDED
    }
}
