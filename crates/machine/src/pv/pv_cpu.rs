// SPDX-License-Identifier: Apache-2.0
//! The vCPU as the page-table hypercalls see it.

use super::hypercall::Answer;
use super::mmu_ops::{self, Outcome, PvCpu, Who};
use super::{mmuext, Vcpu};
use crate::abi::hypercall::MMU_UPDATE_PREEMPTED;
use crate::abi::structs::{mmu_update, mmuext_op};
use crate::abi::x86::mxcsr;
use crate::abi::Errno;
use crate::cpu::segment::DescTable;
use crate::frames::Domain;
use crate::frames::{ended, to_the_end, BaseKind, GrantAddress, MmResult};
use crate::mem::Mfn;
use crate::shared::{Caller, Purge, VcpuShared};
use std::sync::Arc;

impl PvCpu for Vcpu {
    fn domain(&self) -> &Arc<Domain> {
        &self.cpu.domain
    }

    fn shared(&self) -> &Arc<VcpuShared> {
        &self.cpu.shared
    }

    fn vcpu_id(&self) -> u32 {
        self.id
    }

    fn copy_in(&mut self, va: u64, buf: &mut [u8]) -> bool {
        Vcpu::copy_in(self, va, buf).is_ok()
    }

    fn copy_out(&mut self, va: u64, buf: &[u8]) -> bool {
        Vcpu::copy_out(self, va, buf).is_ok()
    }

    fn gives_way(&self) -> bool {
        let over = |end| self.cpu.domain.work_done() >= end;
        self.round_end.is_some_and(over) || self.cpu.shared.is_wanted()
    }

    fn load_base(&mut self, kind: BaseKind, mfn: Option<Mfn>) {
        Vcpu::load_base(self, kind == BaseKind::Kernel, mfn);
        // A CR3 load flushes everything; the view of the mode that is not running included.
        for m in [self.base(true), self.base(false)].into_iter().flatten() {
            self.cpu.refresh_view(m);
        }
    }

    fn flush_tlb(&mut self, who: Who) {
        if self.is_meant(who) {
            // Views of other page tables are flushed when these are loaded. If no entry has changed, nothing is stale.
            for m in [self.base(true), self.base(false)].into_iter().flatten() {
                self.cpu.refresh_view(m);
            }
        }
        self.flush_others(who, Purge::Stale);
    }

    fn invlpg(&mut self, va: u64, who: Who) {
        if self.is_meant(who) {
            self.cpu.invlpg(va);
        }
        self.flush_others(who, Purge::Page(va));
    }

    fn set_ldt(&mut self, va: u64, entries: u32) -> Result<(), Errno> {
        Vcpu::set_ldt(self, va, entries)
    }
}

impl Vcpu {
    fn is_meant(&self, who: Who) -> bool {
        match who {
            Who::Local | Who::All => true,
            Who::Mask(m) => self.id < 64 && m >> self.id & 1 != 0,
        }
    }

    fn flush_others(&mut self, who: Who, p: Purge) {
        let mask = match who {
            Who::Local => return,
            Who::Mask(m) => m,
            Who::All => u64::MAX,
        };
        let (domain, shared) = (self.cpu.domain.clone(), self.cpu.shared.clone());
        domain.purge_vcpus(mask, p, Caller::Vcpu(&shared));
        self.cpu.apply_purges();
    }

    /// HYPERVISOR_mmu_update, to its end.
    pub fn mmu_update(
        &mut self,
        req_va: u64,
        count: u32,
        done_va: u64,
        foreigndom: u32,
    ) -> Result<(), Errno> {
        whole_batch(req_va, count, |va, n| {
            mmu_ops::mmu_update(self, va, n, done_va, foreigndom)
        })
    }

    /// HYPERVISOR_mmuext_op, to its end.
    pub fn mmuext_op(&mut self, op_va: u64, count: u32, done_va: u64, foreigndom: u32) -> Result<(), Errno> {
        whole_batch(op_va, count, |va, n| {
            mmuext::mmuext_op(self, va, n, done_va, foreigndom)
        })
    }

