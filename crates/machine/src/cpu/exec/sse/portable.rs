// SPDX-License-Identifier: Apache-2.0
//! Lane-wise functions of 128-bit values, for any host. What stays within 64 bits serves MMX too.
// Host vectors are made of bits.
#![allow(unsafe_code)]
// On x86-64 hosts many are used by tests only: see lane.rs.
#![allow(dead_code, clippy::useless_transmute)]

/// Splits into lanes, lowest first, and back. Plain loops over arrays: what the compiler makes vector code of.
macro_rules! split {
    ($to:ident, $from:ident, $map:ident, $t:ty, $n:literal) => {
        #[inline(always)]
        pub(crate) fn $to(x: u128) -> [$t; $n] {
            // SAFETY: both are 16 bytes of plain data.
            let lanes = unsafe { std::mem::transmute::<[u8; 16], [$t; $n]>(x.to_le_bytes()) };
            lanes.map(<$t>::from_le)
        }
        #[inline(always)]
        pub(crate) fn $from(x: [$t; $n]) -> u128 {
            // SAFETY: both are 16 bytes of plain data.
            u128::from_le_bytes(unsafe { std::mem::transmute::<[$t; $n], [u8; 16]>(x.map(<$t>::to_le)) })
        }
        #[inline(always)]
        pub(crate) fn $map(a: u128, b: u128, f: impl Fn($t, $t) -> $t) -> u128 {
            let (a, b) = ($to(a), $to(b));
            let mut r = [0; $n];
            for k in 0..$n {
                r[k] = f(a[k], b[k]);
            }
            $from(r)
        }
    };
}
split!(bytes, from_bytes, map8, u8, 16);
split!(words, from_words, map16, u16, 8);
split!(dwords, from_dwords, map32, u32, 4);
split!(qwords, from_qwords, map64, u64, 2);
split!(ibytes, from_ibytes, imap8, i8, 16);
split!(iwords, from_iwords, imap16, i16, 8);
split!(idwords, from_idwords, imap32, i32, 4);
split!(iqwords, from_iqwords, imap64, i64, 2);

