// SPDX-License-Identifier: Apache-2.0
//! Page-table hypercalls: mmu_update, update_va_mapping, update_descriptor. (mmuext_op is in `mmuext`.)
//!
//! Interface and error numbers: `xen.h`. Batches are cut into pieces, each a short holding of the memory lock; between
//! pieces pending events and stop requests are looked at, and the call may ask to be continued.

use super::guest_copy::array_ok;
use crate::abi::hypercall::{mmu, uvmf, MMU_UPDATE_PREEMPTED};
use crate::abi::structs::{long, mmu_update as layout};
use crate::abi::{Errno, DOMID_IO, DOMID_SELF, DOMID_XEN};
use crate::frames::{segdesc, BaseKind, MmError, MmResult, Op, Ty};
use crate::frames::{DomId, Domain};
use crate::mem::Mfn;
use crate::shared::{Caller, VcpuShared};
use std::sync::Arc;

/// How a page-table hypercall ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With this result.
    Done(Result<(), Errno>),
    /// Let the guest take its events, then make the call again with these in place of its first two arguments.
    Continue {
        /// The address of what is left of the requests.
        req_va: u64,
        /// How many are left, with MMU_UPDATE_PREEMPTED.
        count: u32,
    },
}

/// Which vCPUs a flush is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Local,
    /// Bit n: vCPU n of this domain.
    Mask(u64),
    All,
}

/// What these hypercalls need of the vCPU that makes them.
pub(crate) trait PvCpu {
    fn domain(&self) -> &Arc<Domain>;
    fn shared(&self) -> &Arc<VcpuShared>;
    fn vcpu_id(&self) -> u32;
    /// Copies from the guest kernel's address space, after applying pending purges; false where that faults.
    fn copy_in(&mut self, va: u64, buf: &mut [u8]) -> bool;
    /// Copies to the guest kernel's address space, after applying pending purges; false where that faults.
    fn copy_out(&mut self, va: u64, buf: &[u8]) -> bool;
    /// Whether a long operation gives way here: to what the vCPU is wanted for, or because its round is over.
    fn gives_way(&self) -> bool {
        self.shared().is_wanted()
    }
    /// A base pointer has changed; the engine must not use the old one after this. Called with the memory lock held.
    fn load_base(&mut self, kind: BaseKind, mfn: Option<Mfn>);
    fn flush_tlb(&mut self, who: Who);
    fn invlpg(&mut self, va: u64, who: Who);
    /// The guest's LDT is `entries` descriptors at `va` from now on. Its pages are not mapped yet.
    /// `Err`: EINVAL.
    fn set_ldt(&mut self, va: u64, entries: u32) -> Result<(), Errno>;
}

/// Whom `foreigndom` names. Nobody here has a target domain, so naming another one is refused, but not before the checks
/// that Xen makes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Own,
    /// DOMID_IO: an unprivileged domain may name it, and owns nothing of it.
    Io,
    Other,
}

/// Domain 0 exists for every guest, whoever plays it.
fn known(d: &Domain, domid: DomId) -> bool {
    domid == 0 || d.machine.domain_exists(domid)
}

pub(super) fn page_owner(d: &Domain, domid: DomId) -> Result<Owner, Errno> {
    match domid {
        DOMID_SELF => Ok(Owner::Own),
        DOMID_IO => Ok(Owner::Io),
        DOMID_XEN => Ok(Owner::Other),
        id if id == d.domid || !known(d, id) => Err(Errno::ESRCH),
        _ => Ok(Owner::Other),
    }
}

/// Requests handled with one holding of the lock, and between two looks at pending work.
const CHUNK: usize = 32;

fn err(e: Errno) -> MmError {
    MmError::Errno(e)
}

/// Finishes a batch: writes the number of completed requests, and says how the call ends.
pub(super) fn finish_batch<C: PvCpu>(c: &mut C, b: Batch, req_size: u64) -> Outcome {
    // As in Xen, a bad `done` pointer is not worth failing a call for whose effects are there already.
    if b.done_va != 0 {
        c.copy_out(b.done_va, &b.done_before.wrapping_add(b.next).to_le_bytes());
    }
    match b.rc {
        Ok(()) => Outcome::Done(Ok(())),
        Err(MmError::Errno(e)) => Outcome::Done(Err(e)),
        Err(MmError::Preempted) => Outcome::Continue {
            req_va: b.req_va.wrapping_add(u64::from(b.next) * req_size),
            count: b.count.wrapping_sub(b.next) | MMU_UPDATE_PREEMPTED,
        },
    }
}

