// SPDX-License-Identifier: Apache-2.0
//! Which bytes of machine memory some vCPU has decoded: shared by all vCPUs, asked by slow stores and host writes.

use super::flag;
use super::machine::Machine;
use crate::mem::Mfn;
use crate::shared::{Caller, Purge};
use std::sync::atomic::{AtomicU64, Ordering};

/// For each frame, one bit per 64 bytes that may have decoded instructions.
pub struct CodeMap {
    granules: Box<[AtomicU64]>,
}

fn mask(start: u16, end: u16) -> u64 {
    let (first, last) = (u32::from(start) >> 6, (u32::from(end).max(1) - 1) >> 6);
    (u64::MAX << (first & 63)) & (u64::MAX >> (63 - (last & 63)))
}

impl CodeMap {
    pub fn new(frames: u64) -> CodeMap {
        CodeMap {
            granules: (0..frames).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Some block was made, or is about to be made, from bytes `start..end`.
    pub fn mark(&self, mfn: Mfn, start: u16, end: u16) {
        if let Some(g) = self.granules.get(mfn.0 as usize) {
            let m = mask(start, end);
            if g.load(Ordering::SeqCst) & m != m {
                g.fetch_or(m, Ordering::SeqCst);
            }
        }
    }

    pub fn hit(&self, mfn: Mfn, start: u16, end: u16) -> bool {
        start < end
            && self
                .granules
                .get(mfn.0 as usize)
                .is_some_and(|g| g.load(Ordering::SeqCst) & mask(start, end) != 0)
    }

    fn clear(&self, mfn: Mfn) {
        if let Some(g) = self.granules.get(mfn.0 as usize) {
            g.store(0, Ordering::SeqCst);
        }
    }
}

impl Machine {
    /// Bytes `start..end` of `mfn` were written by the host: every vCPU forgets instructions decoded from them.
    pub fn code_changed(&self, mfn: Mfn, start: u16, end: u16, caller: Caller<'_>) {
        if self.frames.flags(mfn) & flag::CODE != 0 && self.code.hit(mfn, start, end) {
            self.purge(Purge::Code { mfn, start, end }, caller);
        }
    }

    /// Forgets all instructions decoded from `mfn`, and lets it be written at full speed again. As `code_changed`.
    pub fn drop_code(&self, mfn: Mfn, caller: Caller<'_>) {
        // A vCPU that decodes from now on sets these again; what was decoded before is purged.
        self.code.clear(mfn);
        if self.frames.clear_flags(mfn, flag::CODE) & flag::CODE != 0 {
            self.purge(
                Purge::Code {
                    mfn,
                    start: 0,
                    end: 4096,
                },
                caller,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_map_finds_exactly_the_granules_that_were_marked() {
        let map = CodeMap::new(2);
        map.mark(Mfn(1), 64, 129);
        assert!(!map.hit(Mfn(1), 0, 64));
        assert!(map.hit(Mfn(1), 63, 65));
        assert!(map.hit(Mfn(1), 190, 191));
        assert!(!map.hit(Mfn(1), 192, 4096));
        assert!(!map.hit(Mfn(0), 0, 4096));
    }
}
