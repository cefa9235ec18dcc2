// SPDX-License-Identifier: Apache-2.0
//! Grants: frames that a domain lets others use. One implementation for hypercalls and for back ends in the host.
//!
//! The entries are in memory that the guest changes at any time. So what an entry says is copied when its first user
//! comes ([`active`]), and is not looked at again until the last one has gone (Xen's rule; only `GTF_readonly` still
//! counts for a first writer).
//!
//! One lock for all tables of a host: a transitive grant is used in two of them at once. It is held over one operation:
//! a page of bytes, one page-table entry or a few pages of a device's request, so that no granter ends in between. The memory lock is taken inside it,
//! never the other way round; nobody asks for Python's locks with it, and no vCPU counts as in its guest while it waits
//! for it or holds it.

mod active;
mod audit;
mod backend;
mod by_ref;
mod copy;
mod maptrack;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use crate::abi::grant::GrantStatus;
pub(crate) use active::Active;
pub use backend::{GrantClient, GrantMapping, GrantMappings, OutsidePage};
pub(crate) use copy::{CopyEnd, CopyFrom};
pub(crate) use maptrack::{Map, Mapping, Unmap};

use crate::abi::{DomId, Errno, DOMID_SELF};
use crate::frames::{Domain, Machine};
use crate::mem::Mfn;
use maptrack::Track;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use table::Table;

/// What operations on grants return; an error is what the guest sees in `status`.
pub type GrantResult<T = ()> = Result<T, GrantStatus>;

/// Domain 0 exists for every guest: host code with a grant table of so many entries, of which it grants nothing.
const HARDWARE_DOMAIN: DomId = 0;
const HARDWARE_DOMAIN_ENTRIES: u32 = 512;

/// One domain of all that a host ever has: numbers are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    domid: DomId,
    serial: u64,
}

/// The grants of all domains of one machine.
pub struct Grants {
    machine: Arc<Machine>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<DomId, Slot>,
    serial: u64,
}

struct Slot {
    key: Key,
    domain: Arc<Domain>,
    table: Table,
    track: Track,
}

/// What a domain may have.
#[derive(Debug, Clone, Copy)]
pub struct GrantLimits {
    /// Frames of the table.
    pub frames: u32,
    /// Frames in which Xen would track mappings of others' grants.
    pub maptrack_frames: u32,
}

/// How a grant is used.
#[derive(Debug, Clone, Copy)]
struct How {
    writable: bool,
    /// For a copy: parts of pages and (with `transitive`) transitive grants will do.
    copy: bool,
    transitive: bool,
}

impl How {
    const fn map(writable: bool) -> How {
        How {
            writable,
            copy: false,
            transitive: true,
        }
    }

    const fn copy(writable: bool) -> How {
        How {
            writable,
            copy: true,
            transitive: true,
        }
    }
}

impl Grants {
    /// A machine's grants; there are none yet.
    pub fn new(machine: Arc<Machine>) -> Arc<Grants> {
        Arc::new(Grants {
            machine,
            state: Mutex::default(),
        })
    }

    /// Whose frames are granted.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Gives a domain its table, of version 1 and one frame. `Err`: there is no memory, or it has one.
    pub fn add(self: &Arc<Self>, domain: &Arc<Domain>, limits: GrantLimits) -> GrantResult<DomainGrants> {
        let mut state = self.lock();
        let domid = domain.domid;
        if state.slots.contains_key(&domid) {
            return Err(GrantStatus::general_error);
        }
        let table = Table::new(domain, limits.frames)?;
        state.serial += 1;
        let key = Key {
            domid,
            serial: state.serial,
        };
        state.slots.insert(
            domid,
            Slot {
                key,
                domain: domain.clone(),
                table,
                track: Track::new(limits.maptrack_frames),
            },
        );
        Ok(DomainGrants {
            grants: self.clone(),
            domain: domain.clone(),
            key,
        })
    }

