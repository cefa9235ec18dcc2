// SPDX-License-Identifier: Apache-2.0
//! The machine's memory: who owns each frame, as what it is used, and how often; domains; which bytes are decoded.
//!
//! What engines need without the lock is in [`FrameTable`]; everything else is [`Mm`], behind `Machine::lock_mm`.

mod atomics;
mod audit;
mod changes;
mod code;
mod domain;
mod entries;
mod frame_info;
mod free;
mod grant;
mod life;
mod machine;
mod memory;
mod op;
mod saved;
pub(crate) mod segdesc;
#[cfg(test)]
mod tests;
mod turns;
mod types;

pub use crate::abi::DomId;
pub use domain::Domain;
pub(crate) use entries::{ptwr, PtwrResult};
pub(crate) use frame_info::Mm;
pub use frame_info::{BaseKind, FrameInfo, Ty};
pub(crate) use grant::GrantAddress;
pub use machine::Machine;
pub(crate) use memory::{ended, to_the_end};
pub(crate) use op::Op;
pub use op::{MmError, MmResult};

use crate::mem::{Mfn, PhysMem};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bits of [`FrameTable::flags`]: what engines may have cached about a frame.
pub(crate) mod flag {
    /// Some software TLB may hold a translation that allows writes.
    pub(crate) const TLB_W: u32 = 1;
    /// Some software TLB may hold a translation.
    pub(crate) const TLB_R: u32 = 2;
    /// Some block cache may hold decoded instructions: stores must go through the slow path.
    pub(crate) const CODE: u32 = 4;
    /// Written by the host without notice (shared rings, vcpu_info): decoded blocks from it must not be kept.
    pub(crate) const NO_CODE: u32 = 8;
    /// In use as a page table or descriptor table: a guest store must go through the slow path.
    pub(crate) const PROTECTED: u32 = 16;
    /// A translation of the upper half of addresses may have been made of its entries: their changes are in
    /// [`Domain::upper_changes`].
    pub(crate) const UPPER_TABLE: u32 = 32;
    /// One mapping of a back end's that may write to it at any time: the bits from this one on count them.
    pub(crate) const WRITER: u32 = 1 << 12;
    /// Any of these: decoded code is not kept.
    pub(crate) const UNKEPT: u32 = NO_CODE | !(WRITER - 1);
}

pub struct FrameTable {
    flags: Box<[AtomicU32]>,
}

impl FrameTable {
    pub fn new(mem: &PhysMem, _seed: u64) -> Self {
        FrameTable {
            flags: (0..mem.frames()).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    pub fn flags(&self, mfn: Mfn) -> u32 {
        self.flags
            .get(mfn.0 as usize)
            .map_or(0, |f| f.load(Ordering::SeqCst))
    }

    pub fn set_flags(&self, mfn: Mfn, bits: u32) -> u32 {
        self.flags
            .get(mfn.0 as usize)
            .map_or(0, |f| f.fetch_or(bits, Ordering::SeqCst))
    }

    /// Sets flags that are set mostly.
    pub fn mark(&self, mfn: Mfn, bits: u32) {
        if self.flags(mfn) & bits != bits {
            self.set_flags(mfn, bits);
        }
    }

    /// One mapping more that may write to a frame at any time. False: there are too many.
    #[must_use]
    pub fn add_writer(&self, mfn: Mfn) -> bool {
        self.flags.get(mfn.0 as usize).is_some_and(|f| {
            let more = |flags: u32| flags.checked_add(flag::WRITER);
            f.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
        })
    }

    /// One less, of those that were added.
    pub fn drop_writer(&self, mfn: Mfn) {
        if let Some(f) = self.flags.get(mfn.0 as usize) {
            f.fetch_sub(flag::WRITER, Ordering::SeqCst);
        }
    }

    pub fn clear_flags(&self, mfn: Mfn, bits: u32) -> u32 {
        self.flags
            .get(mfn.0 as usize)
            .map_or(0, |f| f.fetch_and(!bits, Ordering::SeqCst))
    }
}