    /// HYPERVISOR_mmu_update, or a bounded part of it: callers hold a lock that others wait for.
    pub fn mmu_update_part(&mut self, req_va: u64, count: u32, done_va: u64, foreigndom: u32) -> Outcome {
        self.round_end = Some(self.cpu.domain.round_end());
        let outcome = bounded(req_va, count, mmu_update::SIZE as u64, |va, n| {
            mmu_ops::mmu_update(self, va, n, done_va, foreigndom)
        });
        self.round_end = None;
        self.cpu.apply_purges();
        outcome
    }

    /// HYPERVISOR_mmuext_op, or a bounded part of it.
    pub fn mmuext_op_part(&mut self, op_va: u64, count: u32, done_va: u64, foreigndom: u32) -> Outcome {
        let size = mmuext_op::size(self.cpu.domain.is_32bit) as u64;
        self.round_end = Some(self.cpu.domain.round_end());
        let outcome = bounded(op_va, count, size, |va, n| {
            mmuext::mmuext_op(self, va, n, done_va, foreigndom)
        });
        self.round_end = None;
        self.cpu.apply_purges();
        outcome
    }

    /// The same two as a guest's hypercall.
    pub(super) fn mmu_hypercall(&mut self, ext: bool, args: [u64; 6]) -> Answer {
        let [va, count, done_va, foreigndom, ..] = args;
        let outcome = if ext {
            mmuext::mmuext_op(self, va, count as u32, done_va, foreigndom as u32)
        } else {
            mmu_ops::mmu_update(self, va, count as u32, done_va, foreigndom as u32)
        };
        self.cpu.apply_purges();
        match outcome {
            Outcome::Done(done) => Answer::Done(done),
            Outcome::Continue { req_va, count } => Answer::AgainWith(0, [req_va, u64::from(count)]),
        }
    }

    /// HYPERVISOR_update_va_mapping and, with `domid`, its _otherdomain form. `Preempted`: to be made again.
    pub fn update_va_mapping(&mut self, va: u64, value: u64, flags: u64, domid: Option<u16>) -> MmResult {
        let done = mmu_ops::update_va_mapping(self, va, value, flags, domid);
        self.cpu.apply_purges();
        done
    }

    /// Loads an fxsave image; one that `fxrstor` would refuse leaves the FPU as after reset. The upper halves of the ymm
    /// registers, which it does not hold, become zero.
    pub fn load_fpu(&mut self, image: &[u8; 512]) {
        self.cpu.fpu.ymm_hi = [0; 16];
        let wide = !self.cpu.domain.is_32bit;
        if crate::cpu::exec::x87::load_image(&mut self.cpu, image, wide).is_err() {
            self.cpu.fpu.x87 = crate::cpu::x87state::X87::default();
            self.cpu.fpu.mxcsr = mxcsr::INITIAL;
        }
    }

    /// The fxsave image that `load_fpu` takes.
    pub fn save_fpu(&self) -> [u8; 512] {
        crate::cpu::exec::x87::save_image(&self.cpu, !self.cpu.domain.is_32bit)
    }

    /// The upper halves of the ymm registers, which `load_fpu` makes zero.
    pub fn upper_vectors(&self) -> [u8; 256] {
        let mut image = [0; 256];
        for (bytes, half) in image.chunks_exact_mut(16).zip(self.cpu.fpu.ymm_hi) {
            bytes.copy_from_slice(&half.to_le_bytes());
        }
        image
    }

    /// Loads what `upper_vectors` gave.
    pub fn set_upper_vectors(&mut self, image: &[u8; 256]) {
        for (half, bytes) in self.cpu.fpu.ymm_hi.iter_mut().zip(image.chunks_exact(16)) {
            *half = <[u8; 16]>::try_from(bytes).map_or(0, u128::from_le_bytes);
        }
    }

    /// HYPERVISOR_update_descriptor. `Preempted`: to be made again.
    pub fn update_descriptor(&mut self, maddr: u64, descriptor: u64) -> MmResult {
        mmu_ops::update_descriptor(self, maddr, descriptor)
    }

    /// Maps a granted frame.
    pub fn grant_map(&mut self, at: GrantAddress, mfn: Mfn, owner: u16, bits: u64) -> Result<(), Errno> {
        let (domain, shared) = (self.cpu.domain.clone(), self.cpu.shared.clone());
        domain.grant_map(self.id, at, mfn, owner, bits, Caller::Vcpu(&shared))
    }

