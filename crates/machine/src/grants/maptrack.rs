// SPDX-License-Identifier: Apache-2.0
//! Grants that a guest has mapped: handles, and what has to be undone for each.

use super::{DomainGrants, GrantResult, GrantStatus, How, Key, State};
use crate::abi::grant::gntmap;
use crate::abi::pte;
use crate::abi::{DomId, Errno};
use crate::frames::GrantAddress;
use crate::mem::Mfn;
use std::collections::BTreeMap;

/// Mappings a domain may have at a time.
const MAX_MAPPINGS: u32 = 8192;
/// Xen's struct grant_mapping has 16 bytes.
const MAPPINGS_PER_FRAME: u32 = 256;

/// One use of another domain's grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    pub(super) owner: Key,
    pub gref: u32,
    pub mfn: Mfn,
    /// GNTMAP_*; host_map and device_map go away as they are unmapped.
    pub flags: u32,
}

impl Mapping {
    pub fn owner(&self) -> DomId {
        self.owner.domid
    }

    pub fn writable(&self) -> bool {
        self.flags & gntmap::READONLY == 0
    }
}

/// The mappings of one domain.
pub(super) struct Track {
    pub mappings: BTreeMap<u32, Mapping>,
    next: u32,
    most: u32,
}

impl Track {
    pub(crate) fn new(frames: u32) -> Track {
        Track {
            mappings: BTreeMap::new(),
            next: 0,
            most: frames.saturating_mul(MAPPINGS_PER_FRAME).min(MAX_MAPPINGS),
        }
    }

    pub(crate) fn list(&self) -> Vec<(u32, Mapping)> {
        self.mappings.iter().map(|(handle, m)| (*handle, *m)).collect()
    }

    fn new_handle(&mut self) -> GrantResult<u32> {
        if self.mappings.len() >= self.most as usize {
            return Err(GrantStatus::no_space);
        }
        while self.mappings.contains_key(&self.next) {
            self.next = (self.next + 1) % MAX_MAPPINGS;
        }
        Ok(self.next)
    }
}

impl State {
    /// The domain ends: its mappings use nobody's grants any more.
    pub(super) fn drop_mappings(&mut self, key: Key) {
        let Ok(slot) = self.slot_mut(key) else { return };
        for m in std::mem::take(&mut slot.track.mappings).into_values() {
            self.release(m.owner, m.gref, m.writable());
        }
    }
}

/// GNTTABOP_map_grant_ref, and what page tables are to do for it.
#[derive(Debug, Clone, Copy)]
pub struct Map {
    pub host_addr: u64,
    pub flags: u32,
    pub gref: u32,
    pub dom: DomId,
}

impl Map {
    /// Where the entry of the page tables is.
    fn address(&self) -> GrantAddress {
        address(self.host_addr, self.flags)
    }

    /// Bits of the entry.
    fn bits(&self, is_32bit: bool) -> u64 {
        let mut bits = pte::A | pte::D;
        if self.flags & gntmap::READONLY == 0 {
            bits |= pte::RW;
        }
        let avail = u64::from(self.flags >> gntmap::GUEST_AVAIL0_SHIFT);
        bits |= avail << pte::AVAIL.trailing_zeros() & pte::AVAIL;
        if !is_32bit {
            // The kernel of a 64-bit guest runs in ring 3 too.
            let high = avail >> pte::AVAIL.count_ones() << pte::AVAIL_HIGH.trailing_zeros();
            return bits | pte::USER | (high & pte::AVAIL_HIGH);
        }
        match self.flags & gntmap::APPLICATION_MAP {
            0 => bits,
            _ => bits | pte::USER,
        }
    }
}

/// GNTTABOP_unmap_grant_ref, GNTTABOP_unmap_and_replace (with `replace`).
#[derive(Debug, Clone, Copy)]
pub struct Unmap {
    pub handle: u32,
    pub host_addr: u64,
    pub dev_bus_addr: u64,
    pub replace: Option<Option<u64>>,
}

fn address(host_addr: u64, flags: u32) -> GrantAddress {
    match flags & gntmap::CONTAINS_PTE {
        0 => GrantAddress::Linear(host_addr),
        _ => GrantAddress::Entry(host_addr),
    }
}

impl DomainGrants {
    /// Maps a grant: `enter` makes the entry of the page tables (where, frame, its owner, bits). Gives handle and frame.
    pub fn map(
        &self,
        arg: &Map,
        enter: impl FnOnce(GrantAddress, Mfn, DomId, u64) -> Result<(), Errno>,
    ) -> GrantResult<(u32, Mfn)> {
        if arg.flags & (gntmap::DEVICE_MAP | gntmap::HOST_MAP) == 0 {
            return Err(GrantStatus::bad_gntref);
        }
        let state = &mut *self.grants.lock();
        let owner = state.granter(arg.dom, arg.gref)?;
        let handle = state.slot_mut(self.key)?.track.new_handle()?;
        let writable = arg.flags & gntmap::READONLY == 0;
        let active = state.acquire(owner, arg.gref, self.key.domid, How::map(writable))?;
        if arg.flags & gntmap::HOST_MAP != 0 {
            let bits = arg.bits(self.domain.is_32bit);
            if enter(arg.address(), active.mfn, owner.domid, bits).is_err() {
                state.release(owner, arg.gref, writable);
                return Err(GrantStatus::general_error);
            }
        }
        let mapping = Mapping {
            owner,
            gref: arg.gref,
            mfn: active.mfn,
            flags: arg.flags,
        };
        state.slot_mut(self.key)?.track.mappings.insert(handle, mapping);
        Ok((handle, active.mfn))
    }

    /// Ends a mapping, or its half: `leave` takes back the entry of the page tables (where, frame, whether writable).
    pub fn unmap(
        &self,
        arg: &Unmap,
        leave: impl FnOnce(GrantAddress, Mfn, bool, Option<u64>) -> Result<(), Errno>,
    ) -> GrantResult {
        let state = &mut *self.grants.lock();
        let track = &mut state.slot_mut(self.key)?.track;
        let mapping = track.mappings.get_mut(&arg.handle);
        let mapping = mapping.ok_or(GrantStatus::bad_handle)?;
        if arg.replace.is_some() && mapping.flags & gntmap::CONTAINS_PTE != 0 {
            return Err(GrantStatus::general_error);
        }
        if arg.dev_bus_addr != 0 && mapping.flags & gntmap::DEVICE_MAP != 0 {
            if arg.dev_bus_addr != mapping.mfn.maddr() {
                return Err(GrantStatus::bad_dev_addr);
            }
            mapping.flags &= !gntmap::DEVICE_MAP;
        }
        if arg.host_addr != 0 && mapping.flags & gntmap::HOST_MAP != 0 {
            let at = address(arg.host_addr, mapping.flags);
            leave(at, mapping.mfn, mapping.writable(), arg.replace.flatten())
                .map_err(|_| GrantStatus::general_error)?;
            mapping.flags &= !gntmap::HOST_MAP;
        }
        if mapping.flags & (gntmap::DEVICE_MAP | gntmap::HOST_MAP) == 0 {
            let m = *mapping;
            track.mappings.remove(&arg.handle);
            state.release(m.owner, m.gref, m.writable());
        }
        Ok(())
    }

    /// Whether this domain has a mapping of that frame of `owner`.
    pub fn maps(&self, mfn: Mfn, owner: DomId) -> bool {
        let state = self.grants.lock();
        state.slot(self.key).is_ok_and(|slot| {
            let mut all = slot.track.mappings.values();
            all.any(|m| m.mfn == mfn && m.owner.domid == owner)
        })
    }
}
