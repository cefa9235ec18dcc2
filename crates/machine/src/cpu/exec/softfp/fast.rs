// SPDX-License-Identifier: Apache-2.0
//! SSE operations on raw bits: the host's arithmetic where it gives the same result and flags, else the integer core.
//!
//! The host computes in its default mode (nearest, no flush). That is the guest's result when the guest rounds to nearest,
//! the operands are normal numbers or zeros and the result is a normal number well above the smallest; and it is free of
//! flags other than precision, which [`Env::fast`] says is already set and masked.

use super::{arith, convert, flag, pack, rc, unpack, Class, Env, Format, Res, F32, F64};
use std::cmp::Ordering;

#[inline(always)]
fn exponent<F: Format>(x: u64) -> u64 {
    (x >> (F::P - 1)) & F::EMASK
}

/// Normal, not zero.
#[inline(always)]
pub(crate) fn normal<F: Format>(x: u64) -> bool {
    exponent::<F>(x).wrapping_sub(1) < F::EMASK - 1
}

#[inline(always)]
pub(crate) fn plain<F: Format>(x: u64) -> bool {
    normal::<F>(x) || x & (F::SIGN - 1) == 0
}

/// A normal result that cannot have been tiny before rounding.
#[inline(always)]
fn safe<F: Format>(x: u64) -> bool {
    exponent::<F>(x).wrapping_sub(2) < F::EMASK - 2
}

macro_rules! binary {
    ($name:ident, $attempt:ident, $slow:ident, $inputs:ident, $result:ident) => {
        /// The host's result, if it cannot concern a flag; only under [`Env::fast`].
        #[inline(always)]
        pub(crate) fn $attempt<F: Format>(a: u64, b: u64) -> Option<u64> {
            if $inputs::<F>(a) && $inputs::<F>(b) {
                let r = F::$name(a, b);
                if $result::<F>(r) {
                    return Some(r);
                }
            }
            None
        }

        #[inline(always)]
        pub(crate) fn $name<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
            if env.fast {
                if let Some(r) = $attempt::<F>(a, b) {
                    return r;
                }
            }
            $slow::<F>(env, a, b)
        }

        #[cold]
        #[inline(never)]
        pub(crate) fn $slow<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
            let (a, b) = (unpack::<F>(a, env.daz), unpack::<F>(b, env.daz));
            let r = arith::$name(env, &a, &b);
            pack::<F>(env, r)
        }
    };
}
binary!(add, try_add, add_slow, plain, plain);
binary!(sub, try_sub, sub_slow, plain, plain);
binary!(mul, try_mul, mul_slow, normal, safe);
binary!(div, try_div, div_slow, normal, safe);

/// As `try_add`; the first operand is not used.
#[inline(always)]
pub(crate) fn try_sqrt<F: Format>(_: u64, a: u64) -> Option<u64> {
    (normal::<F>(a) && a & F::SIGN == 0).then(|| F::sqrt(a))
}

#[inline(always)]
pub(crate) fn sqrt<F: Format>(env: &mut Env, a: u64) -> u64 {
    if env.fast {
        if let Some(r) = try_sqrt::<F>(0, a) {
            return r;
        }
    }
    let u = unpack::<F>(a, env.daz);
    let r = arith::sqrt(env, &u);
    pack::<F>(env, r)
}

/// [`sqrt`] of the second operand.
pub(crate) fn sqrt_slow<F: Format>(env: &mut Env, _: u64, a: u64) -> u64 {
    sqrt::<F>(env, a)
}

/// `a * b + c` with one rounding, either part negated first.
#[inline(always)]
pub(crate) fn mul_add<F: Format>(env: &mut Env, a: u64, b: u64, c: u64, negative: arith::Signs) -> u64 {
    if env.fast && normal::<F>(a) && normal::<F>(b) && plain::<F>(c) {
        let sign = |on: bool| if on { F::SIGN } else { 0 };
        let r = F::mul_add(a ^ sign(negative.product), b, c ^ sign(negative.addend));
        if safe::<F>(r) {
            return r;
        }
    }
    mul_add_slow::<F>(env, [a, b, c], negative)
}

