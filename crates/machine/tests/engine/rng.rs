// SPDX-License-Identifier: Apache-2.0
//! A small deterministic generator, and values that instructions find interesting.

pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True in `percent` of a hundred calls.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An integer: small, near a power of two, or anything.
    pub fn int(&mut self) -> u64 {
        match self.below(8) {
            0 => self.below(4),
            1 => self.below(4).wrapping_neg(),
            2 => (1u64 << self.below(64)).wrapping_sub(self.below(3)),
            3 => self.below(256),
            4 => u64::from(self.next() as u32),
            5 => (self.next() as i32) as u64,
            _ => self.next(),
        }
    }

    pub fn f32_bits(&mut self) -> u32 {
        const SPECIAL: [u32; 24] = [
            0,
            0x8000_0000,
            0x3f80_0000,
            0xbf80_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0xffc0_0001,
            0x7f80_0001,
            0xffa0_0000,
            1,
            0x8000_0001,
            0x007f_ffff,
            0x0080_0000,
            0x7f7f_ffff,
            0xff7f_ffff,
            0x4f00_0000,
            0xcf00_0000,
            0x4eff_ffff,
            0x5f00_0000,
            0xdf00_0000,
            0x3f00_0000,
            0x4020_0000,
            0x8080_0000,
        ];
        match self.below(4) {
            0 => self.pick(&SPECIAL),
            1 => self.next() as u32,
            2 => (self.below(2000) as f32 / 8.0 - 125.0).to_bits(),
            _ => 0x3f80_0000u32.wrapping_add((self.next() as u32) & 0x87ff_ffff),
        }
    }

    pub fn f64_bits(&mut self) -> u64 {
        const SPECIAL: [u64; 24] = [
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0xbff0_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0xfff8_0000_0000_0001,
            0x7ff0_0000_0000_0001,
            0xfff4_0000_0000_0000,
            1,
            0x8000_0000_0000_0001,
            0x000f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x41e0_0000_0000_0000,
            0xc1e0_0000_0000_0000,
            0x41df_ffff_ffc0_0000,
            0x43e0_0000_0000_0000,
            0xc3e0_0000_0000_0000,
            0x3fe0_0000_0000_0000,
            0x4004_0000_0000_0000,
            0x41df_ffff_ffe0_0000,
            0x47ef_ffff_f000_0000,
        ];
        match self.below(4) {
            0 => self.pick(&SPECIAL),
            1 => self.next(),
            2 => (self.below(4000) as f64 / 16.0 - 125.0).to_bits(),
            _ => 0x3ff0_0000_0000_0000u64.wrapping_add(self.next() & 0x80ff_ffff_ffff_ffff),
        }
    }

    /// 128 bits as packed integers, floats, doubles, or equal to `near` but for a byte.
    pub fn vector(&mut self, near: u128) -> u128 {
        match self.below(6) {
            0 => u128::from(self.next()) << 64 | u128::from(self.next()),
            1 => u128::from(self.int()) << 64 | u128::from(self.int()),
            2 | 3 => (0..4).fold(0, |v, _| v << 32 | u128::from(self.f32_bits())),
            4 => u128::from(self.f64_bits()) << 64 | u128::from(self.f64_bits()),
            _ => near ^ (u128::from(self.next() as u8 & 3) << (8 * self.below(16))),
        }
    }

    /// An 80-bit extended value: significand, and sign with exponent.
    pub fn f80(&mut self) -> (u64, u16) {
        let sign = (self.next() as u16) & 0x8000;
        let fraction = if self.chance(40) { self.int() } else { self.next() };
        match self.below(16) {
            0 => (0, sign),
            1 => (1 << 63, sign | 0x7fff),
            2 => (3 << 62 | fraction, sign | 0x7fff),
            3 => (1 << 63 | fraction & !(1 << 62) | 1, sign | 0x7fff),
            4 => (fraction & !(1 << 63), sign),
            5 => (fraction | 1 << 63, sign | self.next() as u16),
            6 => (fraction, sign | self.next() as u16 & 0x7fff),
            7 => (1 << 63, sign | 0x3fff),
            8 => (
                (1 << 63) | self.below(1 << 20) << 43,
                sign | (0x3fff + self.below(20) as u16),
            ),
            9 => (1 << 63 | fraction, sign | (0x3fff - 70 + self.below(140) as u16)),
            10 => (1 << 63 | fraction, sign | (0x3fff + 60 + self.below(8) as u16)),
            11 => (1 << 63 | fraction, sign | (0x3fff - 1030 + self.below(60) as u16)),
            _ => (1 << 63 | fraction, sign | (0x3fff - 4 + self.below(12) as u16)),
        }
    }
}
