// SPDX-License-Identifier: Apache-2.0
//! grant_table_op on arrays: map, unmap, copy, swap. Each element has a status of its own (`grant_table.h`).
//!
//! The other commands are about the table as a whole and come once in a guest's life: they are the layer above's.

use super::argument::Argument;
use super::guest_copy::array_ok;
use super::hypercall::Answer;
use super::mmu_ops::Outcome;
use super::{Efault, Vcpu};
use crate::abi::grant::{
    copy, gntcopy, gnttabop, map_grant_ref, swap_grant_ref, unmap_and_replace, unmap_grant_ref,
};
use crate::abi::Errno;
use crate::grants::{CopyEnd, CopyFrom, DomainGrants, GrantResult, Map, Unmap};
use crate::mem::Mfn;

/// After so many elements the guest gets its events.
const ITEMS_AT_ONCE: u32 = 16;
/// The handle of what is not mapped.
const UNMAPPED: u32 = u32::MAX;
/// The largest element.
const ITEM_MAX: usize = copy::SIZE_MAX;

/// One command on an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Map,
    Unmap,
    Copy,
    UnmapAndReplace,
    Swap,
}

impl Command {
    fn of(number: u32) -> Option<Command> {
        Some(match number {
            gnttabop::MAP_GRANT_REF => Command::Map,
            gnttabop::UNMAP_GRANT_REF => Command::Unmap,
            gnttabop::COPY => Command::Copy,
            gnttabop::UNMAP_AND_REPLACE => Command::UnmapAndReplace,
            gnttabop::SWAP_GRANT_REF => Command::Swap,
            _ => return None,
        })
    }

    /// Bytes of an element, and where its status is.
    fn layout(self, is_32bit: bool) -> (usize, usize) {
        match self {
            Command::Map => (map_grant_ref::SIZE, map_grant_ref::STATUS),
            Command::Unmap => (unmap_grant_ref::SIZE, unmap_grant_ref::STATUS),
            Command::Copy => (copy::size(is_32bit), copy::status(is_32bit)),
            Command::UnmapAndReplace => (unmap_and_replace::SIZE, unmap_and_replace::STATUS),
            Command::Swap => (swap_grant_ref::SIZE, swap_grant_ref::STATUS),
        }
    }
}

/// An element.
type Item = Argument<ITEM_MAX>;

impl Item {
    /// One end of a copy.
    fn end(&self, at: usize, granted: bool, is_32bit: bool) -> CopyEnd {
        let frame = match is_32bit {
            true => u64::from(self.u32(at)),
            false => self.u64(at),
        };
        CopyEnd {
            domid: self.u16(at + copy::end_domid(is_32bit)),
            gref: granted.then(|| self.u32(at)),
            mfn: Mfn(frame),
            offset: self.u16(at + copy::end_offset(is_32bit)),
        }
    }
}

impl Vcpu {
    /// A guest's grant_table_op. `None`: it is for the layer above.
    pub(super) fn grant_hypercall(&mut self, args: [u64; 6]) -> Option<Answer> {
        let [command, va, count, ..] = args;
        let outcome = self.grant_table_op(command as u32, va, count as u32)?;
        Some(match outcome {
            Outcome::Done(done) => Answer::Done(done),
            Outcome::Continue { req_va, count } => Answer::AgainWith(1, [req_va, u64::from(count)]),
        })
    }

    /// The first elements of an array, or all of them. `None`: this command, or such a count, is for the layer above.
    pub fn grant_table_op(&mut self, command: u32, va: u64, count: u32) -> Option<Outcome> {
        let command = Command::of(command)?;
        let grants = self.grants.clone()?;
        if count > i32::MAX as u32 {
            return None;
        }
        let shared = self.cpu.shared.clone();
        let outcome = {
            // The grants' lock is waited for, and everything done with it, outside the guest.
            let _outside = shared.leave();
            self.grant_items(&grants, command, va, count)
        };
        self.cpu.apply_purges();
        Some(outcome)
    }

