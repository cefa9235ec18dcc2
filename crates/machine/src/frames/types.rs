// SPDX-License-Identifier: Apache-2.0
//! Type references: a frame has one type at a time; page tables are validated when they get theirs.
//!
//! A table is either validated, every present entry holding its references, or it has no type: there is no state between
//! that outlives one holding of the lock. Long operations are cut into steps by keeping whole validated children
//! (`DomMm::held`) and whole dead tables (`DomMm::dead`), both ordinary states of frames. What an operation leaves of the
//! latter is owed: the domain's vCPUs take it down before they execute guest code (`Domain::owes`).

use super::frame_info::{state, DomMm, FrameInfo, Holder, Ty};
use super::op::{MmError, MmResult, Op, EBUSY, EINVAL, EPERM};
use super::{flag, segdesc};
use crate::abi::pte;
use crate::abi::DomId;
use crate::mem::Mfn;
use crate::shared::Caller;
use std::sync::atomic::Ordering;

/// Frames one holding of the lock may free, and tables that were held it may drop.
pub(super) const FREES: usize = 256;
const HELD: usize = 2048;

/// What an entry of a table names.
enum Child {
    /// Nothing that holds a reference: not present, or the table itself, read-only.
    Nothing,
    Table(Mfn, Ty),
    /// Another table of the same level: a linear page table.
    Linear(Mfn),
}

