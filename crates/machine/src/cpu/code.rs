//! Which bytes of machine memory some vCPU has decoded: shared by all vCPUs, asked by slow stores and host writes.

use super::Cpu;
use crate::frames::flag;
use crate::machine::Machine;
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

/// After so many slow stores to one frame it is taken for data and its blocks are dropped.
const STORES_BEFORE_DROP: u32 = 24;
/// A store this large is a page being reused.
const BIG_STORE: usize = 2048;

impl Cpu {
    /// A store just changed a frame that has decoded instructions: the running block is left at its next instruction if
    /// it is among them.
    pub(crate) fn code_written(&mut self, mfn: Mfn, offset: u16, len: usize) {
        let end = (usize::from(offset) + len).min(4096) as u16;
        if self.code_frame != mfn {
            self.code_frame = mfn;
            self.code_stores = 0;
        }
        self.code_stores += 1;
        if len >= BIG_STORE || self.code_stores >= STORES_BEFORE_DROP {
            self.code_stores = 0;
            self.without_guest(|c| c.domain.machine.drop_code(mfn, Caller::Vcpu(&c.shared)));
        } else if self.domain.machine.code.hit(mfn, offset, end) {
            self.without_guest(|c| {
                c.domain
                    .machine
                    .code_changed(mfn, offset, end, Caller::Vcpu(&c.shared))
            });
        }
    }

    /// Does something that may wait for other vCPUs, which may in turn wait for this one.
    pub(crate) fn without_guest(&mut self, f: impl FnOnce(&mut Cpu)) {
        let shared = self.shared.clone();
        let outside = shared.leave();
        f(self);
        drop(outside);
        self.apply_purges();
    }

    /// Flushes the block cache whenever `slots` of it are taken (0: when it is full). For tests.
    pub fn set_code_limit(&mut self, slots: usize) {
        self.blocks.set_limit(slots);
    }

    pub(crate) fn forget_code(&mut self, mfn: Mfn, start: u16, end: u16) {
        self.blocks.forget(mfn, start, end);
    }

    /// Forgets every block; their memory is reused as soon as none is running.
    pub(crate) fn forget_all_code(&mut self) {
        self.blocks.kill_all();
        self.forget_all = true;
    }

    /// Before bytes of `mfn` are decoded: stores to it take the slow path from now on. True if this thread waited for
    /// others, so that translations must be looked at again.
    pub(crate) fn mark_code(&mut self, mfn: Mfn) -> bool {
        let frames = &self.domain.machine.frames;
        let mut before = frames.flags(mfn);
        if before & flag::CODE == 0 {
            before = frames.set_flags(mfn, flag::CODE);
        }
        if before & flag::TLB_W == 0 {
            return false;
        }
        self.without_guest(|c| {
            c.domain
                .machine
                .purge(Purge::Writable(mfn), Caller::Vcpu(&c.shared))
        });
        self.domain.machine.frames.clear_flags(mfn, flag::TLB_W);
        true
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
