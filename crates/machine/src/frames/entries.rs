// SPDX-License-Identifier: Apache-2.0
//! Changing one entry of a live table: by hypercall, or by a guest store that is emulated.

use super::domain::Domain;
use super::frame_info::Ty;
use super::op::{MmError, MmResult, Op, EINVAL};
use super::types::{is_xen_slot, used_entries};
use crate::abi::pte;
use crate::abi::x86::canonical;
use crate::abi::DomId;
use crate::mem::Mfn;
use crate::shared::Caller;

/// What became of a guest store to a PROTECTED frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PtwrResult {
    /// Done, or `op` wanted nothing stored. `old` is what `op` was last given.
    Done { old: u64 },
    /// Refused: the guest takes the #PF (present, write) that the page walk says.
    Fault,
    /// The frame is no page table any more: walk again.
    NotPageTable,
    /// Something else has to come first that this vCPU is wanted for: make the store again afterwards.
    Again,
}

/// An emulated guest store to a live L1 table: `maddr` is the machine address of the entry (8-aligned; the caller merges
/// narrower stores into the old value), `op` gets the old entry and gives the new one, or `None` to store nothing. `op`
/// may be called again when an engine has set A or D meanwhile. `upper_half`: a plain store to the upper half of an entry.
/// Takes the memory lock.
pub(crate) fn ptwr(
    domain: &Domain,
    caller: Caller<'_>,
    maddr: u64,
    upper_half: bool,
    op: &mut dyn FnMut(u64) -> Option<u64>,
) -> PtwrResult {
    if maddr & 7 != 0 {
        return PtwrResult::Fault;
    }
    let (mfn, index) = (Mfn(maddr >> 12), (maddr & 0xfff) as usize / 8);
    loop {
        let mut mm = domain.op(caller);
        match mm.frame(mfn) {
            Some(f) if f.owner == domain.domid && f.ty == Ty::L1 => {}
            Some(f) if f.ty == Ty::None || f.ty == Ty::Writable => return PtwrResult::NotPageTable,
            // Tables above L1 change by hypercall only, as do descriptor pages.
            _ => return PtwrResult::Fault,
        }
        match mm.ptwr_entry(mfn, index, upper_half, op) {
            Ok(r) => return r,
            // Rare: the frame that is to be mapped was a table until now, and much had to be devalidated.
            Err(MmError::Preempted) if caller.is_wanted() => return PtwrResult::Again,
            Err(MmError::Preempted) => continue,
            Err(MmError::Errno(_)) => return PtwrResult::Fault,
        }
    }
}

impl Op<'_> {
    fn ptwr_entry(
        &mut self,
        table: Mfn,
        index: usize,
        upper_half: bool,
        op: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> MmResult<PtwrResult> {
        let maddr = table.maddr() + index as u64 * 8;
        loop {
            let old = self.entry(table, index);
            let Some(mut new) = op(old) else {
                return Ok(PtwrResult::Done { old });
            };
            let checked = self.same_refs(old, new, 1).and_then(|fast| {
                if !fast && pte::present(new) {
                    self.get_l1e(new, self.domid)?;
                }
                Ok(fast)
            });
            let fast = match checked {
                Err(MmError::Errno(_)) if self.is_32bit && upper_half && pte::present(new) => {
                    // A PAE guest writes the halves of an entry in the wrong order: the lower one, with its present bit,
                    // is expected next.
                    new &= !pte::P;
                    false
                }
                r => r?,
            };
            let stored = pte::adjust(new, 1, self.is_32bit);
            // Only A and D can have changed under the lock: an engine sets them as it walks.
            if let Some(Ok(_)) = self.machine.mem.cmpxchg_u64(maddr, old, stored) {
                if !fast {
                    self.put_l1e(old);
                }
                if old != stored {
                    self.entry_changed(table, Ty::L1, index, old);
                }
                return Ok(PtwrResult::Done { old });
            }
            if !fast {
                self.put_l1e(new);
            }
        }
    }

    /// True if both entries are present and name the same frame with the same rights, so that no reference changes.
    fn same_refs(&self, old: u64, new: u64, level: u8) -> MmResult<bool> {
        if !pte::present(new) {
            return Ok(false);
        }
        if new & pte::disallowed(level, self.is_32bit) != 0 {
            return Err(EINVAL);
        }
        let fast = if level == 1 { pte::FAST_L1 } else { pte::FAST_TABLE };
        // The L3 of a PAE guest is stored with bits that the guest did not give.
        let fast = if self.is_32bit && level == 3 {
            fast | pte::RW
        } else {
            fast
        };
        Ok(pte::present(old) && (old ^ new) & !fast == 0)
    }

    /// Stores an entry; returns the old one. With `preserve_ad` the A and D bits in memory stay.
    fn write_entry(&self, table: Mfn, index: usize, new: u64, preserve_ad: bool) -> u64 {
        let maddr = table.maddr() + index as u64 * 8;
        let mut old = self.entry(table, index);
        loop {
            let value = if preserve_ad {
                new | (old & (pte::A | pte::D))
            } else {
                new
            };
            match self.machine.mem.cmpxchg_u64(maddr, old, value) {
                Some(Err(seen)) => old = seen,
                _ => return old,
            }
        }
    }

    /// Changes entry `index` of a live table of any level to `new`. L1 entries may map frames of `owner`.
    pub fn mod_entry(
        &mut self,
        table: Mfn,
        index: usize,
        new: u64,
        preserve_ad: bool,
        owner: DomId,
    ) -> MmResult {
        let ty = self.frame(table).map_or(Ty::None, |f| f.ty);
        let level = ty.level();
        if level == 0 || index >= used_entries(ty, self.is_32bit) || is_xen_slot(ty, index, self.is_32bit) {
            return Err(EINVAL);
        }
        if self.is_32bit && ty == Ty::L3 && index == 3 {
            // Xen's own area is behind this slot: it stays valid as long as the table does.
            return Err(EINVAL);
        }
        let old = self.entry(table, index);
        let fast = self.same_refs(old, new, level)?;
        // A linear entry's right to be read-only hangs on RW, which the fast path does not change.
        let stored = pte::adjust(new, level, self.is_32bit);
        if !fast && pte::present(new) {
            if level == 1 {
                self.get_l1e(new, owner)?;
            } else {
                self.get_child(table, ty, index, new)?;
            }
        }
        let old = self.write_entry(table, index, stored, preserve_ad);
        self.entry_changed(table, ty, index, old);
        if pte::present(old) && !fast {
            if level == 1 {
                self.put_l1e(old);
            } else {
                self.put_child(table, old);
            }
        }
        Ok(())
    }

    /// Walks from the base `root` to the L1 table that maps `va`: (table, index).
    pub fn find_l1(&self, root: Mfn, va: u64) -> Option<(Mfn, usize)> {
        let in_range = if self.is_32bit {
            va >> 32 == 0
        } else {
            canonical(va)
        };
        if !in_range {
            return None;
        }
        let mut table = root;
        let top = if self.is_32bit { 3 } else { 4 };
        for level in (2..=top).rev() {
            let index = (va >> (12 + 9 * (level - 1))) as usize & 511;
            let ty = self.frame(table)?.ty;
            if ty.level() != level as u8 || is_xen_slot(ty, index, self.is_32bit) {
                return None;
            }
            let e = self.entry(table, index);
            if !pte::present(e) {
                return None;
            }
            table = Mfn(pte::mfn(e));
        }
        (self.frame(table)?.ty == Ty::L1).then_some((table, (va >> 12) as usize & 511))
    }
}
