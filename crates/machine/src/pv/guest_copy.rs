// SPDX-License-Identifier: Apache-2.0
//! Copies between the hypervisor and the guest's address space, descriptor tables.

use super::Vcpu;
use crate::abi::layout::{HYPERVISOR_VIRT_END, LDT_ENTRIES_MAX, LOW_END, M2P_COMPAT_VA};
use crate::abi::x86::error_code;
use crate::abi::{pte, selector, Errno};
use crate::cpu::fault::{vector, Fault};
use crate::cpu::segment::{DescTable, Descriptor};
use crate::frames::{MmError, MmResult};
use crate::mem::{Mfn, PAGE_SIZE};
use crate::shared::Caller;

/// A guest address that is not mapped, or not so: -EFAULT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Efault;

/// Where a 64-bit guest's range may begin, which is all that Xen asks of some: canonical, and not in the hypervisor's part.
pub(super) fn address_ok(va: u64) -> bool {
    !(LOW_END..HYPERVISOR_VIRT_END).contains(&va)
}

/// Xen's `guest_handle_okay`, the first of all checks: where an array may begin. A 64-bit guest's may reach into what is
/// not the guest's (its copies fail there); a 32-bit guest's, of any elements, ends below Xen's window.
pub(super) fn array_ok(va: u64, count: u32, size: u64, is_32bit: bool) -> bool {
    match is_32bit {
        true => va + (u64::from(count) * size).saturating_sub(1) < M2P_COMPAT_VA,
        false => address_ok(va),
    }
}

/// A range that a guest may name: canonical, and not in the hypervisor's part (Xen's `access_ok`).
pub(super) fn access_ok(va: u64, len: u64, is_32bit: bool) -> bool {
    if is_32bit {
        return va.checked_add(len).is_some_and(|end| end <= M2P_COMPAT_VA);
    }
    match va.checked_add(len) {
        Some(end) => end <= LOW_END || va >= HYPERVISOR_VIRT_END,
        None => va >= HYPERVISOR_VIRT_END && va.wrapping_add(len) == 0,
    }
}

impl Vcpu {
    /// copy_from_guest, as the running mode sees memory. `Err`: -EFAULT.
    // There is one reason: not mapped.
    pub fn copy_in(&mut self, va: u64, buf: &mut [u8]) -> Result<(), Efault> {
        if buf.is_empty() {
            return Ok(());
        }
        if !access_ok(va, buf.len() as u64, self.is_32bit()) {
            return Err(Efault);
        }
        self.as_in_guest(|v| v.cpu.flat(|cpu| cpu.read_bytes(va, buf)).map_err(|_| Efault))
    }

    /// copy_to_guest. `Err`: -EFAULT; a copy over more than two pages may then be partly done.
    // There is one reason: not mapped.
    pub fn copy_out(&mut self, va: u64, data: &[u8]) -> Result<(), Efault> {
        if data.is_empty() {
            return Ok(());
        }
        if !access_ok(va, data.len() as u64, self.is_32bit()) {
            return Err(Efault);
        }
        self.as_in_guest(|v| v.cpu.flat(|cpu| cpu.write_bytes(va, data)).map_err(|_| Efault))
    }

    /// Does something through the software TLB: first forgets what others asked to forget, and counts as running the
    /// guest meanwhile, so that nobody frees a frame or makes it a page table under it.
    pub(super) fn as_in_guest(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<(), Efault>,
    ) -> Result<(), Efault> {
        let shared = self.cpu.shared.clone();
        let _in_guest = shared.enter();
        self.cpu.apply_purges();
        let table_stores = std::mem::replace(&mut self.cpu.access.table_stores, false);
        let r = if self.cpu.domain.is_dying() {
            Err(Efault)
        } else {
            // The hypervisor reaches what is a 32-bit guest kernel's, whoever runs.
            let cpl = self.cpu.cpl;
            self.cpu.set_cpl(1);
            self.cpu.access.table_stores = false;
            let r = f(self);
            self.cpu.set_cpl(cpl);
            r
        };
        self.cpu.access.table_stores = table_stores;
        r
    }

    /// Machine address behind a guest virtual address, without side effects.
    pub fn translate(&self, va: u64) -> Option<u64> {
        self.translate_at(self.base(self.guest_kernel())?, va)
    }

    fn translate_kernel(&self, va: u64) -> Option<u64> {
        self.translate_at(self.base(true)?, va)
    }

    fn translate_at(&self, base: Mfn, va: u64) -> Option<u64> {
        let mem = &self.cpu.domain.machine.mem;
        let steps = crate::mmu::walk::inspect(mem, base, va, self.is_32bit());
        let &(level, _, _, entry) = steps.last()?;
        (level == 1 && pte::present(entry)).then_some((entry & pte::ADDR) | (va & 0xfff))
    }
}