#[cold]
#[inline(never)]
fn mul_add_slow<F: Format>(env: &mut Env, operands: [u64; 3], negative: arith::Signs) -> u64 {
    let [a, b, c] = operands.map(|x| unpack::<F>(x, env.daz));
    let r = arith::mul_add(env, &a, &b, &c, negative);
    pack::<F>(env, r)
}

/// What `minps` and friends do: the second operand unless the first is strictly less; NaNs raise #I and give the second.
#[inline(always)]
fn minmax<F: Format>(env: &mut Env, a: u64, b: u64, wanted: Ordering) -> u64 {
    if plain::<F>(a) && plain::<F>(b) {
        let first = if wanted == Ordering::Less {
            F::less(a, b)
        } else {
            F::less(b, a)
        };
        return if first { a } else { b };
    }
    let (x, y) = (unpack::<F>(a, env.daz), unpack::<F>(b, env.daz));
    let flush = |bits: u64, zero: bool| if zero { bits & F::SIGN } else { bits };
    match arith::compare(env, &x, &y, true) {
        Some(o) if o == wanted => flush(a, x.is_zero()),
        _ => flush(b, y.is_zero()),
    }
}

#[inline(always)]
pub(crate) fn min<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
    minmax::<F>(env, a, b, Ordering::Less)
}

#[inline(always)]
pub(crate) fn max<F: Format>(env: &mut Env, a: u64, b: u64) -> u64 {
    minmax::<F>(env, a, b, Ordering::Greater)
}

/// Compares; `quiet_too` raises #I for quiet NaNs as well.
#[inline(always)]
pub(crate) fn compare<F: Format>(env: &mut Env, a: u64, b: u64, quiet_too: bool) -> Option<Ordering> {
    if plain::<F>(a) && plain::<F>(b) {
        return Some(if F::less(a, b) {
            Ordering::Less
        } else if F::equal(a, b) {
            Ordering::Equal
        } else {
            Ordering::Greater
        });
    }
    let (a, b) = (unpack::<F>(a, env.daz), unpack::<F>(b, env.daz));
    arith::compare(env, &a, &b, quiet_too)
}

/// The predicate `imm & 7` of `cmpps`.
#[inline(always)]
pub(crate) fn predicate<F: Format>(env: &mut Env, a: u64, b: u64, imm: u8) -> bool {
    // lt, le, nlt, nle signal quiet NaNs; eq, unord, neq, ord do not.
    let signalling = matches!(imm & 3, 1 | 2);
    let o = compare::<F>(env, a, b, signalling);
    let holds = match imm & 3 {
        0 => o == Some(Ordering::Equal),
        1 => o == Some(Ordering::Less),
        2 => matches!(o, Some(Ordering::Less | Ordering::Equal)),
        _ => o.is_none(),
    };
    holds != (imm & 4 != 0)
}

/// One of the 32 predicates of `vcmpps`, `imm & 31`.
#[inline(always)]
pub(crate) fn predicate32<F: Format>(env: &mut Env, a: u64, b: u64, imm: u8) -> bool {
    const LESS: u8 = 1;
    const EQUAL: u8 = 2;
    const GREATER: u8 = 4;
    const UNORDERED: u8 = 8;
    // By the low four bits: the orders for which it holds. Bit 4 turns around whether quiet NaNs are signalled.
    const HOLDS: [u8; 16] = [
        EQUAL,
        LESS,
        LESS | EQUAL,
        UNORDERED,
        LESS | GREATER | UNORDERED,
        EQUAL | GREATER | UNORDERED,
        GREATER | UNORDERED,
        LESS | EQUAL | GREATER,
        EQUAL | UNORDERED,
        LESS | UNORDERED,
        LESS | EQUAL | UNORDERED,
        0,
        LESS | GREATER,
        EQUAL | GREATER,
        GREATER,
        LESS | EQUAL | GREATER | UNORDERED,
    ];
    let signalling = matches!(imm & 3, 1 | 2) != (imm & 16 != 0);
    let order = match compare::<F>(env, a, b, signalling) {
        Some(Ordering::Less) => LESS,
        Some(Ordering::Equal) => EQUAL,
        Some(Ordering::Greater) => GREATER,
        None => UNORDERED,
    };
    HOLDS[usize::from(imm & 15)] & order != 0
}

