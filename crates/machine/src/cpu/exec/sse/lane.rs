// SPDX-License-Identifier: Apache-2.0
//! The lane functions that handlers use: the host's own instructions where they do just the same, else the portable ones.
//!
//! Every x86-64 host has SSE2; what needs more is in [`super::host`], chosen when an instruction is looked up.
// Vectors are looked at as lanes.
#![allow(unsafe_code)]
// The types are those that the intrinsics take and give.
#![allow(clippy::missing_transmute_annotations)]

pub(crate) use super::portable::*;

/// Defines `$name` by an SSE2 intrinsic on x86-64 hosts, which shadows the portable one.
macro_rules! sse2 {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[cfg(target_arch = "x86_64")]
        #[inline(always)]
        pub(crate) fn $name(a: u128, b: u128) -> u128 {
            // SAFETY: SSE2 belongs to x86-64, and the types are 16 bytes of plain data.
            unsafe {
                use std::mem::transmute;
                transmute(std::arch::x86_64::$intrinsic(transmute(a), transmute(b)))
            }
        }
    )*};
}

sse2! {
    paddb = _mm_add_epi8;
    paddw = _mm_add_epi16;
    paddd = _mm_add_epi32;
    paddq = _mm_add_epi64;
    psubb = _mm_sub_epi8;
    psubw = _mm_sub_epi16;
    psubd = _mm_sub_epi32;
    psubq = _mm_sub_epi64;
    paddsb = _mm_adds_epi8;
    paddsw = _mm_adds_epi16;
    paddusb = _mm_adds_epu8;
    paddusw = _mm_adds_epu16;
    psubsb = _mm_subs_epi8;
    psubsw = _mm_subs_epi16;
    psubusb = _mm_subs_epu8;
    psubusw = _mm_subs_epu16;
    pavgb = _mm_avg_epu8;
    pavgw = _mm_avg_epu16;
    pminub = _mm_min_epu8;
    pminsw = _mm_min_epi16;
    pmaxub = _mm_max_epu8;
    pmaxsw = _mm_max_epi16;
    pcmpeqb = _mm_cmpeq_epi8;
    pcmpeqw = _mm_cmpeq_epi16;
    pcmpeqd = _mm_cmpeq_epi32;
    pcmpgtb = _mm_cmpgt_epi8;
    pcmpgtw = _mm_cmpgt_epi16;
    pcmpgtd = _mm_cmpgt_epi32;
    pmullw = _mm_mullo_epi16;
    pmulhw = _mm_mulhi_epi16;
    pmulhuw = _mm_mulhi_epu16;
    pmuludq = _mm_mul_epu32;
    pmaddwd = _mm_madd_epi16;
    psadbw = _mm_sad_epu8;
    packsswb = _mm_packs_epi16;
    packuswb = _mm_packus_epi16;
    packssdw = _mm_packs_epi32;
    punpcklbw = _mm_unpacklo_epi8;
    punpckhbw = _mm_unpackhi_epi8;
    punpcklwd = _mm_unpacklo_epi16;
    punpckhwd = _mm_unpackhi_epi16;
    punpckldq = _mm_unpacklo_epi32;
    punpckhdq = _mm_unpackhi_epi32;
    punpcklqdq = _mm_unpacklo_epi64;
    punpckhqdq = _mm_unpackhi_epi64;
    psllw = _mm_sll_epi16;
    pslld = _mm_sll_epi32;
    psllq = _mm_sll_epi64;
    psrlw = _mm_srl_epi16;
    psrld = _mm_srl_epi32;
    psrlq = _mm_srl_epi64;
    psraw = _mm_sra_epi16;
    psrad = _mm_sra_epi32;
}

/// One bit per byte: its top bit.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn byte_mask(x: u128) -> u32 {
    // SAFETY: as above.
    unsafe {
        std::arch::x86_64::_mm_movemask_epi8(std::mem::transmute::<u128, std::arch::x86_64::__m128i>(x))
            as u32
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::portable;

    /// A repeatable source of operands with many equal and extreme lanes.
    fn operands() -> impl Iterator<Item = (u128, u128)> {
        let mut x = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835u128;
        std::iter::repeat_with(move || {
            let mut next = || {
                x ^= x << 25;
                x ^= x >> 54;
                x ^= x << 61;
                x
            };
            let (a, b, pick) = (next(), next(), next());
            match pick & 7 {
                0 => (a, a ^ (b & 0xff00_0000_00ff)),
                1 => (a, pick & 0x1f),
                2 => (
                    a | 0x7f80_7f80_8000_0000_7fff_ffff_ff7f_8080,
                    b | 0x7f7f_8000_8000_8000,
                ),
                _ => (a, b),
            }
        })
        .take(2000)
    }

    macro_rules! agree {
        ($($name:ident)*) => {$(
            #[test]
            fn $name() {
                for (a, b) in operands() {
                    assert_eq!(portable::$name(a, b), super::super::$name(a, b), "{a:#x} {b:#x}");
                }
            }
        )*};
    }
    mod the_portable_form_agrees_with_the_hosts {
        use super::*;
        agree! {
            paddb paddw paddd paddq psubb psubw psubd psubq paddsb paddsw paddusb paddusw psubsb psubsw psubusb psubusw
            pavgb pavgw pminub pminsw pmaxub pmaxsw pcmpeqb pcmpeqw pcmpeqd pcmpgtb pcmpgtw pcmpgtd pmullw pmulhw
            pmulhuw pmuludq pmaddwd psadbw packsswb packuswb packssdw punpcklbw punpckhbw punpcklwd punpckhwd
            punpckldq punpckhdq punpcklqdq punpckhqdq psllw pslld psllq psrlw psrld psrlq psraw psrad
        }
        #[test]
        fn byte_mask() {
            for (a, _) in operands() {
                assert_eq!(portable::byte_mask(a), super::super::byte_mask(a), "{a:#x}");
            }
        }
    }
}