/// The progress of a batch of requests.
pub(super) struct Batch {
    pub req_va: u64,
    pub count: u32,
    pub done_va: u64,
    /// What earlier parts of a continued call did.
    pub done_before: u32,
    /// Requests completed.
    pub next: u32,
    pub rc: MmResult,
}

impl Batch {
    pub(crate) fn new<C: PvCpu>(c: &mut C, req_va: u64, count: u32, done_va: u64) -> Batch {
        let mut done_before = 0;
        if count & MMU_UPDATE_PREEMPTED != 0 && done_va != 0 {
            let mut b = [0; 4];
            if c.copy_in(done_va, &mut b) {
                done_before = u32::from_le_bytes(b);
            }
        }
        let count = count & !MMU_UPDATE_PREEMPTED;
        Batch {
            req_va,
            count,
            done_va,
            done_before,
            next: 0,
            rc: Ok(()),
        }
    }

    pub(crate) fn failed(e: Errno) -> Outcome {
        Outcome::Done(Err(e))
    }
}

/// HYPERVISOR_mmu_update. `foreigndom` and `count` as the guest gave them.
pub(crate) fn mmu_update<C: PvCpu>(
    c: &mut C,
    req_va: u64,
    count: u32,
    done_va: u64,
    foreigndom: u32,
) -> Outcome {
    let d = c.domain().clone();
    if !array_ok(
        req_va,
        count & !MMU_UPDATE_PREEMPTED,
        layout::SIZE as u64,
        d.is_32bit,
    ) {
        return Batch::failed(Errno::EFAULT);
    }
    let table_owner = match (foreigndom >> 16) as u16 {
        0 => Owner::Own,
        n if n - 1 == d.domid => Owner::Own,
        n if known(&d, n - 1) => Owner::Other,
        _ => return Batch::failed(Errno::ESRCH),
    };
    let owner = match page_owner(&d, foreigndom as u16) {
        Ok(o) => o,
        Err(e) => return Batch::failed(e),
    };
    let mut b = Batch::new(c, req_va, count, done_va);
    let mut first = true;
    while b.next < b.count {
        if !std::mem::take(&mut first) && c.gives_way() {
            b.rc = Err(MmError::Preempted);
            break;
        }
        let n = CHUNK.min((b.count - b.next) as usize);
        let mut reqs = [0u8; CHUNK * layout::SIZE];
        let bytes = n * layout::SIZE;
        let (va, buf) = (
            b.req_va.wrapping_add(u64::from(b.next) * layout::SIZE as u64),
            reqs.get_mut(..bytes),
        );
        let whole = buf.is_some_and(|buf| c.copy_in(va, buf));
        // What lies before an unreadable request is still done, one by one.
        let n = if whole { n } else { 1 };
        if !whole && !reqs.get_mut(..layout::SIZE).is_some_and(|buf| c.copy_in(va, buf)) {
            b.rc = Err(err(Errno::EFAULT));
            break;
        }
        let me = c.shared().clone();
        let mut op = d.op(Caller::Vcpu(&me));
        for r in reqs.chunks_exact(layout::SIZE).take(n) {
            let word = |at: usize| {
                r.get(at..at + 8)
                    .and_then(|s| s.try_into().ok())
                    .map_or(0, u64::from_le_bytes)
            };
            b.rc = one_update(&mut op, word(layout::PTR), word(layout::VAL), table_owner, owner).and_then(
                |()| {
                    b.next += 1;
                    op.tail()
                },
            );
            if b.rc.is_err() {
                break;
            }
        }
        if matches!(b.rc, Err(MmError::Errno(_))) {
            // What an aborted request validated in advance is not needed any more; leftovers are nobody's loss.
            let _ = op.tail();
        }
        drop(op);
        match b.rc {
            // Time to let others have the lock. If nobody waits for this vCPU, go on at once.
            Err(MmError::Preempted) if !c.gives_way() => b.rc = Ok(()),
            Err(_) => break,
            Ok(()) => {}
        }
    }
    if b.rc.is_ok() && b.next == b.count {
        b.rc = settle_tail(c, &d);
    }
    finish_batch(c, b, layout::SIZE as u64)
}

/// Finishes what the last request left to do, in as many steps as nothing else is pending.
pub(super) fn settle_tail<C: PvCpu>(c: &mut C, d: &Domain) -> MmResult {
    let me = c.shared().clone();
    loop {
        match d.op(Caller::Vcpu(&me)).tail() {
            Err(MmError::Preempted) if !c.gives_way() => continue,
            r => return r,
        }
    }
}