/// To a signed integer of `bits` bits, or the integer indefinite. `rounding` `None` means MXCSR's.
#[inline(always)]
pub(crate) fn to_int<F: Format>(env: &mut Env, a: u64, truncate: bool, bits: u32) -> i64 {
    let u = unpack::<F>(a, env.daz);
    let rounding = if truncate { rc::ZERO } else { env.rc };
    match convert::to_int(env, &u, rounding, bits) {
        Some(v) => v,
        None => i64::MIN >> (64 - bits),
    }
}

#[inline(always)]
pub(crate) fn f64_to_int(env: &mut Env, a: u64, truncate: bool, bits: u32) -> i64 {
    if truncate && normal::<F64>(a) {
        let x = f64::from_bits(a);
        if x.abs() < 2147483647.0 {
            let v = x as i64;
            if v as f64 != x {
                env.flags |= flag::PE;
            }
            return v;
        }
    }
    to_int::<F64>(env, a, truncate, bits)
}

#[inline(always)]
pub(crate) fn from_int<F: Format>(env: &mut Env, v: i64) -> u64 {
    let r = convert::from_int(v).res();
    pack::<F>(env, r)
}

#[inline(always)]
pub(crate) fn f64_from_int(env: &mut Env, v: i64) -> u64 {
    if v.unsigned_abs() < 1 << 53 {
        return (v as f64).to_bits();
    }
    from_int::<F64>(env, v)
}

#[inline(always)]
pub(crate) fn f32_to_f64(env: &mut Env, a: u64) -> u64 {
    if plain::<F32>(a) {
        return f64::from(f32::from_bits(a as u32)).to_bits();
    }
    widen::<F32, F64>(env, a)
}

/// As `try_add`, double to single.
#[inline(always)]
pub(crate) fn try_narrow(a: u64) -> Option<u64> {
    if normal::<F64>(a) {
        let r = u64::from((f64::from_bits(a) as f32).to_bits());
        if safe::<F32>(r) {
            return Some(r);
        }
    }
    None
}

#[inline(always)]
pub(crate) fn f64_to_f32(env: &mut Env, a: u64) -> u64 {
    if env.fast {
        if let Some(r) = try_narrow(a) {
            return r;
        }
    }
    widen::<F64, F32>(env, a)
}

fn widen<A: Format, B: Format>(env: &mut Env, a: u64) -> u64 {
    let u = unpack::<A>(a, env.daz);
    if u.is_snan() {
        env.flags |= flag::IE;
    }
    env.denormals(&u, &u);
    pack::<B>(env, u.res())
}

/// `roundps` and friends: `imm` bit 2 takes MXCSR's mode, bit 3 keeps precision from being raised.
pub(crate) fn round_imm<F: Format>(env: &mut Env, a: u64, imm: u8) -> u64 {
    let u = unpack::<F>(a, env.daz);
    if u.class == Class::Nan {
        if u.is_snan() {
            env.flags |= flag::IE;
        }
        return pack::<F>(env, Res::Nan(u.quiet()));
    }
    if u.exp >= F::P as i32 || u.class != Class::Num {
        return if u.is_zero() { a & F::SIGN } else { a };
    }
    let rounding = if imm & 4 != 0 { env.rc } else { u32::from(imm & 3) };
    let r = convert::round_int(env, &u, rounding, imm & 8 == 0);
    pack::<F>(env, r)
}
