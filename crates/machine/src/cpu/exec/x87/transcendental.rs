// SPDX-License-Identifier: Apache-2.0
//! The transcendental instructions: series in 128-bit floating point, then one rounding.
//!
//! Results are the correctly rounded ones in all but very rare cases; processors are allowed an error of one unit in the last
//! place and differ from each other. Arguments of the trigonometric ones are reduced by the 66-bit pi of the
//! hardware's definition, so that large arguments give what programs for it expect.

use super::wide::Wide;
use super::{pack, unpack, waiting, EXTENDED, INDEFINITE, ONE};
use crate::cpu::exec::softfp::{arith, flag, Class, Env, Res, Un};
use crate::cpu::fault::Exec;
use crate::cpu::x87state::sw;
use crate::cpu::{Cpu, SlowFn};
use iced_x86::Code;

/// The first 128 bits of pi (exponent 1) and ln 2 (exponent -1).
pub(crate) const PI: u128 = 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1;
pub(crate) const LN2: u128 = 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af;

const WIDE_PI: Wide = Wide {
    sign: false,
    exp: 1,
    sig: PI,
};
const HALF_PI: Wide = Wide {
    sign: false,
    exp: 0,
    sig: PI,
};
const LOG2_E: Wide = Wide {
    sign: false,
    exp: 0,
    sig: super::load::LOG2_E,
};
const WIDE_LN2: Wide = Wide {
    sign: false,
    exp: -1,
    sig: LN2,
};
/// Pi cut to 66 bits, halved: what range reduction uses.
const REDUCTION: Wide = Wide {
    sign: false,
    exp: 0,
    sig: PI >> 62 << 62,
};

fn wide(u: &Un) -> Wide {
    match u.class {
        Class::Num => Wide {
            sign: u.sign,
            exp: u.exp,
            sig: u128::from(u.sig) << 64,
        },
        _ => Wide::ZERO,
    }
}

/// An inexact result.
fn inexact(w: Wide) -> Res {
    if w.sig == 0 {
        Res::Zero(w.sign)
    } else {
        Res::Num(w.sign, w.exp, w.sig | 1)
    }
}

/// `1 + x/d(1)*(1 + x/d(2)*(1 + ...))` with `n` factors.
fn horner(x: Wide, n: u32, d: impl Fn(u32) -> u32) -> Wide {
    (1..=n)
        .rev()
        .fold(Wide::ONE, |s, k| Wide::ONE.add(s.mul(x).div_small(d(k))))
}

/// `sum x^k / (2k+1)`, as in the series of atanh (and of atan, for negative `x`).
fn odd_series(x: Wide, n: u32) -> Wide {
    (0..n)
        .rev()
        .fold(Wide::ZERO, |s, k| s.mul(x).add(Wide::ONE.div_small(2 * k + 1)))
}

/// e^y - 1, for |y| < 0.7.
fn expm1(y: Wide) -> Wide {
    y.mul(horner(y, 32, |k| k + 1))
}

/// log2((1 + s) / (1 - s)) for |s| < 0.172.
fn log2_ratio(s: Wide) -> Wide {
    s.mul(odd_series(s.mul(s), 26)).scaled(1).mul(LOG2_E)
}

/// log2 of a positive number.
fn log2(x: Wide) -> Wide {
    // Into [sqrt(1/2), sqrt(2)).
    let above = x.sig > 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;
    let e = x.exp + i32::from(above);
    let m = x.scaled(-e);
    log2_ratio(m.sub(Wide::ONE).div(m.add(Wide::ONE))).add(Wide::int(i64::from(e)))
}

/// `r` times a factor that is below one, though perhaps by less than `factor` can tell.
fn below(r: Wide, factor: Wide) -> Wide {
    if factor.exp < 0 {
        return r.mul(factor);
    }
    Wide::new(r.sign, r.exp, r.sig.saturating_sub(1))
}

/// sin and cos of |r| <= pi/4.
fn sin_cos_small(r: Wide) -> (Wide, Wide) {
    let x = r.mul(r).negated();
    let s = horner(x, 18, |k| 2 * k * (2 * k + 1));
    let c = horner(x, 18, |k| (2 * k - 1) * (2 * k));
    (
        below(r, s),
        if r.sig == 0 {
            Wide::ONE
        } else {
            below(Wide::ONE, c)
        },
    )
}

/// sin and cos; |x| must be below 2^63.
fn sin_cos(x: Wide) -> (Wide, Wide) {
    let n = x.div(REDUCTION).nearest();
    let r = x.sub(reduce_by(n));
    let (s, c) = sin_cos_small(r);
    match n & 3 {
        0 => (s, c),
        1 => (c, s.negated()),
        2 => (s.negated(), c.negated()),
        _ => (c.negated(), s),
    }
}

/// `n` times the 66-bit half pi, which fits 128 bits exactly.
fn reduce_by(n: i64) -> Wide {
    REDUCTION.mul(Wide::int(n))
}

