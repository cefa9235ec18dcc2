// SPDX-License-Identifier: Apache-2.0
//! IEEE 754 arithmetic in integers, with the flags, rounding modes and NaN rules of x86.
//!
//! One core serves SSE (`f32`, `f64` as raw bits) and x87 (80-bit extended): operands are unpacked to a 64-bit significand,
//! operations give an exact-enough result (128 bits with a sticky last bit), and one function rounds it to the target.
//! [`fast`] holds the shortcuts through the host's own arithmetic for operands and modes where no flag can change.

pub(crate) mod arith;
pub(crate) mod convert;
pub(crate) mod fast;
pub(crate) mod half;
#[cfg(test)]
mod tests;

/// Exception flags, at their positions in MXCSR and in the x87 status word.
pub(crate) mod flag {
    pub(crate) const IE: u32 = 1;
    pub(crate) const DE: u32 = 2;
    pub(crate) const ZE: u32 = 4;
    pub(crate) const OE: u32 = 8;
    pub(crate) const UE: u32 = 16;
    pub(crate) const PE: u32 = 32;
    /// Found before the operation is carried out: one that is unmasked keeps the later ones from being looked for.
    pub(crate) const PRE: u32 = IE | DE | ZE;
    pub(crate) const ALL: u32 = 63;
}

/// Rounding modes, as encoded in MXCSR, the x87 control word and `roundps`.
pub(crate) mod rc {
    pub(crate) const NEAREST: u32 = 0;
    pub(crate) const DOWN: u32 = 1;
    pub(crate) const UP: u32 = 2;
    pub(crate) const ZERO: u32 = 3;
}

/// Modes an operation runs under, and the flags it raised.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Env {
    pub rc: u32,
    pub daz: bool,
    /// Flush to zero; only set when underflow is masked, as the hardware has it.
    pub ftz: bool,
    /// Masked exceptions, as [`flag`] bits.
    pub masks: u32,
    pub flags: u32,
    /// x87 rules for NaN operands and for unmasked overflow and underflow.
    pub x87: bool,
    /// Precision and nearest rounding cannot change the flags: the host's arithmetic may be used.
    pub fast: bool,
    /// The magnitude was rounded up (x87's C1).
    pub up: bool,
}

impl Env {
    /// [`Env::fast`] for an MXCSR: precision raised and masked, nearest rounding.
    #[inline(always)]
    pub(crate) fn is_fast(mxcsr: u32) -> bool {
        mxcsr & 0x7020 == 0x1020
    }

    #[inline(always)]
    pub(crate) fn sse(mxcsr: u32) -> Env {
        let masks = (mxcsr >> 7) & flag::ALL;
        Env {
            rc: (mxcsr >> 13) & 3,
            daz: mxcsr & 0x40 != 0,
            ftz: mxcsr & 0x8000 != 0 && masks & flag::UE != 0,
            masks,
            flags: 0,
            x87: false,
            fast: Env::is_fast(mxcsr),
            up: false,
        }
    }

    pub(crate) fn x87(control: u16) -> Env {
        Env {
            rc: u32::from(control >> 10) & 3,
            daz: false,
            ftz: false,
            masks: u32::from(control) & flag::ALL,
            flags: 0,
            x87: true,
            fast: false,
            up: false,
        }
    }

    /// Raises the denormal-operand flag if one of the operands is denormal.
    #[inline(always)]
    pub(crate) fn denormals(&mut self, a: &Un, b: &Un) {
        if a.denormal | b.denormal {
            self.flags |= flag::DE;
        }
    }

    pub(crate) fn invalid(&mut self) -> Res {
        self.flags |= flag::IE;
        Res::Nan(Un::DEFAULT_NAN)
    }

    /// An exception is raised that the guest has not masked.
    #[inline(always)]
    pub(crate) fn unmasked(&self) -> bool {
        self.flags & !self.masks != 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Zero,
    Num,
    Inf,
    Nan,
    /// An 80-bit encoding that the hardware refuses (unnormal, pseudo-infinity, pseudo-NaN).
    Bad,
}

/// An unpacked operand. `sig` has its leading one at bit 63 (a number), or the NaN's payload with the quiet bit at 62;
/// a number is `sig / 2^63 * 2^exp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Un {
    pub sign: bool,
    pub class: Class,
    pub exp: i32,
    pub sig: u64,
    pub denormal: bool,
}

pub(crate) const QUIET: u64 = 1 << 62;
pub(crate) const LEADING: u64 = 1 << 63;

impl Un {
    pub(crate) const DEFAULT_NAN: Un = Un {
        sign: true,
        class: Class::Nan,
        exp: 0,
        sig: LEADING | QUIET,
        denormal: false,
    };

