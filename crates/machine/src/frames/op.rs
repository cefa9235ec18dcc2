// SPDX-License-Identifier: Apache-2.0
//! One operation on the frame table, with the memory lock held: references, walk barriers, freeing.

use super::changes::Changes;
use super::domain::Domain;
use super::flag;
use super::frame_info::{state, BaseKind, DomMm, FrameInfo, Mm, Ty, NO_OWNER};
use super::machine::{Machine, MmGuard};
use super::types::FREES;
use crate::abi::layout::INVALID_M2P_ENTRY;
use crate::abi::pte;
use crate::abi::{DomId, Errno};
use crate::mem::Mfn;
use crate::shared::{Caller, Purge};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Why an operation did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MmError {
    /// The guest sees `-errno`.
    Errno(Errno),
    /// The operation's share of time is spent. What it has done is kept; call it again with the same arguments.
    Preempted,
}

/// What operations on frames and page tables return.
pub type MmResult<T = ()> = Result<T, MmError>;

pub(crate) const EINVAL: MmError = MmError::Errno(Errno::EINVAL);
pub(crate) const EBUSY: MmError = MmError::Errno(Errno::EBUSY);
pub(crate) const EPERM: MmError = MmError::Errno(Errno::EPERM);

/// Tables that one holding of the lock may validate or devalidate: well under a millisecond.
pub(crate) const BUDGET: u32 = 96;

/// More purges than this at once become one flush of everything.
const MANY: usize = 16;

/// The memory lock, taken for one domain's operation. What the operation has set free is given back when it is dropped.
pub struct Op<'a> {
    pub machine: &'a Machine,
    pub domid: DomId,
    pub is_32bit: bool,
    pub(super) mm: MmGuard<'a>,
    pub(super) caller: Caller<'a>,
    pub(super) generation: &'a AtomicU64,
    upper_changes: &'a Changes,
    owes: &'a AtomicBool,
    work: &'a AtomicU64,
    /// The operation loads a base pointer on a vCPU's behalf, not in a call of its own.
    pub(super) base_kind: Option<BaseKind>,
    pub(super) budget: u32,
}

impl Domain {
    /// Takes the memory lock for an operation of this domain; `caller` says whose thread asks.
    pub fn op<'a>(&'a self, caller: Caller<'a>) -> Op<'a> {
        Op {
            machine: &self.machine,
            domid: self.domid,
            is_32bit: self.is_32bit,
            mm: self.machine.lock_mm(caller),
            caller,
            generation: &self.pt_generation,
            upper_changes: &self.upper_changes,
            owes: &self.owes,
            work: &self.work,
            base_kind: None,
            budget: BUDGET,
        }
    }
}

impl Drop for Op<'_> {
    fn drop(&mut self) {
        // After a bug of ours nothing is decided here: what was set free waits for the next operation.
        if !std::thread::panicking() {
            self.finish();
        }
    }
}