/// atan of x in [0, 1].
fn atan_small(x: Wide) -> Wide {
    // Twice atan(x) = 2 atan(x / (1 + sqrt(1 + x^2))), until the series converges quickly.
    let mut t = x;
    let mut doublings = 0;
    while t.exp >= -3 && doublings < 4 {
        t = t.div(Wide::ONE.add(sqrt(Wide::ONE.add(t.mul(t)))));
        doublings += 1;
    }
    below(t, odd_series(t.mul(t).negated(), 26)).scaled(doublings)
}

fn sqrt(x: Wide) -> Wide {
    // Newton's iteration from the square root of the leading bits.
    let odd = x.exp & 1;
    let root = (x.sig >> if odd == 0 { 1 } else { 0 }).isqrt();
    let mut r = Wide::new(false, x.exp.div_euclid(2) + 64, root);
    for _ in 0..2 {
        r = r.add(x.div(r)).scaled(-1);
    }
    r
}

/// The angle of (x, y), x and y not zero.
fn atan2(y: Wide, x: Wide) -> Wide {
    let (ay, ax) = (y.abs(), x.abs());
    let base = if ay.cmp_abs(ax).is_gt() {
        HALF_PI.sub(atan_small(ax.div(ay)))
    } else {
        atan_small(ay.div(ax))
    };
    let angle = if x.sign { WIDE_PI.sub(base) } else { base };
    Wide {
        sign: y.sign,
        ..angle
    }
}

fn f2xm1(env: &mut Env, a: &Un) -> Res {
    match a.class {
        Class::Bad => env.invalid(),
        Class::Nan => arith::pick_nan(env, a, a),
        Class::Zero => a.res(),
        Class::Inf if a.sign => Res::Num(true, 0, 1 << 127),
        Class::Inf => a.res(),
        Class::Num => {
            env.denormals(a, a);
            if a.exp < 0 {
                return inexact(expm1(wide(a).mul(WIDE_LN2)));
            }
            env.flags |= flag::PE;
            if a.exp == 0 && a.sig == 1 << 63 && a.sign {
                return Res::Num(true, -1, 1 << 127);
            }
            // One gives one; beyond that the result is undefined, and the operand stays.
            a.res()
        }
    }
}

fn pair_special(env: &mut Env, a: &Un, b: &Un) -> Option<Res> {
    if a.class == Class::Bad || b.class == Class::Bad {
        return Some(env.invalid());
    }
    (a.is_nan() || b.is_nan()).then(|| arith::pick_nan(env, a, b))
}

/// `y * log2(x)`: x is ST(0), y is ST(1).
fn yl2x(env: &mut Env, x: &Un, y: &Un) -> Res {
    if let Some(r) = pair_special(env, x, y) {
        return r;
    }
    if x.sign && !x.is_zero() {
        return env.invalid();
    }
    let is_one = x.class == Class::Num && x.exp == 0 && x.sig == 1 << 63;
    if x.is_zero() {
        if y.is_zero() {
            return env.invalid();
        }
        if !y.is_inf() {
            env.flags |= flag::ZE;
        }
        return Res::Inf(!y.sign);
    }
    if (x.is_inf() && y.is_zero()) || (is_one && y.is_inf()) {
        return env.invalid();
    }
    env.denormals(x, y);
    let below = x.class == Class::Num && x.exp < 0;
    if x.is_inf() || y.is_inf() {
        return Res::Inf(y.sign != below);
    }
    if y.is_zero() {
        return Res::Zero(y.sign != below);
    }
    if is_one {
        return Res::Zero(y.sign);
    }
    let log = log2(wide(x));
    if x.sig == 1 << 63 {
        // A power of two: the logarithm is exact.
        return arith::mul(
            env,
            &crate::cpu::exec::softfp::convert::from_int(i64::from(x.exp)),
            y,
        );
    }
    inexact(wide(y).mul(log))
}

/// `y * log2(x + 1)`
fn yl2xp1(env: &mut Env, x: &Un, y: &Un) -> Res {
    if let Some(r) = pair_special(env, x, y) {
        return r;
    }
    if (x.is_zero() && y.is_inf()) || (x.is_inf() && (x.sign || y.is_zero())) {
        return env.invalid();
    }
    if x.sign && x.class == Class::Num && x.exp >= 0 {
        // x <= -1: outside the defined range.
        return env.invalid();
    }
    env.denormals(x, y);
    let sign = x.sign != y.sign;
    if x.is_inf() || y.is_inf() {
        return Res::Inf(sign);
    }
    if x.is_zero() || y.is_zero() {
        return Res::Zero(sign);
    }
    let w = wide(x);
    let log = if x.exp < -2 {
        log2_ratio(w.div(w.add(Wide::int(2))))
    } else {
        log2(w.add(Wide::ONE))
    };
    inexact(wide(y).mul(log))
}