    pub(crate) const fn zero(sign: bool) -> Un {
        Un {
            sign,
            class: Class::Zero,
            exp: 0,
            sig: 0,
            denormal: false,
        }
    }
    pub(crate) const fn inf(sign: bool) -> Un {
        Un {
            sign,
            class: Class::Inf,
            exp: 0,
            sig: 0,
            denormal: false,
        }
    }
    /// `magnitude` with `sign`, exactly.
    pub(crate) fn int(sign: bool, magnitude: u64) -> Un {
        if magnitude == 0 {
            return Un::zero(sign);
        }
        let lz = magnitude.leading_zeros();
        Un {
            sign,
            class: Class::Num,
            exp: 63 - lz as i32,
            sig: magnitude << lz,
            denormal: false,
        }
    }
    pub(crate) fn is_nan(&self) -> bool {
        self.class == Class::Nan
    }
    pub(crate) fn is_snan(&self) -> bool {
        self.class == Class::Nan && self.sig & QUIET == 0
    }
    pub(crate) fn is_zero(&self) -> bool {
        self.class == Class::Zero
    }
    pub(crate) fn is_inf(&self) -> bool {
        self.class == Class::Inf
    }
    pub(crate) fn quiet(mut self) -> Un {
        self.sig |= QUIET;
        self
    }
    pub(crate) fn negated(mut self) -> Un {
        self.sign = !self.sign;
        self
    }
    /// The operand itself as a result, to be rounded to another format.
    pub(crate) fn res(&self) -> Res {
        match self.class {
            Class::Zero => Res::Zero(self.sign),
            Class::Inf => Res::Inf(self.sign),
            Class::Num => Res::Num(self.sign, self.exp, u128::from(self.sig) << 64),
            Class::Nan => Res::Nan(self.quiet()),
            Class::Bad => Res::Nan(Un::DEFAULT_NAN),
        }
    }
}

/// A result before rounding. `Num(sign, exp, sig)` has its leading one at bit 127; bit 0 is sticky.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Res {
    Zero(bool),
    Inf(bool),
    Nan(Un),
    Num(bool, i32, u128),
}

/// Where a result goes: bits of precision and range of exponents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub precision: u32,
    pub emin: i32,
    pub emax: i32,
    /// Exponent adjustment of x87 for unmasked overflow and underflow into a register; elsewhere there is no result then.
    pub wrap: i32,
}

/// A result rounded to a target; `sig` is left-aligned and has bit 63 clear for a denormal number (`exp` is `emin` then).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounded {
    Zero,
    Inf,
    Num(i32, u64),
}

/// Rounds to `p` bits counted from bit 127: the kept bits left-aligned, whether they carried out, whether anything was lost.
fn round_at(env: &mut Env, sign: bool, sig: u128, p: u32) -> (u64, bool, bool) {
    let kept = sig >> (128 - p);
    let rest = sig << p;
    let half = 1u128 << 127;
    let up = match env.rc {
        rc::NEAREST => rest > half || (rest == half && kept & 1 == 1),
        rc::DOWN => sign && rest != 0,
        rc::UP => !sign && rest != 0,
        _ => false,
    };
    if rest != 0 {
        env.up = up;
    }
    let kept = kept + u128::from(up);
    if kept >> p != 0 {
        (LEADING, true, rest != 0)
    } else {
        ((kept as u64) << (64 - p), false, rest != 0)
    }
}

/// `sig >> n` with the lost bits gathered in bit 0.
pub(crate) fn shift_sticky(sig: u128, n: u32) -> u128 {
    match n {
        0 => sig,
        1..=127 => (sig >> n) | u128::from(sig << (128 - n) != 0),
        _ => u128::from(sig != 0),
    }
}

/// Rounds a number (leading one of `sig` at bit 127) to `target`, raising overflow, underflow and precision.
/// x86 finds tininess after rounding.
pub(crate) fn round(env: &mut Env, sign: bool, exp: i32, sig: u128, target: &Target) -> Rounded {
    let (r, carry, inexact) = round_at(env, sign, sig, target.precision);
    let e = exp + i32::from(carry);
    if e > target.emax {
        env.flags |= flag::OE;
        if env.masks & flag::OE == 0 {
            env.flags |= if inexact { flag::PE } else { 0 };
            return Rounded::Num(e - target.wrap, r);
        }
        env.flags |= flag::PE;
        let to_inf = match env.rc {
            rc::NEAREST => true,
            rc::DOWN => sign,
            rc::UP => !sign,
            _ => false,
        };
        env.up = to_inf;
        return if to_inf {
            Rounded::Inf
        } else {
            Rounded::Num(target.emax, u64::MAX << (64 - target.precision))
        };
    }
    if e >= target.emin {
        env.flags |= if inexact { flag::PE } else { 0 };
        return Rounded::Num(e, r);
    }
    if env.masks & flag::UE == 0 {
        env.flags |= flag::UE | if inexact { flag::PE } else { 0 };
        return Rounded::Num(e + target.wrap, r);
    }
    if env.ftz {
        env.flags |= flag::UE | flag::PE;
        return Rounded::Zero;
    }
    let shift = (target.emin - exp) as u32;
    let (r, _, inexact) = round_at(env, sign, shift_sticky(sig, shift), target.precision);
    if inexact {
        env.flags |= flag::UE | flag::PE;
    }
    if r == 0 {
        Rounded::Zero
    } else {
        Rounded::Num(target.emin, r)
    }
}

