// SPDX-License-Identifier: Apache-2.0
//! HYPERVISOR_mmuext_op: pins, base pointers, TLB and cache flushes, LDT, page clearing and copying.

use super::guest_copy::array_ok;
use super::mmu_ops::{finish_batch, page_owner, settle_tail, vcpu_mask, Batch, Outcome, Owner, PvCpu, Who};
use crate::abi::hypercall::MMU_UPDATE_PREEMPTED;
use crate::abi::structs::mmuext_op as layout;
use crate::abi::Errno;
use crate::frames::Domain;
use crate::frames::{BaseKind, MmError, MmResult, Ty};
use crate::mem::{Mfn, PAGE_SIZE};
use crate::shared::Caller;

/// `struct mmuext_op`, of either width.
#[derive(Debug, Clone, Copy)]
struct ExtOp {
    cmd: u32,
    /// mfn or linear_addr
    arg1: u64,
    /// nr_ents (lower half), vcpumask or src_mfn
    arg2: u64,
}

impl ExtOp {
    fn read<C: PvCpu>(c: &mut C, va: u64, is_32bit: bool) -> Option<ExtOp> {
        let mut raw = [0u8; layout::SIZE_MAX];
        let len = layout::size(is_32bit);
        if !raw.get_mut(..len).is_some_and(|b| c.copy_in(va, b)) {
            return None;
        }
        let u32_at = |at: usize| {
            raw.get(at..at + 4)
                .and_then(|s| s.try_into().ok())
                .map_or(0, u32::from_le_bytes)
        };
        let long_at = |at: usize| match is_32bit {
            true => u64::from(u32_at(at)),
            false => u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32,
        };
        Some(ExtOp {
            cmd: u32_at(layout::CMD),
            arg1: long_at(layout::arg1(is_32bit)),
            arg2: long_at(layout::arg2(is_32bit)),
        })
    }
}

fn err(e: Errno) -> MmError {
    MmError::Errno(e)
}

/// The whole hypercall; arguments as the guest gave them.
pub(crate) fn mmuext_op<C: PvCpu>(
    c: &mut C,
    op_va: u64,
    count: u32,
    done_va: u64,
    foreigndom: u32,
) -> Outcome {
    let d = c.domain().clone();
    let size = layout::size(d.is_32bit) as u64;
    if !array_ok(op_va, count & !MMU_UPDATE_PREEMPTED, size, d.is_32bit) {
        return Batch::failed(Errno::EFAULT);
    }
    match page_owner(&d, foreigndom as u16) {
        // Xen's layer for 32-bit guests hands over what there is, piece by piece: of nothing it asks nothing.
        _ if d.is_32bit && count == 0 => {}
        Ok(Owner::Own) => {}
        Ok(_) => return Batch::failed(Errno::EPERM),
        Err(e) => return Batch::failed(e),
    }
    let mut b = Batch::new(c, op_va, count, done_va);
    let mut first = true;
    while b.next < b.count {
        if !std::mem::take(&mut first) && c.gives_way() {
            b.rc = Err(MmError::Preempted);
            break;
        }
        let va = b.req_va.wrapping_add(u64::from(b.next) * size);
        let Some(op) = ExtOp::read(c, va, d.is_32bit) else {
            b.rc = Err(err(Errno::EFAULT));
            break;
        };
        b.rc = loop {
            match one_op(c, &d, op) {
                // The lock was let go in between: others had their turn. Go on at once if nobody waits for this vCPU.
                Err(MmError::Preempted) if !c.gives_way() => continue,
                r => break r,
            }
        };
        if b.rc.is_ok() {
            b.next += 1;
        }
        if b.rc != Err(MmError::Preempted) {
            // Whatever came of it, what it held in advance or let die is seen to.
            let tail = settle_tail(c, &d);
            b.rc = b.rc.and(tail);
        }
        if b.rc.is_err() {
            break;
        }
    }
    if b.count == 0 {
        b.rc = settle_tail(c, &d);
    }
    finish_batch(c, b, size)
}

