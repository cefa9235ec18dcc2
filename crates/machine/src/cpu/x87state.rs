// SPDX-License-Identifier: Apache-2.0
//! x87 register file, vector registers, and which of them are enabled.

use crate::abi::x86::{cr4, mxcsr, xcr0};
use crate::cpu::fault::{vector, Exec, Fault};
use crate::cpu::Cpu;

/// An 80-bit extended value: sign and exponent, and the significand with its explicit leading one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct F80 {
    /// The significand, bit 63 its integer part.
    pub m: u64,
    /// The sign in bit 15, the biased exponent below.
    pub se: u16,
}

/// The x87 state; MMX registers are the significands of `regs`.
#[derive(Debug, Clone)]
pub struct X87 {
    /// Physical registers R0..R7: ST(n) is `regs[(top + n) & 7]`.
    pub regs: [F80; 8],
    pub top: u8,
    /// One bit per physical register: not empty.
    pub tags: u8,
    pub control: u16,
    /// The status word without TOP.
    pub status: u16,
    /// Linear address, data address and opcode of the last instruction that was not a control one.
    pub fip: u64,
    pub fdp: u64,
    pub fop: u16,
}

/// All that the instructions on floating-point and vector registers use.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Fpu {
    pub xmm: [u128; 16],
    /// Upper halves of the ymm registers, whose lower halves are `xmm`. Legacy SSE instructions leave them as they are.
    pub ymm_hi: [u128; 16],
    pub mxcsr: u32,
    /// CR0.TS: FPU, MMX, SSE and AVX instructions raise #NM.
    pub ts: bool,
    /// Without it `xsave` and its kin raise #UD: CR4.OSXSAVE is set, by the guest or by ring 0.
    pub xsave: bool,
    /// Without it AVX instructions raise #UD: these are enabled, and XCR0 has both halves of the ymm registers. Only
    /// [`Cpu::set_cr4`] and [`Cpu::set_xcr0`] change it.
    pub avx: bool,
    /// Which parts of the state `xsave` and its kin handle: see [`xcr0`](mod@xcr0).
    pub xcr0: u64,
    /// What XCR0 can be: CPUID tells it.
    pub(crate) xcr0_mask: u64,
    pub x87: X87,
}

impl Default for Fpu {
    /// As after reset.
    fn default() -> Fpu {
        Fpu {
            xmm: [0; 16],
            ymm_hi: [0; 16],
            mxcsr: mxcsr::INITIAL,
            ts: false,
            xsave: false,
            avx: false,
            xcr0: xcr0::X87,
            xcr0_mask: xcr0::ALL,
            x87: X87::default(),
        }
    }
}

impl Cpu {
    /// CR4 from now on.
    pub fn set_cr4(&mut self, value: u64) {
        self.model.cr4 = value;
        self.update_xsave();
    }

    /// XCR0 from now on; false, and nothing changed, where `xsetbv` raises #GP: for a part of the state that does not
    /// exist, and for one without another that it needs.
    pub fn set_xcr0(&mut self, value: u64) -> bool {
        let sse_for_avx = value & xcr0::AVX == 0 || value & xcr0::SSE != 0;
        if value & !self.fpu.xcr0_mask != 0 || value & xcr0::X87 == 0 || !sse_for_avx {
            return false;
        }
        self.fpu.xcr0 = value;
        self.update_xsave();
        true
    }

    /// What CR4, XCR0 and CPUID make of the instructions that need them.
    pub(crate) fn update_xsave(&mut self) {
        let below = self.platform.registers.osxsave && self.has_xsave();
        self.fpu.xsave = below || self.model.cr4 & cr4::OSXSAVE != 0;
        self.fpu.avx = self.fpu.xsave && self.fpu.xcr0 & xcr0::YMM == xcr0::YMM;
    }
}

/// Status word bits.
pub(crate) mod sw {
    /// Stack fault.
    pub(crate) const SF: u16 = 0x40;
    /// An unmasked exception is pending.
    pub(crate) const ES: u16 = 0x80;
    pub(crate) const C0: u16 = 0x100;
    pub(crate) const C1: u16 = 0x200;
    pub(crate) const C2: u16 = 0x400;
    pub(crate) const C3: u16 = 0x4000;
    pub(crate) const BUSY: u16 = 0x8000;
    pub(crate) const TOP: u16 = 0x3800;
}

impl Default for X87 {
    /// As after `fninit`.
    fn default() -> Self {
        X87 {
            regs: [F80::default(); 8],
            top: 0,
            tags: 0,
            control: 0x37f,
            status: 0,
            fip: 0,
            fdp: 0,
            fop: 0,
        }
    }
}

impl X87 {
    /// Whether it is as after `fninit`, with all registers zero. Where the last instruction was is not looked at: it is
    /// shown only while an exception is pending.
    pub fn is_initial(&self) -> bool {
        let X87 {
            regs,
            top,
            tags,
            control,
            status,
            ..
        } = X87::default();
        (self.regs, self.top & 7, self.tags, self.control, self.status) == (regs, top, tags, control, status)
    }

    /// #MF if an unmasked exception is pending: what every waiting instruction checks.
    pub fn check_pending(&self) -> Exec {
        if self.status & sw::ES != 0 {
            return Err(Fault::new(vector::MF).into());
        }
        Ok(())
    }

    /// The status word as `fnstsw` gives it.
    pub fn status_word(&self) -> u16 {
        self.status | u16::from(self.top & 7) << 11
    }

    pub fn set_status_word(&mut self, value: u16) {
        self.status = value & !sw::TOP;
        self.top = (value >> 11 & 7) as u8;
        self.update_pending();
    }

    pub fn set_control(&mut self, value: u16) {
        // Bits 6, 7 and 13..15 are reserved: 6 reads as one, the others as zero.
        self.control = (value & 0x1f3f) | 0x40;
        self.update_pending();
    }

    /// Works out the summary bits from flags and masks.
    pub fn update_pending(&mut self) {
        self.status &= !(sw::ES | sw::BUSY);
        if self.status & !self.control & 0x3f != 0 {
            self.status |= sw::ES | sw::BUSY;
        }
    }
}
