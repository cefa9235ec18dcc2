// SPDX-License-Identifier: Apache-2.0
//! A domain's memory, seen from the hypervisor: allocation, references from outside, bases, the end.
//!
//! What a guest can make long is done in parts: `Domain::part`. A part that returns `Preempted` is done again, after
//! others had their turn.

use super::domain::Domain;
use super::flag;
use super::frame_info::{state, BaseKind, FrameInfo, Ty, NO_OWNER};
use super::op::{MmError, MmResult, Op, BUDGET, EINVAL};
use super::types::FREES;
use crate::abi::layout::FIRST_RESERVED_GDT_ENTRY;
use crate::abi::x86::DESCRIPTORS_PER_FRAME;
use crate::abi::Errno;
use crate::mem::Mfn;
use crate::shared::{Caller, Purge};
use std::sync::atomic::Ordering;

/// Holdings of the memory lock in one part of a guest's operation: others wait that long for what its caller holds.
pub(crate) const HOLDINGS: u32 = 2;

/// Frames that one holding of the lock looks through for an extent, or for what a dying domain owns.
pub(crate) const LOOKED_AT: usize = 1 << 16;

/// The largest extent: 2 MiB, as much as an unprivileged domain of Xen may ask for.
const MAX_EXTENT_ORDER: u32 = 9;

/// How an operation that was done to its end has ended.
pub(crate) fn ended(r: MmResult) -> Result<(), Errno> {
    r.map_err(|e| match e {
        MmError::Errno(e) => e,
        MmError::Preempted => Errno::EBUSY,
    })
}

/// Repeats the parts of an operation until it is done, and then those of `tail`.
pub(crate) fn to_the_end(mut part: impl FnMut() -> MmResult, mut tail: impl FnMut() -> MmResult) -> MmResult {
    let r = loop {
        match part() {
            Err(MmError::Preempted) => {}
            r => break r,
        }
    };
    while tail() == Err(MmError::Preempted) {}
    r
}

