// SPDX-License-Identifier: Apache-2.0
//! Grants for back ends: host code on threads of its own that acts for a domain (Domain 0, as a rule).
//!
//! No lock of Python's is needed, and none is held while a mapping is used. A mapping keeps its frame, also when the
//! granter ends meanwhile: nobody else gets the frame before the mapping is dropped.

use super::active::Active;
use super::{DomainGrants, GrantResult, How, State};
use crate::abi::DomId;
use crate::frames::flag;
use crate::mem::{Mfn, PAGE_SIZE};

/// An access that is not inside the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not inside a granted page")]
pub struct OutsidePage;

/// What one domain has granted, as the back ends of domain `domid` see it.
#[derive(Clone)]
pub struct GrantClient {
    granter: DomainGrants,
    domid: DomId,
}

/// A granted page, mapped until this is dropped.
///
/// The guest reads and writes it at the same time: whatever is read here may be different the next time.
pub struct GrantMapping {
    granter: DomainGrants,
    gref: u32,
    mfn: Mfn,
    writable: bool,
}

impl DomainGrants {
    /// What this domain has granted to `domid`, for host code that acts for that domain.
    pub fn client(&self, domid: DomId) -> GrantClient {
        GrantClient {
            granter: self.clone(),
            domid,
        }
    }

    /// Host code that acts for `domid` begins to use a grant; it ends with [`DomainGrants::end_use`] or the domain.
    pub fn begin_use(&self, domid: DomId, gref: u32, writable: bool) -> GrantResult<Mfn> {
        self.use_as_host(domid, gref, writable, false)
            .map(|active| active.mfn)
    }

    /// Ends what `begin_use` began. Does nothing when there is nothing to end.
    pub fn end_use(&self, gref: u32, writable: bool) {
        self.end_use_as_host(gref, writable, false);
    }

    fn use_as_host(&self, domid: DomId, gref: u32, writable: bool, keeps: bool) -> GrantResult<Active> {
        let state = &mut *self.grants.lock();
        let active = state.acquire(self.key, gref, domid, How::map(writable))?;
        let uses = state.slot_mut(self.key)?.table.host.entry((gref, writable));
        let uses = uses.or_default();
        match keeps {
            true => uses.mappings += 1,
            false => uses.plain += 1,
        }
        match (writable, keeps) {
            (true, true) => self.begin_writing(state, active.mfn),
            (true, false) => self.domain.host_mapped(active.mfn),
            (false, _) => {}
        }
        Ok(active)
    }

    /// Decoded code of a frame is not kept while a back end may write to it.
    fn begin_writing(&self, state: &mut State, mfn: Mfn) {
        let writers = state.host_writers.entry(mfn).or_insert_with(|| {
            let frames = &self.domain.machine.frames;
            (0, frames.flags(mfn) & flag::NO_CODE != 0)
        });
        writers.0 += 1;
        if writers.0 == 1 {
            self.domain.host_mapped(mfn);
        }
    }

    /// The last one who wrote there lets go: a page that a disk or a network has filled may be a program's.
    fn end_writing(&self, mfn: Mfn) {
        let state = &mut *self.grants.lock();
        let Some((writers, was_set)) = state.host_writers.get_mut(&mfn) else {
            return;
        };
        *writers -= 1;
        if *writers == 0 {
            let was_set = *was_set;
            state.host_writers.remove(&mfn);
            if !was_set {
                self.domain.host_unmapped(mfn);
            }
        }
    }

    /// False when the domain has ended, or nothing was in use.
    fn end_use_as_host(&self, gref: u32, writable: bool, keeps: bool) -> bool {
        let state = &mut *self.grants.lock();
        let Ok(slot) = state.slot_mut(self.key) else {
            return false;
        };
        let Some(uses) = slot.table.host.get_mut(&(gref, writable)) else {
            return false;
        };
        let count = match keeps {
            true => &mut uses.mappings,
            false => &mut uses.plain,
        };
        let Some(left) = count.checked_sub(1) else {
            return false;
        };
        *count = left;
        if uses.plain + uses.mappings == 0 {
            slot.table.host.remove(&(gref, writable));
        }
        state.release(self.key, gref, writable);
        true
    }
}

