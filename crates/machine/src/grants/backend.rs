// SPDX-License-Identifier: Apache-2.0
//! Grants for back ends: host code on threads of its own that acts for a domain (Domain 0, as a rule).
//!
//! No lock of Python's is needed, and none is held while a mapping is used. A mapping keeps its frame, also when the
//! granter ends meanwhile: nobody else gets the frame before the mapping is dropped.

use super::active::Active;
use super::{DomainGrants, GrantResult, GrantStatus, How, State};
use crate::abi::DomId;
use crate::frames::flag;
use crate::mem::{Mfn, PAGE_SIZE};
use crate::shared::Caller;

/// Pages of a request that are mapped or let go in one holding of the lock.
const AT_ONCE: usize = 32;

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

/// Several granted pages, each as a [`GrantMapping`].
pub struct GrantMappings {
    granter: DomainGrants,
    /// Reference and frame.
    pages: Vec<(u32, Mfn)>,
    writable: bool,
}

/// Where a part of a frame is.
fn part(mfn: Mfn, offset: usize, len: usize) -> Result<u64, OutsidePage> {
    let end = offset.checked_add(len).ok_or(OutsidePage)?;
    match end <= PAGE_SIZE as usize {
        true => Ok(mfn.maddr() + offset as u64),
        false => Err(OutsidePage),
    }
}

fn io_vec(granter: &DomainGrants, mfn: Mfn, offset: usize, len: usize) -> Result<libc::iovec, OutsidePage> {
    let at = part(mfn, offset, len)?;
    granter.domain.machine.mem.io_vec(at, len).ok_or(OutsidePage)
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
        self.end_use_in(&mut self.grants.lock(), gref, writable, false);
    }

    fn use_as_host(&self, domid: DomId, gref: u32, writable: bool, keeps: bool) -> GrantResult<Active> {
        self.use_in(&mut self.grants.lock(), domid, gref, writable, keeps)
    }

    fn use_in(
        &self,
        state: &mut State,
        domid: DomId,
        gref: u32,
        writable: bool,
        keeps: bool,
    ) -> GrantResult<Active> {
        let active = state.acquire(self.key, gref, domid, How::map(writable))?;
        if writable && keeps && !self.begin_writing(active.mfn) {
            state.release(self.key, gref, writable);
            return Err(GrantStatus::general_error);
        }
        if writable && !keeps {
            self.domain.host_mapped(active.mfn);
        }
        let uses = state.slot_mut(self.key)?.table.host.entry(gref);
        let uses = uses.ok_or(GrantStatus::bad_gntref)?.of_mut(writable);
        match keeps {
            true => uses.mappings += 1,
            false => uses.plain += 1,
        }
        Ok(active)
    }

    /// Decoded code of a frame is not kept while a back end may write to it: a page that a disk or a network fills may be
    /// a program's. False: too many do already.
    fn begin_writing(&self, mfn: Mfn) -> bool {
        let machine = &self.domain.machine;
        let begun = machine.frames.add_writer(mfn);
        if begun && machine.frames.flags(mfn) & flag::CODE != 0 {
            machine.drop_code(mfn, Caller::Host);
        }
        begun
    }

    /// Ends what a mapping began.
    fn let_go(&self, state: &mut State, gref: u32, mfn: Mfn, writable: bool) {
        if writable {
            self.domain.machine.frames.drop_writer(mfn);
        }
        if !self.end_use_in(state, gref, writable, true) {
            // The domain has ended, and left this reference to us.
            self.domain.put_ref(mfn, writable);
        }
    }

    /// False when the domain has ended, or nothing was in use.
    fn end_use_in(&self, state: &mut State, gref: u32, writable: bool, keeps: bool) -> bool {
        let Ok(slot) = state.slot_mut(self.key) else {
            return false;
        };
        let Some(host) = slot.table.host.get_mut(gref) else {
            return false;
        };
        let uses = host.of_mut(writable);
        let count = match keeps {
            true => &mut uses.mappings,
            false => &mut uses.plain,
        };
        let Some(left) = count.checked_sub(1) else {
            return false;
        };
        *count = left;
        if host.is_over() {
            slot.table.host.remove(gref);
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

    /// Maps the granted pages of a request together, in order: all of them, or none.
    pub fn map_all(
        &self,
        grefs: impl ExactSizeIterator<Item = u32>,
        writable: bool,
    ) -> GrantResult<GrantMappings> {
        let mut grefs = grefs.peekable();
        let mut mapped = GrantMappings {
            granter: self.granter.clone(),
            pages: Vec::with_capacity(grefs.len()),
            writable,
        };
        while grefs.peek().is_some() {
            let state = &mut *self.granter.grants.lock();
            for gref in grefs.by_ref().take(AT_ONCE) {
                let active = self.granter.use_in(state, self.domid, gref, writable, true)?;
                mapped.pages.push((gref, active.mfn));
            }
        }
        Ok(mapped)
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
        part(self.mfn, offset, len)
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
        io_vec(&self.granter, self.mfn, offset, len)
    }
}

impl GrantMappings {
    /// A part of one of the pages, as [`GrantMapping::io_vec`].
    pub fn io_vec(&self, page: usize, offset: usize, len: usize) -> Result<libc::iovec, OutsidePage> {
        let (_, mfn) = self.pages.get(page).ok_or(OutsidePage)?;
        io_vec(&self.granter, *mfn, offset, len)
    }
}

impl Drop for GrantMapping {
    fn drop(&mut self) {
        let state = &mut *self.granter.grants.lock();
        self.granter.let_go(state, self.gref, self.mfn, self.writable);
    }
}

impl Drop for GrantMappings {
    fn drop(&mut self) {
        for pages in self.pages.chunks(AT_ONCE) {
            let state = &mut *self.granter.grants.lock();
            for (gref, mfn) in pages {
                self.granter.let_go(state, *gref, *mfn, self.writable);
            }
        }
    }
}