macro_rules! lanes {
    ($map:ident: $($name:ident = |$a:ident, $b:ident| $e:expr;)*) => {
        $(#[inline(always)] pub(crate) fn $name(a: u128, b: u128) -> u128 { $map(a, b, |$a, $b| $e) })*
    };
}

lanes! { map8:
    paddb = |a, b| a.wrapping_add(b);
    psubb = |a, b| a.wrapping_sub(b);
    paddusb = |a, b| a.saturating_add(b);
    psubusb = |a, b| a.saturating_sub(b);
    pavgb = |a, b| (u16::from(a) + u16::from(b)).wrapping_add(1).wrapping_shr(1) as u8;
    pminub = |a, b| a.min(b);
    pmaxub = |a, b| a.max(b);
    pcmpeqb = |a, b| if a == b { u8::MAX } else { 0 };
}
lanes! { imap8:
    paddsb = |a, b| a.saturating_add(b);
    psubsb = |a, b| a.saturating_sub(b);
    pminsb = |a, b| a.min(b);
    pmaxsb = |a, b| a.max(b);
    pcmpgtb = |a, b| if a > b { -1 } else { 0 };
    psignb = |a, b| sign(a, b, a.wrapping_neg(), 0);
    pabsb = |_a, b| b.wrapping_abs();
}
lanes! { map16:
    paddw = |a, b| a.wrapping_add(b);
    psubw = |a, b| a.wrapping_sub(b);
    paddusw = |a, b| a.saturating_add(b);
    psubusw = |a, b| a.saturating_sub(b);
    pavgw = |a, b| (u32::from(a) + u32::from(b)).wrapping_add(1).wrapping_shr(1) as u16;
    pminuw = |a, b| a.min(b);
    pmaxuw = |a, b| a.max(b);
    pcmpeqw = |a, b| if a == b { u16::MAX } else { 0 };
    pmullw = |a, b| a.wrapping_mul(b);
    pmulhuw = |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16;
}
lanes! { imap16:
    paddsw = |a, b| a.saturating_add(b);
    psubsw = |a, b| a.saturating_sub(b);
    pminsw = |a, b| a.min(b);
    pmaxsw = |a, b| a.max(b);
    pcmpgtw = |a, b| if a > b { -1 } else { 0 };
    pmulhw = |a, b| ((i32::from(a) * i32::from(b)) >> 16) as i16;
    pmulhrsw = |a, b| ((((i32::from(a) * i32::from(b)) >> 14) + 1) >> 1) as i16;
    psignw = |a, b| sign(a, b, a.wrapping_neg(), 0);
    pabsw = |_a, b| b.wrapping_abs();
}
lanes! { map32:
    paddd = |a, b| a.wrapping_add(b);
    psubd = |a, b| a.wrapping_sub(b);
    pminud = |a, b| a.min(b);
    pmaxud = |a, b| a.max(b);
    pcmpeqd = |a, b| if a == b { u32::MAX } else { 0 };
    pmulld = |a, b| a.wrapping_mul(b);
}
lanes! { imap32:
    pminsd = |a, b| a.min(b);
    pmaxsd = |a, b| a.max(b);
    pcmpgtd = |a, b| if a > b { -1 } else { 0 };
    psignd = |a, b| sign(a, b, a.wrapping_neg(), 0);
    pabsd = |_a, b| b.wrapping_abs();
}
lanes! { map64:
    paddq = |a, b| a.wrapping_add(b);
    psubq = |a, b| a.wrapping_sub(b);
    pcmpeqq = |a, b| if a == b { u64::MAX } else { 0 };
    pmuludq = |a, b| (a & 0xffff_ffff).wrapping_mul(b & 0xffff_ffff);
}
lanes! { imap64:
    pcmpgtq = |a, b| if a > b { -1 } else { 0 };
    pmuldq = |a, b| i64::from(a as i32).wrapping_mul(i64::from(b as i32));
}

/// `psign`: the operand, its negative or zero, as the control lane is positive, negative or zero.
#[inline(always)]
fn sign<T: PartialOrd>(a: T, control: T, negative: T, zero: T) -> T {
    if control > zero {
        a
    } else if control < zero {
        negative
    } else {
        zero
    }
}

/// Shifts by the low 64 bits of `count`.
macro_rules! shifts {
    ($($name:ident $map:ident |$a:ident, $n:ident| $e:expr;)*) => {
        $(#[inline(always)] pub(crate) fn $name(a: u128, count: u128) -> u128 {
            let $n = (count as u64).min(255) as u32;
            $map(a, 0, |$a, _| $e)
        })*
    };
}
shifts! {
    psllw map16 |a, n| a.checked_shl(n).unwrap_or(0);
    psrlw map16 |a, n| a.checked_shr(n).unwrap_or(0);
    psraw imap16 |a, n| a >> n.min(15);
    pslld map32 |a, n| a.checked_shl(n).unwrap_or(0);
    psrld map32 |a, n| a.checked_shr(n).unwrap_or(0);
    psrad imap32 |a, n| a >> n.min(31);
    psllq map64 |a, n| a.checked_shl(n).unwrap_or(0);
    psrlq map64 |a, n| a.checked_shr(n).unwrap_or(0);
}
#[inline(always)]
pub(crate) fn pslldq(a: u128, count: u128) -> u128 {
    a.checked_shl((count as u64).min(255) as u32 * 8).unwrap_or(0)
}
#[inline(always)]
pub(crate) fn psrldq(a: u128, count: u128) -> u128 {
    a.checked_shr((count as u64).min(255) as u32 * 8).unwrap_or(0)
}

#[inline(always)]
pub(crate) fn pand(a: u128, b: u128) -> u128 {
    a & b
}
#[inline(always)]
pub(crate) fn pandn(a: u128, b: u128) -> u128 {
    !a & b
}
#[inline(always)]
pub(crate) fn por(a: u128, b: u128) -> u128 {
    a | b
}
#[inline(always)]
pub(crate) fn pxor(a: u128, b: u128) -> u128 {
    a ^ b
}

#[inline(always)]
pub(crate) fn pmaddwd(a: u128, b: u128) -> u128 {
    let (a, b) = (iwords(a), iwords(b));
    from_idwords(std::array::from_fn(|k| {
        let p = |j: usize| i32::from(a[2 * k + j]) * i32::from(b[2 * k + j]);
        p(0).wrapping_add(p(1))
    }))
}

/// Unsigned bytes of `a` times signed bytes of `b`, pairs added with saturation.
#[inline(always)]
pub(crate) fn pmaddubsw(a: u128, b: u128) -> u128 {
    let (a, b) = (bytes(a), ibytes(b));
    from_iwords(std::array::from_fn(|k| {
        let p = |j: usize| i32::from(a[2 * k + j]) * i32::from(b[2 * k + j]);
        (p(0) + p(1)).clamp(-32768, 32767) as i16
    }))
}

#[inline(always)]
pub(crate) fn psadbw(a: u128, b: u128) -> u128 {
    let (a, b) = (bytes(a), bytes(b));
    from_qwords(std::array::from_fn(|h| {
        (8 * h..8 * h + 8).map(|k| u64::from(a[k].abs_diff(b[k]))).sum()
    }))
}

