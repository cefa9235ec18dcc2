// SPDX-License-Identifier: Apache-2.0
//! Call gates of 32-bit guests. The processor's own would have to be 64-bit ones, so a far call or jump to one faults on
//! Xen, which then does what the gate asks for.

use super::guest_copy::access_ok;
use super::Exit;
use super::Vcpu;
use crate::abi::x86::{descriptor, selector};
use crate::cpu::fault::{pf, vector, Fault};

/// Why a call gate was not gone through.
type GateResult = Result<(), Fault>;

impl Vcpu {
    /// A far call (or jump) of `selector`, which names a call gate; `ret` is the address after the instruction.
    pub(super) fn call_gate(&mut self, selector: u16, call: bool, ret: u32) -> Option<Exit> {
        match self.through_gate(selector, call, ret) {
            Ok(()) => self.retire(0, 0),
            Err(f) => self.fault(f),
        }
    }

    fn through_gate(&mut self, selector: u16, call: bool, ret: u32) -> GateResult {
        let bad_gate = Fault::of_selector(vector::GP, selector);
        let cpl = self.cpu.cpl;
        let gate = self.descriptor(selector).ok_or(bad_gate)?.0;
        // A gate in a table has DPL 0; its own is kept in the RPL of its target (`frames::segdesc`).
        let through = descriptor::gate_selector(gate);
        let (target, dpl) = (through & !selector::RPL, selector::rpl(through));
        if dpl < cpl.max(selector::rpl(selector)) {
            return Err(bad_gate);
        }
        let bad_target = Fault::of_selector(vector::GP, target);
        let code = self.descriptor(target).ok_or(bad_target)?;
        let reachable = if call || code.is_conforming() {
            code.dpl() <= cpl
        } else {
            code.dpl() == cpl
        };
        if target == 0 || !code.is_code() || code.is_long() || code.dpl() == 0 || !reachable {
            return Err(bad_target);
        }
        if !code.present() {
            return Err(Fault::of_selector(vector::NP, target));
        }
        let offset = descriptor::gate_offset(gate);
        if offset > code.limit() {
            return Err(Fault::gp());
        }
        let inner = call && !code.is_conforming() && code.dpl() < cpl;
        let new_cpl = if inner { code.dpl() } else { cpl };
        if call {
            let parameters = if inner {
                descriptor::gate_parameters(gate)
            } else {
                0
            };
            self.push_call(inner, new_cpl, parameters, ret)?;
        }
        self.cpu.set_cpl(new_cpl);
        self.cpu.seg.sel[1] = target | u16::from(new_cpl);
        self.cpu.rip = u64::from(offset);
        Ok(())
    }

    /// Pushes `[ss esp parameters] cs eip`, onto the kernel's stack when going to an inner ring.
    fn push_call(&mut self, inner: bool, new_cpl: u8, parameters: usize, ret: u32) -> GateResult {
        let cpl = self.cpu.cpl;
        let (old_ss, old_sp) = (self.cpu.seg.sel[2], self.cpu.regs[4] as u32);
        let mut words = [0u32; 4 + 31];
        let mut n = 2;
        let [eip, cs, ..] = &mut words;
        (*eip, *cs) = (ret, u32::from(self.cpu.seg.sel[1]));
        let (ss, sp) = if inner {
            let from = self.stack_address(old_ss, old_sp, 4 * parameters as u64)?;
            let mut raw = [0u8; 4 * 31];
            let bytes = raw.get_mut(..4 * parameters).ok_or(Fault::gp())?;
            self.copy_in(from, bytes)
                .map_err(|_| Fault::pf(from, page_fault_code(cpl, false)))?;
            for (word, bytes) in words.iter_mut().skip(2).zip(bytes.chunks_exact(4)) {
                *word = bytes.try_into().map_or(0, u32::from_le_bytes);
            }
            n += parameters;
            for word in [old_sp, u32::from(old_ss)] {
                if let Some(slot) = words.get_mut(n) {
                    *slot = word;
                }
                n += 1;
            }
            if !self.is_stack_of(self.kernel_ss, new_cpl) {
                return Err(Fault::of_selector(vector::TS, self.kernel_ss));
            }
            (self.kernel_ss, self.kernel_sp as u32)
        } else {
            (old_ss, old_sp)
        };
        let sp = sp.wrapping_sub(4 * n as u32);
        let at = self.stack_address(ss, sp, 4 * n as u64)?;
        let mut raw = [0u8; 4 * 35];
        for (bytes, word) in raw.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let bytes = raw.get(..4 * n).ok_or(Fault::gp())?;
        self.copy_out(at, bytes)
            .map_err(|_| Fault::pf(at, page_fault_code(new_cpl, true)))?;
        self.cpu.seg.sel[2] = ss;
        self.cpu.regs[4] = u64::from(sp);
        Ok(())
    }

    /// The linear address of `len` bytes of a stack segment.
    fn stack_address(&mut self, ss: u16, sp: u32, len: u64) -> Result<u64, Fault> {
        let base = self.descriptor(ss).map_or(0, |d| d.base() as u32);
        let at = u64::from(base.wrapping_add(sp));
        if access_ok(at, len, true) {
            Ok(at)
        } else {
            Err(Fault::with_code(vector::SS, 0))
        }
    }
}

/// The error code of a page fault on a stack: not present, as far as the emulation knows.
fn page_fault_code(cpl: u8, write: bool) -> u32 {
    (if write { pf::W } else { 0 }) | if cpl == 3 { pf::U } else { 0 }
}