/// One operation. `Preempted`: call again with the same operation.
fn one_op<C: PvCpu>(c: &mut C, d: &Domain, op: ExtOp) -> MmResult {
    use crate::abi::hypercall::mmuext::*;
    let me = c.shared().clone();
    match op.cmd {
        PIN_L1_TABLE..=PIN_L4_TABLE => {
            if d.is_32bit && op.cmd == PIN_L4_TABLE {
                // A level that it does not have.
                return Ok(());
            }
            d.op(Caller::Vcpu(&me))
                .pin(Mfn(op.arg1), Ty::table(op.cmd as u8 + 1))
        }
        UNPIN_TABLE => d.op(Caller::Vcpu(&me)).unpin(Mfn(op.arg1)),
        NEW_BASEPTR => new_base(c, d, BaseKind::Kernel, Some(Mfn(op.arg1))),
        NEW_USER_BASEPTR if d.is_32bit => Err(err(Errno::EINVAL)),
        NEW_USER_BASEPTR => new_base(c, d, BaseKind::User, (op.arg1 != 0).then_some(Mfn(op.arg1))),
        TLB_FLUSH_LOCAL => {
            c.flush_tlb(Who::Local);
            Ok(())
        }
        INVLPG_LOCAL => {
            c.invlpg(op.arg1, Who::Local);
            Ok(())
        }
        TLB_FLUSH_MULTI | INVLPG_MULTI => {
            let mask = vcpu_mask(c, op.arg2).ok_or(err(Errno::EINVAL))?;
            if op.cmd == TLB_FLUSH_MULTI {
                c.flush_tlb(Who::Mask(mask));
            } else {
                c.invlpg(op.arg1, Who::Mask(mask));
            }
            Ok(())
        }
        TLB_FLUSH_ALL => {
            c.flush_tlb(Who::All);
            Ok(())
        }
        INVLPG_ALL => {
            c.invlpg(op.arg1, Who::All);
            Ok(())
        }
        // Only a domain with devices may flush caches.
        FLUSH_CACHE => Err(err(Errno::EACCES)),
        FLUSH_CACHE_GLOBAL => Err(err(Errno::EINVAL)),
        SET_LDT => set_ldt(c, op),
        CLEAR_PAGE => {
            let mut mm = d.op(Caller::Vcpu(&me));
            let to = Mfn(op.arg1);
            mm.with_type(to, Ty::Writable, |mm| {
                mm.store(to.maddr(), &[0; PAGE_SIZE as usize])
            })
        }
        COPY_PAGE => {
            let mut mm = d.op(Caller::Vcpu(&me));
            let (to, from) = (Mfn(op.arg1), Mfn(op.arg2));
            let own = |f: &&crate::frames::FrameInfo| f.owner == d.domid && f.refs > 0;
            mm.mm().info(from).filter(own).ok_or(err(Errno::EINVAL))?;
            let mut page = [0; PAGE_SIZE as usize];
            d.machine.mem.read(from.maddr(), &mut page);
            mm.with_type(to, Ty::Writable, |mm| mm.store(to.maddr(), &page))
        }
        MARK_SUPER | UNMARK_SUPER => Err(err(Errno::EOPNOTSUPP)),
        _ => Err(err(Errno::ENOSYS)),
    }
}

fn new_base<C: PvCpu>(c: &mut C, d: &Domain, kind: BaseKind, mfn: Option<Mfn>) -> MmResult {
    let (me, id) = (c.shared().clone(), c.vcpu_id());
    let mut op = d.op(Caller::Vcpu(&me));
    op.set_base(id, kind, mfn, &mut || c.load_base(kind, mfn))
}

fn set_ldt<C: PvCpu>(c: &mut C, op: ExtOp) -> MmResult {
    let entries = op.arg2 as u32;
    let va = if entries == 0 { 0 } else { op.arg1 };
    c.set_ldt(va, entries).map_err(err)
}