impl Domain {
    /// Runs an operation of the host's to its end, in as many holdings of the lock as that takes.
    fn blocking(&self, caller: Caller<'_>, mut f: impl FnMut(&mut Op<'_>) -> MmResult) -> MmResult {
        to_the_end(|| f(&mut self.op(caller)), || self.op(caller).tail())
    }

    /// Runs a part of an operation. What it has done is kept, and when it ends, what it leaves to be taken down is
    /// owed: see [`Domain::settle`].
    pub(crate) fn part(&self, caller: Caller<'_>, mut f: impl FnMut(&mut Op<'_>) -> MmResult) -> MmResult {
        for _ in 0..HOLDINGS {
            let mut op = self.op(caller);
            match f(&mut op) {
                Err(MmError::Preempted) => {}
                r => {
                    // `Preempted` is noted in `owes`.
                    let _ = op.tail();
                    return r;
                }
            }
        }
        Err(MmError::Preempted)
    }

    /// Whether tables of this domain wait to be taken down. A vCPU does that before it executes guest code, so that a
    /// guest sees the frames free that it has set free.
    pub fn owes(&self) -> bool {
        self.owes.load(Ordering::SeqCst)
    }

    /// The end of a round that begins now: when `work_done` is as much.
    pub(crate) fn round_end(&self) -> u64 {
        self.work_done() + u64::from(HOLDINGS * BUDGET)
    }

    /// How many tables were validated and taken down so far.
    pub(crate) fn work_done(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }

    /// Takes some of them down: `Preempted` when there are more.
    pub fn settle(&self, caller: Caller<'_>) -> MmResult {
        for _ in 0..HOLDINGS {
            if !self.owes() || self.op(caller).drain().is_ok() {
                return Ok(());
            }
        }
        Err(MmError::Preempted)
    }

    /// `count` zeroed frames with the allocation reference; `None`, and no frame, when there are not so many.
    pub fn alloc(&self, count: u64) -> Option<Vec<Mfn>> {
        self.take(count, FrameInfo::handed_to(self.domid))
    }

    /// 2^`order` zeroed frames in a row, aligned to their size and all below frame `below`: the first of them; `None` when
    /// there are none. `Preempted`: call it again for the search to go on.
    pub fn alloc_extent(&self, order: u32, below: Mfn) -> MmResult<Option<Mfn>> {
        let Some(size) = 1usize.checked_shl(order).filter(|_| order <= MAX_EXTENT_ORDER) else {
            return Ok(None);
        };
        let mut op = self.op(Caller::Host);
        let Some(first) = op.find_extent(size, usize::try_from(below.0).unwrap_or(usize::MAX))? else {
            return Ok(None);
        };
        let frames = first..first + size;
        for f in op.mm.info.iter_mut().skip(first).take(size) {
            *f = FrameInfo::handed_to(self.domid);
        }
        frames.for_each(|m| op.mm.free.remove(m as u64));
        if let Some(d) = op.dom_mut() {
            d.owned += size as u64;
        }
        Ok(Some(Mfn(first as u64)))
    }

    /// `count` zeroed hypervisor frames that the domain may map, also writable, but neither release nor use as tables.
    pub fn share_hypervisor_frames(&self, count: u64) -> Option<Vec<Mfn>> {
        let frames = self.take(
            count,
            FrameInfo {
                owner: self.domid,
                ty: Ty::Writable,
                state: state::XEN | state::IN_USE,
                type_count: 1,
                refs: 1,
                linear: 0,
            },
        )?;
        for m in &frames {
            self.machine.frames.set_flags(*m, flag::NO_CODE);
        }
        Some(frames)
    }

    fn take(&self, count: u64, info: FrameInfo) -> Option<Vec<Mfn>> {
        let mut op = self.op(Caller::Host);
        if self.is_dying() {
            return None;
        }
        let counted = if info.allocated() { count } else { 0 };
        let frames = op.mm.free.take(usize::try_from(count).ok()?)?;
        let frames: Vec<Mfn> = frames.into_iter().map(Mfn).collect();
        op.dom_mut()?.owned += counted;
        for m in &frames {
            if let Some(f) = op.frame_mut(*m) {
                *f = info;
            }
        }
        Some(frames)
    }

    /// Frames whose owner it is.
    pub fn frames_owned(&self) -> u64 {
        self.op(Caller::Host).dom_mut().map_or(0, |d| d.owned)
    }

    /// Drops the allocation reference (decrease_reservation), and the pin if there is one; then takes down what that
    /// leaves. `Err`: EINVAL.
    pub fn release(&self, mfn: Mfn, caller: Caller<'_>) -> Result<(), Errno> {
        self.give_back(mfn, caller)?;
        ended(self.blocking(caller, |_| Ok(())))
    }

    /// The same, leaving what is to be taken down to [`Domain::settle`].
    pub fn give_back(&self, mfn: Mfn, caller: Caller<'_>) -> Result<(), Errno> {
        let mut op = self.op(caller);
        if !op.is_allocated_to(mfn, self.domid) {
            return Err(Errno::EINVAL);
        }
        op.unpin(mfn).ok();
        if let Some(f) = op.frame_mut(mfn) {
            f.state &= !state::ALLOCATED;
        }
        op.put_page(mfn);
        Ok(())
    }

    /// Takes a reference (and a writable type reference) for a grant, a backend, or a structure the hypervisor writes.
    /// `Err`: EINVAL; EBUSY for a frame of a page table that the guest is just having taken down, which is not waited for.
    pub fn get_ref(&self, mfn: Mfn, writable: bool) -> Result<(), Errno> {
        ended(self.part(Caller::Host, |op| {
            let domid = op.domid;
            if op.dom_mut().is_none_or(|d| d.life.is_dying()) {
                return Err(EINVAL);
            }
            if writable {
                op.get_page_and_type(mfn, domid, Ty::Writable)?;
            } else {
                op.get_page(mfn, domid)?;
            }
            if let Some(d) = op.dom_mut() {
                let e = d.ext.entry(mfn.0).or_default();
                let n = if writable { &mut e.1 } else { &mut e.0 };
                *n = n.saturating_add(1);
            }
            Ok(())
        }))
    }

    /// Gives back a reference of `get_ref`; one that was never taken is ignored.
    pub fn put_ref(&self, mfn: Mfn, writable: bool) {
        let mut op = self.op(Caller::Host);
        let Some(d) = op.dom_mut() else { return };
        let Some(e) = d.ext.get_mut(&mfn.0) else { return };
        let n = if writable { &mut e.1 } else { &mut e.0 };
        if *n == 0 {
            return;
        }
        *n -= 1;
        if *e == (0, 0) {
            d.ext.remove(&mfn.0);
        }
        let gone = d.gone && d.ext.is_empty();
        if writable {
            op.put_type(mfn);
        }
        op.put_page(mfn);
        if gone {
            op.forget_domain();
        }
    }

    /// The references of `get_ref` that are not given back yet: (frame, plain ones, writable ones), in order.
    pub fn outside_refs(&self) -> Vec<(Mfn, u32, u32)> {
        let mut op = self.op(Caller::Host);
        let Some(d) = op.dom_mut() else { return Vec::new() };
        let mut refs: Vec<_> = d
            .ext
            .iter()
            .map(|(m, (plain, writable))| (Mfn(*m), *plain, *writable))
            .collect();
        refs.sort_unstable_by_key(|r| r.0 .0);
        refs
    }

    /// Sets the machine-to-phys entry of a frame of this domain.
    pub fn m2p_set(&self, mfn: Mfn, pfn: u64) -> Result<(), Errno> {
        let mut op = self.op(Caller::Host);
        let domid = op.domid;
        ended(op.m2p_update(mfn, pfn, domid))
    }

    /// The host writes this frame through its own mapping from now on: decoded code from it is never kept.
    pub fn host_mapped(&self, mfn: Mfn) {
        if self.machine.frames.set_flags(mfn, flag::NO_CODE) & flag::CODE != 0 {
            let _lock = self.machine.lock_mm(Caller::Host);
            self.machine.purge(
                Purge::Code {
                    mfn,
                    start: 0,
                    end: 4096,
                },
                Caller::Host,
            );
        }
    }

    /// As `host_mapped`, and keeps the frame an ordinary writable one until the domain is destroyed: for rings, which a
    /// guest must not turn into page tables while a backend writes them.
    pub fn hold(&self, mfn: Mfn) -> Result<(), Errno> {
        self.host_mapped(mfn);
        ended(self.blocking(Caller::Host, |op| {
            let domid = op.domid;
            let d = op.dom_mut().filter(|d| !d.life.is_dying()).ok_or(EINVAL)?;
            if d.holds.contains(&mfn) {
                return Ok(());
            }
            op.get_page_and_type(mfn, domid, Ty::Writable)?;
            if let Some(d) = op.dom_mut() {
                d.holds.insert(mfn);
            }
            Ok(())
        }))
    }

    /// Loads a base pointer, validating the table; `None` for no user base. The engine's own base is the
    /// caller's business, and must be changed in `loaded`, before the old table may die. In parts.
    pub fn set_base(
        &self,
        vcpu: u32,
        kind: BaseKind,
        mfn: Option<Mfn>,
        caller: Caller<'_>,
        mut loaded: impl FnMut(),
    ) -> MmResult {
        self.part(caller, |op| {
            op.base_kind = Some(kind);
            op.set_base(vcpu, kind, mfn, &mut loaded)
        })
    }

    /// The base pointer a vCPU has loaded.
    pub fn get_base(&self, vcpu: u32, kind: BaseKind) -> Option<Mfn> {
        self.op(Caller::Host).base(vcpu, kind)
    }

    /// HYPERVISOR_set_gdt: `mfns` hold `entries` descriptors. No frames, no GDT. In parts.
    pub fn set_gdt(&self, vcpu: u32, mfns: &[Mfn], entries: u32, caller: Caller<'_>) -> MmResult {
        if entries > FIRST_RESERVED_GDT_ENTRY || mfns.len() < entries.div_ceil(DESCRIPTORS_PER_FRAME) as usize
        {
            return Err(EINVAL);
        }
        let mfns = mfns
            .get(..entries.div_ceil(DESCRIPTORS_PER_FRAME) as usize)
            .unwrap_or(&[]);
        self.part(caller, |op| {
            let domid = op.domid;
            for (n, m) in mfns.iter().enumerate() {
                if let Err(e) = op.get_page_and_type(*m, domid, Ty::SegDesc) {
                    for m in mfns.iter().take(n) {
                        op.put_page_and_type(*m);
                    }
                    return Err(e);
                }
            }
            op.drop_descs(vcpu, 0..GDT_SLOTS);
            if let Some(d) = op.dom_mut() {
                d.descs
                    .extend(mfns.iter().enumerate().map(|(n, m)| ((vcpu, n as u8), *m)));
            }
            Ok(())
        })
    }

    /// Takes page `page` of a vCPU's LDT into use, as a descriptor page, until `ldt_clear`. In parts.
    pub fn ldt_map(&self, vcpu: u32, page: u8, mfn: Mfn, caller: Caller<'_>) -> MmResult {
        if page >= GDT_SLOTS {
            return Err(EINVAL);
        }
        self.part(caller, |op| {
            let domid = op.domid;
            op.get_page_and_type(mfn, domid, Ty::SegDesc)?;
            op.drop_descs(vcpu, GDT_SLOTS + page..GDT_SLOTS + page + 1);
            if let Some(d) = op.dom_mut() {
                d.descs.insert((vcpu, GDT_SLOTS + page), mfn);
            }
            Ok(())
        })
    }

    /// The descriptor pages of a vCPU's LDT are not in use any more (MMUEXT_SET_LDT).
    pub fn ldt_clear(&self, vcpu: u32, caller: Caller<'_>) {
        self.op(caller).drop_descs(vcpu, GDT_SLOTS..2 * GDT_SLOTS);
    }

    /// The end of the domain: drops every pin, base, descriptor table and table, and gives all frames back. Its vCPUs
    /// are stopped, and waited for. Frames that others still refer to stay, owned by nobody, until their last reference goes;
    /// returns how many.
    pub fn destroy(&self) -> u64 {
        if !self.stop_for_good() {
            return 0;
        }
        // Frames become free as the tables that map them are taken down, in any order, and one by one it takes the host five
        // times as long to have their memory back.
        self.op(Caller::Host).set_relinquishes(true);
        let mut next = 0;
        let done = self.blocking(Caller::Host, |op| op.relinquish(&mut next));
        while self.op(Caller::Host).hand_back_waiting() {}
        if done.is_err() {
            return 0;
        }
        // From here on no frame can become this domain's.
        let (mut next, mut left) = (0, 0);
        while self.op(Caller::Host).disown(&mut next, &mut left) {}
        left
    }
}

