// SPDX-License-Identifier: Apache-2.0
//! Mappings of granted frames: L1 entries that map another domain's frame, made and unmade by grant-table operations only.
//!
//! The entry holds references of its own on the frame, beside the one of the grant (`Domain::get_ref` of the granter). So a
//! guest that clears the entry itself harms nobody: the grant stays mapped for the books until it is unmapped by handle.

use super::domain::Domain;
use super::frame_info::{BaseKind, Ty};
use super::memory::ended;
use super::op::{MmError, MmResult, Op, EINVAL};
use crate::abi::pte;
use crate::abi::DomId;
use crate::abi::Errno;
use crate::mem::Mfn;
use crate::shared::Caller;

/// Where a granted frame is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantAddress {
    /// The L1 entry that maps this address in the kernel's page tables of the vCPU.
    Linear(u64),
    /// GNTMAP_contains_pte: the entry at this machine address.
    Entry(u64),
}

impl Domain {
    /// Maps `mfn` of domain `owner` with the entry bits `bits` (P is added; RW for a writable mapping). `Err`: EINVAL for a bad
    /// address, EBUSY when the frame cannot be mapped so.
    pub fn grant_map(
        &self,
        vcpu: u32,
        at: GrantAddress,
        mfn: Mfn,
        owner: DomId,
        bits: u64,
        caller: Caller<'_>,
    ) -> Result<(), Errno> {
        ended(self.part(caller, |op| {
            let (table, index) = op.grant_entry(vcpu, at).ok_or(EINVAL)?;
            let entry = (mfn.maddr() & pte::ADDR) | (bits & !pte::ADDR) | pte::P | pte::A;
            op.mod_entry(table, index, entry, false, owner)
        }))
    }

    /// Undoes a mapping: the entry must still map `mfn`, writable or not as the grant was, else EINVAL. With `replace` (GNTTABOP_unmap_and_replace) the entry
    /// that maps that address takes its place, and is cleared there.
    pub fn grant_unmap(
        &self,
        vcpu: u32,
        at: GrantAddress,
        mfn: Mfn,
        writable: bool,
        replace: Option<u64>,
        caller: Caller<'_>,
    ) -> Result<(), Errno> {
        ended(self.part(caller, |op| {
            let (table, index) = op.grant_entry(vcpu, at).ok_or(EINVAL)?;
            let old = op.entry(table, index);
            if !pte::present(old) || Mfn(pte::mfn(old)) != mfn || pte::writable(old) != writable {
                return Err(EINVAL);
            }
            let domid = op.domid;
            match replace {
                None => op.mod_entry(table, index, 0, false, domid),
                Some(va) => op.move_entry(vcpu, va, table, index),
            }
        }))
    }
}

impl Op<'_> {
    fn grant_entry(&mut self, vcpu: u32, at: GrantAddress) -> Option<(Mfn, usize)> {
        match at {
            GrantAddress::Linear(va) => {
                let root = self.base(vcpu, BaseKind::Kernel)?;
                self.find_l1(root, va)
            }
            GrantAddress::Entry(maddr) => {
                let table = Mfn(maddr >> 12);
                let f = self.frame(table)?;
                let live = f.owner == self.domid && f.ty == Ty::L1 && f.type_count > 0;
                (live && maddr & 7 == 0).then_some((table, (maddr & 0xfff) as usize / 8))
            }
        }
    }

    /// Moves the entry that maps `va` to `index` of `table`: its references go with it.
    fn move_entry(&mut self, vcpu: u32, va: u64, table: Mfn, index: usize) -> MmResult {
        let (from, at) = self.grant_entry(vcpu, GrantAddress::Linear(va)).ok_or(EINVAL)?;
        if (from, at) == (table, index) {
            return Err(EINVAL);
        }
        let moved = self.entry(from, at);
        let owner = self.frame(Mfn(pte::mfn(moved))).map_or(self.domid, |f| f.owner);
        self.mod_entry(table, index, moved, false, owner)?;
        let domid = self.domid;
        match self.mod_entry(from, at, 0, false, domid) {
            Err(MmError::Preempted) | Ok(()) => Ok(()),
            e => e,
        }
    }
}