fn one_update(op: &mut Op<'_>, ptr: u64, val: u64, table_owner: Owner, owner: Owner) -> MmResult {
    let (cmd, ptr) = (ptr & mmu::COMMAND, ptr & !mmu::COMMAND);
    if cmd > mmu::PT_UPDATE_NO_TRANSLATE {
        return Err(err(Errno::ENOSYS));
    }
    let foreign = owner == Owner::Other || table_owner == Owner::Other;
    let domid = op.domid;
    if cmd == mmu::MACHPHYS_UPDATE {
        if foreign {
            return Err(err(Errno::EPERM));
        }
        let owner = if owner == Owner::Own { domid } else { DOMID_IO };
        return op.m2p_update(Mfn(ptr >> 12), val, owner);
    }
    if foreign {
        return Err(err(Errno::EPERM));
    }
    let mfn = Mfn(ptr >> 12);
    let info = *op
        .mm()
        .info(mfn)
        .filter(|f| f.owner == domid && f.refs > 0)
        .ok_or(err(Errno::EINVAL))?;
    let live = info.ty.is_table() && info.type_count > 0;
    if live {
        if owner != Owner::Own && info.ty != Ty::L1 {
            return Err(err(Errno::EINVAL));
        }
        let owner = if owner == Owner::Own { domid } else { DOMID_IO };
        return op.mod_entry(
            mfn,
            (ptr & 0xfff) as usize / 8,
            val,
            cmd == mmu::PT_UPDATE_PRESERVE_AD,
            owner,
        );
    }
    // Not a table (any more): a plain store, to a frame that may be written.
    op.with_type(mfn, Ty::Writable, |op| op.store(ptr, &val.to_le_bytes()))
}

/// HYPERVISOR_update_va_mapping and, with `domid`, its _otherdomain form: a part of it. `Preempted`: make it again.
pub(crate) fn update_va_mapping<C: PvCpu>(
    c: &mut C,
    va: u64,
    value: u64,
    flags: u64,
    domid: Option<DomId>,
) -> MmResult {
    let d = c.domain().clone();
    match domid.map_or(Ok(Owner::Own), |id| page_owner(&d, id)) {
        Ok(Owner::Own) => {}
        Ok(_) => return Err(err(Errno::EPERM)),
        Err(e) => return Err(err(e)),
    }
    let (me, id) = (c.shared().clone(), c.vcpu_id());
    d.part(Caller::Vcpu(&me), |op| {
        let (table, index) = op
            .base(id, BaseKind::Kernel)
            .and_then(|root| op.find_l1(root, va))
            .ok_or(err(Errno::EINVAL))?;
        let domid = op.domid;
        op.mod_entry(table, index, value, false, domid)
    })?;
    if !matches!(flags & uvmf::FLUSHTYPE_MASK, uvmf::TLB_FLUSH | uvmf::INVLPG) {
        return Ok(());
    }
    let who = match flags & !uvmf::FLUSHTYPE_MASK {
        0 => Who::Local,
        uvmf::ALL => Who::All,
        bitmap => match vcpu_mask(c, bitmap) {
            Some(m) => Who::Mask(m),
            None => return Err(err(Errno::EFAULT)),
        },
    };
    match flags & uvmf::FLUSHTYPE_MASK {
        uvmf::TLB_FLUSH => c.flush_tlb(who),
        _ => c.invlpg(va, who),
    }
    Ok(())
}

/// A guest's bitmap of vCPUs.
pub(super) fn vcpu_mask<C: PvCpu>(c: &mut C, va: u64) -> Option<u64> {
    let mut b = [0; 8];
    let len = long(c.domain().is_32bit);
    let got = b.get_mut(..len).is_some_and(|b| c.copy_in(va, b));
    got.then(|| u64::from_le_bytes(b))
}

/// HYPERVISOR_update_descriptor: a part of it, as above.
pub(crate) fn update_descriptor<C: PvCpu>(c: &mut C, maddr: u64, descriptor: u64) -> MmResult {
    let d = c.domain().clone();
    let me = c.shared().clone();
    d.part(Caller::Vcpu(&me), |op| {
        let mfn = Mfn(maddr >> 12);
        let checked = segdesc::check(descriptor, op.is_32bit).filter(|_| maddr & 7 == 0);
        let checked = checked.ok_or(err(Errno::EINVAL))?;
        let domid = op.domid;
        let ty = op
            .mm()
            .info(mfn)
            .filter(|f| f.owner == domid && f.refs > 0)
            .map(|f| f.ty);
        let want = if ty == Some(Ty::SegDesc) {
            Ty::SegDesc
        } else {
            Ty::Writable
        };
        op.with_type(mfn, want, |op| op.store(maddr, &checked.to_le_bytes()))
    })
}
