// SPDX-License-Identifier: Apache-2.0
//! Packed single precision by the host's packed arithmetic, when no lane can change a flag: see [`super::super::softfp::fast`].
// Host vectors are made of bits.
#![allow(unsafe_code)]
// The types are those that the intrinsics take and give.
#![allow(clippy::missing_transmute_annotations)]

/// `$inputs` is the smallest exponent field an operand may have, `$result` that of the result.
#[cfg(target_arch = "x86_64")]
macro_rules! quick {
    ($name:ident, $intrinsic:ident, $zeros:literal, $least:literal) => {
        #[inline(always)]
        pub(crate) fn $name(a: u128, b: u128) -> Option<u128> {
            use std::arch::x86_64::*;
            use std::mem::transmute;
            // SAFETY: SSE2 belongs to x86-64; the types are 16 bytes of plain data. The host's MXCSR has its default modes.
            unsafe {
                let (x, y): (__m128, __m128) = (transmute(a), transmute(b));
                let r = $intrinsic(x, y);
                let bad = _mm_or_si128(
                    _mm_or_si128(
                        odd::<$zeros, 0x0080_0000>(transmute(a)),
                        odd::<$zeros, 0x0080_0000>(transmute(b)),
                    ),
                    odd::<$zeros, $least>(transmute(r)),
                );
                if _mm_movemask_epi8(bad) == 0 {
                    return Some(transmute::<__m128, u128>(r));
                }
            }
            None
        }
    };
}

/// Lanes that are not normal numbers of at least `LEAST` (as bits), nor, if `ZEROS`, zeros.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn odd<const ZEROS: bool, const LEAST: i32>(x: std::arch::x86_64::__m128i) -> std::arch::x86_64::__m128i {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 belongs to x86-64.
    unsafe {
        let magnitude = _mm_and_si128(x, _mm_set1_epi32(0x7fff_ffff));
        let large = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7f7f_ffff));
        let mut small = _mm_cmpgt_epi32(_mm_set1_epi32(LEAST), magnitude);
        if ZEROS {
            small = _mm_andnot_si128(_mm_cmpeq_epi32(magnitude, _mm_setzero_si128()), small);
        }
        _mm_or_si128(large, small)
    }
}

#[cfg(target_arch = "x86_64")]
mod quick {
    use super::odd;
    quick!(add, _mm_add_ps, true, 0x0080_0000);
    quick!(sub, _mm_sub_ps, true, 0x0080_0000);
    quick!(mul, _mm_mul_ps, false, 0x0100_0000);
    quick!(div, _mm_div_ps, false, 0x0100_0000);
}

#[cfg(not(target_arch = "x86_64"))]
mod quick {
    macro_rules! none {
        ($($name:ident)*) => {$(
            pub fn $name(_a: u128, _b: u128) -> Option<u128> {
                None
            }
        )*};
    }
    none!(add sub mul div);
}

pub(crate) use quick::{add, div, mul, sub};
