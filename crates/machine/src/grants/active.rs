// SPDX-License-Identifier: Apache-2.0
//! Grants in use: an entry is checked and marked when its first user comes, and followed no more until the last has gone.

use super::table::Table;
use super::{GrantResult, GrantStatus, How, Key, State};
use crate::abi::grant::{entry_v1, entry_v2, gtf};
use crate::abi::DomId;
use crate::frames::Domain;
use crate::mem::{Mfn, PAGE_SIZE};

/// Uses of one grant at a time.
pub(crate) const MAX_USES: u32 = (1 << 15) - 1;
/// How often an entry that the guest changes meanwhile is tried.
const MAX_RETRIES: u32 = 5;

/// A grant that is in use, as its entry was when the first user came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Active {
    /// Who uses it.
    pub domid: DomId,
    pub mfn: Mfn,
    /// The part of the page, in bytes.
    pub start: u32,
    pub length: u32,
    /// A part of a page, or transitive: it cannot be mapped.
    pub copy_only: bool,
    /// The grant of the third domain that a transitive one stands for: it holds the frame.
    pub(super) via: Option<(Key, u32)>,
    pub readers: u32,
    pub writers: u32,
}

impl Active {
    fn whole(domid: DomId, mfn: u64) -> Active {
        Active {
            domid,
            mfn: Mfn(mfn),
            start: 0,
            length: PAGE_SIZE as u32,
            copy_only: false,
            via: None,
            readers: 0,
            writers: 0,
        }
    }

    fn uses(&mut self, writable: bool) -> &mut u32 {
        match writable {
            false => &mut self.readers,
            true => &mut self.writers,
        }
    }
}

/// A reference on a frame of `domain`. `Err`: bad_page when it is not the domain's, general_error when it cannot be had
/// writable.
pub(super) fn take_frame(domain: &Domain, mfn: Mfn, writable: bool) -> GrantResult {
    if domain.get_ref(mfn, writable).is_ok() {
        return Ok(());
    }
    if writable && domain.get_ref(mfn, false).is_ok() {
        domain.put_ref(mfn, false);
        return Err(GrantStatus::general_error);
    }
    Err(GrantStatus::bad_page)
}

/// Whether `word`, the flags and domain of an entry, lets `domid` in.
fn check(word: u32, domid: DomId, how: How, version: u32, pinned: bool) -> GrantResult {
    let part = if how.copy { 0 } else { gtf::SUB_PAGE };
    let kind = word & (gtf::TYPE_MASK | part);
    let allowed = kind == gtf::PERMIT_ACCESS || (kind == gtf::TRANSITIVE && how.copy && version == 2);
    let permitted = allowed && (word >> 16) as DomId == domid;
    if !pinned && !permitted {
        return Err(GrantStatus::general_error);
    }
    if how.writable && word & gtf::READONLY != 0 {
        return Err(GrantStatus::general_error);
    }
    Ok(())
}

/// Adds `marks` to a word that the guest changes meanwhile, as long as what it says then is allowed.
fn mark(
    marks: u32,
    load: impl Fn() -> u32,
    compare_exchange: impl Fn(u32, u32) -> Option<u32>,
    check: impl Fn(u32) -> GrantResult,
) -> GrantResult {
    for _ in 0..MAX_RETRIES {
        let word = load();
        check(word)?;
        if compare_exchange(word, word | marks) == Some(word) {
            return Ok(());
        }
    }
    Err(GrantStatus::general_error)
}

impl Table {
    /// Checks type and domain of an entry, unless it is in use already, and shows the guest that it is now.
    fn set_status(&self, domain: &Domain, gref: u32, domid: DomId, how: How, pinned: bool) -> GrantResult {
        let at = self.entry_maddr(gref)?;
        let machine = &domain.machine;
        let check = |word| check(word, domid, how, self.version, pinned);
        let marks = gtf::READING | if how.writable { gtf::WRITING } else { 0 };
        if self.version == 1 {
            return mark(
                marks,
                || self.header(at),
                |old, new| machine.compare_exchange_u32(at, old, new),
                check,
            );
        }
        check(self.header(at))?;
        let status = self.status_maddr(gref)?;
        machine.change_bit(status, gtf::READING_BIT, true);
        if how.writable {
            machine.change_bit(status, gtf::WRITING_BIT, true);
        }
        // A guest that revokes the grant changes the entry first and looks at the status then.
        check(self.header(at))
    }

    /// Takes back GTF_reading and GTF_writing where nobody reads or writes any more.
    fn clear_status(&self, domain: &Domain, gref: u32) {
        let Ok(at) = self.status_maddr(gref) else { return };
        let active = self.active.get(gref);
        if active.is_none_or(|a| a.writers == 0) {
            domain.machine.change_bit(at, gtf::WRITING_BIT, false);
        }
        if active.is_none() {
            domain.machine.change_bit(at, gtf::READING_BIT, false);
        }
    }
}

/// What a checked entry names.
enum Named {
    Frame(Active),
    Transitive { domid: DomId, gref: u32 },
}