/// GDT frames of a vCPU are descriptor slots 0..16, LDT pages 16..32.
const GDT_SLOTS: u8 = 16;

impl Op<'_> {
    pub(crate) fn base(&mut self, vcpu: u32, kind: BaseKind) -> Option<Mfn> {
        self.dom_mut()?.bases.get(&(vcpu, kind)).copied()
    }

    pub(crate) fn set_base(
        &mut self,
        vcpu: u32,
        kind: BaseKind,
        mfn: Option<Mfn>,
        loaded: &mut dyn FnMut(),
    ) -> MmResult {
        let root = if self.is_32bit { Ty::L3 } else { Ty::L4 };
        let domid = self.domid;
        if self.dom_mut().is_none_or(|d| d.life.is_dying()) {
            return Err(EINVAL);
        }
        if let Some(m) = mfn {
            self.get_page_and_type(m, domid, root)?;
        }
        let old = self.dom_mut().and_then(|d| match mfn {
            Some(m) => d.bases.insert((vcpu, kind), m),
            None => d.bases.remove(&(vcpu, kind)),
        });
        loaded();
        if let Some(m) = old {
            self.put_page_and_type(m);
        }
        Ok(())
    }

    /// Looks for `size` free frames in a row, aligned, below `below`: from where the domain's last search has ended, once
    /// around. `Preempted` when that is more than one holding of the lock may look at.
    fn find_extent(&mut self, size: usize, below: usize) -> MmResult<Option<usize>> {
        let end = below.min(self.mm.info.len()) / size * size;
        let free = self.mm.free.len();
        let Some(d) = self.dom_mut().filter(|d| !d.life.is_dying()) else {
            return Ok(None);
        };
        let (mut at, before) = d.search;
        let mut looked_at = 0;
        let mut found = None;
        if free >= size {
            while found.is_none() && before + looked_at < end && looked_at < LOOKED_AT {
                at = if at >= end {
                    0
                } else {
                    at.next_multiple_of(size) % end
                };
                let chunk = self.mm.info.get(at..at + size);
                let wait = Mfn(at as u64)..Mfn((at + size) as u64);
                found = chunk
                    .is_some_and(|c| c.iter().all(|f| *f == FrameInfo::FREE))
                    .then_some(at)
                    .filter(|_| self.mm.waiting.range(wait).next().is_none());
                at += size;
                looked_at += size;
            }
        }
        let more = found.is_none() && free >= size && before + looked_at < end;
        if let Some(d) = self.dom_mut() {
            d.search = (at, if more { before + looked_at } else { 0 });
        }
        if more {
            return Err(MmError::Preempted);
        }
        Ok(found)
    }

    fn forget_domain(&mut self) {
        let domid = usize::from(self.domid);
        if let Some(slot) = self.mm.domains.get_mut(domid) {
            *slot = None;
        }
    }

    fn drop_descs(&mut self, vcpu: u32, slots: std::ops::Range<u8>) {
        for slot in slots {
            if let Some(m) = self.dom_mut().and_then(|d| d.descs.remove(&(vcpu, slot))) {
                self.put_page_and_type(m);
            }
        }
    }

    pub(crate) fn pin(&mut self, mfn: Mfn, ty: Ty) -> MmResult {
        let domid = self.domid;
        self.get_page_and_type(mfn, domid, ty)?;
        match self.frame_mut(mfn) {
            Some(f) if !f.pinned() => {
                f.state |= state::PINNED;
                Ok(())
            }
            _ => {
                self.put_page_and_type(mfn);
                Err(EINVAL)
            }
        }
    }

    pub(crate) fn unpin(&mut self, mfn: Mfn) -> MmResult {
        let domid = self.domid;
        match self.frame_mut(mfn) {
            Some(f) if f.owner == domid && f.pinned() => f.state &= !state::PINNED,
            _ => return Err(EINVAL),
        }
        self.put_page_and_type(mfn);
        Ok(())
    }

    pub(crate) fn m2p_update(&mut self, mfn: Mfn, pfn: u64, owner: u16) -> MmResult {
        self.get_page(mfn, owner)?;
        self.machine.m2p_store(mfn, pfn);
        self.put_page(mfn);
        Ok(())
    }

    /// Everything a dying domain holds, in steps: bases and descriptor tables, then frame by frame from `*next` on.
    fn relinquish(&mut self, next: &mut usize) -> MmResult {
        let d = self.dom_mut().ok_or(EINVAL)?;
        for (_, mut held) in std::mem::take(&mut d.held) {
            d.let_go.append(&mut held.tables);
        }
        let bases = std::mem::take(&mut d.bases);
        let descs = std::mem::take(&mut d.descs);
        let holds = std::mem::take(&mut d.holds);
        for m in bases.into_values().chain(descs.into_values()).chain(holds) {
            self.put_page_and_type(m);
        }
        self.tail()?;
        let end = next.saturating_add(LOOKED_AT);
        while *next < self.mm.info.len() {
            if self.mm.to_free.len() >= FREES || *next >= end {
                return Err(MmError::Preempted);
            }
            let mfn = Mfn(*next as u64);
            let Some(f) = self.mm.info.get_mut(*next).filter(|f| f.owner == self.domid) else {
                *next += 1;
                continue;
            };
            let was = f.state;
            f.state &= !(state::ALLOCATED | state::PINNED | state::XEN);
            *next += 1;
            if was & state::PINNED != 0 {
                self.put_page_and_type(mfn);
            }
            if was & state::XEN != 0 {
                // It is an ordinary frame for the rest of its life, and counts as one.
                if let Some(d) = self.dom_mut() {
                    d.owned += 1;
                }
                self.put_page_and_type(mfn);
            }
            if was & state::ALLOCATED != 0 {
                self.put_page(mfn);
            }
        }
        self.tail()
    }

    /// The frames from `*next` on that a relinquished domain still has are nobody's; false when that was the last of
    /// them.
    fn disown(&mut self, next: &mut usize, left: &mut u64) -> bool {
        let domid = self.domid;
        let frames = self.mm.info.iter_mut().skip(*next).take(LOOKED_AT);
        let mut found = 0;
        for f in frames.filter(|f| f.owner == domid && f.refs > 0) {
            f.owner = NO_OWNER;
            found += 1;
        }
        if let Some(d) = self.dom_mut() {
            d.owned = d.owned.saturating_sub(found);
        }
        *left += found;
        *next += LOOKED_AT;
        if *next < self.mm.info.len() {
            return true;
        }
        // What `get_ref` gave out is still counted: the domain's number stays taken until all of it is back.
        if let Some(d) = self.dom_mut() {
            d.gone = true;
            if d.ext.is_empty() {
                self.forget_domain();
            }
        }
        false
    }
}