impl Op<'_> {
    /// Takes a type reference, validating the frame if it has another type's remains. The caller holds a reference.
    pub(super) fn get_type(&mut self, mfn: Mfn, want: Ty) -> MmResult {
        let f = self.frame(mfn).ok_or(EINVAL)?;
        if f.ty != want && f.ty != Ty::None {
            if f.type_count > 0 && !self.relax()? {
                return Err(EINVAL);
            }
            let f = self.frame(mfn).ok_or(EINVAL)?;
            if f.ty != want && f.ty != Ty::None {
                if f.type_count > 0 {
                    return Err(EINVAL);
                }
                self.devalidate(mfn)?;
            }
        }
        let f = self.frame_mut(mfn).ok_or(EINVAL)?;
        if f.ty == want {
            f.type_count = f.type_count.checked_add(1).ok_or(EINVAL)?;
            return Ok(());
        }
        match want {
            Ty::None => Err(EINVAL),
            Ty::Writable => {
                // A table retired a moment ago must not be written while someone walks through it.
                self.settle();
                self.retype(mfn, Ty::Writable, 1);
                Ok(())
            }
            Ty::SegDesc => {
                self.protect(mfn);
                if let Err(e) = segdesc::validate_page(self.machine, mfn, self.is_32bit) {
                    self.machine.frames.clear_flags(mfn, flag::PROTECTED);
                    return Err(e);
                }
                self.retype(mfn, Ty::SegDesc, 1);
                Ok(())
            }
            _ => self.validate(mfn, want),
        }
    }

    /// Drops a type reference. A table that loses its last one is put on its owner's list of dead tables.
    pub(super) fn put_type(&mut self, mfn: Mfn) {
        let Some(f) = self.frame_mut(mfn) else { return };
        debug_assert!(f.type_count > 0, "type count below zero");
        f.type_count = f.type_count.saturating_sub(1);
        if f.type_count > 0 {
            return;
        }
        if !f.ty.is_table() {
            if f.ty == Ty::SegDesc {
                self.machine.frames.clear_flags(mfn, flag::PROTECTED);
            }
            self.retype(mfn, Ty::None, 0);
        } else if f.state & state::DEAD == 0 {
            f.state |= state::DEAD;
            f.refs = f.refs.saturating_add(1);
            let owner = f.owner;
            if let Some(d) = self.mm.dom_mut(owner) {
                d.dead.push(mfn);
            }
        }
    }

    pub(super) fn put_page_and_type(&mut self, mfn: Mfn) {
        self.put_type(mfn);
        self.put_page(mfn);
    }

    pub(super) fn get_page_and_type(&mut self, mfn: Mfn, owner: DomId, ty: Ty) -> MmResult {
        self.get_page(mfn, owner)?;
        self.get_type(mfn, ty).inspect_err(|_| self.put_page(mfn))
    }

    /// Does something with a frame of this domain while it has type `ty`.
    pub(crate) fn with_type(&mut self, mfn: Mfn, ty: Ty, f: impl FnOnce(&mut Self)) -> MmResult {
        self.get_page_and_type(mfn, self.domid, ty)?;
        f(self);
        self.put_page_and_type(mfn);
        Ok(())
    }

    fn retype(&mut self, mfn: Mfn, ty: Ty, count: u32) {
        if let Some(f) = self.frame_mut(mfn) {
            f.ty = ty;
            f.type_count = count;
        }
    }

    fn charge(&mut self) -> MmResult {
        if self.mm.to_free.len() >= FREES {
            return Err(MmError::Preempted);
        }
        self.budget = self.budget.checked_sub(1).ok_or(MmError::Preempted)?;
        Ok(())
    }

    /// The key of what this operation holds.
    fn holder(&self) -> Holder {
        let vcpu = match self.caller {
            Caller::Host => None,
            Caller::Vcpu(me) => Some(me.vcpu_id.load(Ordering::Relaxed)),
        };
        (vcpu, self.base_kind)
    }

    /// Gives up what only speeds up operations to come, once in an operation; true if there was anything, so that a
    /// conflict may be gone.
    fn relax(&mut self) -> MmResult<bool> {
        let me = self.holder();
        let Some(d) = self.dom_mut() else { return Ok(false) };
        if !d.held.is_empty() && !d.held.entry(me).or_default().started_again {
            d.held.entry(me).or_default().started_again = true;
            for held in d.held.values_mut() {
                d.let_go.append(&mut held.tables);
            }
        }
        let any = d.owes();
        if any {
            self.drain()?;
        }
        Ok(any)
    }

    /// Ends a (possibly continued) operation: what it had validated in advance stands by itself from now on, or dies.
    /// `Preempted` when something is left to do.
    pub(crate) fn tail(&mut self) -> MmResult {
        // After each request of a batch: one look, mostly.
        let quiet = |d: &DomMm| d.held.is_empty() && !d.owes();
        if self.mm.dom(self.domid).is_none_or(quiet) {
            return Ok(());
        }
        let me = self.holder();
        if let Some(d) = self.dom_mut() {
            if let Some(mut held) = d.held.remove(&me) {
                d.let_go.append(&mut held.tables);
            }
        }
        self.drain()
    }

    /// Takes down what nobody needs any more; `Preempted` when some is left.
    pub(crate) fn drain(&mut self) -> MmResult {
        for _ in 0..HELD {
            match self.dom_mut().and_then(|d| d.let_go.pop()) {
                Some(m) => self.put_page_and_type(m),
                None => return self.drain_dead(),
            }
        }
        Err(MmError::Preempted)
    }

    /// Devalidates dead tables; `Preempted` when some are left.
    fn drain_dead(&mut self) -> MmResult {
        while let Some(mfn) = self.dom_mut().and_then(|d| d.dead.pop()) {
            let r = match self.frame(mfn) {
                Some(f) if f.type_count == 0 && f.ty.is_table() => self.devalidate(mfn),
                _ => Ok(()),
            };
            if let Err(e) = r {
                if let Some(d) = self.dom_mut() {
                    d.dead.push(mfn);
                }
                return Err(e);
            }
            if let Some(f) = self.frame_mut(mfn) {
                f.state &= !state::DEAD;
            }
            self.put_page(mfn);
        }
        Ok(())
    }

    /// A table without type references loses its type, and its entries their references.
    fn devalidate(&mut self, mfn: Mfn) -> MmResult {
        self.charge()?;
        let Some(ty) = self.frame(mfn).map(|f| f.ty) else {
            return Err(EINVAL);
        };
        self.drop_entries(mfn, ty, pte::ENTRIES);
        self.retype(mfn, Ty::None, 0);
        self.machine.frames.clear_flags(mfn, flag::PROTECTED);
        self.mm.retired.push(mfn);
        self.table_gone(mfn);
        Ok(())
    }

    /// Drops the references of the first `count` entries.
    fn drop_entries(&mut self, mfn: Mfn, ty: Ty, count: usize) {
        let machine = self.machine;
        let Some(words) = machine.mem.words(mfn) else {
            return;
        };
        let used = used_entries(ty, self.is_32bit);
        for (i, word) in words.iter().enumerate().take(count.min(used)) {
            let e = word.load(Ordering::Relaxed);
            if !pte::present(e) || is_xen_slot(ty, i, self.is_32bit) {
                continue;
            }
            if ty == Ty::L1 {
                self.put_l1e(e);
            } else {
                self.put_child(mfn, e);
            }
        }
    }

    /// Makes a frame without type a page table, with a type count of one.
    fn validate(&mut self, mfn: Mfn, ty: Ty) -> MmResult {
        self.charge()?;
        self.protect(mfn);
        // From here on the contents stay as they are. With its type set, entries that name the table itself as something
        // else fail by themselves.
        self.retype(mfn, ty, 1);
        let r = if ty == Ty::L1 {
            self.validate_l1(mfn)
        } else {
            self.validate_table(mfn, ty)
        };
        if r.is_err() {
            self.retype(mfn, Ty::None, 0);
            self.machine.frames.clear_flags(mfn, flag::PROTECTED);
        }
        r
    }

    fn validate_l1(&mut self, mfn: Mfn) -> MmResult {
        let machine = self.machine;
        let words = machine.mem.words(mfn).ok_or(EINVAL)?;
        for (i, word) in words.iter().enumerate() {
            let e = word.load(Ordering::Relaxed);
            if !pte::present(e) {
                continue;
            }
            if let Err(err) = self.get_l1e(e, self.domid) {
                self.drop_entries(mfn, Ty::L1, i);
                return Err(err);
            }
            let adjusted = pte::adjust(e, 1, self.is_32bit);
            if adjusted != e {
                word.store(adjusted, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn validate_table(&mut self, mfn: Mfn, ty: Ty) -> MmResult {
        let (level, is_32bit) = (ty.level(), self.is_32bit);
        let used = used_entries(ty, is_32bit);
        if is_32bit && ty == Ty::L3 && self.xen_l2_in_use(mfn) && (!self.relax()? || self.xen_l2_in_use(mfn))
        {
            return Err(EINVAL);
        }
        // First the children that are not validated yet, each as an operation of its own whose result is kept if time
        // runs out.
        for i in 0..used {
            let e = self.entry(mfn, i);
            if !is_xen_slot(ty, i, is_32bit) {
                if let Child::Table(child, want) = self.child(mfn, ty, i, e)? {
                    self.hold(child, want)?;
                }
            }
        }
        if is_32bit && ty == Ty::L3 && !pte::present(self.entry(mfn, 3)) {
            return Err(EINVAL);
        }
        for i in 0..used {
            let e = self.entry(mfn, i);
            if is_xen_slot(ty, i, is_32bit) {
                // Xen's slots: nothing of the guest's may be seen through a walk, linear ones included.
                self.set_entry(mfn, i, 0);
                continue;
            }
            if let Err(err) = self.get_child(mfn, ty, i, e) {
                self.drop_entries(mfn, ty, i);
                return Err(err);
            }
            let adjusted = pte::adjust(e, level, is_32bit);
            if adjusted != e {
                self.set_entry(mfn, i, adjusted);
            }
        }
        for i in used..pte::ENTRIES {
            self.set_entry(mfn, i, 0);
        }
        Ok(())
    }

    /// Whether the L2 in slot 3 of a PAE guest's L3 is that of another L3 already: each has its own, as on Xen.
    fn xen_l2_in_use(&mut self, l3: Mfn) -> bool {
        let child = Mfn(pte::mfn(self.entry(l3, 3)));
        let count = match self.frame(child) {
            Some(f) if f.ty == Ty::L2Xen => f.type_count,
            _ => return false,
        };
        let held = self
            .dom_mut()
            .is_some_and(|d| d.held.values().any(|h| h.tables.contains(&child)));
        count > u32::from(held)
    }

    /// Sees to it that `mfn` is validated as `ty` and stays so until the operation ends.
    fn hold(&mut self, mfn: Mfn, ty: Ty) -> MmResult {
        if self.frame(mfn).is_some_and(|f| f.ty == ty) {
            return Ok(());
        }
        self.get_page_and_type(mfn, self.domid, ty)?;
        let me = self.holder();
        match self.dom_mut() {
            Some(d) => d.held.entry(me).or_default().tables.push(mfn),
            None => self.put_page_and_type(mfn),
        }
        Ok(())
    }

    /// What entry `i` = `e` of the table `mfn` (of type `ty`, an L2 or above) names, if it may.
    fn child(&self, mfn: Mfn, ty: Ty, i: usize, e: u64) -> MmResult<Child> {
        if !pte::present(e) {
            return Ok(Child::Nothing);
        }
        let level = ty.level();
        if e & pte::disallowed(level, self.is_32bit) != 0 {
            return Err(EINVAL);
        }
        let child = Mfn(pte::mfn(e));
        // A linear page table: a table of this level seen as a child. Safe read-only, for then every mapping through it is.
        let peer = self
            .frame(child)
            .is_some_and(|c| c.ty.level() == level && c.type_count > 0);
        if (child == mfn || peer) && !(self.is_32bit && ty == Ty::L3) {
            return match e & pte::RW {
                0 if child == mfn => Ok(Child::Nothing),
                0 => Ok(Child::Linear(child)),
                _ => Err(EINVAL),
            };
        }
        let want = match (ty, i) {
            (Ty::L3, 3) if self.is_32bit => Ty::L2Xen,
            _ => Ty::table(level - 1),
        };
        Ok(Child::Table(child, want))
    }

    /// Takes the references of one entry of an L2 or above.
    pub(super) fn get_child(&mut self, mfn: Mfn, ty: Ty, i: usize, e: u64) -> MmResult {
        match self.child(mfn, ty, i, e)? {
            Child::Nothing => Ok(()),
            Child::Table(child, want) => self.get_page_and_type(child, self.domid, want),
            Child::Linear(child) => self.get_linear(mfn, child),
        }
    }

    /// Takes the references of a linear entry of `table` that names `child`, which is validated and stays so. Neither may be
    /// on the other side of such an entry elsewhere.
    fn get_linear(&mut self, table: Mfn, child: Mfn) -> MmResult {
        let own = self
            .frame(table)
            .is_some_and(|t| t.owner == self.domid && t.linear <= 0);
        let free = self.frame(child).is_some_and(|c| c.linear >= 0);
        if !own || !free {
            return Err(EINVAL);
        }
        self.get_page(child, self.domid)?;
        let counted = self.frame_mut(child).and_then(|c| {
            c.type_count = c.type_count.checked_add(1)?;
            c.linear = c.linear.saturating_add(1);
            Some(())
        });
        if counted.is_none() {
            self.put_page(child);
            return Err(EINVAL);
        }
        self.add_linear(table, -1);
        Ok(())
    }

    fn add_linear(&mut self, mfn: Mfn, n: i32) {
        if let Some(f) = self.frame_mut(mfn) {
            f.linear = f.linear.saturating_add(n);
        }
    }

    /// Drops the references of one installed entry of an L2 or above.
    pub(super) fn put_child(&mut self, mfn: Mfn, e: u64) {
        let child = Mfn(pte::mfn(e));
        // An installed entry that names its own table is a linear one that holds nothing.
        if !pte::present(e) || child == mfn {
            return;
        }
        // While the entry holds them, neither table changes its type.
        let level = |f: Option<&FrameInfo>| f.map(|f| f.ty.level());
        if level(self.frame(child)) == level(self.frame(mfn)) {
            self.add_linear(child, -1);
            self.add_linear(mfn, 1);
        }
        self.put_page_and_type(child);
    }

    /// Takes the references of a present L1 entry that maps a frame of `owner`.
    pub(super) fn get_l1e(&mut self, e: u64, owner: DomId) -> MmResult {
        if e & pte::disallowed(1, self.is_32bit) != 0 {
            return Err(EINVAL);
        }
        let mfn = Mfn(pte::mfn(e));
        if mfn.0 >= self.machine.mem.frames() {
            // Not memory, so device memory, of which no guest has any. Xen calls an address of all ones a mistake.
            return Err(if mfn.0 == pte::ADDR >> 12 { EINVAL } else { EPERM });
        }
        self.get_page(mfn, owner).map_err(|_| EBUSY)?;
        if pte::writable(e) {
            if let Err(err) = self.get_type(mfn, Ty::Writable) {
                self.put_page(mfn);
                return Err(if err == EINVAL { EBUSY } else { err });
            }
        }
        Ok(())
    }

    /// Drops the references of an installed L1 entry.
    pub(super) fn put_l1e(&mut self, e: u64) {
        if !pte::present(e) {
            return;
        }
        let mfn = Mfn(pte::mfn(e));
        if self.frame(mfn).is_some_and(|f| f.owner != self.domid) {
            self.mm.foreign.push(mfn);
        }
        if pte::writable(e) {
            self.put_type(mfn);
        }
        self.put_page(mfn);
    }
}

/// Entries of a table that count: a PAE guest's L3 has four.
pub(super) const fn used_entries(ty: Ty, is_32bit: bool) -> usize {
    if is_32bit && matches!(ty, Ty::L3) {
        4
    } else {
        pte::ENTRIES
    }
}

/// Entries that belong to Xen.
pub(super) const fn is_xen_slot(ty: Ty, i: usize, is_32bit: bool) -> bool {
    match ty {
        Ty::L4 => !is_32bit && i >= pte::XEN_L4_FIRST && i <= pte::XEN_L4_LAST,
        Ty::L2Xen => i >= pte::XEN_PAE_L2_FIRST,
        _ => false,
    }
}