impl Vcpu {
    /// MMUEXT_SET_LDT: `entries` descriptors at `va`, which must be page-aligned. `Err`: EINVAL.
    ///
    /// As Xen does, this asks where the table begins and not where it ends: what it may not reach is never mapped. A page of it becomes a descriptor page when a selector into it is first used (`Vcpu::ldt_fault`).
    pub fn set_ldt(&mut self, va: u64, entries: u32) -> Result<(), Errno> {
        if entries > LDT_ENTRIES_MAX || va & (PAGE_SIZE - 1) != 0 || !address_ok(va) {
            return Err(Errno::EINVAL);
        }
        if (va, entries) == (self.ldt_base, self.cpu.seg.tables.ldt.entries) {
            return Ok(());
        }
        let (domain, shared) = (self.cpu.domain.clone(), self.cpu.shared.clone());
        self.cpu.seg.tables.ldt = DescTable {
            entries,
            ..DescTable::default()
        };
        self.ldt_base = va;
        domain.ldt_clear(self.id, Caller::Vcpu(&shared));
        self.cpu.apply_purges();
        Ok(())
    }

    /// What becomes of a fault that names a selector: one into an LDT page that was not used before is taken back when
    /// the page can be had (`None`: try again), and else the page fault that the processor would see.
    pub(super) fn ldt_fault(&mut self, f: Fault) -> Option<Fault> {
        const EXT_OR_IDT: u32 = error_code::EXT | error_code::IDT;
        let selector = match (f.vector, f.error_code) {
            (vector::GP | vector::NP | vector::SS | vector::TS, Some(e)) if e & EXT_OR_IDT == 0 => e as u16,
            _ => return Some(f),
        };
        if !self.ldt_page_is_absent(selector) {
            return Some(f);
        }
        match self.map_ldt_page(selector) {
            // Preempted: the instruction comes here again, after what this vCPU is wanted for.
            Ok(()) | Err(MmError::Preempted) => return None,
            Err(MmError::Errno(_)) => {}
        }
        let va = self.ldt_base.wrapping_add(selector::offset(selector));
        Some(Fault::pf(va, 0))
    }

    /// The descriptor of a selector, for the hypervisor's own checks: takes LDT pages into use.
    pub(super) fn descriptor(&mut self, selector: u16) -> Option<Descriptor> {
        if self.ldt_page_is_absent(selector) {
            // Without it the selector is one that cannot be loaded.
            let _ = self.map_ldt_page(selector);
        }
        self.cpu.descriptor(selector)
    }

    fn ldt_page_is_absent(&self, selector: u16) -> bool {
        let ldt = &self.cpu.seg.tables.ldt;
        let frame = ldt.frames.get(usize::from(selector >> 12));
        selector & selector::TI != 0 && selector::index(selector) < ldt.entries && frame == Some(&None)
    }

    fn map_ldt_page(&mut self, selector: u16) -> MmResult {
        let page = selector >> 12;
        let va = self.ldt_base.wrapping_add(u64::from(page) * PAGE_SIZE);
        // The hypervisor's part, or what is no address: the guest has no pages there.
        if !access_ok(va, PAGE_SIZE, self.is_32bit()) {
            return Err(MmError::Errno(Errno::EFAULT));
        }
        let Some(maddr) = self.translate_kernel(va) else {
            return Err(MmError::Errno(Errno::EFAULT));
        };
        let (domain, shared) = (self.cpu.domain.clone(), self.cpu.shared.clone());
        let mfn = Mfn(maddr >> 12);
        let mapped = domain.ldt_map(self.id, page as u8, mfn, Caller::Vcpu(&shared));
        self.cpu.apply_purges();
        if let Some(slot) = self.cpu.seg.tables.ldt.frames.get_mut(usize::from(page)) {
            *slot = mapped.is_ok().then_some(mfn);
        }
        mapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_of_nothing_begins_where_one_of_something_may() {
        for count in [0, 1] {
            assert!(array_ok(M2P_COMPAT_VA - 8, count, 8, true));
            assert!(!array_ok(M2P_COMPAT_VA, count, 8, true));
            assert!(array_ok(LOW_END - 8, count, 8, false));
            assert!(!array_ok(LOW_END, count, 8, false));
        }
        assert!(!array_ok(M2P_COMPAT_VA - 8, 2, 8, true));
        assert!(array_ok(LOW_END - 8, 2, 8, false), "its copies fail instead");
    }
}
