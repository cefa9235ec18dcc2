// SPDX-License-Identifier: Apache-2.0
//! The integer core against the host's arithmetic, for modes in which the host computes.

use super::{arith, fast, flag, pack, unpack, Env, Format, F32, F64};

/// Operands of all magnitudes, with many short significands and close exponents.
fn operands(bits: u32) -> impl Iterator<Item = (u64, u64)> {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    std::iter::repeat_with(move || {
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let (a, b, how) = (next(), next(), next());
        let short = u64::MAX << (how >> 8 & 63);
        let (a, b) = match how & 7 {
            0 => (a & short, b & short),
            1 => (a, a ^ (b & 0xff)),
            2 => (a & short, b & 0x800f_ffff_ffff_ffff),
            3 => (a >> 1 << 1, 0),
            _ => (a, b),
        };
        (a >> (64 - bits), b >> (64 - bits))
    })
    .take(20_000)
}

fn agree<F: Format>(is_nan: fn(u64) -> bool) {
    type Host = fn(u64, u64) -> u64;
    type Core = fn(&mut Env, &super::Un, &super::Un) -> super::Res;
    let all: [(Host, Core); 4] = [
        (F::add, arith::add),
        (F::sub, arith::sub),
        (F::mul, arith::mul),
        (F::div, arith::div),
    ];
    for (a, b) in operands(F::P + F::EBITS) {
        for (host, core) in all {
            let mut env = Env::sse(0x1f80);
            let res = core(&mut env, &unpack::<F>(a, false), &unpack::<F>(b, false));
            let ours = pack::<F>(&mut env, res);
            let theirs = host(a, b);
            assert!(
                ours == theirs || (is_nan(ours) && is_nan(theirs)),
                "{a:#x} {b:#x}: {ours:#x} {theirs:#x}"
            );
        }
        let mut env = Env::sse(0x1f80);
        let res = arith::sqrt(&mut env, &unpack::<F>(a, false));
        let ours = pack::<F>(&mut env, res);
        let theirs = F::sqrt(a);
        assert!(
            ours == theirs || (is_nan(ours) && is_nan(theirs)),
            "sqrt {a:#x}: {ours:#x} {theirs:#x}"
        );
    }
}

#[test]
fn singles_come_out_as_the_host_computes_them() {
    agree::<F32>(|x| f32::from_bits(x as u32).is_nan());
}

#[test]
fn doubles_come_out_as_the_host_computes_them() {
    agree::<F64>(|x| f64::from_bits(x).is_nan());
}

#[test]
fn the_short_cut_gives_the_result_and_the_flags_of_the_long_way() {
    for (a, b) in operands(64) {
        let run = |fast_path: bool, f: fn(&mut Env, u64, u64) -> u64| {
            let mut env = Env::sse(0x1fa0);
            assert!(env.fast);
            env.fast = fast_path;
            let r = f(&mut env, a, b);
            (r, env.flags | flag::PE)
        };
        for f in [
            fast::add::<F64>,
            fast::sub::<F64>,
            fast::mul::<F64>,
            fast::div::<F64>,
        ] {
            assert_eq!(run(true, f), run(false, f), "{a:#x} {b:#x}");
        }
    }
}

#[test]
fn conversions_to_integers_cut_and_saturate_as_defined() {
    for (a, _) in operands(64) {
        let x = f64::from_bits(a);
        let mut env = Env::sse(0x1f80);
        let r = fast::to_int::<F64>(&mut env, a, true, 64);
        let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&x);
        assert_eq!(r, if fits { x as i64 } else { i64::MIN }, "{a:#x}");
        assert_eq!(env.flags & flag::IE != 0, !fits, "{a:#x}");
        assert_eq!(env.flags & flag::PE != 0, fits && x.trunc() != x, "{a:#x}");
    }
}
