// SPDX-License-Identifier: Apache-2.0
//! Entry into the kernel through the IDT: gates, stacks of the TSS, frames.

use super::{Bare, Outcome};
use crate::abi::x86::descriptor::{
    self,
    system::{INTERRUPT_GATE, TRAP_GATE},
};
use crate::abi::x86::rflags::{IF, NT, RF, TF, VM};
use crate::abi::x86::{error_code, seg, selector};
use crate::cpu::fault::{vector, Fault, Trap};

/// TF, NT, RF and VM: cleared when a handler is entered.
const CLEARED: u64 = TF | NT | RF | VM;
/// RSP0 and IST1 in the TSS.
const TSS_RSP0: u64 = 4;
const TSS_IST1: u64 = 0x24;

impl Bare {
    /// Raises an exception, or (with the length of its instruction) the software interrupt `int n`.
    pub(super) fn raise(&mut self, mut fault: Fault, software: Option<u8>) -> Outcome {
        if fault.vector == vector::PF {
            self.cr2 = fault.cr2;
        }
        let mut at = self.cpu.rip;
        match self.enter(fault, software.is_some()) {
            Ok(()) => return Outcome::Raised { fault, entered: true },
            Err(second) => {
                if let Some(len) = software {
                    // A gate that may not be used faults at the instruction.
                    at = at.wrapping_sub(u64::from(len));
                    self.cpu.rip = at;
                    fault = second;
                    if self.enter(fault, false).is_ok() {
                        return Outcome::Raised { fault, entered: true };
                    }
                }
            }
        }
        match self.enter(Fault::with_code(vector::DF, 0), false) {
            Ok(()) => Outcome::Raised { fault, entered: true },
            Err(_) => Outcome::TripleFault { fault },
        }
    }

    fn enter(&mut self, fault: Fault, software: bool) -> Result<(), Fault> {
        self.enter_gate(fault, software).map_err(|trap| match trap {
            Trap::Fault(f) => f,
            _ => Fault::gp(),
        })
    }

    /// Nothing changes when it fails.
    fn enter_gate(&mut self, fault: Fault, software: bool) -> Result<(), Trap> {
        let offset = u64::from(fault.vector) * 16;
        let gate_error = error_code::of_gate(fault.vector);
        let bad = || Trap::from(Fault::with_code(vector::GP, gate_error));
        if offset + 15 > u64::from(self.idtr.limit) {
            return Err(bad());
        }
        let base = self.idtr.base.wrapping_add(offset);
        let (low, high) = (self.read_u64(base)?, self.read_u64(base.wrapping_add(8))?);
        let kind = descriptor::system_type(low);
        let dpl = descriptor::dpl(low);
        let is_gate = low & descriptor::S == 0 && matches!(kind, INTERRUPT_GATE | TRAP_GATE);
        if !is_gate || software && dpl < self.cpu.cpl {
            return Err(bad());
        }
        if low & descriptor::P == 0 {
            return Err(Fault::with_code(vector::NP, gate_error).into());
        }
        let selector = descriptor::gate_selector(low);
        let code = self
            .cpu
            .descriptor(selector)
            .filter(|d| d.is_long() && d.present())
            .ok_or_else(|| Trap::from(Fault::of_selector(vector::GP, selector)))?;
        let cpl = if code.is_conforming() {
            self.cpu.cpl
        } else {
            code.dpl()
        };
        if cpl > self.cpu.cpl {
            return Err(Fault::of_selector(vector::GP, selector).into());
        }
        let ist = low >> 32 & 7;
        let top = match ist {
            0 if cpl == self.cpu.cpl => self.cpu.regs[4],
            0 => self.read_u64(self.tss.base.wrapping_add(TSS_RSP0 + 8 * u64::from(cpl)))?,
            n => self.read_u64(self.tss.base.wrapping_add(TSS_IST1 + 8 * (n - 1)))?,
        } & !15;
        let old = self.cpu.rflags();
        let words = [
            fault.error_code.map(u64::from),
            Some(self.cpu.rip),
            Some(u64::from(self.cpu.seg.sel[seg::CS])),
            Some(old),
            Some(self.cpu.regs[4]),
            Some(u64::from(self.cpu.seg.sel[seg::SS])),
        ];
        let frame: Vec<u8> = words.into_iter().flatten().flat_map(u64::to_le_bytes).collect();
        let sp = top.wrapping_sub(frame.len() as u64);
        let was = self.cpu.cpl;
        self.write(sp, &frame)?;
        let mut flags = old & !CLEARED;
        if kind == INTERRUPT_GATE {
            flags &= !IF;
        }
        self.cpu.set_rflags(flags);
        self.cpu.seg.sel[seg::CS] = selector & !selector::RPL | u16::from(cpl);
        if cpl != was {
            self.cpu.seg.sel[seg::SS] = u16::from(cpl);
        }
        self.cpu.regs[4] = sp;
        self.cpu.rip = u64::from(descriptor::gate_offset(low)) | high << 32;
        self.set_cpl(cpl);
        Ok(())
    }
}
