// SPDX-License-Identifier: Apache-2.0
//! Half precision, which F16C converts from and to: never flushed, and its denormals are numbers like others.

use super::{flag, round, unpack, Class, Env, Rounded, Target, Un, F32, LEADING};

const INFINITY: u16 = 0x7c00;
/// Bits of the fraction.
const FRACTION: u32 = 10;
const TARGET: Target = Target {
    precision: 11,
    emin: -14,
    emax: 15,
    wrap: 0,
};

/// The bits below the leading one that a half has of a significand.
fn fraction(significand: u64) -> u16 {
    (significand >> (63 - FRACTION)) as u16 & ((1 << FRACTION) - 1)
}

pub(crate) fn to_single(env: &mut Env, bits: u16) -> u32 {
    let sign = u32::from(bits >> 15) << 31;
    let fraction = u32::from(bits & 0x3ff);
    match bits >> 10 & 31 {
        0 => sign | (fraction as f32 / (1 << 24) as f32).to_bits(),
        31 if fraction == 0 => sign | 0x7f80_0000,
        31 => {
            if fraction & 0x200 == 0 {
                env.flags |= flag::IE;
            }
            sign | 0x7fc0_0000 | fraction << 13
        }
        exponent => sign | (u32::from(exponent) + 112) << 23 | fraction << 13,
    }
}

pub(crate) fn from_single(env: &mut Env, bits: u32) -> u16 {
    let u = unpack::<F32>(u64::from(bits), env.daz);
    let sign = u16::from(u.sign) << 15;
    env.denormals(&u, &u);
    sign | match u.class {
        Class::Zero => 0,
        Class::Inf => INFINITY,
        Class::Nan | Class::Bad => {
            if u.is_snan() {
                env.flags |= flag::IE;
            }
            INFINITY | fraction(u.quiet().sig)
        }
        Class::Num => match round_half(env, &u) {
            Rounded::Zero => 0,
            Rounded::Inf => INFINITY,
            Rounded::Num(exp, sig) => {
                let fraction = fraction(sig);
                // Out of range only with an exception that ends the instruction without a result.
                let biased = if sig & LEADING != 0 { exp + 15 } else { 0 };
                (biased as u16 & 31) << 10 | fraction
            }
        },
    }
}

/// Of a denormal number precision is raised by the result that there is with underflow masked, also when it is not.
fn round_half(env: &mut Env, u: &Un) -> Rounded {
    let sig = u128::from(u.sig) << 64;
    let rounded = round(env, u.sign, u.exp, sig, &TARGET);
    if u.denormal && env.flags & !env.masks & flag::UE != 0 {
        let mut masked = Env {
            masks: flag::ALL,
            flags: 0,
            ..*env
        };
        round(&mut masked, u.sign, u.exp, sig, &TARGET);
        env.flags |= masked.flags & flag::PE;
    }
    rounded
}