/// Horizontal operation on pairs: `a`'s pairs in the low half, `b`'s in the high one.
#[inline(always)]
fn pairs16(a: u128, b: u128, f: impl Fn(i16, i16) -> i16) -> u128 {
    let (a, b) = (iwords(a), iwords(b));
    from_iwords(std::array::from_fn(|k| {
        if k < 4 {
            f(a[2 * k], a[2 * k + 1])
        } else {
            f(b[2 * k - 8], b[2 * k - 7])
        }
    }))
}
#[inline(always)]
fn pairs32(a: u128, b: u128, f: impl Fn(u32, u32) -> u32) -> u128 {
    let (a, b) = (dwords(a), dwords(b));
    from_dwords([f(a[0], a[1]), f(a[2], a[3]), f(b[0], b[1]), f(b[2], b[3])])
}
#[inline(always)]
pub(crate) fn phaddw(a: u128, b: u128) -> u128 {
    pairs16(a, b, i16::wrapping_add)
}
#[inline(always)]
pub(crate) fn phaddsw(a: u128, b: u128) -> u128 {
    pairs16(a, b, i16::saturating_add)
}
#[inline(always)]
pub(crate) fn phsubw(a: u128, b: u128) -> u128 {
    pairs16(a, b, i16::wrapping_sub)
}
#[inline(always)]
pub(crate) fn phsubsw(a: u128, b: u128) -> u128 {
    pairs16(a, b, i16::saturating_sub)
}
#[inline(always)]
pub(crate) fn phaddd(a: u128, b: u128) -> u128 {
    pairs32(a, b, u32::wrapping_add)
}
#[inline(always)]
pub(crate) fn phsubd(a: u128, b: u128) -> u128 {
    pairs32(a, b, u32::wrapping_sub)
}

#[inline(always)]
pub(crate) fn packsswb(a: u128, b: u128) -> u128 {
    let (a, b) = (iwords(a), iwords(b));
    from_ibytes(std::array::from_fn(|k| {
        (if k < 8 { a[k] } else { b[k - 8] }).clamp(-128, 127) as i8
    }))
}
#[inline(always)]
pub(crate) fn packuswb(a: u128, b: u128) -> u128 {
    let (a, b) = (iwords(a), iwords(b));
    from_bytes(std::array::from_fn(|k| {
        (if k < 8 { a[k] } else { b[k - 8] }).clamp(0, 255) as u8
    }))
}
#[inline(always)]
pub(crate) fn packssdw(a: u128, b: u128) -> u128 {
    let (a, b) = (idwords(a), idwords(b));
    from_iwords(std::array::from_fn(|k| {
        (if k < 4 { a[k] } else { b[k - 4] }).clamp(-32768, 32767) as i16
    }))
}
#[inline(always)]
pub(crate) fn packusdw(a: u128, b: u128) -> u128 {
    let (a, b) = (idwords(a), idwords(b));
    from_words(std::array::from_fn(|k| {
        (if k < 4 { a[k] } else { b[k - 4] }).clamp(0, 65535) as u16
    }))
}

/// Interleaves the low (`H` = 0) or high (`H` = 1) halves.
macro_rules! unpack {
    ($($name:ident $to:ident $from:ident $n:literal $high:literal;)*) => {
        $(#[inline(always)] pub(crate) fn $name(a: u128, b: u128) -> u128 {
            let (a, b) = ($to(a), $to(b));
            $from(std::array::from_fn(|k| {
                let at = k / 2 + $high * $n / 2;
                if k % 2 == 0 { a[at] } else { b[at] }
            }))
        })*
    };
}
unpack! {
    punpcklbw bytes from_bytes 16 0;
    punpckhbw bytes from_bytes 16 1;
    punpcklwd words from_words 8 0;
    punpckhwd words from_words 8 1;
    punpckldq dwords from_dwords 4 0;
    punpckhdq dwords from_dwords 4 1;
    punpcklqdq qwords from_qwords 2 0;
    punpckhqdq qwords from_qwords 2 1;
}

#[inline(always)]
pub(crate) fn pshufb(a: u128, b: u128) -> u128 {
    let (a, b) = (bytes(a), bytes(b));
    from_bytes(std::array::from_fn(|k| {
        if b[k] & 0x80 != 0 {
            0
        } else {
            a[usize::from(b[k] & 15)]
        }
    }))
}

/// One bit per byte: its top bit.
#[inline(always)]
pub(crate) fn byte_mask(x: u128) -> u32 {
    fn half(x: u64) -> u64 {
        ((x >> 7) & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56
    }
    (half(x as u64) | half((x >> 64) as u64) << 8) as u32
}
