// SPDX-License-Identifier: Apache-2.0
//! What fast handlers go on with when a memory operand is not in the TLB. They have changed nothing yet: with the
//! translation filled in, the op simply begins again; page-crossing accesses and stores to code or page tables are done
//! by the slow handler of the instruction, which is decoded afresh.

use super::*;
use crate::abi::x86::canonical;
use crate::cpu::decode::ends_block;
use crate::cpu::exec;
use crate::cpu::fault::pf;
use crate::mmu::tlb::tlb_index;
use crate::mmu::walk::Access;
use iced_x86::DecoderError;

/// How to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Again,
    Slow,
    Next,
    /// To `next_rip`.
    Branch,
    Leave,
}

#[cold]
#[inline(never)]
pub(crate) unsafe fn read(cpu: *mut Cpu, op: *const Op, va: u64, size: u64) -> *const Op {
    by_contract!({
        match refill(cpu, op, va, size, Access::Read) {
            Then::Again => go!(cpu, op),
            Then::Slow => redo(cpu, op),
            _ => null(),
        }
    })
}

#[cold]
#[inline(never)]
pub(crate) unsafe fn write(cpu: *mut Cpu, op: *const Op, va: u64, size: u64) -> *const Op {
    by_contract!({
        match refill(cpu, op, va, size, Access::Write) {
            Then::Again => go!(cpu, op),
            Then::Slow => redo(cpu, op),
            _ => null(),
        }
    })
}

#[inline(never)]
unsafe fn refill(cpu: *mut Cpu, op: *const Op, va: u64, size: u64, access: Access) -> Then {
    by_contract!({
        let c = &mut *cpu;
        c.rip = c.bases.page.wrapping_add((*op).off as u64);
        match c.refill(op as usize, va, size, access) {
            Ok(Refill::Again) => Then::Again,
            Ok(Refill::Slow) => Then::Slow,
            Err(f) => {
                trap(cpu, op, Trap::Fault(f));
                Then::Leave
            }
        }
    })
}

/// How an access that missed the TLB goes on, if it does not fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refill {
    /// The translation is filled in.
    Again,
    /// It is for the handler of the instruction, which finds out which fault it is, if it is one.
    Slow,
}

impl Cpu {
    /// Fills in the translation for `size` bytes at `va`, which the code at `place` (an address of the host's) has missed.
    pub(crate) fn refill(
        &mut self,
        place: usize,
        va: u64,
        size: u64,
        access: Access,
    ) -> Result<Refill, Fault> {
        // Which fault an address that is not canonical is depends on the operand; of two operands only the handler knows
        // which one it was.
        if (va & 0xfff) + size > 4096 || !canonical(va) {
            return Ok(Refill::Slow);
        }
        // An instruction with two memory operands (push, call) whose pages share a TLB entry would begin again for ever.
        let page = va & !0xfff;
        let (last, last_page) = std::mem::replace(&mut self.chain.last_miss, (place, page));
        if last == place && last_page != page && self.views.share_entry(last_page, va) {
            self.chain.last_miss = (0, 0);
            return Ok(Refill::Slow);
        }
        match self.translate(va, access) {
            Ok(_) => {
                // SAFETY: the index is in range, and `tlb` points to the current view.
                let e = unsafe { &*self.chain.tlb.add(tlb_index(va)) };
                let tag = if access == Access::Write { e.neg_w } else { e.neg_r };
                Ok(if tag.wrapping_add(va) < 4096 {
                    Refill::Again
                } else {
                    Refill::Slow
                })
            }
            // It may be a page table.
            Err(f) if access == Access::Write && f.error_code.is_some_and(|e| e & pf::P != 0) => {
                Ok(Refill::Slow)
            }
            Err(f) => Err(f),
        }
    }
}

/// Does the instruction of `op` the slow way (both, if it is two fused ones).
#[cold]
#[inline(never)]
pub(crate) unsafe fn redo(cpu: *mut Cpu, op: *const Op) -> *const Op {
    by_contract!({
        match redo_instructions(cpu, op) {
            Then::Next => go!(cpu, op.add((*op).slots as usize)),
            Then::Branch => jump!(cpu, (*cpu).next_rip),
            _ => null(),
        }
    })
}

#[inline(never)]
unsafe fn redo_instructions(cpu: *mut Cpu, op: *const Op) -> Then {
    by_contract!({
        let c = &mut *cpu;
        c.rip = c.bases.page.wrapping_add((*op).off as u64);
        let end = c.rip.wrapping_add((*op).len as u64);
        loop {
            let insn = match fetch(c) {
                Ok(i) => i,
                Err(t) => {
                    trap(cpu, op, t);
                    return Then::Leave;
                }
            };
            c.next_rip = c.rip.wrapping_add(insn.len() as u64);
            let result = match exec::lookup(insn.code()) {
                Some(f) => f(c, &insn),
                None => Err(Fault::ud().into()),
            };
            if !finish(cpu, op, result) {
                return Then::Leave;
            }
            if ends_block(&insn) {
                return Then::Branch;
            }
            if c.next_rip == end {
                return Then::Next;
            }
            c.rip = c.next_rip;
        }
    })
}

/// Decodes the instruction at `rip`, which lies in one page or is alone in its block.
pub(super) fn fetch(c: &mut Cpu) -> Result<Instruction, Trap> {
    let offset = c.rip & 0xfff;
    let first = (4096 - offset).min(15) as usize;
    let mut buf = [0u8; 15];
    let page = c.translate(c.rip, Access::Fetch)?;
    // SAFETY: `first` bytes are left in the page.
    unsafe { std::ptr::copy(page.host, buf.as_mut_ptr(), first) };
    match c.decode(&buf[..first], offset) {
        Err(DecoderError::NoMoreBytes) if first < 15 => {
            let page = c.translate(c.linear(c.rip.wrapping_add(first as u64)), Access::Fetch)?;
            // SAFETY: 15 - first < 4096 bytes from the start of a page.
            unsafe { std::ptr::copy(page.host, buf.as_mut_ptr().add(first), 15 - first) };
            c.decode(&buf, offset).map_err(|_| Fault::ud().into())
        }
        r => r.map_err(|_| Fault::ud().into()),
    }
}
