// SPDX-License-Identifier: Apache-2.0
//! Floating point with a 128-bit significand, truncating: what the transcendental functions are computed in.

use std::cmp::Ordering;

/// `sig / 2^127 * 2^exp`, normalised; zero has `sig` 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wide {
    pub sign: bool,
    pub exp: i32,
    pub sig: u128,
}

impl Wide {
    pub(crate) const ZERO: Wide = Wide {
        sign: false,
        exp: i32::MIN / 4,
        sig: 0,
    };
    pub(crate) const ONE: Wide = Wide {
        sign: false,
        exp: 0,
        sig: 1 << 127,
    };

    pub(crate) fn new(sign: bool, exp: i32, sig: u128) -> Wide {
        if sig == 0 {
            return Wide::ZERO;
        }
        let lz = sig.leading_zeros();
        Wide {
            sign,
            exp: exp - lz as i32,
            sig: sig << lz,
        }
    }
    pub(crate) fn int(v: i64) -> Wide {
        Wide::new(v < 0, 127, u128::from(v.unsigned_abs()))
    }
    pub(crate) fn negated(self) -> Wide {
        Wide {
            sign: !self.sign,
            ..self
        }
    }
    pub(crate) fn abs(self) -> Wide {
        Wide { sign: false, ..self }
    }
    /// Times a power of two.
    pub(crate) fn scaled(self, by: i32) -> Wide {
        Wide {
            exp: self.exp + by,
            ..self
        }
    }

    pub(crate) fn add(self, o: Wide) -> Wide {
        if self.sig == 0 {
            return o;
        }
        if o.sig == 0 {
            return self;
        }
        let (a, b) = if (self.exp, self.sig) >= (o.exp, o.sig) {
            (self, o)
        } else {
            (o, self)
        };
        let shift = (a.exp - b.exp) as u32;
        let (x, y) = (a.sig >> 1, (b.sig >> 1).checked_shr(shift).unwrap_or(0));
        Wide::new(a.sign, a.exp + 1, if a.sign == b.sign { x + y } else { x - y })
    }
    pub(crate) fn sub(self, o: Wide) -> Wide {
        self.add(o.negated())
    }

    pub(crate) fn mul(self, o: Wide) -> Wide {
        if self.sig == 0 || o.sig == 0 {
            return Wide::ZERO;
        }
        let (a1, a0) = (self.sig >> 64, self.sig & u128::from(u64::MAX));
        let (b1, b0) = (o.sig >> 64, o.sig & u128::from(u64::MAX));
        let (m1, m2) = (a1 * b0, a0 * b1);
        let low = (m1 & u128::from(u64::MAX)) + (m2 & u128::from(u64::MAX)) + ((a0 * b0) >> 64);
        let high = a1 * b1 + (m1 >> 64) + (m2 >> 64) + (low >> 64);
        let (sign, exp) = (self.sign != o.sign, self.exp + o.exp);
        if high >> 127 != 0 {
            return Wide {
                sign,
                exp: exp + 1,
                sig: high,
            };
        }
        // One more bit, so that what fits 128 bits is exact.
        Wide {
            sign,
            exp,
            sig: high << 1 | (low >> 63 & 1),
        }
    }

    /// Division by zero gives zero; callers exclude it.
    pub(crate) fn div(self, o: Wide) -> Wide {
        if self.sig == 0 || o.sig == 0 {
            return Wide::ZERO;
        }
        let mut r = self.sig;
        let mut q = 0u128;
        let mut exp = self.exp - o.exp;
        if r < o.sig {
            exp -= 1;
        } else {
            r -= o.sig;
            q = 1;
        }
        while q >> 127 == 0 {
            let carry = r >> 127 != 0;
            r <<= 1;
            q <<= 1;
            if carry || r >= o.sig {
                r = r.wrapping_sub(o.sig);
                q |= 1;
            }
        }
        Wide {
            sign: self.sign != o.sign,
            exp,
            sig: q,
        }
    }

    /// Divided by a small positive integer.
    pub(crate) fn div_small(self, d: u32) -> Wide {
        let d = u128::from(d.max(1));
        let (q, r) = (self.sig / d, self.sig % d);
        if q == 0 {
            return Wide::ZERO;
        }
        let lz = q.leading_zeros();
        Wide {
            sign: self.sign,
            exp: self.exp - lz as i32,
            sig: (q << lz) | ((r << lz) / d),
        }
    }

    pub(crate) fn cmp_abs(self, o: Wide) -> Ordering {
        (self.exp, self.sig).cmp(&(o.exp, o.sig))
    }

    /// Rounded to the nearest integer; the magnitude must be below 2^63.
    pub(crate) fn nearest(self) -> i64 {
        if self.sig == 0 || self.exp < -1 {
            return 0;
        }
        let whole = if self.exp < 0 {
            0
        } else {
            (self.sig >> (127 - self.exp.min(62)) as u32) as i64
        };
        let half = self.sig >> (126 - self.exp.min(62)) as u32 & 1;
        let v = whole + half as i64;
        if self.sign {
            -v
        } else {
            v
        }
    }
}
