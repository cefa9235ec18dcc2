// SPDX-License-Identifier: Apache-2.0
//! Atomic changes of machine memory that guests change at the same time: event-channel bits, grant flags.

use super::machine::Machine;

impl Machine {
    /// Replaces the 64-bit word around `maddr` by `f(word)`; returns the old word, or `None` outside memory.
    fn update_word(&self, maddr: u64, f: impl Fn(u64) -> u64) -> Option<u64> {
        let at = maddr & !7;
        let mut seen = self.mem.read_u64(at)?;
        loop {
            match self.mem.cmpxchg_u64(at, seen, f(seen))? {
                Ok(old) => return Some(old),
                Err(now) => seen = now,
            }
        }
    }

    /// Sets or clears bit `bit` of the little-endian bit string at `maddr`; returns what it was, `None` outside memory.
    pub fn change_bit(&self, maddr: u64, bit: u64, value: bool) -> Option<bool> {
        let byte = maddr.checked_add(bit >> 3)?;
        let mask = 1u64 << ((byte & 7) * 8 + (bit & 7));
        let old = self.update_word(byte, |w| if value { w | mask } else { w & !mask })?;
        Some(old & mask != 0)
    }

    /// Bit `bit` of the little-endian bit string at `maddr`; false outside memory.
    pub fn test_bit(&self, maddr: u64, bit: u64) -> bool {
        let byte = maddr.wrapping_add(bit >> 3);
        let word = self.mem.read_u64(byte & !7).unwrap_or(0);
        word >> ((byte & 7) * 8 + (bit & 7)) & 1 != 0
    }

    /// Compare-and-exchange on an aligned 32-bit word; returns what was there, `None` outside memory or unaligned.
    pub fn compare_exchange_u32(&self, maddr: u64, old: u32, new: u32) -> Option<u32> {
        if maddr & 3 != 0 {
            return None;
        }
        let shift = (maddr & 4) * 8;
        let mask = 0xffff_ffffu64 << shift;
        let word = self.update_word(maddr, |w| {
            if (w >> shift) as u32 == old {
                (w & !mask) | (u64::from(new) << shift)
            } else {
                w
            }
        })?;
        Some((word >> shift) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use crate::clock::Clock;

    #[test]
    fn bits_and_words_change_alone_and_return_what_they_were() {
        let m = Machine::new(64, 1, Clock::virtual_at(0)).unwrap();
        let at = 40 << 12;
        assert_eq!(m.change_bit(at + 1, 9, true), Some(false));
        assert_eq!(m.change_bit(at + 1, 9, true), Some(true));
        assert_eq!(m.mem.read_u64(at), Some(2 << 16));
        assert!(m.test_bit(at + 1, 9) && !m.test_bit(at + 1, 8) && !m.test_bit(u64::MAX, 8));
        assert_eq!(m.change_bit(at + 1, 9, false), Some(true));
        assert_eq!(m.mem.read_u64(at), Some(0));
        assert_eq!(m.compare_exchange_u32(at + 4, 0, 7), Some(0));
        assert_eq!(m.compare_exchange_u32(at + 4, 0, 8), Some(7));
        assert_eq!(m.mem.read_u64(at), Some(7 << 32));
        assert_eq!(m.compare_exchange_u32(at + 2, 0, 8), None);
        assert_eq!(m.change_bit(64 << 12, 0, true), None);
        assert_eq!(m.change_bit(u64::MAX, 8, true), None);
    }
}