/// The angle of the point (ST(0), ST(1)).
fn patan(env: &mut Env, x: &Un, y: &Un) -> Res {
    if let Some(r) = pair_special(env, x, y) {
        return r;
    }
    env.denormals(x, y);
    let signed = |w: Wide| inexact(Wide { sign: y.sign, ..w });
    let quarter = WIDE_PI.scaled(-2);
    match (y.class, x.class) {
        (Class::Inf, Class::Inf) => signed(if x.sign { WIDE_PI.sub(quarter) } else { quarter }),
        (Class::Inf, _) => signed(HALF_PI),
        (Class::Zero, _) | (_, Class::Inf) => {
            if x.sign {
                signed(WIDE_PI)
            } else {
                Res::Zero(y.sign)
            }
        }
        (_, Class::Zero) => signed(HALF_PI),
        _ => inexact(atan2(wide(y), wide(x))),
    }
}

/// `ST(1) = f(ST(0), ST(1))`, popped.
fn two(cpu: &mut Cpu, f: fn(&mut Env, &Un, &Un) -> Res) -> Exec {
    let (Some(x), Some(y)) = (cpu.fpu.x87.get(0), cpu.fpu.x87.get(1)) else {
        if cpu.fpu.x87.stack_fault(false) {
            cpu.fpu.x87.put(1, INDEFINITE);
            cpu.fpu.x87.pop();
        }
        return Ok(());
    };
    let mut env = cpu.fpu.x87.env();
    let res = f(&mut env, &unpack(x), &unpack(y));
    let v = pack(&mut env, res, &EXTENDED);
    if cpu.fpu.x87.settle(&env) {
        cpu.fpu.x87.put(1, v);
        cpu.fpu.x87.pop();
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trig {
    Sin,
    Cos,
    SinCos,
    Tan,
}

/// What goes to ST(0) and, for two results, what is pushed then.
fn evaluate(env: &mut Env, u: &Un, which: Trig) -> (Res, Option<Res>) {
    let special = match u.class {
        Class::Bad | Class::Inf => Some(env.invalid()),
        Class::Nan => Some(arith::pick_nan(env, u, u)),
        _ => None,
    };
    if let Some(r) = special {
        return (r, matches!(which, Trig::SinCos | Trig::Tan).then_some(r));
    }
    let one = Res::Num(false, 0, 1 << 127);
    if u.is_zero() {
        return match which {
            Trig::Sin => (u.res(), None),
            Trig::Cos => (one, None),
            _ => (u.res(), Some(one)),
        };
    }
    env.denormals(u, u);
    let (s, c) = sin_cos(wide(u));
    match which {
        Trig::Sin => (inexact(s), None),
        Trig::Cos => (inexact(c), None),
        Trig::SinCos => (inexact(s), Some(inexact(c))),
        Trig::Tan => (inexact(s.div(c)), Some(one)),
    }
}

fn trig(cpu: &mut Cpu, which: Trig) -> Exec {
    let pushes = matches!(which, Trig::SinCos | Trig::Tan);
    let overflow = pushes && cpu.fpu.x87.get(0).is_some() && cpu.fpu.x87.get(7).is_some();
    cpu.fpu.x87.status &= !sw::C2;
    let Some(a) = cpu.fpu.x87.get(0).filter(|_| !overflow) else {
        if cpu.fpu.x87.stack_fault(overflow) {
            cpu.fpu.x87.put(0, INDEFINITE);
            if pushes {
                cpu.fpu.x87.push_unchecked(INDEFINITE);
            }
        }
        return Ok(());
    };
    let u = unpack(a);
    if u.class == Class::Num && u.exp >= 63 {
        cpu.fpu.x87.status |= sw::C2;
        cpu.fpu.x87.set_c1(false);
        return Ok(());
    }
    let mut env = cpu.fpu.x87.env();
    let (first, second) = evaluate(&mut env, &u, which);
    let first = pack(&mut env, first, &EXTENDED);
    let second = second.map(|r| {
        if r == Res::Num(false, 0, 1 << 127) {
            ONE
        } else {
            pack(&mut env, r, &EXTENDED)
        }
    });
    if cpu.fpu.x87.settle(&env) {
        cpu.fpu.x87.put(0, first);
        if let Some(v) = second {
            cpu.fpu.x87.push(v);
        }
    }
    Ok(())
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        F2xm1 => waiting!(|cpu, i| super::unary(cpu, &EXTENDED, f2xm1)),
        Fyl2x => waiting!(|cpu, i| two(cpu, yl2x)),
        Fyl2xp1 => waiting!(|cpu, i| two(cpu, yl2xp1)),
        Fpatan => waiting!(|cpu, i| two(cpu, patan)),
        Fsin => waiting!(|cpu, i| trig(cpu, Trig::Sin)),
        Fcos => waiting!(|cpu, i| trig(cpu, Trig::Cos)),
        Fsincos => waiting!(|cpu, i| trig(cpu, Trig::SinCos)),
        Fptan => waiting!(|cpu, i| trig(cpu, Trig::Tan)),
        _ => return None,
    })
}
