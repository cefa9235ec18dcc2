// SPDX-License-Identifier: Apache-2.0
//! 32-bit guests: kernel in ring 1, applications in ring 3. Bounce frames and iret as 32-bit hardware has them
//! (`arch-x86/xen-x86_32.h`).

use super::guest_copy::access_ok;
use super::{BounceError, Entry, Vcpu};
use crate::abi::x86::{rflags, seg, selector};

/// Longest frame: ds es fs gs error eip cs eflags esp ss.
const WORDS_MAX: usize = 10;

impl Vcpu {
    /// Enters the guest kernel: `[ds es fs gs] [error] eip cs eflags [esp ss]` on its stack, the last two only when an
    /// application was interrupted. The saved upcall mask is in the upper half of the cs slot. Nothing changes on failure.
    pub(super) fn bounce_32(
        &mut self,
        to: Entry,
        error_code: Option<u32>,
        mask: bool,
        segments: bool,
    ) -> Result<(), BounceError> {
        let old_cpl = self.cpu.cpl;
        let cpl = selector::rpl(to.cs);
        if !self.is_code_of(to.cs, cpl) {
            return Err("the guest kernel's handler has a bad code selector");
        }
        let from_kernel = old_cpl < 3;
        let (ss, top) = if from_kernel {
            (self.cpu.seg.sel[seg::SS], self.cpu.regs[4] as u32)
        } else {
            (self.kernel_ss, self.kernel_sp as u32)
        };
        if !self.is_stack_of(ss, cpl) {
            return Err("the guest kernel has a bad stack selector");
        }
        self.cpu.set_cpl(1);
        match self.push_frame_32(from_kernel, ss, top, error_code, segments) {
            Ok(sp) => {
                self.cpu.regs[4] = u64::from(sp);
                self.cpu.rip = to.address & 0xffff_ffff;
                self.cpu.debug.resume = false;
                self.cpu.set_cpl(cpl);
                self.cpu.seg.sel[seg::CS] = to.cs;
                self.cpu.seg.sel[seg::SS] = ss;
                let drop = rflags::TF | rflags::RF | rflags::NT | rflags::VM;
                self.cpu.set_rflags((self.cpu.rflags() & !drop) | rflags::IF);
                if mask {
                    self.set_upcall_mask(true);
                }
                Ok(())
            }
            Err(why) => {
                self.cpu.set_cpl(old_cpl);
                Err(why)
            }
        }
    }

    fn push_frame_32(
        &mut self,
        from_kernel: bool,
        ss: u16,
        top: u32,
        error_code: Option<u32>,
        segments: bool,
    ) -> Result<u32, BounceError> {
        let masked = self.upcall_mask();
        let mut flags = self.cpu.rflags_pushed() as u32 & !(rflags::IF | rflags::IOPL) as u32;
        if !masked {
            flags |= rflags::IF as u32;
        }
        if self.architectural_iopl() {
            flags |= u32::from(self.iopl) << rflags::IOPL_SHIFT;
        }
        let [es, cs, old_ss, ds, fs, gs] = self.cpu.seg.sel.map(u32::from);
        let segment = |sel: u32| segments.then_some(sel);
        let outer = |word: u32| (!from_kernel).then_some(word);
        let words = [
            segment(ds),
            segment(es),
            segment(fs),
            segment(gs),
            error_code,
            Some(self.cpu.rip as u32),
            Some(cs | u32::from(masked) << 16),
            Some(flags),
            outer(self.cpu.regs[4] as u32),
            outer(old_ss),
        ];
        let mut frame = [0u8; WORDS_MAX * 4];
        let mut len = 0;
        for word in words.into_iter().flatten() {
            frame[len..len + 4].copy_from_slice(&word.to_le_bytes());
            len += 4;
        }
        let sp = top.wrapping_sub(len as u32);
        let at = u64::from(self.segment_base(ss).wrapping_add(sp));
        if !access_ok(at, len as u64, true) {
            return Err("kernel stack inside the hypervisor's address range");
        }
        self.cpu
            .write_bytes(at, &frame[..len])
            .map_err(|_| "kernel stack not mapped writable")?;
        Ok(sp)
    }

