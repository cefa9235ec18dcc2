// SPDX-License-Identifier: Apache-2.0
//! Add, subtract, multiply, divide, square root and compare on unpacked operands.

use super::{flag, rc, shift_sticky, Class, Env, Res, Un};
use std::cmp::Ordering;

/// The NaN that an operation with a NaN operand gives, raising #I for a signalling one.
/// SSE takes the first operand if it is a NaN, else the second; x87 the one with the larger significand.
pub(crate) fn pick_nan(env: &mut Env, a: &Un, b: &Un) -> Res {
    if a.is_snan() || b.is_snan() {
        env.flags |= flag::IE;
    }
    if !env.x87 {
        return Res::Nan(if a.is_nan() { a.quiet() } else { b.quiet() });
    }
    if !b.is_nan() {
        return Res::Nan(a.quiet());
    }
    if !a.is_nan() {
        return Res::Nan(b.quiet());
    }
    let chosen = if a.is_snan() != b.is_snan() {
        if a.is_snan() {
            b
        } else {
            a
        }
    } else {
        match a.sig.cmp(&b.sig) {
            Ordering::Greater => a,
            Ordering::Less => b,
            Ordering::Equal if a.sign => b,
            Ordering::Equal => a,
        }
    };
    Res::Nan(chosen.quiet())
}

/// What the operands alone decide: refused encodings and NaNs.
fn special(env: &mut Env, a: &Un, b: &Un) -> Option<Res> {
    if a.class == Class::Bad || b.class == Class::Bad {
        return Some(env.invalid());
    }
    if a.is_nan() || b.is_nan() {
        return Some(pick_nan(env, a, b));
    }
    None
}

/// A number from a non-zero significand whose leading one would be at bit 127 for `exp`.
fn normal(sign: bool, exp: i32, sig: u128) -> Res {
    let lz = sig.leading_zeros();
    Res::Num(sign, exp - lz as i32, sig << lz)
}

pub(crate) fn add(env: &mut Env, a: &Un, b: &Un) -> Res {
    if let Some(r) = special(env, a, b) {
        return r;
    }
    if a.is_inf() && b.is_inf() && a.sign != b.sign {
        return env.invalid();
    }
    env.denormals(a, b);
    if a.is_inf() {
        return Res::Inf(a.sign);
    }
    if b.is_inf() {
        return Res::Inf(b.sign);
    }
    match (a.is_zero(), b.is_zero()) {
        (true, true) if a.sign == b.sign => return Res::Zero(a.sign),
        (true, true) => return Res::Zero(env.rc == rc::DOWN),
        (true, false) => return b.res(),
        (false, true) => return a.res(),
        _ => {}
    }
    let (big, small) = if (a.exp, a.sig) >= (b.exp, b.sig) {
        (a, b)
    } else {
        (b, a)
    };
    let shift = (big.exp - small.exp) as u32;
    // One bit is left free on top for the carry.
    let x = u128::from(big.sig) << 63;
    let y = shift_sticky(u128::from(small.sig) << 63, shift);
    if a.sign == b.sign {
        normal(a.sign, big.exp + 1, x + y)
    } else if x == y {
        Res::Zero(env.rc == rc::DOWN)
    } else {
        normal(big.sign, big.exp + 1, x - y)
    }
}

pub(crate) fn sub(env: &mut Env, a: &Un, b: &Un) -> Res {
    if b.is_nan() {
        return add(env, a, b);
    }
    add(env, a, &b.negated())
}

pub(crate) fn mul(env: &mut Env, a: &Un, b: &Un) -> Res {
    if let Some(r) = special(env, a, b) {
        return r;
    }
    let sign = a.sign != b.sign;
    if (a.is_inf() && b.is_zero()) || (a.is_zero() && b.is_inf()) {
        return env.invalid();
    }
    env.denormals(a, b);
    if a.is_inf() || b.is_inf() {
        return Res::Inf(sign);
    }
    if a.is_zero() || b.is_zero() {
        return Res::Zero(sign);
    }
    normal(sign, a.exp + b.exp + 1, u128::from(a.sig) * u128::from(b.sig))
}

/// Which parts of `a * b + c` are negated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signs {
    pub product: bool,
    pub addend: bool,
}

