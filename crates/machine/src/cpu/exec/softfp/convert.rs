// SPDX-License-Identifier: Apache-2.0
//! Between integers and floating point, and rounding to an integral value.

use super::{flag, rc, Class, Env, Res, Un};

/// The magnitude rounded to an integer under `rounding`, and whether anything was lost. `exp` must be below 64.
fn integer(u: &Un, rounding: u32) -> (u128, bool, bool) {
    let (whole, rest) = match u.exp {
        63.. => (u.sig, 0),
        0..=62 => (u.sig >> (63 - u.exp), u.sig << (u.exp + 1)),
        -1 => (0, u.sig),
        _ => (0, 1),
    };
    let half = 1u64 << 63;
    let up = match rounding {
        rc::NEAREST => rest > half || (rest == half && whole & 1 == 1),
        rc::DOWN => u.sign && rest != 0,
        rc::UP => !u.sign && rest != 0,
        _ => false,
    };
    (u128::from(whole) + u128::from(up), rest != 0, up)
}

/// To a signed integer of `bits` bits; `None` (the caller stores the integer indefinite) with #I if it does not fit.
pub(crate) fn to_int(env: &mut Env, u: &Un, rounding: u32, bits: u32) -> Option<i64> {
    let limit = 1u128 << (bits - 1);
    let magnitude = match u.class {
        Class::Zero => 0,
        Class::Num if u.exp < 64 => {
            let (magnitude, inexact, up) = integer(u, rounding);
            if magnitude > limit || (magnitude == limit && !u.sign) {
                env.flags |= flag::IE;
                return None;
            }
            if inexact {
                env.flags |= flag::PE;
                env.up = up;
            }
            magnitude as u64
        }
        _ => {
            env.flags |= flag::IE;
            return None;
        }
    };
    Some(if u.sign {
        (magnitude as i64).wrapping_neg()
    } else {
        magnitude as i64
    })
}

/// Rounds to an integral value; precision is raised unless `exact_only` is false. NaNs must have been dealt with.
pub(crate) fn round_int(env: &mut Env, u: &Un, rounding: u32, report: bool) -> Res {
    if u.class != Class::Num || u.exp >= 63 {
        return u.res();
    }
    let (magnitude, inexact, up) = integer(u, rounding);
    if inexact && report {
        env.flags |= flag::PE;
        env.up = up;
    }
    if magnitude == 0 {
        return Res::Zero(u.sign);
    }
    let lz = magnitude.leading_zeros();
    Res::Num(u.sign, 127 - lz as i32, magnitude << lz)
}

/// A signed integer, to be rounded to a format.
pub(crate) fn from_int(v: i64) -> Un {
    Un::int(v < 0, v.unsigned_abs())
}