    // A panic leaves books that may be wrong, and ends that domain; the others' are still needed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    fn slot(&self, key: Key) -> GrantResult<&Slot> {
        let found = self.slots.get(&key.domid).filter(|slot| slot.key == key);
        found.ok_or(GrantStatus::bad_domain)
    }

    fn slot_mut(&mut self, key: Key) -> GrantResult<&mut Slot> {
        let found = self.slots.get_mut(&key.domid).filter(|slot| slot.key == key);
        found.ok_or(GrantStatus::bad_domain)
    }

    /// The domain whose grant `gref` is meant. Domain 0 has granted nothing.
    fn granter(&self, domid: DomId, gref: u32) -> GrantResult<Key> {
        match self.slots.get(&domid) {
            Some(slot) => Ok(slot.key),
            None if domid != HARDWARE_DOMAIN => Err(GrantStatus::bad_domain),
            None if gref >= HARDWARE_DOMAIN_ENTRIES => Err(GrantStatus::bad_gntref),
            None => Err(GrantStatus::general_error),
        }
    }

    /// The domain that one end of a copy is in; without `gref` a frame is named itself, which only the caller's can be.
    fn end_of_copy(&self, own: Key, domid: DomId, gref: Option<u32>) -> GrantResult<Key> {
        match gref {
            _ if domid == DOMID_SELF => Ok(own),
            None => Err(GrantStatus::permission_denied),
            Some(gref) => self.granter(domid, gref),
        }
    }
}

/// One domain's grants, and the mappings it has of others'. Every use after `close` fails.
#[derive(Clone)]
pub struct DomainGrants {
    grants: Arc<Grants>,
    domain: Arc<Domain>,
    key: Key,
}

impl DomainGrants {
    /// The domain whose table it is.
    pub fn domid(&self) -> DomId {
        self.key.domid
    }

    fn table<R>(&self, f: impl FnOnce(&mut Table) -> R) -> GrantResult<R> {
        Ok(f(&mut self.grants.lock().slot_mut(self.key)?.table))
    }

    /// 1 or 2.
    pub fn version(&self) -> u32 {
        self.table(|t| t.version).unwrap_or(1)
    }

    /// How many entries the table has now.
    pub fn entries(&self) -> u32 {
        self.table(|t| t.entries()).unwrap_or(0)
    }

    /// The table's frames, in order: GNTTABOP_setup_table tells them.
    pub fn frames(&self) -> Vec<Mfn> {
        self.table(|t| t.frames.clone()).unwrap_or_default()
    }

    /// With version 2: where GTF_reading and GTF_writing are shown.
    pub fn status_frames(&self) -> Vec<Mfn> {
        self.table(|t| t.status_frames.clone()).unwrap_or_default()
    }

    /// Makes the table at least `frames` frames large. `Err`: general_error.
    pub fn grow(&self, frames: u32) -> GrantResult {
        self.table(|t| t.grow(frames))?
    }

    /// Where entry `gref` is. `Err`: bad_gntref.
    pub fn entry_maddr(&self, gref: u32) -> GrantResult<u64> {
        self.table(|t| t.entry_maddr(gref))?
    }

    /// Where the entry's GTF_reading and GTF_writing are. `Err`: bad_gntref.
    pub fn status_maddr(&self, gref: u32) -> GrantResult<u64> {
        self.table(|t| t.status_maddr(gref))?
    }

    /// Fills in a reserved entry before the guest starts. False for any other.
    pub fn seed(&self, gref: u32, mfn: Mfn, domid: DomId) -> bool {
        matches!(self.table(|t| t.seed(gref, mfn, domid)), Ok(true))
    }

    /// GNTTABOP_set_version: all entries but the reserved ones are cleared. `Err`: EINVAL; EBUSY when another than a
    /// reserved entry is in use, or the guest still maps the status frames; ERANGE when a reserved entry cannot be said
    /// in version 1; ENOMEM.
    pub fn set_version(&self, version: u32) -> Result<(), Errno> {
        let done = self.table(|t| t.set_version(version));
        done.unwrap_or(Err(Errno::EINVAL))
    }

    /// GNTTABOP_swap_grant_ref. `Err`: bad_gntref, eagain for a grant in use.
    pub fn swap(&self, a: u32, b: u32) -> GrantResult {
        self.table(|t| t.swap(a, b))?
    }

    /// The grants in use, by reference.
    pub fn active(&self) -> Vec<(u32, Active)> {
        let list = self.table(|t| t.active.iter().map(|(gref, a)| (gref, *a)).collect());
        list.unwrap_or_default()
    }

    /// The mappings of others' grants, by handle.
    pub fn mappings(&self) -> Vec<(u32, Mapping)> {
        let state = self.grants.lock();
        let list = state.slot(self.key).map(|slot| slot.track.list());
        list.unwrap_or_default()
    }

    /// The domain is being destroyed: it uses nobody's grants any more, and nobody uses its own. Its page tables drop
    /// frames themselves; those that a back end in the host still maps stay until it lets them go.
    pub fn close(&self) {
        let mut state = self.grants.lock();
        state.drop_mappings(self.key);
        if let Some(slot) = state.slots.get(&self.key.domid).filter(|s| s.key == self.key) {
            slot.table.put_all();
            state.slots.remove(&self.key.domid);
        }
    }
}