/// A binary interchange format held in the low bits of a `u64`.
pub(crate) trait Format {
    const P: u32;
    const EBITS: u32;
    const EMASK: u64 = (1 << Self::EBITS) - 1;
    const BIAS: i32 = (1 << (Self::EBITS - 1)) - 1;
    const SIGN: u64 = 1 << (Self::P + Self::EBITS - 1);
    const FRAC: u64 = (1 << (Self::P - 1)) - 1;
    const TARGET: Target = Target {
        precision: Self::P,
        emin: 1 - Self::BIAS,
        emax: Self::BIAS,
        wrap: 0,
    };

    fn add(a: u64, b: u64) -> u64;
    fn sub(a: u64, b: u64) -> u64;
    fn mul(a: u64, b: u64) -> u64;
    fn div(a: u64, b: u64) -> u64;
    fn sqrt(a: u64) -> u64;
    fn mul_add(a: u64, b: u64, c: u64) -> u64;
    fn less(a: u64, b: u64) -> bool;
    fn equal(a: u64, b: u64) -> bool;
}

macro_rules! format {
    ($name:ident, $f:ty, $u:ty, $p:literal, $e:literal) => {
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name;
        impl Format for $name {
            const P: u32 = $p;
            const EBITS: u32 = $e;
            #[inline(always)]
            fn add(a: u64, b: u64) -> u64 {
                u64::from((<$f>::from_bits(a as $u) + <$f>::from_bits(b as $u)).to_bits())
            }
            #[inline(always)]
            fn sub(a: u64, b: u64) -> u64 {
                u64::from((<$f>::from_bits(a as $u) - <$f>::from_bits(b as $u)).to_bits())
            }
            #[inline(always)]
            fn mul(a: u64, b: u64) -> u64 {
                u64::from((<$f>::from_bits(a as $u) * <$f>::from_bits(b as $u)).to_bits())
            }
            #[inline(always)]
            fn div(a: u64, b: u64) -> u64 {
                u64::from((<$f>::from_bits(a as $u) / <$f>::from_bits(b as $u)).to_bits())
            }
            #[inline(always)]
            fn sqrt(a: u64) -> u64 {
                u64::from(<$f>::from_bits(a as $u).sqrt().to_bits())
            }
            #[inline(always)]
            fn mul_add(a: u64, b: u64, c: u64) -> u64 {
                let [a, b, c] = [a, b, c].map(|x| <$f>::from_bits(x as $u));
                u64::from(a.mul_add(b, c).to_bits())
            }
            #[inline(always)]
            fn less(a: u64, b: u64) -> bool {
                <$f>::from_bits(a as $u) < <$f>::from_bits(b as $u)
            }
            #[inline(always)]
            fn equal(a: u64, b: u64) -> bool {
                <$f>::from_bits(a as $u) == <$f>::from_bits(b as $u)
            }
        }
    };
}
format!(F32, f32, u32, 24, 8);
format!(F64, f64, u64, 53, 11);

/// Takes `bits` apart; denormals read as zero under DAZ.
#[inline]
pub(crate) fn unpack<F: Format>(bits: u64, daz: bool) -> Un {
    let frac = bits & F::FRAC;
    let e = (bits >> (F::P - 1)) & F::EMASK;
    let sign = bits & F::SIGN != 0;
    if e == F::EMASK {
        if frac == 0 {
            return Un::inf(sign);
        }
        return Un {
            sign,
            class: Class::Nan,
            exp: 0,
            sig: LEADING | (frac << (64 - F::P)),
            denormal: false,
        };
    }
    if e == 0 {
        if frac == 0 || daz {
            return Un::zero(sign);
        }
        let lz = frac.leading_zeros();
        let exp = 63 - lz as i32 + (1 - F::BIAS) - (F::P as i32 - 1);
        return Un {
            sign,
            class: Class::Num,
            exp,
            sig: frac << lz,
            denormal: true,
        };
    }
    Un {
        sign,
        class: Class::Num,
        exp: e as i32 - F::BIAS,
        sig: LEADING | (frac << (64 - F::P)),
        denormal: false,
    }
}

/// Rounds a result into format `F`.
#[inline]
pub(crate) fn pack<F: Format>(env: &mut Env, res: Res) -> u64 {
    let (sign, body) = match res {
        Res::Zero(sign) => (sign, 0),
        Res::Inf(sign) => (sign, F::EMASK << (F::P - 1)),
        Res::Nan(n) => (
            n.sign,
            (F::EMASK << (F::P - 1)) | ((n.sig >> (64 - F::P)) & F::FRAC),
        ),
        Res::Num(sign, exp, sig) => match round(env, sign, exp, sig, &F::TARGET) {
            Rounded::Zero => (sign, 0),
            Rounded::Inf => (sign, F::EMASK << (F::P - 1)),
            Rounded::Num(exp, sig) => {
                let frac = (sig >> (64 - F::P)) & F::FRAC;
                let e = if sig & LEADING != 0 {
                    (exp + F::BIAS) as u64 & F::EMASK
                } else {
                    0
                };
                (sign, (e << (F::P - 1)) | frac)
            }
        },
    };
    body | if sign { F::SIGN } else { 0 }
}