    fn segment_base(&mut self, selector: u16) -> u32 {
        self.descriptor(selector).map_or(0, |d| d.base() as u32)
    }

    fn is_code_of(&mut self, selector: u16, cpl: u8) -> bool {
        cpl > 0 && self.check_return_cs(selector, cpl).is_ok()
    }

    pub(super) fn is_stack_of(&mut self, selector: u16, cpl: u8) -> bool {
        self.check_return_ss(selector, cpl).is_ok()
    }

    /// HYPERVISOR_iret of a 32-bit guest: eax, which the stub has pushed, below the hardware's frame.
    pub(super) fn iret_32(&mut self) -> Result<(), &'static str> {
        const UNREADABLE: &str = "iret frame not readable";
        let sp = self.cpu.regs[4] & 0xffff_ffff;
        let [eax, eip, cs, eflags] = self.words_32(sp).ok_or(UNREADABLE)?;
        let (cs, cpl) = (cs as u16, selector::rpl(cs as u16));
        if cpl == 0 {
            return Err("return to ring 0");
        }
        let (esp, ss) = if cpl == 1 {
            ((sp as u32).wrapping_add(16), self.cpu.seg.sel[seg::SS])
        } else {
            let [esp, ss] = self.words_32(sp.wrapping_add(16)).ok_or(UNREADABLE)?;
            (esp, ss as u16)
        };
        if self.architectural_iopl() {
            self.iopl = rflags::iopl(u64::from(eflags));
        }
        let eflags = u64::from(eflags);
        self.cpu.regs[0] = u64::from(eax);
        self.cpu.regs[4] = u64::from(esp);
        self.cpu.rip = u64::from(eip);
        self.cpu.seg.sel[seg::CS] = cs;
        self.cpu.seg.sel[seg::SS] = ss;
        let kept = eflags & !(rflags::IOPL | rflags::VM | rflags::RF) & rflags::LOW;
        self.cpu.set_rflags(kept | rflags::IF | rflags::FIXED);
        self.cpu.load_resume_flag(eflags);
        self.nmi_masked = false;
        self.set_upcall_mask(eflags & rflags::IF == 0);
        let refused = self
            .check_return_cs(cs, cpl)
            .and_then(|_| self.check_return_ss(ss, cpl))
            .err();
        self.cpu.set_cpl(cpl);
        if let Some(fault) = refused {
            // Where the hardware's iret would fault, it is as if the first instruction there did.
            return self.deliver(fault);
        }
        if cpl > 1 {
            self.drop_inner_segments(cpl);
        }
        Ok(())
    }

    fn words_32<const N: usize>(&mut self, va: u64) -> Option<[u32; N]> {
        let mut raw = [0u8; 16];
        let bytes = raw.get_mut(..4 * N)?;
        self.copy_in(va, bytes).ok()?;
        let mut words = raw
            .chunks_exact(4)
            .map(|c| c.try_into().map_or(0, u32::from_le_bytes));
        Some(std::array::from_fn(|_| words.next().unwrap_or(0)))
    }

    /// Going to an outer ring, data segments that only the inner one may use become null.
    fn drop_inner_segments(&mut self, cpl: u8) {
        for n in [seg::ES, seg::DS, seg::FS, seg::GS] {
            let Some(sel) = self
                .cpu
                .seg
                .sel
                .get(n)
                .copied()
                .filter(|&s| !selector::is_null(s))
            else {
                continue;
            };
            let keep = self
                .descriptor(sel)
                .is_some_and(|d| d.is_conforming() || d.dpl() >= cpl);
            if !keep {
                // A null selector can always be loaded.
                let _ = self.cpu.load_segment(n, 0);
            }
        }
    }
}
