// SPDX-License-Identifier: Apache-2.0
//! HYPERVISOR_iret: return from a bounce frame.

use super::Vcpu;
use crate::abi::selector;
use crate::abi::structs::iret_context;
use crate::abi::x86::{canonical, rflags};
use crate::cpu::fault::{vector, Fault};

impl Vcpu {
    /// Carries out the hypercall: registers, mode, upcall mask. An error crashes the domain, as on Xen.
    pub fn iret(&mut self) -> Result<(), &'static str> {
        self.returns.fresh = true;
        if self.is_32bit() {
            return self.iret_32();
        }
        let mut raw = [0u8; iret_context::SIZE];
        let sp = self.cpu.regs[4];
        self.cpu
            .read_bytes(sp, &mut raw)
            .map_err(|_| "iret frame not readable")?;
        let word = |i: usize| u64::from_le_bytes(raw[i * 8..i * 8 + 8].try_into().unwrap_or_default());
        let (rax, r11, rcx, flags, rip) = (word(0), word(1), word(2), word(3), word(4));
        let (cs, eflags, rsp, ss) = (word(5) as u16, word(6), word(7), word(8) as u16);

        let by_sysret = flags & iret_context::VGCF_IN_SYSCALL != 0 && canonical(rip);
        // What nearly every return asks for: selectors that Xen has descriptors of, and whose checks pass.
        let flat = cs | selector::RPL == selector::FLAT_RING3_CS64
            && ss | selector::RPL == selector::FLAT_RING3_SS64
            && canonical(rip);
        let refused = if by_sysret || flat {
            None
        } else {
            self.check_return(cs | selector::RPL, ss | selector::RPL, rip)
                .err()
        };
        if cs & selector::RPL == selector::RPL && !self.toggle_guest_mode() {
            return Err("return to user mode without user page tables");
        }
        if self.architectural_iopl() {
            self.iopl = rflags::iopl(eflags);
        }
        self.nmi_masked = false;
        self.cpu.rip = rip;
        self.cpu.seg.sel[1] = cs | selector::RPL;
        self.cpu.seg.sel[2] = ss | selector::RPL;
        if by_sysret {
            // sysret loads fixed selectors, 32-bit ones only for that very selector.
            if self.cpu.seg.sel[1] != selector::FLAT_RING3_CS32 {
                self.cpu.seg.sel[1] = selector::FLAT_KERNEL_CS;
            }
            self.cpu.seg.sel[2] = selector::FLAT_KERNEL_SS;
        }
        self.cpu.regs[4] = rsp;
        let flags_kept = eflags & !(rflags::IOPL | rflags::VM | rflags::RF) & rflags::LOW;
        self.cpu.set_rflags(flags_kept | rflags::IF | 2);
        self.cpu.load_resume_flag(eflags);
        if flags & iret_context::VGCF_IN_SYSCALL == 0 {
            self.cpu.regs[11] = r11;
            self.cpu.regs[1] = rcx;
        } else {
            // Xen leaves by sysret here: both registers end up as that instruction needs them.
            self.cpu.regs[11] = eflags;
            self.cpu.regs[1] = rip;
        }
        self.cpu.regs[0] = rax;
        self.set_upcall_mask(eflags & rflags::IF == 0);
        // Where the hardware's iret would fault, it is as if the first instruction there did.
        refused.map_or(Ok(()), |fault| self.deliver(fault))
    }

    /// What the hardware's iret to ring 3 checks.
    fn check_return(&mut self, cs: u16, ss: u16, rip: u64) -> Result<(), Fault> {
        let long = self.check_return_cs(cs, 3)?;
        if long && !canonical(rip) {
            return Err(Fault::gp());
        }
        self.check_return_ss(ss, 3)
    }

    /// Checks a code selector that the guest returns to in ring `cpl`; tells whether it is 64-bit code.
    pub(super) fn check_return_cs(&mut self, cs: u16, cpl: u8) -> Result<bool, Fault> {
        let gp = Fault::of_selector(vector::GP, cs);
        let d = self.descriptor(cs).filter(|_| !selector::is_null(cs)).ok_or(gp)?;
        let level = d.dpl() == cpl || d.is_conforming() && d.dpl() <= cpl;
        if !d.is_code() || !level || d.is_long() && self.is_32bit() {
            return Err(gp);
        }
        if !d.present() {
            return Err(Fault::of_selector(vector::NP, cs));
        }
        Ok(d.is_long())
    }

    /// The same of the stack.
    pub(super) fn check_return_ss(&mut self, ss: u16, cpl: u8) -> Result<(), Fault> {
        let gp = Fault::of_selector(vector::GP, ss);
        let d = self.descriptor(ss).filter(|_| !selector::is_null(ss)).ok_or(gp)?;
        if selector::rpl(ss) != cpl || !d.is_writable() || d.dpl() != cpl {
            return Err(gp);
        }
        if !d.present() {
            return Err(Fault::of_selector(vector::SS, ss));
        }
        Ok(())
    }
}
