// SPDX-License-Identifier: Apache-2.0
//! The debug registers, as set_debugreg, get_debugreg and `mov` have them, and CR4, which some of them depend on.

use super::guest_copy::address_ok;
use super::Vcpu;
use crate::abi::x86::{cr4, dr6, dr7};
use crate::abi::Errno;
use crate::cpu::debug::DebugRegs;

impl Vcpu {
    /// `Err`: ENODEV where the instruction raises #UD, EINVAL and EPERM where it raises #GP (a bit that does not
    /// exist; something that is not the guest's).
    pub fn set_debug_reg(&mut self, index: u32, value: u64) -> Result<(), Errno> {
        let de = self.cpu.model.cr4 & cr4::DE != 0;
        match index {
            0..=3 => {
                if !address_ok(value) {
                    return Err(Errno::EPERM);
                }
                self.cpu.set_breakpoint(index as usize, value);
            }
            4 | 5 if de => return Err(Errno::ENODEV),
            4..=7 if value >> 32 != 0 => return Err(Errno::EINVAL),
            4 | 6 => self.cpu.debug.dr6 = value & dr6::SETTABLE | dr6::ONES,
            5 | 7 => {
                let value = value & dr7::SETTABLE | dr7::ONES;
                let io_without_de = value & dr7::ACTIVE != 0 && !de && DebugRegs::asks_for_io(value);
                if value & dr7::GD != 0 || io_without_de {
                    return Err(Errno::EPERM);
                }
                self.cpu.set_dr7(value);
            }
            _ => return Err(Errno::ENODEV),
        }
        Ok(())
    }

    /// `None`: there is no such register.
    pub fn debug_reg(&self, index: u32) -> Option<u64> {
        let de = self.cpu.model.cr4 & cr4::DE != 0;
        let debug = &self.cpu.debug;
        match index {
            0..=3 => debug.addr.get(index as usize).copied(),
            4 | 5 if de => None,
            4 | 6 => Some(debug.dr6),
            5 | 7 => Some(debug.dr7),
            _ => None,
        }
    }

    /// CR4 as the guest sees it from now on. OSXSAVE stays clear where CPUID does not show xsave.
    pub fn set_cr4(&mut self, value: u64) {
        let missing = if self.cpu.has_xsave() { 0 } else { cr4::OSXSAVE };
        self.cpu.set_cr4(value & !missing);
    }

    /// CR4 as the guest sees it.
    pub fn cr4(&self) -> u64 {
        self.cpu.model.cr4
    }
}