impl Op<'_> {
    pub fn mm(&self) -> &Mm {
        &self.mm
    }

    pub(super) fn frame(&self, mfn: Mfn) -> Option<&FrameInfo> {
        self.mm.info.get(mfn.0 as usize)
    }

    pub(super) fn frame_mut(&mut self, mfn: Mfn) -> Option<&mut FrameInfo> {
        self.mm.info.get_mut(mfn.0 as usize)
    }

    pub(super) fn dom_mut(&mut self) -> Option<&mut DomMm> {
        let domid = self.domid;
        self.mm.dom_mut(domid)
    }

    pub(super) fn entry(&self, table: Mfn, index: usize) -> u64 {
        self.machine
            .mem
            .read_u64(table.maddr() + index as u64 * 8)
            .unwrap_or(0)
    }

    pub(super) fn set_entry(&self, table: Mfn, index: usize, value: u64) {
        self.machine
            .mem
            .write_u64(table.maddr() + index as u64 * 8, value);
    }

    /// A present entry has changed: views of this domain that were filled before are to be flushed when the guest next asks
    /// for it. After each single change, because other vCPUs look at the count without the lock.
    fn bump_generation(&mut self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Entry `index` of a table was `old` until now. Nothing is derived from entries that were not present, but what an L4
    /// shows in the upper half is compared with others'.
    pub(super) fn entry_changed(&mut self, table: Mfn, ty: Ty, index: usize, old: u64) {
        let upper_l4 = ty == Ty::L4 && index >= pte::ENTRIES / 2;
        if pte::present(old) {
            self.bump_generation();
            if ty == Ty::L1 && self.is_upper_table(table) {
                self.upper_changes.add(Mfn(pte::mfn(old)));
                return;
            }
        }
        if upper_l4 || pte::present(old) && self.is_upper_table(table) {
            self.upper_changes.add_any();
        }
    }

    /// A table is one no more.
    pub(super) fn table_gone(&mut self, table: Mfn) {
        self.bump_generation();
        if self.is_upper_table(table) {
            self.upper_changes.add_any();
            self.machine.frames.clear_flags(table, flag::UPPER_TABLE);
        }
    }

    fn is_upper_table(&self, table: Mfn) -> bool {
        self.machine.frames.flags(table) & flag::UPPER_TABLE != 0
    }

    /// A reference on a frame that `owner` owns.
    pub(super) fn get_page(&mut self, mfn: Mfn, owner: DomId) -> MmResult {
        let f = self.frame_mut(mfn).ok_or(EINVAL)?;
        if f.owner != owner || owner == NO_OWNER || f.refs == 0 {
            return Err(EINVAL);
        }
        f.refs = f.refs.checked_add(1).ok_or(EINVAL)?;
        Ok(())
    }

    /// Drops a reference; the frame is freed with the last one, when the operation ends.
    pub(super) fn put_page(&mut self, mfn: Mfn) {
        let Some(f) = self.frame_mut(mfn) else { return };
        f.refs = f.refs.saturating_sub(1);
        if f.refs > 0 {
            return;
        }
        debug_assert_eq!(
            (f.type_count, f.ty),
            (0, Ty::None),
            "a typed frame lost its last reference"
        );
        let (owner, counted) = (f.owner, f.state & state::XEN == 0);
        *f = FrameInfo::FREE;
        if let Some(d) = self.mm.dom_mut(owner).filter(|_| counted) {
            d.owned = d.owned.saturating_sub(1);
        }
        self.mm.to_free.push(mfn);
    }

    /// Waits until no engine is still walking through a table that has been retired. Before this, flags of frames that
    /// such a table mapped say nothing, and the table itself must not become writable.
    pub(super) fn settle(&mut self) {
        if !self.mm.retired.is_empty() {
            self.mm.retired.clear();
            self.machine.walk_barrier(self.caller);
        }
    }

    /// A frame without type becomes a page table or descriptor page: nobody may write it any more.
    pub(super) fn protect(&mut self, mfn: Mfn) {
        self.settle();
        let frames = &self.machine.frames;
        if frames.set_flags(mfn, flag::PROTECTED) & flag::TLB_W != 0 {
            self.machine.purge(Purge::Writable(mfn), self.caller);
            frames.clear_flags(mfn, flag::TLB_W);
        }
    }

    /// Stores into a frame on the guest's behalf. The caller holds a writable (or descriptor) type reference.
    pub(crate) fn store(&mut self, maddr: u64, data: &[u8]) {
        self.machine.store_and_forget_code(maddr, data, self.caller);
    }

    /// Gives back what the operation has set free, and notes whether it leaves work.
    fn finish(&mut self) {
        let owes = self.mm.dom(self.domid).is_some_and(DomMm::owes);
        if self.owes.load(Ordering::Relaxed) != owes {
            self.owes.store(owes, Ordering::SeqCst);
        }
        // Four frames to free are as much work as a table.
        let work = BUDGET - self.budget + self.mm.to_free.len() as u32 / 4;
        if work > 0 {
            self.work.fetch_add(work.into(), Ordering::Relaxed);
        }
        if self.mm.to_free.is_empty() && self.mm.foreign.is_empty() {
            return;
        }
        self.settle();
        let frames = &self.machine.frames;
        let mut gone = std::mem::take(&mut self.mm.to_free);
        let foreign = std::mem::take(&mut self.mm.foreign);
        let mut purges = Vec::new();
        for &m in gone.iter().chain(&foreign) {
            if frames.flags(m) & (flag::TLB_R | flag::TLB_W) != 0 {
                purges.push(Purge::Frame(m));
            }
        }
        if purges.len() > MANY {
            purges = vec![Purge::AllTlb];
        }
        for &m in &gone {
            if frames.flags(m) & flag::CODE != 0 {
                purges.push(Purge::Code {
                    mfn: m,
                    start: 0,
                    end: 4096,
                });
            }
        }
        if !purges.is_empty() {
            self.machine.purge_many(&purges, self.caller);
        }
        for &m in &gone {
            frames.clear_flags(m, !0);
            self.machine.m2p_store(m, INVALID_M2P_ENTRY);
        }
        if self.mm.dom(self.domid).is_some_and(|d| d.relinquishes) {
            self.mm.waiting.extend(gone);
            return;
        }
        gone.sort_unstable();
        self.hand_back(&gone);
    }

    /// Gives the memory of frames that nobody uses back to the host; they are free then.
    fn hand_back(&mut self, sorted: &[Mfn]) {
        self.machine.mem.discard_many(sorted);
        // Handed out again last: a stale use of a freed frame is then likelier to be noticed.
        sorted.iter().for_each(|m| self.mm.free.push(m.0));
    }

    /// Does that with some of the frames that wait for it; false when none did, and the domain's wait no more.
    pub(super) fn hand_back_waiting(&mut self) -> bool {
        let mut some = Vec::with_capacity(FREES);
        while let Some(mfn) = (some.len() < FREES)
            .then(|| self.mm.waiting.pop_first())
            .flatten()
        {
            some.push(mfn);
        }
        self.hand_back(&some);
        if some.is_empty() {
            self.set_relinquishes(false);
        }
        !some.is_empty()
    }

    /// Whether what the domain sets free from now on waits until [`Op::hand_back_waiting`].
    pub(super) fn set_relinquishes(&mut self, slowly: bool) {
        if let Some(d) = self.dom_mut() {
            d.relinquishes = slowly;
        }
    }

    pub(super) fn is_allocated_to(&self, mfn: Mfn, domid: DomId) -> bool {
        self.frame(mfn)
            .is_some_and(|f| f.owner == domid && f.state & state::ALLOCATED != 0)
    }
}