impl Table {
    /// What the entry gives. The caller has checked it, and the guest may have changed it since: what is used is what
    /// is read here, once.
    fn read(&self, gref: u32, domid: DomId) -> GrantResult<Named> {
        let (first, second) = self.words(self.entry_maddr(gref)?);
        if self.version == 1 {
            return Ok(Named::Frame(Active::whole(domid, first >> (8 * entry_v1::FRAME))));
        }
        let half = |offset: u64| (first >> (8 * offset)) as u16;
        let flags = first as u32 & 0xffff;
        if flags & gtf::TYPE_MASK == gtf::TRANSITIVE {
            return Ok(Named::Transitive {
                domid: half(entry_v2::TRANS_DOMID),
                gref: second as u32,
            });
        }
        let mut active = Active::whole(domid, second);
        if flags & gtf::SUB_PAGE != 0 {
            active.start = u32::from(half(entry_v2::SUB_PAGE_OFF));
            active.length = u32::from(half(entry_v2::SUB_LENGTH));
            active.copy_only = true;
        }
        Ok(Named::Frame(active))
    }
}

impl State {
    /// Domain `domid` begins to use grant `gref` of `owner`: the entry is checked and marked as in use.
    pub(super) fn acquire(&mut self, owner: Key, gref: u32, domid: DomId, how: How) -> GrantResult<Active> {
        let slot = self.slot(owner)?;
        slot.table.entry_maddr(gref)?;
        let before = slot.table.active.get(gref).copied();
        if before.is_some_and(|a| {
            a.domid != domid
                || a.readers + a.writers >= MAX_USES
                || (a.copy_only && !how.copy)
                || (a.via.is_some() && !how.transitive)
        }) {
            return Err(GrantStatus::general_error);
        }
        let taken = self.take(owner, gref, domid, how, before);
        let slot = self.slot_mut(owner)?;
        match taken {
            Ok(mut active) => {
                *active.uses(how.writable) += 1;
                slot.table.active.insert(gref, active);
                Ok(active)
            }
            Err(status) => {
                slot.table.clear_status(&slot.domain, gref);
                Err(status)
            }
        }
    }

    /// One more reference on what a grant gives, which is read from the entry for the first user.
    fn take(
        &mut self,
        owner: Key,
        gref: u32,
        domid: DomId,
        how: How,
        before: Option<Active>,
    ) -> GrantResult<Active> {
        let slot = self.slot(owner)?;
        if before.is_none_or(|a| how.writable && a.writers == 0) {
            slot.table
                .set_status(&slot.domain, gref, domid, how, before.is_some())?;
        }
        let found = match before {
            Some(active) => Named::Frame(active),
            None => slot.table.read(gref, domid)?,
        };
        match found {
            Named::Frame(active) if active.via.is_none() => {
                take_frame(&slot.domain, active.mfn, how.writable)?;
                Ok(active)
            }
            Named::Frame(active) => self.take_via(owner, active, how),
            Named::Transitive { .. } if !how.transitive => Err(GrantStatus::general_error),
            Named::Transitive { domid: third, gref } => {
                let third = self.third(owner, third)?;
                let theirs = self.acquire(third, gref, owner.domid, one_step(how))?;
                Ok(Active {
                    domid,
                    copy_only: true,
                    via: Some((third, gref)),
                    readers: 0,
                    writers: 0,
                    ..theirs
                })
            }
        }
    }

    /// One more use of a transitive grant: what it stands for must still be the same.
    fn take_via(&mut self, owner: Key, active: Active, how: How) -> GrantResult<Active> {
        let (third, gref) = active.via.ok_or(GrantStatus::general_error)?;
        let theirs = self.acquire(third, gref, owner.domid, one_step(how))?;
        if (theirs.mfn, theirs.start, theirs.length) != (active.mfn, active.start, active.length) {
            self.release(third, gref, how.writable);
            return Err(GrantStatus::general_error);
        }
        Ok(active)
    }

    /// The domain that a transitive grant of `own` passes on from: neither that one nor Domain 0.
    pub(super) fn third(&self, own: Key, domid: DomId) -> GrantResult<Key> {
        let found = self.slots.get(&domid).map(|slot| slot.key);
        found.filter(|key| *key != own).ok_or(GrantStatus::general_error)
    }

    /// Ends one use of a grant. Nothing is left to do when its owner is gone.
    pub(super) fn release(&mut self, owner: Key, gref: u32, writable: bool) {
        let Ok(slot) = self.slot_mut(owner) else { return };
        let Some(active) = slot.table.active.get_mut(gref) else {
            return;
        };
        let uses = active.uses(writable);
        *uses = uses.saturating_sub(1);
        let active = *active;
        if active.readers + active.writers == 0 {
            slot.table.active.remove(gref);
        }
        slot.table.clear_status(&slot.domain, gref);
        match active.via {
            None => slot.domain.put_ref(active.mfn, writable),
            Some((third, theirs)) => self.release(third, theirs, writable),
        }
    }
}

/// A transitive grant leads one step further, to a grant that is none.
fn one_step(how: How) -> How {
    How {
        transitive: false,
        copy: true,
        ..how
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn an_entry_that_changes_under_every_try_is_given_up() {
        let word = Cell::new(gtf::PERMIT_ACCESS);
        let tries = Cell::new(0);
        let changed = |old, _new| {
            tries.set(tries.get() + 1);
            Some(old ^ gtf::READING)
        };
        let done = mark(gtf::READING, || word.get(), changed, |_| Ok(()));
        assert_eq!(
            (done, tries.get()),
            (Err(GrantStatus::general_error), MAX_RETRIES)
        );
    }

    #[test]
    fn an_entry_that_is_revoked_between_two_tries_is_not_used() {
        let word = Cell::new(gtf::PERMIT_ACCESS);
        let revoked = |_, _| {
            word.set(0);
            Some(0)
        };
        let how = How::map(false);
        let done = mark(
            gtf::READING,
            || word.get(),
            revoked,
            |w| check(w, 0, how, 1, false),
        );
        assert_eq!(done, Err(GrantStatus::general_error));
    }
}
