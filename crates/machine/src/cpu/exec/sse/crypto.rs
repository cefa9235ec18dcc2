// SPDX-License-Identifier: Apache-2.0
//! AES-NI, PCLMULQDQ and SHA extensions, in portable code.

use super::{bin, bin_imm, handler, lane as l};
use crate::cpu::SlowFn;
use iced_x86::Code;

/// Multiplication in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn gf_mul(mut a: u8, mut b: u8) -> u8 {
    let mut r = 0;
    while b != 0 {
        if b & 1 != 0 {
            r ^= a;
        }
        a = (a << 1) ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    r
}

const fn make_sbox() -> [u8; 256] {
    let mut sbox = [0x63; 256];
    let mut x = 1;
    while x < 256 {
        // The inverse is x^254.
        let (mut inverse, mut power, mut e) = (1, x as u8, 254);
        while e != 0 {
            if e & 1 != 0 {
                inverse = gf_mul(inverse, power);
            }
            power = gf_mul(power, power);
            e >>= 1;
        }
        let b: u8 = inverse;
        sbox[x] = b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4) ^ 0x63;
        x += 1;
    }
    sbox
}

const fn invert(t: &[u8; 256]) -> [u8; 256] {
    let mut r = [0; 256];
    let mut x = 0;
    while x < 256 {
        r[t[x] as usize] = x as u8;
        x += 1;
    }
    r
}

const fn multiples(by: u8) -> [u8; 256] {
    let mut r = [0; 256];
    let mut x = 0;
    while x < 256 {
        r[x] = gf_mul(x as u8, by);
        x += 1;
    }
    r
}

static SBOX: [u8; 256] = make_sbox();
static INVERSE_SBOX: [u8; 256] = invert(&make_sbox());
static TIMES: [[u8; 256]; 6] = [
    multiples(2),
    multiples(3),
    multiples(9),
    multiples(11),
    multiples(13),
    multiples(14),
];

fn sub(x: u8) -> u8 {
    SBOX[usize::from(x)]
}

/// Substitutes bytes after moving row `r` by `r` columns.
fn shift_sub(state: [u8; 16]) -> [u8; 16] {
    std::array::from_fn(|k| SBOX[usize::from(state[(k + 4 * (k % 4)) % 16])])
}
fn inverse_shift_sub(state: [u8; 16]) -> [u8; 16] {
    std::array::from_fn(|k| INVERSE_SBOX[usize::from(state[(k + 12 * (k % 4)) % 16])])
}

fn mix(s: [u8; 16]) -> [u8; 16] {
    std::array::from_fn(|k| {
        let at = |j: usize| s[k / 4 * 4 + (k + j) % 4];
        TIMES[0][usize::from(at(0))] ^ TIMES[1][usize::from(at(1))] ^ at(2) ^ at(3)
    })
}
fn inverse_mix(s: [u8; 16]) -> [u8; 16] {
    std::array::from_fn(|k| {
        let at = |j: usize| usize::from(s[k / 4 * 4 + (k + j) % 4]);
        TIMES[5][at(0)] ^ TIMES[3][at(1)] ^ TIMES[4][at(2)] ^ TIMES[2][at(3)]
    })
}

pub(crate) fn aesenc(a: u128, k: u128) -> u128 {
    l::from_bytes(mix(shift_sub(l::bytes(a)))) ^ k
}
pub(crate) fn aesenclast(a: u128, k: u128) -> u128 {
    l::from_bytes(shift_sub(l::bytes(a))) ^ k
}
pub(crate) fn aesdec(a: u128, k: u128) -> u128 {
    l::from_bytes(inverse_mix(inverse_shift_sub(l::bytes(a)))) ^ k
}
pub(crate) fn aesdeclast(a: u128, k: u128) -> u128 {
    l::from_bytes(inverse_shift_sub(l::bytes(a))) ^ k
}
pub(crate) fn aesimc(b: u128) -> u128 {
    l::from_bytes(inverse_mix(l::bytes(b)))
}

pub(crate) fn key_assist(b: u128, rcon: u8) -> u128 {
    let d = l::dwords(b);
    let sub_word = |w: u32| u32::from_le_bytes(w.to_le_bytes().map(sub));
    let (x1, x3) = (sub_word(d[1]), sub_word(d[3]));
    let rcon = u32::from(rcon);
    l::from_dwords([x1, x1.rotate_right(8) ^ rcon, x3, x3.rotate_right(8) ^ rcon])
}

/// Carry-less product.
fn clmul(a: u64, b: u64) -> u128 {
    (0..64)
        .filter(|k| b >> k & 1 != 0)
        .fold(0, |r, k| r ^ u128::from(a) << k)
}

/// The product of the halves that the immediate names.
pub(crate) fn pclmulqdq(a: u128, b: u128, imm: u8) -> u128 {
    clmul(
        l::qwords(a)[usize::from(imm & 1)],
        l::qwords(b)[usize::from(imm >> 4 & 1)],
    )
}