impl GrantClient {
    /// Maps a granted page.
    pub fn map(&self, gref: u32, writable: bool) -> GrantResult<GrantMapping> {
        let active = self.granter.use_as_host(self.domid, gref, writable, true)?;
        Ok(GrantMapping {
            granter: self.granter.clone(),
            gref,
            mfn: active.mfn,
            writable,
        })
    }

    /// Copies out of a granted page, or of the granted part of one. `Err`: also when that is not all inside.
    pub fn copy_from(&self, gref: u32, offset: usize, buf: &mut [u8]) -> GrantResult {
        self.granter.read_granted(self.domid, gref, offset, buf)
    }

    /// Copies into a granted page, or into the granted part of one.
    pub fn copy_to(&self, gref: u32, offset: usize, data: &[u8]) -> GrantResult {
        self.granter.write_granted(self.domid, gref, offset, data)
    }
}

impl GrantMapping {
    /// The granted frame.
    pub fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// Whether it was mapped for writing.
    pub fn writable(&self) -> bool {
        self.writable
    }

    fn part(&self, offset: usize, len: usize) -> Result<u64, OutsidePage> {
        let end = offset.checked_add(len).ok_or(OutsidePage)?;
        match end <= PAGE_SIZE as usize {
            true => Ok(self.mfn.maddr() + offset as u64),
            false => Err(OutsidePage),
        }
    }

    fn writable_part(&self, offset: usize, len: usize) -> Result<u64, OutsidePage> {
        match self.writable {
            true => self.part(offset, len),
            false => Err(OutsidePage),
        }
    }

    /// Copies out of the page.
    pub fn read(&self, offset: usize, buf: &mut [u8]) -> Result<(), OutsidePage> {
        let at = self.part(offset, buf.len())?;
        self.granter.domain.machine.mem.read(at, buf);
        Ok(())
    }

    /// Copies into the page. `Err` also for a mapping that is only to be read.
    pub fn write(&self, offset: usize, data: &[u8]) -> Result<(), OutsidePage> {
        let at = self.writable_part(offset, data.len())?;
        self.granter.domain.machine.mem.write(at, data);
        Ok(())
    }

    /// An aligned word, read once and before everything that is read later: an index of a ring.
    pub fn load_u32(&self, offset: usize) -> Result<u32, OutsidePage> {
        let at = self.part(offset, 4)?;
        self.granter.domain.machine.mem.read_u32(at).ok_or(OutsidePage)
    }

    /// An aligned word, written after everything that was written before.
    pub fn store_u32(&self, offset: usize, value: u32) -> Result<(), OutsidePage> {
        let at = self.writable_part(offset, 4)?;
        match self.granter.domain.machine.mem.write_u32(at, value) {
            true => Ok(()),
            false => Err(OutsidePage),
        }
    }

    /// The part of the page as an argument of preadv and pwritev: valid as long as the mapping lives. A mapping that is
    /// only to be read is only to be read from.
    pub fn io_vec(&self, offset: usize, len: usize) -> Result<libc::iovec, OutsidePage> {
        let at = self.part(offset, len)?;
        let mem = &self.granter.domain.machine.mem;
        mem.io_vec(at, len).ok_or(OutsidePage)
    }
}

impl Drop for GrantMapping {
    fn drop(&mut self) {
        if self.writable {
            self.granter.end_writing(self.mfn);
        }
        if !self.granter.end_use_as_host(self.gref, self.writable, true) {
            // The domain has ended, and left this reference to us.
            self.granter.domain.put_ref(self.mfn, self.writable);
        }
    }
}