/// `a * b + c`, rounded once. The first NaN of `a`, `b` and `c` is the result, its sign as it is.
pub(crate) fn mul_add(env: &mut Env, a: &Un, b: &Un, c: &Un, negative: Signs) -> Res {
    if let Some(nan) = [a, b, c].into_iter().find(|u| u.is_nan()) {
        if [a, b, c].into_iter().any(|u| u.is_snan()) {
            env.flags |= flag::IE;
        }
        return Res::Nan(nan.quiet());
    }
    if (a.is_inf() && b.is_zero()) || (a.is_zero() && b.is_inf()) {
        return env.invalid();
    }
    let sign = (a.sign != b.sign) != negative.product;
    let c_sign = c.sign != negative.addend;
    let infinite = a.is_inf() || b.is_inf();
    if infinite && c.is_inf() && sign != c_sign {
        return env.invalid();
    }
    env.denormals(a, b);
    env.denormals(c, c);
    if infinite {
        return Res::Inf(sign);
    }
    if c.is_inf() {
        return Res::Inf(c_sign);
    }
    // Leading ones at bit 126: one bit is left free on top for the carry.
    let product = (!a.is_zero() && !b.is_zero()).then(|| {
        let p = u128::from(a.sig) * u128::from(b.sig);
        let carry = (p >> 127) as u32;
        (a.exp + b.exp + carry as i32, p >> carry)
    });
    let addend = (!c.is_zero()).then(|| (c.exp, u128::from(c.sig) << 63));
    let (p, c) = match (product, addend) {
        (None, None) if sign == c_sign => return Res::Zero(sign),
        (None, None) => return Res::Zero(env.rc == rc::DOWN),
        (Some((exp, sig)), None) => return normal(sign, exp + 1, sig),
        (None, Some((exp, sig))) => return normal(c_sign, exp + 1, sig),
        (Some(p), Some(c)) => (p, c),
    };
    let (big, small, big_sign) = if p >= c { (p, c, sign) } else { (c, p, c_sign) };
    // The lowest bits of both are zero, as neither factor has more than 53: nothing is lost where much cancels.
    let y = shift_sticky(small.1, (big.0 - small.0) as u32);
    if sign == c_sign {
        normal(sign, big.0 + 1, big.1 + y)
    } else if big.1 == y {
        Res::Zero(env.rc == rc::DOWN)
    } else {
        normal(big_sign, big.0 + 1, big.1 - y)
    }
}

pub(crate) fn div(env: &mut Env, a: &Un, b: &Un) -> Res {
    if let Some(r) = special(env, a, b) {
        return r;
    }
    let sign = a.sign != b.sign;
    if (a.is_inf() && b.is_inf()) || (a.is_zero() && b.is_zero()) {
        return env.invalid();
    }
    if b.is_zero() && !a.is_inf() {
        env.flags |= flag::ZE;
        return Res::Inf(sign);
    }
    env.denormals(a, b);
    if a.is_inf() {
        return Res::Inf(sign);
    }
    if b.is_inf() || a.is_zero() {
        return Res::Zero(sign);
    }
    let d = u128::from(b.sig);
    let n = u128::from(a.sig) << 63;
    let (q1, r1) = (n / d, n % d);
    let (q2, r2) = ((r1 << 64) / d, (r1 << 64) % d);
    normal(sign, a.exp - b.exp, (q1 << 64) | q2 | u128::from(r2 != 0))
}

pub(crate) fn sqrt(env: &mut Env, a: &Un) -> Res {
    if let Some(r) = special(env, a, a) {
        return r;
    }
    if a.is_zero() {
        return Res::Zero(a.sign);
    }
    if a.sign {
        return env.invalid();
    }
    env.denormals(a, a);
    if a.is_inf() {
        return Res::Inf(false);
    }
    let n = u128::from(a.sig) << if a.exp & 1 == 0 { 63 } else { 64 };
    let root = n.isqrt();
    let rest = n - root * root;
    // (root + 1/2)^2 = root^2 + root + 1/4, so the half is passed exactly when rest > root.
    let sig = (root << 64) | (u128::from(rest > root) << 63) | u128::from(rest != 0);
    Res::Num(false, a.exp >> 1, sig)
}

/// Orders two operands; `None` if unordered. Raises #I for signalling NaNs, or for any if `quiet_too`, and #D.
pub(crate) fn compare(env: &mut Env, a: &Un, b: &Un, quiet_too: bool) -> Option<Ordering> {
    if a.class == Class::Bad || b.class == Class::Bad {
        env.flags |= flag::IE;
        return None;
    }
    if a.is_nan() || b.is_nan() {
        if quiet_too || a.is_snan() || b.is_snan() {
            env.flags |= flag::IE;
        }
        return None;
    }
    env.denormals(a, b);
    Some(order(a, b))
}

/// Orders two operands that are not NaNs.
pub(crate) fn order(a: &Un, b: &Un) -> Ordering {
    fn key(u: &Un) -> (i32, u64) {
        match u.class {
            Class::Zero => (i32::MIN, 0),
            Class::Inf => (i32::MAX, 0),
            _ => (u.exp, u.sig),
        }
    }
    if a.is_zero() && b.is_zero() {
        return Ordering::Equal;
    }
    match (a.sign, b.sign) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => key(a).cmp(&key(b)),
        (true, true) => key(b).cmp(&key(a)),
    }
}
