// SPDX-License-Identifier: Apache-2.0
//! Copies of parts of pages between frames, own or granted.

use super::active::take_frame;
use super::{DomainGrants, GrantResult, GrantStatus, How, Key, State};
use crate::abi::{DomId, DOMID_SELF};
use crate::frames::Machine;
use crate::mem::{Mfn, PAGE_SIZE};
use crate::shared::Caller;

/// One end of a copy: what the guest names.
#[derive(Debug, Clone, Copy)]
pub struct CopyEnd {
    pub domid: DomId,
    /// The grant; else `mfn` is meant.
    pub gref: Option<u32>,
    pub mfn: Mfn,
    pub offset: u16,
}

/// GNTTABOP_copy.
#[derive(Debug, Clone, Copy)]
pub struct CopyFrom {
    pub source: CopyEnd,
    pub dest: CopyEnd,
    pub len: u16,
}

/// An end that is held for the duration of the copy.
struct Held {
    domain: Key,
    gref: Option<u32>,
    writable: bool,
    mfn: Mfn,
    start: u32,
    length: u32,
}

impl Held {
    /// Machine address of `len` bytes from `offset` on, all of them inside what is granted.
    fn part(&self, offset: usize, len: usize) -> GrantResult<u64> {
        let (start, end) = (self.start as usize, (self.start + self.length) as usize);
        match start <= offset && offset + len <= end && offset + len <= PAGE_SIZE as usize {
            true => Ok(self.mfn.maddr() + offset as u64),
            false => Err(GrantStatus::general_error),
        }
    }
}

impl State {
    fn hold(&mut self, user: DomId, domain: Key, end: &CopyEnd, writable: bool) -> GrantResult<Held> {
        let mut held = Held {
            domain,
            gref: end.gref,
            writable,
            mfn: end.mfn,
            start: 0,
            length: PAGE_SIZE as u32,
        };
        match end.gref {
            None => take_frame(&self.slot(domain)?.domain, end.mfn, writable)?,
            Some(gref) => {
                let active = self.acquire(domain, gref, user, How::copy(writable))?;
                (held.mfn, held.start, held.length) = (active.mfn, active.start, active.length);
            }
        }
        Ok(held)
    }

    fn let_go(&mut self, held: &Held) {
        match held.gref {
            Some(gref) => self.release(held.domain, gref, held.writable),
            None => {
                if let Ok(slot) = self.slot(held.domain) {
                    slot.domain.put_ref(held.mfn, held.writable);
                }
            }
        }
    }

    /// Does something with grant `gref` of `owner` in hand.
    fn with_granted<R>(
        &mut self,
        user: DomId,
        owner: Key,
        gref: u32,
        writable: bool,
        f: impl FnOnce(&Held) -> GrantResult<R>,
    ) -> GrantResult<R> {
        let end = CopyEnd {
            domid: DOMID_SELF,
            gref: Some(gref),
            mfn: Mfn(0),
            offset: 0,
        };
        let held = self.hold(user, owner, &end, writable)?;
        let r = f(&held);
        self.let_go(&held);
        r
    }
}

/// Moves bytes of one frame into another; what was decoded from those is forgotten.
fn move_bytes(machine: &Machine, from: u64, to: u64, len: usize) {
    let mut page = [0; PAGE_SIZE as usize];
    if let Some(buf) = page.get_mut(..len) {
        machine.mem.read(from, buf);
        machine.store_and_forget_code(to, buf, Caller::Host);
    }
}

impl DomainGrants {
    /// GNTTABOP_copy, for this domain. The caller's thread is no vCPU's that counts as in its guest.
    pub fn copy(&self, arg: &CopyFrom) -> GrantResult {
        let state = &mut *self.grants.lock();
        let (from, to) = (&arg.source, &arg.dest);
        let source = state.end_of_copy(self.key, from.domid, from.gref)?;
        let dest = state.end_of_copy(self.key, to.domid, to.gref)?;
        let source = state.hold(self.key.domid, source, from, false)?;
        let r = state.hold(self.key.domid, dest, to, true).and_then(|dest| {
            let r = self.copy_held(arg, &source, &dest);
            state.let_go(&dest);
            r
        });
        state.let_go(&source);
        r
    }

    fn copy_held(&self, arg: &CopyFrom, source: &Held, dest: &Held) -> GrantResult {
        let len = usize::from(arg.len);
        let (from, to) = (usize::from(arg.source.offset), usize::from(arg.dest.offset));
        if from.max(to) + len > PAGE_SIZE as usize {
            return Err(GrantStatus::bad_copy_arg);
        }
        let (from, to) = (source.part(from, len)?, dest.part(to, len)?);
        move_bytes(&self.grants.machine, from, to, len);
        Ok(())
    }

    /// Reads from what this domain has granted to `user`.
    pub(super) fn read_granted(&self, user: DomId, gref: u32, offset: usize, buf: &mut [u8]) -> GrantResult {
        let state = &mut *self.grants.lock();
        let mem = &self.grants.machine.mem;
        state.with_granted(user, self.key, gref, false, |held| {
            mem.read(held.part(offset, buf.len())?, buf);
            Ok(())
        })
    }

    /// Writes to what this domain has granted to `user`.
    pub(super) fn write_granted(&self, user: DomId, gref: u32, offset: usize, data: &[u8]) -> GrantResult {
        let state = &mut *self.grants.lock();
        let machine = &self.grants.machine;
        state.with_granted(user, self.key, gref, true, |held| {
            machine.store_and_forget_code(held.part(offset, data.len())?, data, Caller::Host);
            Ok(())
        })
    }
}
