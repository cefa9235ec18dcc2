//! Copies between the hypervisor and the guest's address space, descriptor tables.

use super::{Vcpu, HYPERVISOR_VIRT_END};
use crate::cpu::segment::DescTable;
use crate::mem::Mfn;
use crate::mmu::walk::M2P_COMPAT_VA;
use std::sync::atomic::Ordering;

/// End of the lower canonical half.
const LOW_END: u64 = 1 << 47;
const EINVAL: i64 = -22;

/// A guest address that is not mapped, or not so: -EFAULT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Efault;

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
        self.as_in_guest(|v| v.cpu.read_bytes(va, buf).map_err(|_| Efault))
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
        self.as_in_guest(|v| v.cpu.write_bytes(va, data).map_err(|_| Efault))
    }

    /// Does something through the software TLB: first forgets what others asked to forget, and counts as running the
    /// guest meanwhile, so that nobody frees a frame or makes it a page table under it.
    fn as_in_guest(&mut self, f: impl FnOnce(&mut Self) -> Result<(), Efault>) -> Result<(), Efault> {
        let shared = self.cpu.shared.clone();
        let was = shared.in_guest.swap(true, Ordering::SeqCst);
        self.cpu.apply_purges();
        let table_stores = std::mem::replace(&mut self.cpu.table_stores, false);
        let r = if self.cpu.domain.dying.load(Ordering::SeqCst) {
            Err(Efault)
        } else {
            // The hypervisor reaches what is a 32-bit guest kernel's, whoever runs.
            let cpl = self.cpu.cpl;
            self.cpu.set_cpl(1);
            self.cpu.table_stores = false;
            let r = f(self);
            self.cpu.set_cpl(cpl);
            r
        };
        self.cpu.table_stores = table_stores;
        shared.in_guest.store(was, Ordering::SeqCst);
        r
    }

    /// Machine address behind a guest virtual address, without side effects.
    pub fn translate(&self, va: u64) -> Option<u64> {
        const P: u64 = 1;
        let base = self.base(self.guest_kernel())?;
        let mem = &self.cpu.domain.machine.mem;
        let steps = crate::mmu::walk::inspect(mem, base, va, self.is_32bit());
        let &(level, _, _, entry) = steps.last()?;
        (level == 1 && entry & P != 0).then_some((entry & 0x000f_ffff_ffff_f000) | (va & 0xfff))
    }
}

/// LDT pages that can be mapped (64 KiB of descriptors are 16 pages).
const LDT_ENTRIES_MAX: u32 = 8192;

impl Vcpu {
    /// MMUEXT_SET_LDT: `entries` descriptors at `va`, which must be page-aligned. 0 or -EINVAL.
    ///
    /// Pages that are not (yet) fit to be descriptor pages are left out: selectors into them raise #GP.
    pub fn set_ldt(&mut self, va: u64, entries: u32) -> i64 {
        if entries > LDT_ENTRIES_MAX
            || va & 0xfff != 0
            || !access_ok(va, u64::from(entries) * 8, self.is_32bit())
        {
            return EINVAL;
        }
        let (domain, shared) = (self.cpu.domain.clone(), self.cpu.shared.clone());
        domain.ldt_clear(self.id, Some(&shared));
        let mut table = DescTable {
            entries,
            ..DescTable::default()
        };
        for (page, slot) in table
            .frames
            .iter_mut()
            .enumerate()
            .take(entries.div_ceil(512) as usize)
        {
            let Some(maddr) = self.translate(va + (page as u64) * 4096) else {
                continue;
            };
            let mfn = Mfn(maddr >> 12);
            if domain.ldt_map(self.id, page as u8, mfn, Some(&shared)) == 0 {
                *slot = Some(mfn);
            }
        }
        self.cpu.desc.ldt = table;
        0
    }
}