    /// Unmaps a granted frame, and flushes its address here.
    pub fn grant_unmap(
        &mut self,
        at: GrantAddress,
        mfn: Mfn,
        writable: bool,
        replace: Option<u64>,
    ) -> Result<(), Errno> {
        let (domain, shared) = (self.cpu.domain.clone(), self.cpu.shared.clone());
        let done = domain.grant_unmap(self.id, at, mfn, writable, replace, Caller::Vcpu(&shared));
        for va in [GrantAddress::Linear(replace.unwrap_or(0)), at] {
            if let GrantAddress::Linear(va) = va {
                self.cpu.invlpg(va);
            }
        }
        done
    }

    /// Loads a base pointer, validated. Frame 0 as user base: none.
    pub fn new_base(&mut self, kernel: bool, mfn: Mfn) -> Result<(), Errno> {
        let domain = self.cpu.domain.clone();
        ended(to_the_end(
            || self.new_base_part(kernel, mfn),
            || domain.settle(Caller::Host),
        ))
    }

    /// A part of it. `Preempted`: to be called again.
    pub fn new_base_part(&mut self, kernel: bool, mfn: Mfn) -> MmResult {
        let kind = if kernel { BaseKind::Kernel } else { BaseKind::User };
        let mfn = (kernel || mfn.0 != 0).then_some(mfn);
        let (domain, shared, id) = (self.cpu.domain.clone(), self.cpu.shared.clone(), self.id);
        domain.set_base(id, kind, mfn, Caller::Vcpu(&shared), || {
            PvCpu::load_base(self, kind, mfn)
        })
    }

    /// HYPERVISOR_set_gdt, with the frame list copied in. `Preempted`: to be called again.
    pub fn set_gdt(&mut self, mfns: &[Mfn], entries: u32) -> MmResult {
        let (domain, shared) = (self.cpu.domain.clone(), self.cpu.shared.clone());
        let done = domain.set_gdt(self.id, mfns, entries, Caller::Vcpu(&shared));
        if done.is_ok() {
            let mut table = DescTable {
                entries,
                ..DescTable::default()
            };
            for (slot, mfn) in table.frames.iter_mut().zip(mfns) {
                *slot = Some(*mfn);
            }
            self.cpu.seg.tables.gdt = table;
        }
        done
    }

    /// The frames of the GDT and how many entries of it may be used, as `set_gdt` has them.
    pub fn gdt(&self) -> (Vec<Mfn>, u32) {
        let table = &self.cpu.seg.tables.gdt;
        (
            table.frames.iter().map_while(|frame| *frame).collect(),
            table.entries,
        )
    }

    /// The address of the LDT and its entries, as `set_ldt` has them.
    pub fn ldt(&self) -> (u64, u32) {
        (self.ldt_base, self.cpu.seg.tables.ldt.entries)
    }
}

/// Repeats a preemptible batch until it is done.
fn whole_batch(mut va: u64, mut count: u32, mut call: impl FnMut(u64, u32) -> Outcome) -> Result<(), Errno> {
    loop {
        match call(va, count) {
            Outcome::Done(done) => return done,
            Outcome::Continue { req_va, count: n } => (va, count) = (req_va, n),
        }
    }
}

/// Requests of one batch that are handled in a row while others wait.
const BATCH: u32 = 256;

/// Makes the first `BATCH` requests of a call, and says how to go on.
fn bounded(va: u64, count: u32, size: u64, call: impl FnOnce(u64, u32) -> Outcome) -> Outcome {
    let flag = count & MMU_UPDATE_PREEMPTED;
    let all = count & !MMU_UPDATE_PREEMPTED;
    let now = all.min(BATCH);
    let later = all - now;
    match call(va, now | flag) {
        Outcome::Done(Ok(())) if later > 0 => Outcome::Continue {
            req_va: va.wrapping_add(u64::from(now) * size),
            count: later | MMU_UPDATE_PREEMPTED,
        },
        Outcome::Continue { req_va, count } => Outcome::Continue {
            req_va,
            count: (count & !MMU_UPDATE_PREEMPTED).saturating_add(later) | MMU_UPDATE_PREEMPTED,
        },
        done => done,
    }
}