    fn grant_items(&mut self, grants: &DomainGrants, command: Command, mut va: u64, count: u32) -> Outcome {
        let is_32bit = self.is_32bit();
        let (size, status_at) = command.layout(is_32bit);
        if !array_ok(va, count, size as u64, is_32bit) {
            return Outcome::Done(Err(Errno::EFAULT));
        }
        let now = count.min(ITEMS_AT_ONCE);
        for _ in 0..now {
            if self.grant_item(grants, command, va, size, status_at).is_err() {
                return Outcome::Done(Err(Errno::EFAULT));
            }
            va = va.wrapping_add(size as u64);
        }
        match count - now {
            0 => Outcome::Done(Ok(())),
            count => Outcome::Continue { req_va: va, count },
        }
    }

    fn grant_item(
        &mut self,
        grants: &DomainGrants,
        command: Command,
        va: u64,
        size: usize,
        status_at: usize,
    ) -> Result<(), Efault> {
        let mut item = Item::new();
        self.copy_in(va, item.0.get_mut(..size).ok_or(Efault)?)?;
        let done = match command {
            Command::Map => self.grant_map_item(grants, &mut item),
            Command::Unmap => self.grant_unmap_item(
                grants,
                Unmap {
                    host_addr: item.u64(unmap_grant_ref::HOST_ADDR),
                    dev_bus_addr: item.u64(unmap_grant_ref::DEV_BUS_ADDR),
                    handle: item.u32(unmap_grant_ref::HANDLE),
                    replace: None,
                },
            ),
            Command::UnmapAndReplace => {
                let new = item.u64(unmap_and_replace::NEW_ADDR);
                self.grant_unmap_item(
                    grants,
                    Unmap {
                        host_addr: item.u64(unmap_and_replace::HOST_ADDR),
                        dev_bus_addr: 0,
                        handle: item.u32(unmap_and_replace::HANDLE),
                        replace: Some((new != 0).then_some(new)),
                    },
                )
            }
            Command::Copy => self.grant_copy_item(grants, &item),
            Command::Swap => grants.swap(item.u32(swap_grant_ref::REF_A), item.u32(swap_grant_ref::REF_B)),
        };
        let status = done.map_or_else(|status| status.number(), |()| 0);
        item.set(status_at, &status.to_le_bytes());
        // What an element of map gives lies in all of it.
        let (from, to) = match command {
            Command::Map => (0, size),
            _ => (status_at, status_at + 2),
        };
        self.copy_out(va.wrapping_add(from as u64), item.0.get(from..to).ok_or(Efault)?)
    }

    fn grant_map_item(&mut self, grants: &DomainGrants, item: &mut Item) -> GrantResult {
        let arg = Map {
            host_addr: item.u64(map_grant_ref::HOST_ADDR),
            flags: item.u32(map_grant_ref::FLAGS),
            gref: item.u32(map_grant_ref::REF),
            dom: item.u16(map_grant_ref::DOM),
        };
        item.set(map_grant_ref::HANDLE, &UNMAPPED.to_le_bytes());
        let (handle, mfn) = grants.map(&arg, |at, mfn, owner, bits| self.grant_map(at, mfn, owner, bits))?;
        item.set(map_grant_ref::HANDLE, &handle.to_le_bytes());
        item.set(map_grant_ref::DEV_BUS_ADDR, &mfn.maddr().to_le_bytes());
        Ok(())
    }

    fn grant_unmap_item(&mut self, grants: &DomainGrants, arg: Unmap) -> GrantResult {
        grants.unmap(&arg, |at, mfn, writable, replace| {
            self.grant_unmap(at, mfn, writable, replace)
        })
    }

    fn grant_copy_item(&mut self, grants: &DomainGrants, item: &Item) -> GrantResult {
        let is_32bit = self.is_32bit();
        let flags = item.u16(copy::flags(is_32bit));
        grants.copy(&CopyFrom {
            source: item.end(copy::SOURCE, flags & gntcopy::SOURCE_GREF != 0, is_32bit),
            dest: item.end(copy::dest(is_32bit), flags & gntcopy::DEST_GREF != 0, is_32bit),
            len: item.u16(copy::len(is_32bit)),
        })
    }
}
