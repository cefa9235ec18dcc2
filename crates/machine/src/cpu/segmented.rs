// SPDX-License-Identifier: Apache-2.0
//! One instruction at a time, by the slow handlers: 16- and 32-bit code whose segments matter, and any code whose accesses
//! must be aligned.
// Code bytes are read through the TLB.
#![allow(unsafe_code)]

use super::descriptor_cache::CS;
use super::fault::{Fault, Trap};
use super::{exec, flags, Cpu};
use crate::mmu::tlb::{empty_tlb, tlb_index, TlbEntry};
use crate::mmu::walk::Access;
use iced_x86::{DecoderError, Instruction};
use std::sync::LazyLock;

/// Longest instruction.
const MAX_LEN: usize = 15;

impl Cpu {
    /// Whether misaligned accesses raise #AC: RFLAGS.AC in ring 3. CR0.AM is taken as set.
    #[inline(always)]
    pub(crate) fn checks_alignment(&self) -> bool {
        self.flags.other & flags::AC != 0 && self.cpl == 3
    }

    /// One instruction. The mode may be another one afterwards.
    pub(crate) fn step_slow(&mut self) -> Result<(), Trap> {
        if !self.checks_alignment() {
            return self.step_unaligned();
        }
        // With nothing in it every access takes the long way, which looks at the alignment.
        static EMPTY: LazyLock<Vec<TlbEntry>> = LazyLock::new(empty_tlb);
        self.chain.tlb = EMPTY.as_ptr().cast_mut();
        self.access.aligning = true;
        let result = self.step_unaligned();
        self.access.aligning = false;
        self.chain.tlb = self.views.current_tlb();
        result
    }

    fn step_unaligned(&mut self) -> Result<(), Trap> {
        self.rip &= self.bases.mask;
        let insn = self.fetch_compat()?;
        self.next_rip = self.rip.wrapping_add(insn.len() as u64) & self.bases.mask;
        let handler = exec::lookup(insn.code()).ok_or(Fault::ud())?;
        match handler(self, &insn) {
            Ok(()) | Err(Trap::EndBlock) => {}
            Err(t @ (Trap::Syscall | Trap::Sysenter | Trap::SoftInt { .. })) => {
                self.budget.left -= 1;
                self.rip = self.next_rip;
                return Err(t);
            }
            Err(t) => return Err(self.noncanonical_fault(t, &insn)),
        }
        self.budget.left -= 1;
        self.rip = self.next_rip;
        Ok(())
    }

    /// Copies up to `buf.len()` bytes of code from one page.
    fn fetch_bytes(&mut self, va: u64, buf: &mut [u8]) -> Result<(), Trap> {
        // SAFETY: the index is in range, and `tlb` points to the current view.
        let e = unsafe { *self.chain.tlb.add(tlb_index(va)) };
        let host = if e.neg_x.wrapping_add(va) < 4096 {
            va.wrapping_add(e.delta) as *const u8
        } else {
            self.translate(va, Access::Fetch)?.host
        };
        // SAFETY: the caller asks for no more than is left in the page, which lies in guest RAM.
        unsafe { std::ptr::copy(host, buf.as_mut_ptr(), buf.len()) };
        Ok(())
    }

    fn fetch_compat(&mut self) -> Result<Instruction, Trap> {
        let cs = self.seg.hidden[CS];
        // Bytes beyond the limit are not fetched.
        let have = (u64::from(cs.limit) + 1).saturating_sub(self.rip);
        let have = if cs.limit == u32::MAX || !self.seg.code32 {
            MAX_LEN
        } else {
            have.min(MAX_LEN as u64) as usize
        };
        let base = if self.seg.code32 { u64::from(cs.base) } else { 0 };
        let va = self.linear(self.rip.wrapping_add(base));
        let first = (4096 - (va & 0xfff) as usize).min(have);
        if first == 0 {
            return Err(Fault::gp().into());
        }
        let ip = self.rip & 0xfff;
        let mut buf = [0u8; MAX_LEN];
        self.fetch_bytes(va, &mut buf[..first])?;
        match self.decode(&buf[..first], ip) {
            Err(DecoderError::NoMoreBytes) if first < have => {
                let next = self.linear(va.wrapping_add(first as u64));
                self.fetch_bytes(next, &mut buf[first..have])?;
                self.decode(&buf[..have], ip).map_err(invalid)
            }
            r => r.map_err(invalid),
        }
    }
}

/// More than 15 bytes, or bytes beyond the limit, are #GP; anything else that cannot be decoded is #UD.
fn invalid(e: DecoderError) -> Trap {
    match e {
        DecoderError::NoMoreBytes => Fault::gp().into(),
        _ => Fault::ud().into(),
    }
}
