// SPDX-License-Identifier: Apache-2.0
//! RFLAGS. The six arithmetic flags are kept as two words, cheap to make and cheap to ask:
//!
//! - `res`: the result, sign-extended to 64 bits: ZF = it is zero, SF = its top bit, PF = parity of its low byte.
//! - `aux`: bit 63 = CF, bit 62 = CF xor OF (the carry into the top bit), bit 3 = AF; bit 0 inverts SF and
//!   bits 8..15 are xored into the byte whose parity is PF (only needed when flags are loaded as such: popf, sahf).

use super::Cpu;
use iced_x86::ConditionCode;

pub(crate) use crate::abi::x86::rflags::*;

/// Bits of `Flags::aux`.
pub(crate) const AUX_CF: u64 = 1 << 63;
pub(crate) const AUX_PO: u64 = 1 << 62;
pub(crate) const AUX_AF: u64 = 1 << 3;
pub(crate) const AUX_SFD: u64 = 1;

/// RFLAGS in pieces.
#[derive(Debug, Clone)]
#[repr(C)]
pub(crate) struct Flags {
    /// Last result of an arithmetic instruction, sign-extended.
    pub(crate) res: u64,
    /// Its carries.
    pub(crate) aux: u64,
    /// RFLAGS without the six arithmetic flags.
    pub(crate) other: u64,
}

impl Flags {
    pub(crate) fn new() -> Flags {
        Flags {
            res: 1,
            aux: 0,
            other: FIXED,
        }
    }
}

impl Cpu {
    /// Carry flag.
    #[inline(always)]
    pub fn cf(&self) -> bool {
        (self.flags.aux as i64) < 0
    }
    /// Zero flag.
    #[inline(always)]
    pub fn zf(&self) -> bool {
        self.flags.res == 0
    }
    /// Sign flag.
    #[inline(always)]
    pub fn sf(&self) -> bool {
        ((self.flags.res >> 63) ^ self.flags.aux) & 1 != 0
    }
    /// Overflow flag.
    #[inline(always)]
    pub fn of(&self) -> bool {
        ((self.flags.aux ^ (self.flags.aux << 1)) as i64) < 0
    }
    /// Parity flag.
    #[inline(always)]
    pub fn pf(&self) -> bool {
        (self.flags.res as u8 ^ (self.flags.aux >> 8) as u8).count_ones() & 1 == 0
    }
    /// Auxiliary carry flag.
    #[inline(always)]
    pub fn af(&self) -> bool {
        self.flags.aux & AUX_AF != 0
    }
    /// Direction flag.
    #[inline(always)]
    pub fn df(&self) -> bool {
        self.flags.other & DF != 0
    }

    /// The six arithmetic flags at their RFLAGS positions.
    pub fn arith_flags(&self) -> u64 {
        u64::from(self.cf())
            | u64::from(self.pf()) << 2
            | u64::from(self.af()) << 4
            | u64::from(self.zf()) << 6
            | u64::from(self.sf()) << 7
            | u64::from(self.of()) << 11
    }

    /// RFLAGS, with the lazily kept arithmetic flags worked out.
    pub fn rflags(&self) -> u64 {
        self.flags.other | FIXED | self.arith_flags()
    }

    /// Sets all of RFLAGS, unchecked (bits that do not exist are dropped).
    pub fn set_rflags(&mut self, value: u64) {
        self.flags.other = (value & ALL & !ARITH) | FIXED;
        self.set_arith_flags(value);
    }

    /// Sets the six arithmetic flags (OF SF ZF AF PF CF, at their RFLAGS positions), leaving the others.
    pub fn set_arith_flags(&mut self, bits: u64) {
        let bit = |flag: u64| bits >> flag.trailing_zeros() & 1;
        // The result is 0 or 1; SF and PF are put right with the delta bits: the parity of 0 is even.
        let res = bit(ZF) ^ 1;
        let aux = (bit(CF) * AUX_CF)
            | ((bit(CF) ^ bit(OF)) * AUX_PO)
            | (bit(AF) * AUX_AF)
            | (bit(SF) * AUX_SFD)
            | ((bit(ZF) ^ bit(PF)) << 8);
        self.flags.res = res;
        self.flags.aux = aux;
    }

    /// Whether condition `cc` holds.
    pub fn cond(&self, cc: ConditionCode) -> bool {
        use ConditionCode as C;
        match cc {
            C::None => true,
            C::o => self.of(),
            C::no => !self.of(),
            C::b => self.cf(),
            C::ae => !self.cf(),
            C::e => self.zf(),
            C::ne => !self.zf(),
            C::be => self.cf() || self.zf(),
            C::a => !(self.cf() || self.zf()),
            C::s => self.sf(),
            C::ns => !self.sf(),
            C::p => self.pf(),
            C::np => !self.pf(),
            C::l => self.sf() != self.of(),
            C::ge => self.sf() == self.of(),
            C::le => self.zf() || self.sf() != self.of(),
            C::g => !self.zf() && self.sf() == self.of(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestVm;

    #[test]
    fn every_combination_of_arithmetic_flags_survives_the_lazy_form() {
        let mut vm = TestVm::new(&[0x90]);
        for i in 0..64u64 {
            let bits = (i & 1)
                | (i >> 1 & 1) << 2
                | (i >> 2 & 1) << 4
                | (i >> 3 & 1) << 6
                | (i >> 4 & 1) << 7
                | (i >> 5) << 11;
            vm.cpu.set_rflags(bits | DF | FIXED);
            assert_eq!(vm.cpu.rflags(), bits | DF | FIXED);
        }
    }
}