fn sha1_rounds(state: u128, words: u128, function: u8) -> u128 {
    let [mut d, mut c, mut b, mut a] = l::dwords(state);
    let w = l::dwords(words);
    let mut e = 0u32;
    for k in (0..4).rev() {
        let (f, constant) = match function & 3 {
            0 => ((b & c) ^ (!b & d), 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => ((b & c) ^ (b & d) ^ (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6u32),
        };
        let next = f
            .wrapping_add(a.rotate_left(5))
            .wrapping_add(w[k])
            .wrapping_add(e)
            .wrapping_add(constant);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    l::from_dwords([d, c, b, a])
}

fn sha1_msg2(a: u128, b: u128) -> u128 {
    let (x, y) = (l::dwords(a), l::dwords(b));
    let w16 = (x[3] ^ y[2]).rotate_left(1);
    l::from_dwords([
        (x[0] ^ w16).rotate_left(1),
        (x[1] ^ y[0]).rotate_left(1),
        (x[2] ^ y[1]).rotate_left(1),
        w16,
    ])
}

fn sha256_rounds(state: u128, source: u128, keys: u128) -> u128 {
    let [mut h, mut g, mut d, mut c] = l::dwords(state);
    let [mut f, mut e, mut b, mut a] = l::dwords(source);
    for wk in [keys as u32, (keys >> 32) as u32] {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = ((e & f) ^ (!e & g))
            .wrapping_add(s1)
            .wrapping_add(wk)
            .wrapping_add(h);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        (h, g, f, e) = (g, f, e, t.wrapping_add(d));
        (d, c, b, a) = (c, b, a, t.wrapping_add(majority).wrapping_add(s0));
    }
    let _ = (c, d, g, h);
    l::from_dwords([f, e, b, a])
}

fn sigma0(x: u32) -> u32 {
    x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3
}
fn sigma1(x: u32) -> u32 {
    x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10
}

fn sha256_msg1(a: u128, b: u128) -> u128 {
    let (x, y) = (l::dwords(a), l::dwords(b));
    let next = [x[1], x[2], x[3], y[0]];
    l::from_dwords(std::array::from_fn(|k| x[k].wrapping_add(sigma0(next[k]))))
}

fn sha256_msg2(a: u128, b: u128) -> u128 {
    let (x, y) = (l::dwords(a), l::dwords(b));
    let w16 = x[0].wrapping_add(sigma1(y[2]));
    let w17 = x[1].wrapping_add(sigma1(y[3]));
    l::from_dwords([
        w16,
        w17,
        x[2].wrapping_add(sigma1(w16)),
        x[3].wrapping_add(sigma1(w17)),
    ])
}

pub(crate) fn lookup(code: Code) -> Option<SlowFn> {
    use Code::*;
    Some(match code {
        Aesenc_xmm_xmmm128 => bin!(aesenc),
        Aesenclast_xmm_xmmm128 => bin!(aesenclast),
        Aesdec_xmm_xmmm128 => bin!(aesdec),
        Aesdeclast_xmm_xmmm128 => bin!(aesdeclast),
        Aesimc_xmm_xmmm128 => bin!(|_, b| aesimc(b)),
        Aeskeygenassist_xmm_xmmm128_imm8 => bin_imm!(|_, b, imm: u8| key_assist(b, imm)),
        Pclmulqdq_xmm_xmmm128_imm8 => bin_imm!(|a, b, imm: u8| pclmulqdq(a, b, imm)),
        Sha1rnds4_xmm_xmmm128_imm8 => bin_imm!(|a, b, imm: u8| sha1_rounds(a, b, imm)),
        Sha1nexte_xmm_xmmm128 => bin!(|a, b| {
            let mut d = l::dwords(b);
            d[3] = d[3].wrapping_add(l::dwords(a)[3].rotate_left(30));
            l::from_dwords(d)
        }),
        Sha1msg1_xmm_xmmm128 => bin!(|a, b| a ^ (a << 64 | b >> 64)),
        Sha1msg2_xmm_xmmm128 => bin!(sha1_msg2),
        Sha256rnds2_xmm_xmmm128 => handler!(|cpu, i| {
            let keys = cpu.fpu.xmm[0];
            super::binary(cpu, i, |a, b| sha256_rounds(a, b, keys))
        }),
        Sha256msg1_xmm_xmmm128 => bin!(sha256_msg1),
        Sha256msg2_xmm_xmmm128 => bin!(sha256_msg2),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 197, appendix B: the first round of the example.
    #[test]
    fn an_aes_round_is_that_of_the_standard() {
        let number = |s: &str| u128::from_str_radix(s, 16).unwrap_or(0).swap_bytes();
        let state = number("193de3bea0f4e22b9ac68d2ae9f84808");
        let key = number("a0fafe1788542cb123a339392a6c7605");
        let after = number("a49c7ff2689f352b6b5bea43026a5049");
        assert_eq!(l::from_bytes(mix(shift_sub(l::bytes(state)))) ^ key, after);
        let mixed = mix(shift_sub(l::bytes(state)));
        let back = inverse_shift_sub(inverse_mix(mixed));
        assert_eq!(l::from_bytes(back), state);
    }

    #[test]
    fn carryless_products_are_those_of_polynomials() {
        assert_eq!(clmul(0b111, 0b101), 0b11011);
        assert_eq!(clmul(u64::MAX, 1 << 63), u128::from(u64::MAX) << 63);
    }
}
